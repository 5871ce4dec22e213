"""All files: their rows and ids, and truths for what is judged and for nothing else."""

from __future__ import annotations

from pathlib import Path

from amenable.data import sources
from amenable.world.settings import Rates, Sizes
from amenable.world.splits import make_files, row_id
from amenable.world.suites import SUITES


def test_every_file_is_there(small):
    assert set(small.rows) == {
        "text/train.jsonl",
        "text/validation.jsonl",
        *(f"{folder}/{name}.jsonl" for folder in ("demonstrations", "public") for name in ("train", "validation")),
        *(f"prompts/{name}.jsonl" for name in ("reward", "ppo", "validation", "test")),
        *(f"suites/{name}.jsonl" for name in SUITES),
        *(f"tasks/{name}.jsonl" for name in ("facts", "sentiment", "passages", "stories", "endings")),
        "few_shot.jsonl",
        "transcripts.jsonl",
        "probes.jsonl",
    }
    assert all(small.rows.values())


def test_ids_are_unique_and_tell_the_file(small):
    observed = [(row["id"], name) for name, rows in small.rows.items() for row in rows if "id" in row]
    assert len({given for given, _ in observed}) == len(observed)
    folders = ("demonstrations", "prompts", "suites", "public")
    for given, name in observed:
        if Path(name).parent.name in folders:
            assert given.startswith(f"{Path(name).parent.name}-{Path(name).stem}-")
    assert row_id("prompts/test.jsonl", 7) == "prompts-test-0007"


def test_truths_are_of_prompts_and_demonstrations_only(small):
    grade = ("demonstrations", "prompts", "suites")
    ids = [row["id"] for name, rows in small.rows.items() if name.startswith(grade) for row in rows]
    assert list(small.truths) == ids


def test_files_of_the_same_town_are_the_same(small):
    sizes = Sizes(**small.facts["sizes"])
    assert make_files(small.town, sizes, small.rates) == (small.rows, small.truths)
    other, _ = make_files(small.town, sizes, Rates(rude=0.5))
    assert other["demonstrations/train.jsonl"] != small.rows["demonstrations/train.jsonl"]
    assert other["suites/familiar.jsonl"] == small.rows["suites/familiar.jsonl"]


def test_conversations_are_read_as_such(small, tmp_path):
    folder = small.write(tmp_path / "world")
    for name, number in (("public/train", 40), ("public/validation", 8), ("few_shot", 4)):
        loaded = sources.read_demonstrations(folder / f"{name}.jsonl")
        assert (len(loaded.rows), loaded.rejected) == (number, [])
    for name in SUITES:
        prompts = sources.read_prompts(folder / "suites" / f"{name}.jsonl")
        assert (len(prompts.rows), prompts.rejected) == (60, [])
        assert all(prompt.id in small.truths for prompt in prompts.rows)
