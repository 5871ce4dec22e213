"""The algorithm of docs/own_algorithm.md: short, runs as it is printed, learns, and resumes to the same numbers."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import amenable.stages
from amenable.train.runtime import DeviceOptions

PAGE = Path(__file__).parent.parent / "docs" / "own_algorithm.md"
(CODE,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's file as a stage."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "ranked.py").write_text(CODE)
    monkeypatch.setattr(amenable.stages, "__path__", [*amenable.stages.__path__, str(tmp_path / "stages")])
    yield importlib.import_module("amenable.stages.ranked")
    sys.modules.pop("amenable.stages.ranked", None)
    vars(amenable.stages).pop("ranked", None)


def test_it_is_short() -> None:
    assert len([line for line in CODE.splitlines() if line.strip()]) < 40


def test_it_trains_and_resumes(
    ranked: ModuleType, assistant: Path, files: Any, tmp_path: Path, run_in_two: Callable[[Any, Any, int], Path]
) -> None:
    def config(name: str) -> Any:
        return ranked.Config(
            model=assistant,
            reward=("characters:1-20",),
            data=files.prompts,
            out=tmp_path / name,
            max_steps=4,
            prompts_per_step=4,
            max_new_tokens=8,
            kl_coef=0.01,
            adaptive_kl_target=0.0,
            save_steps=1,
            device=DeviceOptions(device="cpu", threads=1, precision="fp32"),
        )

    whole = load_file(ranked.run(config("whole")) / "model.safetensors")
    before = load_file(assistant / "model.safetensors")
    assert any(not torch.equal(whole[name], before[name]) for name in whole)
    again = load_file(run_in_two(ranked, config("two"), 2) / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_ranks_alone_count(ranked: ModuleType) -> None:
    scores = torch.tensor([0.1, 100.0, -3.0, 0.2])
    experience = SimpleNamespace(rollout=SimpleNamespace(mask=torch.ones(4, 2)), scores=scores, columns={})
    algorithm = ranked.Ranked.__new__(ranked.Ranked)
    algorithm.group, algorithm.config = 4, ranked.Config(kl_in="loss")
    algorithm.compute_advantages(experience, 0.0)
    expected = torch.tensor([-1 / 3, 1.0, -1.0, 1 / 3])
    assert torch.allclose(experience.columns["advantages"], expected[:, None].expand(4, 2))
