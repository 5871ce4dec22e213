"""Errors say where, what and how to mend it, in one line."""

from pathlib import Path

from amenable.errors import InputError, Interrupted


def test_one_line_with_all_parts() -> None:
    assert str(InputError("is empty", Path("a.jsonl"), "give it rows")) == "a.jsonl: is empty; give it rows"
    assert str(InputError("is empty")) == "is empty"


def test_an_interruption_says_how_to_go_on() -> None:
    assert "runs/x is saved at step 4; repeat the command" in str(Interrupted(Path("runs/x"), 4))
