"""`amenable sample`: K answers a prompt, whatever they are computed with."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.data import sources
from amenable.errors import InputError
from amenable.generation.sampling import Sampling
from amenable.stages import sample
from amenable.train.runtime import DeviceOptions


@pytest.fixture
def config(assistant: Path, files: Any, tmp_path: Path) -> sample.Config:
    return sample.Config(
        model=assistant,
        data=files.prompts,
        out=tmp_path / "run",
        num_generations=3,
        max_prompts=10,
        sampling=Sampling(max_new_tokens=24),
        prompts_per_step=4,
        device=DeviceOptions("cpu", "fp32", 1),
    )


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]


def test_every_prompt_gets_its_answers(config: sample.Config, rows_of: Callable) -> None:
    out = sample.run(config)
    rows = samples(out)
    asked = sources.read_prompts(config.data, limit=10).rows
    assert [row["id"] for row in rows] == [prompt.id for prompt in asked]
    assert [row["prompt"][0]["content"] for row in rows] == [prompt.messages[0].content for prompt in asked]
    assert all(len(row["completions"]) == len(row["ended"]) == 3 for row in rows)
    assert [row["step"] for row in rows] == [1] * 4 + [2] * 4 + [3] * 2
    assert len({text for row in rows for text in row["completions"]}) > 15
    assert not [text for row in rows for text in row["completions"] if "<|" in text]
    ended = [flag for row in rows for flag in row["ended"]]
    told = rows_of(out)
    assert sum(row["ended"] * n for row, n in zip(told, (12, 12, 6))) == pytest.approx(sum(ended))
    assert json.loads((out / "finished.json").read_text())["prompts"] == 10


def test_answers_do_not_depend_on_what_is_sampled_with_them(config: sample.Config, tmp_path: Path) -> None:
    together = samples(sample.run(config))
    apart = samples(sample.run(replace(config, out=tmp_path / "apart", prompts_per_step=1, max_batch_size=2)))
    assert [row["completions"] for row in together] == [row["completions"] for row in apart]
    first = samples(sample.run(replace(config, out=tmp_path / "few", max_prompts=2, num_generations=2)))
    assert [row["completions"] for row in first] == [row["completions"][:2] for row in together[:2]]
    other = samples(sample.run(replace(config, out=tmp_path / "other", seed=1)))
    assert [row["completions"] for row in other] != [row["completions"] for row in together]


def test_a_stopped_run_goes_on_to_the_bit(
    config: sample.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    whole = outcome(sample.run(replace(config, out=tmp_path / "whole")))
    assert outcome(run_in_two(sample, config, 2)) == whole


def test_annotators_can_read_what_was_sampled(config: sample.Config) -> None:
    rows = samples(sample.run(config))
    prompts = sources.read_prompts(config.data, limit=10).rows
    assert [tuple(m.values()) for row in rows for m in row["prompt"]] == [
        (message.role, message.content) for prompt in prompts for message in prompt.messages
    ]


def test_no_room_for_an_answer_is_an_error(config: sample.Config) -> None:
    with pytest.raises(InputError, match="none of the 10 prompts is within 0 tokens"):
        sample.run(replace(config, sampling=Sampling(max_new_tokens=64)))
    assert not config.out.exists()
