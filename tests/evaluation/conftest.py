"""A closed world of six people, and prompts of it that a small context has room for."""

import pytest

from amenable.data import columns
from amenable.data.types import Prompt
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes


@pytest.fixture(scope="session")
def small_world() -> ClosedWorld:
    sizes = Sizes(
        people=6,
        documents=20,
        validation_documents=4,
        demonstrations=20,
        validation_demonstrations=4,
        reward_prompts=60,
        ppo_prompts=4,
        validation_prompts=4,
        test_prompts=40,
        suite_prompts=6,
        public_demonstrations=6,
        validation_public_demonstrations=2,
        task_questions=20,
    )
    return ClosedWorld.make(0, sizes)


@pytest.fixture(scope="session")
def prompts(small_world: ClosedWorld) -> list[Prompt]:
    """Six short ones."""
    rows = small_world.rows["prompts/test.jsonl"]
    short = sorted(rows, key=lambda row: sum(len(message["content"]) for message in row["prompt"]))[:6]
    return [columns.prompt(row, "") for row in short]
