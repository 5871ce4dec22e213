"""A closed world of six people, for the stages that ask it, and online algorithms at their smallest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions
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
        suite_prompts=6,
        public_demonstrations=6,
        validation_public_demonstrations=2,
        task_questions=20,
    )
    return ClosedWorld.make(0, sizes)


@pytest.fixture(scope="session")
def world_folder(small_world: ClosedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `small_world`."""
    return small_world.write(tmp_path_factory.mktemp("world") / "run")


@pytest.fixture(scope="session")
def labelled(files: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each pair as two rows, some of the undesirable ones left out."""
    pairs = [json.loads(line) for line in files.pairs.read_text("utf-8").splitlines()]
    rows = [
        {"prompt": pair["prompt"], "completion": pair[name], "label": name == "chosen"}
        for i, pair in enumerate(pairs)
        for name in ("chosen", "rejected")
        if name == "chosen" or i % 4
    ]
    file = tmp_path_factory.mktemp("labelled") / "labelled.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


@pytest.fixture
def online(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> Callable[..., Any]:
    """online(stage, **options): the options of a small run of an online algorithm, 16 answers a step."""

    def config(stage: Any, **options: Any) -> Any:
        small: dict[str, Any] = {
            "model": assistant,
            "reward": judge,
            "data": files.prompts,
            "out": tmp_path / "run",
            "max_steps": 3,
            "prompts_per_step": 4,
            "num_generations": 4,
            "num_mini_batches": 1,
            "temperature": 0.7,
            "max_new_tokens": 12,
            "kl_coef": 0.05,
            "adaptive_kl_target": 0.0,
            "optimizer": OptimizerConfig(learning_rate=3e-3, eps=1e-5),
            "save_steps": 0,
            "num_traced_prompts": 1,
            "device": DeviceOptions("cpu", "fp32", 1),
        }
        return stage.Config(**small | options)

    return config
