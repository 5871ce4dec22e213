"""The tree behind a run: hashes as they were and as they are, files changed or gone or moved, circles, and data."""

import json
from pathlib import Path

import pytest
import yaml

from amenable import cli
from amenable.errors import InputError
from amenable.files import hash_of
from amenable.recipes import lineage
from amenable.recipes.lineage import trace


def a_run(folder: Path, stage: str, inputs: dict[str, Path], **options: object) -> Path:
    """A finished run that read these inputs, each with the hash it has now."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {name: {"path": str(path), "sha256": hash_of(path)} for name, path in inputs.items()}
    note = {"stage": stage, "inputs": facts, "versions": {"torch": "2"}}
    (folder / "lineage.json").write_text(json.dumps(note))
    (folder / "config.yaml").write_text(yaml.safe_dump({"command": stage, "out": str(folder), **options}))
    (folder / "finished.json").write_text(json.dumps({"stage": stage, "seconds": 1.5}))
    return folder


def a_model(folder: Path, stage: str, inputs: dict[str, Path], **options: object) -> Path:
    a_run(folder, stage, inputs, **options)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (folder / name).write_text(f"{name} of {folder.name}")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """raw text -> pretrain -> sft -> ppo, whose reward model learned from a file that a run on the sft model made."""
    raw = tmp_path / "raw.jsonl"
    raw.write_text("{}\n")
    base = a_model(tmp_path / "pretrain", "pretrain", {"data": raw}, max_steps=7, seed=0)
    tuned = a_model(tmp_path / "sft", "sft", {"model": base, "data": raw}, epochs=5, optimizer={"learning_rate": 0.25})
    drawn = a_run(tmp_path / "sample", "sample", {"model": tuned})
    (drawn / "samples.jsonl").write_text("{}\n")
    judge = a_model(tmp_path / "reward", "reward", {"model": tuned, "data": drawn / "samples.jsonl"})
    a_model(tmp_path / "ppo", "ppo", {"model": tuned, "reward_model": judge, "data": raw})
    return tmp_path


def shown(folder: Path, capsys: pytest.CaptureFixture) -> list[str]:
    assert cli.main(["lineage", str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_tree_reaches_back_to_raw_files(runs: Path) -> None:
    built = trace(runs / "ppo")
    assert (built.stage, built.seconds, built.sha256) == ("ppo", 1.5, hash_of(runs / "ppo"))
    model, judge, data = built.sources
    assert [one.name for one in built.sources] == ["model", "reward_model", "data"]
    assert {one.state for one in (model, judge, data)} == {"same"} and data.made_by is None
    assert model.made_by and model.made_by.stage == "sft"
    base, _ = model.made_by.sources
    assert base.made_by and base.made_by.sources[0].location == runs / "raw.jsonl"


def test_a_run_met_twice_is_told_once(runs: Path) -> None:
    judge = trace(runs / "ppo").sources[1].made_by
    assert judge is not None
    model, data = judge.sources
    assert model.made_by and model.made_by.note == "shown above" and not model.made_by.sources
    assert data.made_by and data.made_by.stage == "sample" and data.made_by.sources


def test_options_are_told_where_they_differ_from_the_defaults(runs: Path) -> None:
    tuned = trace(runs / "sft")
    assert tuned.options == {"optimizer.learning_rate": 0.25}  # five epochs are the default
    base = tuned.sources[0].made_by
    assert base is not None and base.options == {"max_steps": 7}


def test_what_has_changed_and_what_is_gone_is_marked(runs: Path, capsys: pytest.CaptureFixture) -> None:
    was = hash_of(runs / "sft")
    (runs / "sft" / "model.safetensors").write_text("other weights")
    (runs / "raw.jsonl").unlink()
    model, judge, data = trace(runs / "ppo").sources
    assert (model.state, model.sha256, model.now) == ("changed", was, hash_of(runs / "sft"))
    assert (judge.state, data.state, data.location, data.now) == ("same", "gone", None, None)
    text = shown(runs / "ppo", capsys)
    line = next(line for line in text if "model" in line and "sft" in line)
    assert was[:12] in line and f"changed: it is {hash_of(runs / 'sft')[:12]} now" in line
    assert text[-1].startswith("└── data") and text[-1].endswith("gone")


def test_relative_paths_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    Path("raw.txt").write_text("mine")
    a_run(Path("runs/deep/one"), "pretrain", {"data": Path("raw.txt")})
    assert trace(Path("runs/deep/one")).sources[0].location == Path("raw.txt")
    monkeypatch.chdir(tmp_path)
    Path("raw.txt").write_text("another file of that name, which the run has never seen")
    source = trace(Path("home/runs/deep/one")).sources[0]
    assert source.state == "same" and source.location == home / "raw.txt"
    assert f"(found at {home / 'raw.txt'})" in shown(Path("home/runs/deep/one"), capsys)[-1]
    (home / "raw.txt").unlink()
    assert trace(Path("home/runs/deep/one")).sources[0].state == "changed"


def test_a_circle_is_told_and_not_walked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = a_model(tmp_path / "one", "sft", {})
    other = a_model(tmp_path / "other", "sft", {"model": one})
    a_model(one, "sft", {"model": other})
    assert any("goes into itself" in line for line in shown(one, capsys))


@pytest.mark.parametrize(
    ("text", "note"), [("{", "lineage.json is not readable"), ("[]", ""), ('{"inputs": 3}', ""), ("{}", "")]
)
def test_a_strange_lineage_is_told(runs: Path, capsys: pytest.CaptureFixture, text: str, note: str) -> None:
    (runs / "sft" / "lineage.json").write_text(text)
    model = trace(runs / "ppo").sources[0].made_by
    assert model is not None and note in model.note and not model.sources
    assert shown(runs / "ppo", capsys)


def test_a_run_that_has_not_finished_says_so(runs: Path) -> None:
    (runs / "ppo" / "finished.json").unlink()
    built = trace(runs / "ppo")
    assert built.note == "has not finished" and built.seconds is None


def test_exported_labels_lead_to_their_store(runs: Path) -> None:
    labels = runs / "labels"
    labels.mkdir()
    (runs / "labels.db").write_text("events")
    (labels / "rankings.jsonl").write_text("{}\n")
    (labels / "lineage.json").write_text(json.dumps({"store": str(runs / "labels.db"), "labels": 3}))
    a_model(runs / "reward", "reward", {"data": labels / "rankings.jsonl"})
    built = trace(runs / "reward").sources[0].made_by
    assert built is not None and built.stage == "labels"
    assert [(one.name, one.state) for one in built.sources] == [("store", "not hashed")]


def test_it_is_printed_as_data(runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["lineage", str(runs / "ppo"), "--json"]) == 0
    note = json.loads(capsys.readouterr().out)
    keys = {"name", "path", "found", "sha256", "now", "state", "made_by"}
    assert note["sources"][0].keys() == keys
    assert note["stage"] == "ppo" and note["sources"][0]["made_by"]["sources"][0]["name"] == "model"
    assert note["sources"][2]["path"] == str(runs / "raw.jsonl") and note["sources"][2]["made_by"] is None


def test_what_is_no_run_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        trace(runs / "nowhere")
    with pytest.raises(InputError, match=r"name one of the runs in it: ppo, pretrain, reward and 2 more"):
        trace(runs)


def test_a_real_run_says_what_it_was_made_of(assistant: Path, base: Path) -> None:
    built = lineage.trace(assistant)
    assert {one.state for one in built.sources} == {"same"} and built.note == ""
    assert built.options["epochs"] == 4 and built.options["optimizer.learning_rate"] == 0.01
    assert {"seed", "beta", "model", "data", "out", "command"}.isdisjoint(built.options)
    model = built.sources[0]
    assert model.made_by and model.made_by.folder == base and model.made_by.sha256 == model.sha256
