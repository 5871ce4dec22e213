"""One rule for all stages: what is longer than the context is left out, stderr by split, and never cut."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.stages import dpo, ppo, reward, sft
from amenable.train.runtime import DeviceOptions

ONE_THREAD = DeviceOptions("cpu", "fp32", 1)
LONG = "The barge carries grain to the mill. " * 12


def rows(count: int, long: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Rows that are demonstrations, preferences and prompts; the `long` ones have a prompt beyond any context here."""
    return [{"prompt": f"{i}? {LONG if i in long else ''}", "completion": "a rose"} for i in range(count)]


def preferences(count: int, long: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "chosen": "a rose", "rejected": "a brick"} for row in rows(count, long)]


@pytest.fixture
def configs(
    sft_config: sft.Config, reward_config: reward.Config, assistant: Path, judge: Path, tmp_path: Path
) -> dict[str, Any]:
    """The smallest runs of the stages that train on rows, without data."""
    few = {"out": tmp_path / "run", "save_steps": 0, "warmup_steps": 0, "device": ONE_THREAD, "max_bad_rows": 0.0}
    return {
        "sft": replace(sft_config, epochs=1, batch_size=36, **few),
        "reward": replace(
            reward_config, heldout_annotators=None, demonstrations=None, epochs=1, prompts_per_step=36, **few
        ),
        "dpo": dpo.Config(assistant, epochs=1, batch_size=40, **few),
        "ppo": ppo.Config(
            model=assistant,
            reward=judge,
            max_steps=1,
            prompts_per_step=4,
            num_mini_batches=1,
            max_new_tokens=8,
            num_traced_prompts=0,
            **few,
        ),
    }


STAGES = {
    "sft": (sft, rows, "conversations"),
    "reward": (reward, preferences, "rankings"),
    "dpo": (dpo, preferences, "rankings"),
    "ppo": (ppo, rows, "prompts"),
}


@pytest.fixture
def train(configs: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """train(stage, training rows, held-out rows, options): the run's folder."""

    def run(name: str, training: list[dict[str, Any]], held_out: list[dict[str, Any]], **options: Any) -> Path:
        for split, lines in (("train", training), ("held", held_out)):
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        data = {"data": tmp_path / "train.jsonl", "validation": tmp_path / "held.jsonl"}
        return STAGES[name][0].run(replace(configs[name], **data, **options))

    return run


def text_of(folder: Path) -> str:
    return (folder / "first_batch.html").read_text("utf-8")


@pytest.mark.parametrize("name", STAGES)
def test_what_is_too_long_is_left_out_of_its_split_and_is_no_bad_row(
    name: str, train: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    _, make, what = STAGES[name]
    out = train(name, make(24, long=(3,)), make(8, long=(1, 2)), inspect_batch=True)
    stderr = " ".join(capsys.readouterr().err.split())
    context = 56 if name == "ppo" else 64
    assert f"data train: 1 of 24 {what} left out: longer than {context} tokens" in stderr
    assert f"data warning: validation: 2 of 8 {what} left out: longer than {context} tokens" in stderr
    assert "cut" not in stderr.replace("was cut", "") and "truncated" not in stderr
    assert f"train: 1 of 24 {what} left out" in text_of(out) and "mill" not in text_of(out), "no part of it is there"
    assert not (out / "rejected.jsonl").exists()


@pytest.mark.parametrize("name", STAGES)
def test_a_run_needs_no_held_out_rows(name: str, train: Callable[..., Path], capsys: pytest.CaptureFixture) -> None:
    _, make, what = STAGES[name]
    out = train(name, make(12), make(4, long=(0, 1, 2, 3)))
    assert (out / "model.safetensors").exists()
    stderr = capsys.readouterr().err
    assert not [
        key for key in json.loads((out / "finished.json").read_text()) if key.startswith(("val_", "validation", "eval"))
    ]
    assert f"validation: 4 of 4 {what} left out" in stderr and "validation: nothing is left to validate on" in stderr


@pytest.mark.parametrize("name", STAGES)
def test_a_run_ends_where_nothing_is_left_to_train_on(name: str, train: Callable[..., Path]) -> None:
    _, make, what = STAGES[name]
    with pytest.raises(InputError, match=rf"train.jsonl: none of the 3 {what} is within \d\d tokens"):
        train(name, make(3, long=(0, 1, 2)), make(4))


@pytest.mark.parametrize(("name", "select"), [("sft", "loss"), ("sft", "score"), ("ppo", "score")])
def test_a_choice_by_held_out_rows_needs_some(name: str, select: str, train: Callable[..., Path], judge: Path) -> None:
    _, make, _ = STAGES[name]
    options = {"reward": judge} if select == "score" else {}
    with pytest.raises(InputError, match=f"--keep-weights {select} has nothing"):
        train(name, make(12), make(2, long=(0, 1)), keep_weights=select, **options)


def test_a_long_answer_is_never_trained_without_its_end(train: Callable[..., Path]) -> None:
    long = {"prompt": "0?", "completion": LONG}
    out = train("sft", [*rows(23), long], rows(4), inspect_batch=True, batch_size=24)
    page = text_of(out)
    assert page.count('class="eos"') - 1 == 23 == page.count('class="row"'), "the legend has one more"
