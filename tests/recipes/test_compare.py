"""`amenable compare`: two runs, models or demos side by side."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable import cli
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.recipes import compare
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.runtime import DeviceOptions
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes

ONE_THREAD = DeviceOptions(device="cpu", precision="fp32", threads=1)


@pytest.fixture
def config(assistant: Path, untrained: Path, tmp_path: Path) -> compare.Config:
    """The session's assistant against a model that has learned nothing."""
    return compare.Config(
        (untrained, assistant), out=tmp_path / "out", max_prompts=12, max_new_tokens=16, device=ONE_THREAD
    )


@pytest.fixture
def untrained(make_decoder: Callable[..., Decoder], words: Tokenizer, tmp_path: Path) -> Path:
    """A language model as it may be downloaded: a folder without a run."""
    save_model(tmp_path / "untrained", make_decoder(seed=4, vocab_size=words.vocab_size), words)
    return tmp_path / "untrained"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = {"people": 6, "documents": 20, "validation_documents": 4, "demonstrations": 8, "validation_demonstrations": 4}
    prompts = {"reward_prompts": 4, "ppo_prompts": 4, "validation_prompts": 4, "test_prompts": 60}
    others = {
        "suite_prompts": 6,
        "public_demonstrations": 6,
        "validation_public_demonstrations": 2,
        "task_questions": 20,
    }
    return ClosedWorld.make(0, Sizes(**few, **prompts, **others)).write(tmp_path_factory.mktemp("world") / "run")


def compared(config: compare.Config) -> dict[str, Any]:
    """What compare.json holds."""
    out = compare.run(config)
    assert (out / "compare.html").read_text("utf-8").startswith("<!doctype html>")
    return json.loads((out / "compare.json").read_text("utf-8"))


def test_two_models_judged_by_a_reward_model(config: compare.Config, judge: Path, files: Any) -> None:
    result = compared(replace(config, data=files.prompts, reward=(str(judge),)))
    answers = result["answers"]
    assert (answers["prompts"], answers["judges"], answers["world"]) == (12, "reward", None)
    reply = [row["answers"] for row in read_json_lines(config.out / "answers" / "samples.jsonl")]
    gains = [row["b"]["sampled"]["reward"] - row["a"]["sampled"]["reward"] for row in reply]
    assert answers["sampled"]["reward"]["value"] == pytest.approx(sum(gains) / 12)
    assert answers["sampled"]["preference"]["wins"] == pytest.approx(sum(gain > 0 for gain in gains) / 12)
    assert answers["sampled"]["gold"] is None and answers["sampled"]["kl"] > 1 and answers["greedy"]["same"] < 0.5
    assert {part["group"] for part in answers["examples"]} & {"won", "lost"}
    assert result["b"]["kind"] == result["a"]["kind"] == "language model" and result["options"] == []
    assert result["notes"] == ["untrained is a model alone: how it was made is not known."]


def test_two_models_judged_by_a_world(config: compare.Config, world: Path) -> None:
    result = compared(replace(config, world=world, max_prompts=20, max_new_tokens=4))
    answers = result["answers"]
    assert answers["judges"] == "heldout" and answers["world"] == str(world) and answers["sampled"]["gold"] is not None
    assert {row["name"] for row in answers["greedy"]["measures"]} >= {"gold", "rude", "bpb"}


def test_the_other_way_round_is_the_opposite(config: compare.Config, world: Path, tmp_path: Path) -> None:
    config = replace(config, world=world, max_prompts=20, max_new_tokens=4)
    forth = compared(config)["answers"]["sampled"]
    back = compared(replace(config, runs=config.runs[::-1], out=tmp_path / "back"))["answers"]["sampled"]
    assert back["gold"]["value"] == pytest.approx(-forth["gold"]["value"])
    assert back["preference"]["wins"] == pytest.approx(1 - forth["preference"]["wins"])


def test_another_comparison_takes_the_place_of_the_first(config: compare.Config, judge: Path, files: Any) -> None:
    config = replace(config, data=files.prompts, reward=(str(judge),))
    assert compared(config)["answers"]["prompts"] == 12
    assert compared(replace(config, max_prompts=5))["answers"]["prompts"] == 5


def test_a_base_model_has_no_kl_and_answers_all_the_same(
    config: compare.Config, base: Path, assistant: Path, files: Any
) -> None:
    result = compared(replace(config, runs=(base, assistant), data=files.prompts))
    assert result["answers"]["sampled"]["kl"] is None and result["answers"]["judges"] is None
    report = " ".join(result["notes"])
    assert "No KL" in report and "Nobody judges" in report and "‘pretrain’" in report
    assert result["answers"]["sampled"]["preference"] is None and result["metrics"][0]["name"] == "loss"


def test_without_prompts_or_preference_only_the_runs_are_compared(config: compare.Config) -> None:
    result = compared(config)
    assert result["answers"] is None and "name some with --data" in result["notes"][-1]
    result = compared(replace(config, preference=False))
    assert result["answers"] is None and result["notes"][1:] == []


def test_two_reward_models(config: compare.Config, judge: Path, files: Any, tmp_path: Path) -> None:
    other = tmp_path / "again"
    shutil.copytree(judge, other)
    result = compared(replace(config, runs=(judge, other), max_prompts=0))
    assert result["rankings"]["data"] == str(files.pairs), "the rankings that both had"
    rankings = result["rankings"]
    assert rankings["agreement"][0]["value"] == 1.0 and rankings["models"]["again"]["accuracy"] > 0.9
    assert result["options"] == [] == result["inputs"]
    (other / "lineage.json").write_text("{}")
    assert "name some with --data" in compared(replace(config, runs=(judge, other)))["notes"][-1]
    assert (
        compared(replace(config, runs=(judge, other), data=files.rankings, max_prompts=7))["rankings"]["rankings"] == 7
    )


