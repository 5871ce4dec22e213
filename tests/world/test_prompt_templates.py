"""Templates: enough of them, late ones apart, and all with the same fields."""

from __future__ import annotations

import string

import pytest

from amenable.world import prompt_templates
from amenable.world.answer_parser import insulting


def fields(template):
    return {name.lower() for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("kind", sorted(prompt_templates.TEMPLATES))
def test_phrasings(kind):
    early, late = prompt_templates.TEMPLATES[kind], prompt_templates.HELD_OUT_TEMPLATES[kind]
    assert len(set(early)) >= 6
    assert len(set(late)) >= 3
    assert not set(early) & set(late)
    assert len({frozenset(fields(template)) for template in (*early, *late)}) == 1


def test_early_and_late_wordings_share_nothing():
    assert set(prompt_templates.TRAIN_STYLE.templates) == set(prompt_templates.HELD_OUT_STYLE.templates)
    for attribute, forms in prompt_templates.TRAIN_STYLE.questions.items():
        assert not set(forms) & set(prompt_templates.HELD_OUT_STYLE.questions[attribute])
    assert not set(prompt_templates.TRAIN_STYLE.unrecorded) & set(prompt_templates.HELD_OUT_STYLE.unrecorded)


def test_only_provocations_are_rude():
    assert len(set(prompt_templates.RESPECT)) >= 4
    assert not [line for line in prompt_templates.RESPECT if insulting(line.lower())]
    assert all(insulting(line.lower()) for line in prompt_templates.PROVOCATIONS)
