"""The recipe for real data: the layout it wants, and how it fits its work to the time."""

import json
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes import from_scratch

CONVERSATION = [{"role": "user", "content": "What is a cat?"}, {"role": "assistant", "content": "An animal."}]


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write(
        root / "books" / "train.jsonl",
        [{"text": f"It was night number {i}, and the sea was calm. " * 20} for i in range(30)],
    )
    write(root / "wikitext2" / "validation.jsonl", [{"text": "A town is a place where people live. " * 20}])
    for name in ("train", "test"):
        write(root / "dolly" / f"{name}.jsonl", [{"messages": CONVERSATION, "id": f"{name}{i}"} for i in range(6)])
        rows = [
            {
                "prompt": [{"role": "user", "content": f"Question {i} of the {name}?"}],
                "chosen": [{"role": "assistant", "content": f"A good answer {i}."}],
                "rejected": [{"role": "assistant", "content": f"Bad {i}."}],
            }
            for i in range(40)
        ]
        write(root / "hh_rlhf" / f"{name}.jsonl", rows)
    return root


def test_sets_are_found_and_a_missing_one_is_named(folder: Path, tmp_path: Path) -> None:
    files = from_scratch.find(folder)
    assert files.text == (folder / "books/train.jsonl",)
    assert files.test_comparisons == folder / "hh_rlhf/test.jsonl"
    (folder / "dolly" / "train.jsonl").unlink()
    with pytest.raises(InputError, match=r"lacks dolly/train\.jsonl"):
        from_scratch.find(folder)
    with pytest.raises(InputError, match="no such folder"):
        from_scratch.find(tmp_path / "none")


def test_steps_grow_with_time_and_speed(folder: Path) -> None:
    files = from_scratch.find(folder)
    slow = from_scratch.steps_for(from_scratch.Config(minutes=10), 1000.0, files)
    fast = from_scratch.steps_for(from_scratch.Config(minutes=10), 4000.0, files)
    longer = from_scratch.steps_for(from_scratch.Config(minutes=40), 1000.0, files)
    assert slow["pretrain"] == int(0.5 * 600 * 1000 / 4096)
    assert fast == longer and fast["pretrain"] > 3 * slow["pretrain"]
    assert from_scratch.steps_for(from_scratch.Config(minutes=0.001), 1000.0, files)["ppo"] >= 1  # never nothing


def test_text_and_speed_are_kept_so_that_a_resumed_run_agrees(folder: Path, tmp_path: Path) -> None:
    config = from_scratch.Config(data=folder, out=tmp_path / "out")
    text = from_scratch.gather_text(config, from_scratch.find(folder))
    assert len(text.read_text().splitlines()) == 30
    (tmp_path / "out" / "speed.json").write_text('{"tokens_per_second": 1234.5}')
    assert from_scratch.measured_speed(config) == 1234.5


def test_files_that_the_run_makes_notice_that_what_they_are_made_of_has_changed(folder: Path, tmp_path: Path) -> None:
    config, files = from_scratch.Config(data=folder, out=tmp_path / "out"), from_scratch.find(folder)
    text, pairs = from_scratch.gather_text(config, files), tmp_path / "out" / "pairs.jsonl"
    assert len(from_scratch.first_rows(files.comparisons, pairs, 5).read_text().splitlines()) == 5
    before = [path.stat().st_mtime_ns for path in (text, pairs)]
    from_scratch.gather_text(config, files)
    from_scratch.first_rows(files.comparisons, pairs, 5)
    assert before == [path.stat().st_mtime_ns for path in (text, pairs)]
    with pytest.raises(InputError, match=r"pairs\.jsonl: was made of other rows of"):
        from_scratch.first_rows(files.comparisons, pairs, 6)
    files.text[0].write_text('{"text": "Another book."}\n')
    with pytest.raises(InputError, match=r"train\.jsonl: was made of other rows of .*books"):
        from_scratch.gather_text(config, files)


def test_minutes_must_be_positive() -> None:
    with pytest.raises(InputError, match="minutes is 0"):
        from_scratch.Config(minutes=0)


@pytest.mark.slow
def test_the_whole_recipe_ends_with_a_report(folder: Path, tmp_path: Path) -> None:
    out = from_scratch.run(
        from_scratch.Config(data=folder, out=tmp_path / "out", minutes=0.05, model="nano", vocab_size=300, context=96)
    )
    report = json.loads((out / "report.json").read_text())
    assert set(report["models"]) == {"base", "sft", "ppo", "dpo"}
    assert all(0 < model["bpb"] < 20 for model in report["models"].values())
