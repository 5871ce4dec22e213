"""One full world and one small one, made once for the tests of this folder."""

from __future__ import annotations

import pytest

from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes

SMALL = Sizes(
    people=12,
    documents=400,
    validation_documents=20,
    demonstrations=60,
    validation_demonstrations=12,
    reward_prompts=60,
    ppo_prompts=60,
    validation_prompts=40,
    test_prompts=40,
    suite_prompts=60,
    public_demonstrations=40,
    validation_public_demonstrations=8,
    task_questions=40,
)


@pytest.fixture(scope="session")
def world() -> ClosedWorld:
    """The default world of seed 0."""
    return ClosedWorld.make(0)


@pytest.fixture(scope="session")
def small() -> ClosedWorld:
    """A small world of seed 3."""
    return ClosedWorld.make(3, SMALL)
