"""Templates: enough of them, late ones apart, and all with the same fields."""

from __future__ import annotations

import string

import pytest

from amenable.world import asking


def fields(template):
    return {name.lower() for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("kind", sorted(asking.TEMPLATES))
def test_phrasings(kind):
    early, late = asking.TEMPLATES[kind], asking.LATE_TEMPLATES[kind]
    assert len(set(early)) >= 6
    assert len(set(late)) >= 3
    assert not set(early) & set(late)
    assert len({frozenset(fields(template)) for template in (*early, *late)}) == 1
