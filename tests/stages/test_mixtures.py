"""Runs on several sources: drawn by weight, measured by source, resumed to the bit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from amenable.data.mixture import MixtureOrder, order_of, parse_sources
from amenable.errors import InputError
from amenable.stages import dpo, grpo, ppo, pretrain, reward, rloo, sft
from amenable.text.tokenizer import Tokenizer
from amenable.train.optimizer import OptimizerConfig


def halves(file: Path, folder: Path) -> list[str]:
    """Write a file's rows as two files, of a third and two thirds, and return them as a mixture by weight."""
    rows = file.read_text("utf-8").splitlines(keepends=True)
    first, second = folder / "first.jsonl", folder / "second.jsonl"
    first.write_text("".join(rows[::3]), "utf-8")
    second.write_text("".join(row for i, row in enumerate(rows) if i % 3), "utf-8")
    return [f"{first}=3", f"{second}=1"]


@pytest.fixture
def configs(
    pretrain_config: pretrain.Config, sft_config: sft.Config, reward_config: reward.Config, files: Any, tmp_path: Path
) -> dict[str, Any]:
    """A short run of each offline stage on two sources, one drawn three times as often as the other."""
    short = {"out": tmp_path / "run", "warmup_steps": 1, "save_steps": 0}
    pairs = dpo.Config(
        model=sft_config.model,
        **short,
        epochs=1,
        batch_size=12,
        validation_split=0.2,
        eval_steps=2,
        eval_prompts=0,
        max_new_tokens=4,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        device=sft_config.device,
    )
    built = {
        "pretrain": (replace(pretrain_config, **short, max_steps=6, eval_steps=3), files.text),
        "sft": (replace(sft_config, **short, epochs=1), files.demonstrations),
        "reward": (replace(reward_config, **short, epochs=1, model=sft_config.model), files.rankings),
        "dpo": (pairs, files.pairs),
    }
    folders = {name: tmp_path / name for name in built}
    for folder in folders.values():
        folder.mkdir()
    return {name: replace(config, data=halves(file, folders[name])) for name, (config, file) in built.items()}


STAGES = {"pretrain": pretrain, "sft": sft, "reward": reward, "dpo": dpo}
ACCURACY = {"reward": "accuracy", "dpo": "rewards/accuracies"}
EVALUATED = {"pretrain": "eval/bpb", "sft": "eval/loss", "dpo": "eval/loss"}


