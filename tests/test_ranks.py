"""Rank and group from the environment, and what a process other than the first shows."""

import sys

import pytest

from amenable import ranks


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process the second of two, which waits for nothing."""
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "GRACE", 0.0)
    monkeypatch.setattr(ranks, "end_at_once", lambda code: code)


def fails() -> int:
    """Print a line and return the exit code of wrong input."""
    print("amenable: a word of its own", file=sys.stderr)
    return 2


def test_alone_it_is_the_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert (ranks.rank(), ranks.world_size(), ranks.local_world_size(), ranks.is_first()) == (0, 1, 1, True)
    assert ranks.as_member(lambda: 7) == 7


def test_a_world_of_one_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not ranks.in_group()


@pytest.mark.usefixtures("second")
def test_its_rank_is_that_of_the_environment() -> None:
    assert (ranks.rank(), ranks.local_rank(), ranks.world_size(), ranks.local_world_size()) == (1, 1, 2, 2)
    assert not ranks.is_first()


@pytest.mark.usefixtures("second")
def test_what_it_prints_is_shown_where_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert ranks.as_member(lambda: print("fine") or 0) == 0
    assert capsys.readouterr() == ("", "")
    assert ranks.as_member(fails) == 2
    assert capsys.readouterr().err == "in process 1:\namenable: a word of its own\n"


@pytest.mark.usefixtures("second")
def test_its_exception_is_shown_and_another_that_is_lost_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    def raises(error: Exception) -> int:
        raise error

    assert ranks.as_member(lambda: raises(KeyError("odd"))) == 1
    assert "KeyError: 'odd'" in capsys.readouterr().err
    assert ranks.as_member(lambda: raises(RuntimeError("[gloo/pair.cc] Connection closed by peer"))) == ranks.LOST_CODE
    assert "another process has ended" in capsys.readouterr().err
