"""Where runs come from."""

import json
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes.reports import provenance


def world(folder: Path, fingerprint: str) -> Path:
    (folder / "prompts").mkdir(parents=True)
    (folder / "world.json").write_text(json.dumps({"fingerprint": fingerprint}))
    (folder / "prompts" / "ppo.jsonl").write_text("{}\n")
    return folder


def run(folder: Path, **inputs: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    report = {name: {"path": str(path), "sha256": path.name} for name, path in inputs.items()}
    (folder / "lineage.json").write_text(json.dumps({"inputs": report}))
    return folder


def test_the_world_is_found_through_files_and_through_other_runs(tmp_path: Path) -> None:
    home = world(tmp_path / "world", "x")
    ppo = run(tmp_path / "ppo", data=home / "prompts" / "ppo.jsonl")
    annotate = run(tmp_path / "annotate", world=home)
    dpo = run(tmp_path / "dpo", data=annotate / "train.jsonl", model=tmp_path / "gone")
    for folder in (home, ppo, annotate, dpo):
        assert provenance.world_behind(folder) == home


def test_no_world_behind_a_run_on_other_data_nor_behind_itself(tmp_path: Path) -> None:
    assert provenance.world_behind(tmp_path) is None
    assert provenance.world_behind(run(tmp_path / "loop", model=tmp_path / "loop")) is None


def test_two_worlds_are_one_where_their_towns_are(tmp_path: Path) -> None:
    first, second = world(tmp_path / "one", "x"), world(tmp_path / "two", "x")
    a, b = run(tmp_path / "a", world=first), run(tmp_path / "b", world=second)
    assert provenance.same_world([a, b]) == first
    assert provenance.same_world([run(tmp_path / "c"), b]) == second, "nothing is known of the other"
    assert provenance.same_world([run(tmp_path / "c")]) is None


def test_models_of_different_worlds_are_refused(tmp_path: Path) -> None:
    a = run(tmp_path / "a", world=world(tmp_path / "one", "x"))
    b = run(tmp_path / "b", world=world(tmp_path / "two", "y"))
    with pytest.raises(InputError, match=r"made in different worlds.*--no-preference"):
        provenance.same_world([a, b])
    with pytest.raises(InputError, match="made in different worlds"):
        provenance.same_world([a, tmp_path / "two"])


def test_the_first_input_that_both_share_and_that_is_there(tmp_path: Path) -> None:
    there = tmp_path / "validation.jsonl"
    there.write_text("{}\n")
    gone = tmp_path / "heldout.jsonl"
    a, b = (
        run(tmp_path / "a", heldout_annotators=gone, validation=there),
        run(tmp_path / "b", heldout_annotators=gone, validation=there),
    )
    assert provenance.shared_input([a, b], ("heldout", "validation")) == there
    assert provenance.shared_input([a, b], ("heldout",)) is None and provenance.shared_input([], ("heldout",)) is None
    assert provenance.shared_input([a, run(tmp_path / "c", validation=gone)], ("validation",)) is None
