"""The benchmark of rendering runs, on conversations that are the same for a seed."""

from pathlib import Path

import pytest

from benchmarks.rendering import conversations, main


def test_a_line_for_each_way(assistant: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--model", str(assistant), "--conversations", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" us, ")[0].rsplit(maxsplit=1)[0] for line in lines] == [
        "contents alone",
        "conversations",
        "prompts",
    ]
    assert lines[0].endswith("1.0 times that of the contents alone")


def test_conversations_depend_on_the_seed_alone() -> None:
    first = conversations(9, 0)
    assert first == conversations(9, 0) != conversations(9, 1)
    assert {len(row) for row in first} == {2, 4} and all(row[-1].role == "assistant" for row in first)
