"""The world as files: the same bytes from the same seed, readable, judged the same after loading."""

from __future__ import annotations

import hashlib
import json

import pytest

from amenable.data import sources
from amenable.errors import InputError
from amenable.world import names
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Rates, Sizes


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small):
    sizes = Sizes(**small.facts["sizes"])
    again = ClosedWorld.make(3, sizes).contents()
    assert again == small.contents()
    other = ClosedWorld.make(4, sizes).contents()
    assert [name for name, text in again.items() if other[name] == text] == ["transcripts.jsonl"]


def test_the_files_of_a_seed_are_those_of_this_version(small):
    """A change of this hash is another world: raise VERSION. world.json is left out, whose noise torch computes."""
    files = {name: text for name, text in small.contents().items() if name != "world.json"}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    assert digest == "ba3192544cb1d761330947d33b5ddc53f1da1dc02fdc4a24146a3ecb89f3a30b"


def test_loading_gives_the_same_world(small, tmp_path):
    folder = small.write(tmp_path / "world")
    loaded = ClosedWorld.load(folder)
    assert loaded.contents() == small.contents()
    assert loaded.town == small.town
    for name in list(small.truths)[:40]:
        assert loaded.gold(name, "I do not know.", True) == small.gold(name, "I do not know.", True)
    assert [a.held_out for a in loaded.annotators] == [False] * 6 + [True] * 4
    assert len(loaded.panel) == 6 and len(loaded.held_out_panel) == 4


def test_files_are_in_the_documented_formats(small, tmp_path):
    folder = small.write(tmp_path / "world")
    for name, number in (("train", 400), ("validation", 20)):
        loaded = sources.read_texts(folder / "text" / f"{name}.jsonl")
        assert (len(loaded.rows), loaded.rejected) == (number, [])
    for name, number in (("train", 60), ("validation", 12)):
        demonstrations = sources.read_demonstrations(folder / "demonstrations" / f"{name}.jsonl")
        assert (len(demonstrations.rows), demonstrations.rejected) == (number, [])
        assert all(row.messages[-1].role == "assistant" for row in demonstrations.rows)
    for name, number in (("reward", 60), ("ppo", 60), ("validation", 40), ("test", 40)):
        prompts = sources.read_prompts(folder / "prompts" / f"{name}.jsonl")
        assert (len(prompts.rows), prompts.rejected) == (number, [])
        assert all(row.id in small.truths and row.meta["kind"] == small.truth(row.id).kind for row in prompts.rows)


def test_prompts_hold_no_truth(small):
    for name, rows in small.rows.items():
        if name.startswith("prompts/"):
            assert all(set(row) == {"prompt", "id", "kind"} for row in rows)


def test_probes_tell_true_from_false(small):
    rows = small.rows["probes.jsonl"]
    assert len(rows) == len(small.town.stated)
    for row in rows:
        assert row["true"] != row["false"] and row["value"] in row["true"] and row["values"][0] == row["value"]


def test_writing_twice_changes_nothing_and_anything_else_is_refused(small, tmp_path):
    folder = small.write(tmp_path / "world")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert small.write(folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (folder / "truths.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="something else"):
        small.write(folder)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="something else"):
        small.write(file)
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_empty_folder_is_taken(small, tmp_path):
    assert (small.write(tmp_path) / "world.json").is_file()


def test_what_is_no_world_is_refused_in_words(small, tmp_path):
    with pytest.raises(InputError, match="not a closed world"):
        ClosedWorld.load(tmp_path)
    folder = small.write(tmp_path / "world")
    facts = json.loads((folder / "world.json").read_text())
    (folder / "world.json").write_text(json.dumps({**facts, "version": 0}))
    with pytest.raises(InputError, match="version 0"):
        ClosedWorld.load(folder)
    (folder / "world.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        ClosedWorld.load(folder)
    with pytest.raises(InputError, match="not of this world"):
        small.gold("nothing", "")


def test_a_world_of_a_town_that_is_drawn_differently_now_is_refused(small, tmp_path, monkeypatch):
    folder = small.write(tmp_path / "world")
    monkeypatch.setitem(names.VALUES, "age", (*names.AGES, "hundred"))
    with pytest.raises(InputError, match="another town"):
        ClosedWorld.load(folder)


def test_rates_reach_the_world(small):
    saints = Rates(rude=0, rambles=0, complies=0, guesses=0, breaks=0, wrong=0, over_refuses=0, courteous=1)
    world = ClosedWorld.make(3, Sizes(**small.facts["sizes"]), saints)
    parts = [world.gold(row["id"], row["messages"][-1]["content"]) for row in world.rows["demonstrations/train.jsonl"]]
    assert not any(part.rude or part.rambling or part.harmful or part.hallucinated for part in parts)
    assert all(part.polite for part in parts)
    assert world.rates == saints
