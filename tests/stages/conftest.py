"""A closed world of six people, for the stages that ask it."""

from pathlib import Path

import pytest

from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> ClosedWorld:
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
    )
    return ClosedWorld.make(0, sizes)


@pytest.fixture(scope="session")
def world_folder(small_world: ClosedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `small_world`."""
    return small_world.write(tmp_path_factory.mktemp("world") / "run")
