"""Candidates: every different answer once, with the models that gave it."""

import json
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.feedback.candidates import add_empty, read_candidates

PROMPT = [{"role": "user", "content": "Hi"}]


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def row(id: str, *completions: str, **columns: Any) -> dict[str, Any]:
    return {"id": id, "prompt": PROMPT, "completions": completions, **columns}


def test_one_file(tmp_path: Path) -> None:
    """An answer that was cut is another than the same text that ended; blank ones are the empty one, which ended."""
    file = write(
        tmp_path / "a.jsonl",
        row("1", "x", "x", "y", "x", ended=[True, True, True, False], model="m", kind="open"),
        row("2", " ", "", "z", ended=[False, True, True]),
        row("3", "x", "x"),
    )
    first, second = read_candidates([file])
    assert (first.completions, first.ended, first.models) == (("x", "y", "x"), (True, True, False), ())
    assert (first.id, first.kind, second.completions, second.ended) == ("1", "open", ("", "z"), (True, True))


def test_several_files_join_by_id(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", row("1", "x", "y", model="old"), row("2", "x"))
    b = write(tmp_path / "b.jsonl", row("1", "y", "z", model="new"), row("2", "w"))
    first, second = read_candidates([a, b])
    assert first.completions == ("x", "y", "z") and first.models == (("old",), ("old", "new"), ("new",))
    assert second.completions == ("x", "w") and second.models == (("",), ("",))


def test_what_cannot_be_ranked_is_refused(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", row("1", "x", "y"), row("2", "x")), write(tmp_path / "b.jsonl")
    with pytest.raises(InputError, match=r"a\.jsonl: fewer than two prompts have different answers; sample more"):
        read_candidates([a])
    write(b, {**row("1", "z"), "prompt": [{"role": "user", "content": "Ho"}]})
    with pytest.raises(InputError, match=r"b\.jsonl: line 1 has the id '1' of another prompt above it"):
        read_candidates([a, b])


def test_an_empty_answer_is_added_once(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", row("1", "x", "y", model="m", ended=[True, False]), row("2", "x", ""))
    first, second = read_candidates([a, write(tmp_path / "b.jsonl", row("1", "y", ended=[False]))])
    assert (added := add_empty(first)).completions == ("x", "y", "")
    assert added.ended == (True, False, True) and added.models == (("m",), ("m", ""), ())
    assert add_empty(second) is second and add_empty(read_candidates([a])[0]).models == ()