def test_several_rewards(config: compare.Config, judge: Path, assistant: Path, files: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def brief(prompts, completions):\n    return [-len(c) for c in completions]\n")
    runs = (str(judge), f"{tmp_path / 'mine.py'}:brief", "length:1-4")
    config = replace(config, runs=runs, data=files.rankings, max_prompts=0)
    result = compared(config)
    rankings = result["rankings"]
    assert rankings["best"] == judge.name and set(rankings["models"]) == {judge.name, *runs[1:]}
    assert rankings["models"]["length:1-4"]["difference"]["high"] < 0 and len(rankings["agreement"]) == 3
    by_country = [{**row, "land": "xy"[i % 2]} for i, row in enumerate(read_json_lines(files.rankings))]
    (tmp_path / "land.jsonl").write_text("".join(json.dumps(row) + "\n" for row in by_country))
    result = compared(replace(config, data=tmp_path / "land.jsonl", group_by="land"))
    assert set(result["rankings"]["models"][judge.name]["by_group"]) == {"x", "y"}
    for wrong, message in (
        ({"runs": (*runs, runs[1])}, "named twice"),
        ({"runs": (*runs, str(assistant))}, f"{assistant}.*reward"),
        ({"runs": (*runs, "gone")}, "gone: no such model folder"),
        ({"data": None}, "no held-out rankings"),
        ({"data": tmp_path / "gone.jsonl"}, "gone.jsonl"),
        ({"group_by": "country"}, "no ranking has the column 'country'"),
    ):
        with pytest.raises(InputError, match=message):
            compare.run(replace(config, **wrong))


def test_two_evaluations_and_two_demos(config: compare.Config, demo_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(demo_run, other)
    result = compared(replace(config, runs=(demo_run / "evaluate", other / "evaluate")))
    assert result["a"]["name"] == "demo/evaluate" and {row["model"] for row in result["evaluations"]} >= {"base", "ppo"}
    for demo in (demo_run, other):
        claim = {"id": "a", "claim": "PPO is preferred.", "verdict": "holds"}
        (demo / "report.json").write_text(json.dumps({"models": {}, "claims": [claim]}))
    result = compared(replace(config, runs=(demo_run, other)))
    assert result["a"]["kind"] == "demo" and result["claims"][0]["b"]["verdict"] == "holds"


def test_runs_of_different_stages_and_unfinished_ones(config: compare.Config, demo_run: Path) -> None:
    (demo_run / "dpo" / "finished.json").unlink()
    result = compared(replace(config, runs=(demo_run / "sft", demo_run / "dpo")))
    assert any("‘sft’ and dpo of ‘dpo’" in note for note in result["notes"])
    assert "dpo has not finished." in result["notes"] and [row["name"] for row in result["metrics"]] == ["loss"]


def test_a_metric_that_only_one_run_kept_is_told(config: compare.Config, demo_run: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_run / "sft", tmp_path / "short")
    (tmp_path / "short" / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    result = compared(replace(config, runs=(tmp_path / "short", demo_run / "sft")))
    assert "Metrics that only sft keeps: eval/loss." in result["notes"]


def test_a_language_model_and_a_reward_model(config: compare.Config, assistant: Path, judge: Path, files: Any) -> None:
    result = compared(replace(config, runs=(assistant, judge), data=files.prompts))
    assert result["answers"] is None is result["rankings"]
    assert any("they cannot be put to the same test" in note for note in result["notes"])


def test_what_cannot_be_compared_is_said_in_one_line(
    config: compare.Config, assistant: Path, demo_run: Path, world: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for wrong, report in (
        ({"runs": (tmp_path / "gone", assistant)}, "gone: no such folder"),
        ({"runs": (tmp_path / "empty", assistant)}, "is no run, model or demo"),
        ({"runs": (assistant, assistant)}, "is named twice"),
        ({"runs": (demo_run, assistant)}, "demo is a demo and .* is a language model"),
        ({"world": tmp_path / "empty", "data": tmp_path / "gone.jsonl"}, "gone.jsonl"),
    ):
        with pytest.raises(InputError, match=report):
            compare.run(replace(config, **wrong))
    assert not (tmp_path / "out" / "compare.html").exists()
    for demo, town in ((demo_run, "x"), (tmp_path / "other", "y")):
        shutil.copytree(assistant, demo / "model")
        (demo / "world").mkdir(exist_ok=True)
        (demo / "world" / "world.json").write_text(json.dumps({"fingerprint": town}))
        lineage = {"inputs": {"data": {"path": str(demo / "world" / "prompts.jsonl"), "sha256": town}}}
        (demo / "model" / "lineage.json").write_text(json.dumps(lineage))
    apart = replace(config, runs=(demo_run / "model", tmp_path / "other" / "model"))
    with pytest.raises(InputError, match="made in different worlds"):
        compare.run(apart)
    assert compared(replace(apart, preference=False))["inputs"][0]["name"] == "data"


def test_options_that_mean_nothing_are_refused() -> None:
    for wrong in ({"max_prompts": -1}, {"max_batch_size": 0}, {"max_new_tokens": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            compare.Config(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="nothing to compare with"):
        compare.Config(runs=("runs/sft",))


def test_both_folders_stand_bare_on_the_command_line(
    demo_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["compare", str(demo_run / "sft"), str(demo_run / "dpo"), "--out", str(out)]) == 0
    report = capsys.readouterr().out
    assert "dpo against sft" in report and f"page: {out / 'compare.html'}" in report
    with pytest.raises(SystemExit):
        cli.main(["compare", "--help"])
    assert "--no-preference" in capsys.readouterr().out