@pytest.mark.parametrize("name", STAGES)
def test_a_mixture_is_drawn_by_weight_and_measured_by_source(
    name: str, configs: dict[str, Any], rows_of: Callable, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    config, stage = configs[name], STAGES[name]
    out = stage.run(config)
    rows = rows_of(out)
    trained = [row for row in rows if "loss" in row]
    for row in trained:
        low, high = sorted(row[f"loss/{source}"] for source in ("first", "second"))
        assert low - 1e-6 <= row["loss"] <= high + 1e-6, "the loss is a mean of the sources' losses"
        if name in ACCURACY:
            assert 0 <= row[f"{ACCURACY[name]}/first"] <= 1 + 1e-6
    if name in EVALUATED:
        last = [row for row in rows if EVALUATED[name] in row][-1]
        low, high = sorted(last[f"{EVALUATED[name]}/{source}"] for source in ("first", "second"))
        assert low - 1e-6 <= last[EVALUATED[name]] <= high + 1e-6
    done = json.loads((out / "finished.json").read_text("utf-8"))
    if name == "reward":
        assert done["validation"]["pairs"] == sum(done[f"validation/{s}"]["pairs"] for s in ("first", "second"))
    lineage = json.loads((out / "lineage.json").read_text("utf-8"))["inputs"]
    assert Path(lineage["data 1"]["path"]).name == "first.jsonl" and lineage["data 2"]["sha256"]
    assert yaml.safe_load((out / "config.yaml").read_text("utf-8"))["data"] == config.data
    again = replace(config, out=tmp_path / "again")
    assert outcome(run_in_two(stage, again, 2)) == outcome(out)


@pytest.mark.parametrize(
    ("stage", "options"),
    [(rloo, {}), (grpo, {"dynamic_sampling": 1}), (ppo, {"num_generations": 1, "prompts_per_step": 8})],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_online_prompts_are_drawn_by_weight_and_scored_by_source(
    stage: Any,
    options: dict[str, Any],
    online: Callable,
    files: Any,
    rows_of: Callable,
    run_in_two: Callable,
    outcome: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    config = online(stage, **options, data=halves(files.prompts, tmp_path), save_steps=1)
    out = stage.run(config)
    draws = 3 * config.prompts_per_step
    order = order_of(parse_sources(config.data), [11, 21], config.seed)
    assert isinstance(order, MixtureOrder)
    expected, drawn = order.drawn(draws)[0], 0.0
    line = f"mixture by rows: first {expected / draws:.1%}, {expected / 11:.2f} epochs of 11"
    assert line in capsys.readouterr().err and abs(expected - draws * 3 / 4) < 2
    for row in rows_of(out):
        first, second = (row[f"objective/scores/{source}"] for source in ("first", "second"))
        count = config.prompts_per_step * (row["objective/scores"] - second) / (first - second)
        assert count == pytest.approx(round(count), abs=0.01), "the score is the mean of the prompts of both"
        drawn += count
    assert drawn == pytest.approx(expected, abs=0.01)
    lineage = json.loads((out / "lineage.json").read_text("utf-8"))["inputs"]
    assert Path(lineage["data 1"]["path"]).name == "first.jsonl" and lineage["data 2"]["sha256"]
    assert outcome(run_in_two(stage, replace(config, out=tmp_path / "again"), 2)) == outcome(out)


def test_online_sources_without_weights_are_drawn_as_one_file(online: Callable, files: Any, tmp_path: Path) -> None:
    rows = files.prompts.read_text("utf-8").splitlines(keepends=True)
    parts = [tmp_path / name for name in ("first.jsonl", "second.jsonl")]
    for path, part in zip(parts, (rows[:10], rows[10:])):
        path.write_text("".join(part), "utf-8")
    whole, apart = (
        rloo.run(online(rloo, data=data, out=tmp_path / str(n))) for n, data in enumerate((files.prompts, parts))
    )
    assert (whole / "model.safetensors").read_bytes() == (apart / "model.safetensors").read_bytes()


def test_the_plan_says_shares_and_epochs(configs: dict[str, Any], capsys: pytest.CaptureFixture) -> None:
    sft.run(replace(configs["sft"], inspect_batch=True))
    line = next(line for line in capsys.readouterr().err.splitlines() if "mixture" in line)
    # 12 of 32 and 44 of 64 rows begin with no held-out prompt: of 56 draws three quarters are from the first
    assert "mixture by rows: first 75.0%, 3.50 epochs of 12; second 25.0%, 0.32 epochs of 44" in line


def test_held_out_prompts_of_one_source_are_trained_on_in_none(
    configs: dict[str, Any], files: Any, words: Tokenizer
) -> None:
    same = configs["sft"].data[0].partition("=")[0]
    config = replace(configs["sft"], data=[same, str(files.demonstrations)])
    training, held_out = sft.read(config, words, 200)
    assert len(held_out.parts) == 2 and all(held_out.parts)
    openings = {row.messages[0] for row in held_out}
    assert len(training) + len(held_out) == 32 + 96, "no row is lost"
    assert not openings & {row.messages[0] for row in training}


@pytest.mark.parametrize("name", STAGES)
def test_a_mixture_that_is_none_is_refused_before_any_work(name: str, configs: dict[str, Any], tmp_path: Path) -> None:
    config = configs[name]
    for data, problem in (
        (["a.jsonl=0"], "has the weight 0"),
        ([config.data[0], config.data[0]], "is given twice"),
    ):
        with pytest.raises(InputError, match=problem):
            replace(config, data=data)
    (empty := tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match=r"empty\.jsonl: no .* can be read \(it is empty\)"):
        STAGES[name].run(replace(config, data=[config.data[0], f"{empty}=2"]))
    assert not config.out.exists()
