"""Every claim follows its numbers: it holds when they say so, fails when they say the contrary, and admits a gap."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amenable.claims import claims
from amenable.claims.claims import CLAIMS, LETTERS
from amenable.claims.verdicts import FAILS, HOLDS, UNDECIDED, UNMEASURED


def test_there_are_fifteen_and_each_has_its_letter() -> None:
    assert [claim(()).id for claim in CLAIMS] == list(LETTERS) and len(LETTERS) == 15


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_a_claim_holds_where_the_numbers_say_so(claim: Callable, measured: Any) -> None:
    assert claim([measured(), measured(), measured()]).verdict == HOLDS


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_it_does_not_hold_where_they_say_the_contrary(claim: Callable, measured: Any) -> None:
    assert claim([measured(sign=-1)]).verdict == FAILS


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_wide_intervals_decide_nothing(claim: Callable, measured: Any) -> None:
    assert claim([measured(error=2.0)]).verdict == UNDECIDED


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_a_seed_that_lacks_it_makes_it_unmeasured(claim: Callable, measured: Any) -> None:
    verdict = claim([measured(), measured(lacking=True)])
    assert verdict.verdict == UNMEASURED and verdict.as_row()["measured"] is None


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_one_contrary_seed_of_three_leaves_it_open(claim: Callable, measured: Any) -> None:
    assert claim([measured(), measured(), measured(sign=-1)]).verdict in (UNDECIDED, FAILS)


def test_an_empty_run_leaves_everything_unmeasured(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    rows = claims.decide([tmp_path])
    assert [row["verdict"] for row in rows] == [UNMEASURED] * 15
