"""`amenable distill-context`: a model answers without a prompt as it did after it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.models.lora import LoraOptions
from amenable.stages import distill_context
from amenable.text.tokenizer import Tokenizer
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions

TEXT = "Gladly: a sea"


@pytest.fixture(scope="module")
def config(assistant: Path, files: Any, tmp_path_factory: pytest.TempPathFactory) -> distill_context.Config:
    return distill_context.Config(
        model=assistant,
        data=(files.prompts,),
        context_text=TEXT,
        out=tmp_path_factory.mktemp("distilled") / "run",
        num_generations=4,
        epochs=3,
        batch_size=16,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        warmup_steps=2,
        validation_split=0.25,
        eval_steps=5,
        max_new_tokens=16,
        save_steps=0,
        device=DeviceOptions("cpu", "fp32", 1),
    )


@pytest.fixture(scope="module")
def trained(config: distill_context.Config) -> Path:
    return distill_context.run(config)


def test_the_student_learns_what_the_context_does(trained: Path, rows_of: Callable) -> None:
    rows = rows_of(trained)
    held_out = [row["eval/loss"] for row in rows if "eval/loss" in row]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"] and held_out[-1] < 0.7 * rows[0]["loss"]
    assert rows[-1]["objective/kl"] > 0.05  # it has left the model without the context
    assert json.loads((trained / "finished.json").read_text())["eval/loss"] == held_out[-1]
    shown = (trained / "first_batch.html").read_text("utf-8")
    assert "sampled" in shown and "16 completions" not in shown and TEXT not in shown


def test_a_stopped_run_goes_on_to_the_bit(
    config: distill_context.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    short = replace(config, epochs=1, num_generations=2, out=tmp_path / "two")
    whole = outcome(distill_context.run(replace(short, out=tmp_path / "whole")))
    assert outcome(run_in_two(distill_context, short, 2)) == whole


def test_adapters_need_no_second_model_and_a_budget_ends_the_run(
    config: distill_context.Config, tmp_path: Path, rows_of: Callable, capsys: pytest.CaptureFixture
) -> None:
    short = replace(config, lora=LoraOptions(rank=4), kl_budget=0.1, eval_steps=1, top_k=20, out=tmp_path / "lora")
    rows = rows_of(distill_context.run(replace(short, optimizer=OptimizerConfig(learning_rate=1e-3))))
    kls = [row["objective/kl"] for row in rows]
    assert 1 < len(rows) < 18 and max(kls[:-1]) < 0.1 < kls[-1] and rows[-1]["eval/loss"] < rows[0]["eval/loss"]
    assert "above --kl-budget 0.1: training ends" in " ".join(capsys.readouterr().err.split())


def test_completions_of_the_data_are_not_sampled(
    config: distill_context.Config, files: Any, words: Tokenizer, tmp_path: Path, rows_of: Callable
) -> None:
    of_data = replace(config, completions="data", data=(files.demonstrations,), epochs=1, out=tmp_path / "data")
    training, held_out = distill_context.read(of_data, distill_context.read_context(tmp_path, TEXT), words, 64)
    assert words.decode(training[0].completion).startswith(("Gladly: a ", "Grimly: a ")) and len(held_out) > 5
    rows = rows_of(distill_context.run(of_data))
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"context_text": "x " * 60}, r"the context has \d+ tokens, and a prompt has room for 48"),
        ({"context_file": Path("none.txt")}, "two contexts"),
        ({"num_generations": 0}, "num_generations"),
        ({"top_k": -1}, "top_k"),
        ({"temperature": -0.1}, "temperature"),
    ],
)
def test_what_cannot_be_distilled_is_refused(
    config: distill_context.Config, wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        distill_context.run(replace(config, **wrong, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
