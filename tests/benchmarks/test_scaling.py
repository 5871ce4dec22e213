"""The sweeps at their smallest: points are timed, left out where there is no room or time, printed and drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.models.decoder import DecoderConfig
from amenable.train.runtime import DeviceOptions, Runtime, start_runtime
from benchmarks import machine, scaling

SMALL = DecoderConfig(320, context_length=64, num_layers=2, hidden_size=32, num_heads=2)
ONE_THREAD = DeviceOptions(device="cpu", precision="fp32", threads=1)


@pytest.fixture
def runtime() -> Runtime:
    return start_runtime(ONE_THREAD)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models, measured without starting processes."""

    def here(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(machine, "alone", here)
    monkeypatch.setattr(scaling, "BASE", SMALL)
    monkeypatch.setattr(scaling, "SHAPES", {"5M": SMALL, "124M": replace(SMALL, hidden_size=64)})


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_a_sweep_is_printed_and_drawn(small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def point(rows: int, runtime: Runtime) -> dict[str, scaling.Timed]:
        return {"training": lambda number: (10 * rows, 0.1), "decoding": lambda number: (rows, 0.5)}

    monkeypatch.setitem(scaling.SWEEPS, "batch", scaling.Sweep("rows", (1, 2, 4), point))
    out = tmp_path / "table.md"
    assert scaling.main(["--sweep", "batch", "--plots", str(tmp_path), "--out", str(out), "--threads", "1"]) == 0
    table = [cells(line) for line in out.read_text("utf-8").splitlines() if line.startswith("|")]
    assert table[0] == ["rows", "training, ms a token", "decoding, ms a token"]
    assert table[2:] == [["1", "10", "500"], ["2", "5", "250"], ["4", "2.5", "125"]]
    drawn = (tmp_path / "scaling-batch.svg").read_text("utf-8")
    assert "ms a token" in drawn and "decoding" in drawn and len(drawn) < 60_000


def test_what_has_no_room_or_no_time_is_left_out(small: None, tmp_path: Path) -> None:
    needs = scaling.Sweep("rows", (1,), lambda rows, runtime: {}, lambda rows, runtime: 2**60)
    config = scaling.Config(plots=tmp_path, precision="fp32", threads=1)
    assert "needs 1073741824.0 GiB" in scaling.refusal(needs, 1, 5.0, config)
    assert scaling.refusal(replace(needs, bytes=lambda rows, runtime: 0), 1, 5.0, config) == ""
    assert "time is up" in scaling.refusal(needs, 1, 0.0, config)
    assert [cells(line) for line in scaling.time_table("batch", needs, config)][-1][1].startswith("left out")


def test_points_count_their_tokens(small: None, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 prompts x 3 answers of 128 + 64 tokens (reward), of 32 (decoding); 4 of PPO have answers of 1 to 64."""
    monkeypatch.setattr(scaling, "BASE", replace(SMALL, context_length=256))
    answers = scaling.of_answers(3, runtime)
    assert [step(0)[0] for step in answers.values()] == [4 * 3 * 192, 4 * 3 * 32]
    batch = scaling.of_batch(2, runtime)
    assert [step(0)[0] for step in batch.values()] == [512, 64]
    for step in scaling.of_rollout(4, runtime).values():
        tokens, seconds = step(0)
        assert 4 <= tokens <= 256 and seconds > 0
    assert scaling.parameters_of("124M") > scaling.parameters_of("5M")


def test_time_does_not_count_reading_prompts(small: None, runtime: Runtime, monkeypatch: Any) -> None:
    request: list[int] = []

    def generate(decoder: Any, prompts: Any, sampling: Any, **rest: Any) -> None:
        request.append(sampling.max_new_tokens)

    monkeypatch.setattr(scaling, "generate", generate)
    assert scaling.decoding(SMALL, 3, 8, runtime, tokens=4)(0)[0] == 12
    assert request == [5, 1]


def test_a_point_is_a_median_of_steps_after_one_that_warms_up(
    small: None, monkeypatch: pytest.MonkeyPatch, runtime: Runtime
) -> None:
    observed: list[int] = []

    def step(number: int) -> tuple[int, float]:
        observed.append(number)
        return 2, [100.0, 2.0, 8.0, 4.0, 2.0, 6.0][number]

    monkeypatch.setitem(scaling.SWEEPS, "batch", scaling.Sweep("rows", (1,), lambda rows, runtime: {"it": step}))
    assert scaling.measure("batch", 1, ONE_THREAD, 60.0) == {"it": 2.0}
    assert observed == [0, 1, 2, 3, 4, 5]
    observed.clear()
    assert scaling.measure("batch", 1, ONE_THREAD, 0.0) == {"it": 1.0}
    assert observed == [0, 1]


@pytest.mark.parametrize("stage", scaling.STAGES)
def test_every_stage_is_stepped_and_saved(small: None, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is predicted is of the size of what such a model needs; what is used here is this whole process's."""
    monkeypatch.setitem(scaling.SHAPES, "5M", replace(SMALL, context_length=256))
    before = torch.get_num_threads()
    predicted, used = scaling.use(scaling.Case(stage, "5M", "fp32", rows=2, steps=1), 1)
    torch.set_num_threads(before)
    assert 16 << 20 < predicted < 64 << 20 and used >= 0


def test_memory_is_told_beside_what_was_used(small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scaling, "use", lambda case, threads: (300 << 20, 200 << 20))
    monkeypatch.setattr(scaling, "CASES", [scaling.Case("sft", "5M", "bf16")])
    config = scaling.Config(sweep="memory", plots=tmp_path)
    assert [cells(line) for line in scaling.memory_table(config)][2] == ["sft, 5M, bf16", "300", "200", "1.50"]


def test_names_that_are_no_sweep_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert scaling.Config(sweep="context,memory").names == ["context", "memory"]
    assert scaling.Config().names == ["context", "answers", "vocabulary", "batch", "model", "rollout", "memory"]
    with pytest.raises(InputError, match="unknown sweep: width"):
        scaling.Config(sweep="width")
    assert scaling.main(["--out", str(tmp_path / "nowhere" / "table.md"), "--plots", str(tmp_path)]) == 2
    assert "nowhere" in capsys.readouterr().err
