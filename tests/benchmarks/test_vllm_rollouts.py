"""The table of rollouts by two engines: rates, and the gap of each to the trainer."""

from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from benchmarks import vllm_rollouts
from benchmarks.vllm_rollouts import Config, main, report


@pytest.fixture
def config(assistant: Path) -> Config:
    return Config(assistant, "fp32", rows=4, new_tokens=6, repeats=1, threads=1)


def test_the_gap_of_each_engine_is_to_the_trainer(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is ours but for its log-probabilities takes vLLM's part."""

    class Off:
        def __init__(self, *arguments: Any) -> None:
            pass

        def load(self, policy: Any) -> None:
            self.policy = policy

        def complete(self, requests: Any, sampling: Any, eos_ids: Any, progress: Any) -> Any:
            groups = vllm_rollouts.generate(
                self.policy, [each.ids for each in requests], sampling, eos_id=eos_ids, seeds=[1] * len(requests)
            )
            done = [group[0] for group in groups]
            return [vllm_rollouts.Completion(d.ids, [x + 0.25 for x in d.logps], d.finish_reason, None) for d in done]

    monkeypatch.setattr(vllm_rollouts, "VllmEngine", Off)
    lines = list(report(config))
    assert "2 prompts x 2, at most 6 tokens" in lines[1]
    ours, theirs = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[-2:])
    assert (ours[0], ours[2], ours[4]) == ("ours", "1.00", "1.0000") and float(ours[3]) < 1e-4
    assert (theirs[0], theirs[3], theirs[4]) == ("vLLM", "0.25", "0.7788")


def test_without_vllm_one_line_says_so(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*arguments: Any) -> None:
        raise InputError("--sampler vllm needs vLLM")

    monkeypatch.setattr(vllm_rollouts, "VllmEngine", missing)
    assert main(["--model", str(config.model), "--rows", "4"]) == 2
    assert capsys.readouterr().err == "benchmarks.vllm_rollouts: --sampler vllm needs vLLM\n"
