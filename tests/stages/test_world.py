"""The world stage: a folder that others can use, made once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amenable.errors import InputError
from amenable.stages.world import Config, run
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import KINDS, Sizes

SIZES = Sizes(12, 150, 20, 40, 11, 40, 40, 40, 60, 12, 20, 4, 20)


def test_a_world_is_made_described_and_left_as_it_is(tmp_path, capsys):
    config = Config(tmp_path / "world", seed=2, sizes=SIZES)
    folder = run(config)
    assert ClosedWorld.load(folder).facts["seed"] == 2
    assert {"config.yaml", "lineage.json", "finished.json", "truths.jsonl"} <= {path.name for path in folder.iterdir()}
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(replace(config, describe=True)) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    report = capsys.readouterr().out
    assert all(f"\n{kind} " in report for kind in KINDS)
    assert "so that two agree in 73.0 %" in report and "=== Few-shot tasks" in report


def test_a_finished_world_is_made_again_only_where_a_file_is_not_as_it_was(tmp_path, monkeypatch):
    config = Config(tmp_path / "world", sizes=SIZES)
    run(config)
    built, make = [], ClosedWorld.make
    monkeypatch.setattr(ClosedWorld, "make", lambda *options: built.append(options) or make(*options))
    assert run(config) == config.out and not built
    with (config.out / "truths.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="something else is there already"):
        run(config)
    assert built


def test_another_world_in_the_same_folder_is_refused(tmp_path):
    config = Config(tmp_path / "world", sizes=SIZES)
    run(config)
    with pytest.raises(InputError, match="seed was 0 and is 1"):
        run(replace(config, seed=1))
    with pytest.raises(InputError, match="seed is -1"):
        Config(seed=-1)


def test_a_world_begun_but_not_finished_is_taken_up(tmp_path):
    config = Config(tmp_path / "world", sizes=SIZES)
    run(config)
    for name in ("config.yaml", "lineage.json", "finished.json"):
        (config.out / name).unlink()
    run(config)
    assert (config.out / "finished.json").is_file()


def test_somebody_elses_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="else"):
        run(Config(tmp_path, sizes=SIZES))
