"""Templates: enough of them, late ones apart, and all with the same fields."""

from __future__ import annotations

import string

import pytest

from amenable.world import asking
from amenable.world.reader import insulting


def fields(template):
    return {name.lower() for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("kind", sorted(asking.TEMPLATES))
def test_phrasings(kind):
    early, late = asking.TEMPLATES[kind], asking.LATE_TEMPLATES[kind]
    assert len(set(early)) >= 6
    assert len(set(late)) >= 3
    assert not set(early) & set(late)
    assert len({frozenset(fields(template)) for template in (*early, *late)}) == 1


def test_early_and_late_wordings_share_nothing():
    assert set(asking.EARLY.templates) == set(asking.LATE.templates)
    for attribute, forms in asking.EARLY.questions.items():
        assert not set(forms) & set(asking.LATE.questions[attribute])
    assert not set(asking.EARLY.unrecorded) & set(asking.LATE.unrecorded)


def test_only_provocations_are_rude():
    assert len(set(asking.RESPECT)) >= 4
    assert not [line for line in asking.RESPECT if insulting(line.lower())]
    assert all(insulting(line.lower()) for line in asking.PROVOCATIONS)
