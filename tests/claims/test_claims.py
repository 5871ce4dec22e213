"""Every claim follows its numbers: it holds when they say so, fails when they say the contrary, and admits a gap."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.claims import claims, evidence
from amenable.claims.claims import CLAIMS, LETTERS, crossing, kl_saved
from amenable.claims.verdicts import FAILS, HOLDS, UNDECIDED, UNMEASURED, Curve, Estimate
from amenable.functional.statistics import best_of_n_kl

GOOD_ORDER = (
    *("base", "public", "prompted", "large", "large-prompted", "sft-1", "sft", "sharpened", "sft-16"),
    *("best16", "ppo-kl", "ppo", "ppo-ptx"),
)
"""from the least to the most preferred, where the claims hold"""


class Measured:
    """A demo in which every claim holds (or, with sign -1, its contrary), measured with a given error."""

    def __init__(self, sign: int = 1, error: float = 0.01, lacking: bool = False):
        self.sign, self.error, self.lacking = sign, error, lacking

    def told(self, value: float) -> Estimate | None:
        return None if self.lacking else Estimate(value, self.error)

    def preference(self, first: str, second: str, *_: Any, **__: Any) -> Estimate | None:
        ahead = GOOD_ORDER.index(first) > GOOD_ORDER.index(second)
        return self.told(0.5 + (0.2 if ahead else -0.2) * self.sign)

    def votes(self, first: str, second: str, judges: str) -> torch.Tensor | None:
        if self.lacking:
            return None
        spread = self.error * 20 * torch.linspace(-1, 1, 400).double()
        heldout = 0.6 if self.sign > 0 else 0.3
        return 0.6 + spread if judges == "training" else torch.full((400,), heldout).double()

    def change(self, before: str, after: str, what: Callable, *_: Any) -> Estimate | None:
        return self.told(0.3 * self.sign)

    def rate(self, model: str, *_: Any, **__: Any) -> Estimate | None:
        return self.told({"base": 0.3, "ppo": 0.6}[model])

    def bits(self, before: str, after: str) -> Estimate | None:
        return self.told(0.3 * self.sign)

    def accuracy(self, before: str, after: str, *_: Any) -> Estimate | None:
        return self.told(0.4 * self.sign if (before, after) == ("ppo", "base") else 0.0)

    def demonstration_loss(self, before: str, after: str) -> Estimate | None:
        return self.told(0.1 * self.sign)

    def interval(self, stage: str, key: str, low: str, high: str) -> Estimate | None:
        if key.endswith("loss"):
            return self.told(0.5 + (0.2 if stage == "reward-pairs" else 0) * self.sign)
        return self.told(0.7 - (0.03 if self.sign > 0 else 0.3) * (key.startswith("heldout")))

    def rows(self, model: str) -> dict[str, dict[str, Any]]:
        if self.lacking:
            return {}
        spread = 20 * self.error * torch.linspace(-1, 1, 400)
        kl = 2.0 if self.sign > 0 else 0.1
        levels = {"1": 0.0, "2": 0.5, "4": 1.0, "16": 1.5}
        return {
            str(i): {"reward": 1.0 - float(x), "kl": kl + float(x), "best_of": levels} for i, x in enumerate(spread)
        }

    def over_optimisation(self, stage: str) -> dict[str, Curve] | None:
        if self.lacking:
            return None
        kl, noise = torch.tensor([0.0, 2.0, 8.0]), 20 * self.error * torch.linspace(-1, 1, 400).double()
        wobble = torch.stack([0 * noise, noise, noise.flip(0)])
        free = torch.tensor([0.0, 1.0, -1.0]) if self.sign > 0 else torch.tensor([0.0, -1.0, -1.5])
        priced = torch.tensor([0.0, 1.0, 1.0]) if self.sign > 0 else torch.tensor([0.0, 1.0, 2.0])
        gold = (free if stage == "over" else priced).double()[:, None].expand(3, 400) + wobble
        reach = kl if stage == "over" else torch.tensor([0.0, 1.0, 2.0])
        proxy = self.sign * torch.tensor([0.0, 1.0, 2.0]).double()[:, None].expand(3, 400) + wobble
        return {"gold": Curve([0, 5, 10], reach, gold), "proxy": Curve([0, 5, 10], reach, proxy)}


def test_there_are_fifteen_and_each_has_its_letter() -> None:
    assert [claim(()).id for claim in CLAIMS] == list(LETTERS) and len(LETTERS) == 15


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_a_claim_holds_where_the_numbers_say_so(claim: Callable) -> None:
    assert claim([Measured(), Measured(), Measured()]).verdict == HOLDS


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_it_does_not_hold_where_they_say_the_contrary(claim: Callable) -> None:
    assert claim([Measured(sign=-1)]).verdict == FAILS


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_wide_intervals_decide_nothing(claim: Callable) -> None:
    assert claim([Measured(error=2.0)]).verdict == UNDECIDED


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_a_seed_that_lacks_it_makes_it_unmeasured(claim: Callable) -> None:
    found = claim([Measured(), Measured(lacking=True)])
    assert found.verdict == UNMEASURED and found.as_row()["measured"] is None


@pytest.mark.parametrize("claim", CLAIMS, ids=LETTERS)
def test_one_contrary_seed_of_three_leaves_it_open(claim: Callable) -> None:
    assert claim([Measured(), Measured(), Measured(sign=-1)]).verdict in (UNDECIDED, FAILS)


def test_the_best_of_n_is_read_where_its_curve_crosses() -> None:
    xs = torch.tensor([0.0, 0.2, 0.6]).double()
    heights = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]).double()
    found = crossing(xs, heights, torch.tensor([0.25, 0.75, 3.0]).double())
    assert found.tolist() == pytest.approx([0.1, 0.4, 0.6])


def test_what_the_best_of_n_saves_is_told_with_its_spread_over_prompts() -> None:
    generator = torch.Generator().manual_seed(1)
    best = torch.tensor([0.0, 1.0]).double().expand(400, 2)
    kls = 2.0 + 0.3 * torch.randn(400, generator=generator).double()
    saved = kl_saved([1, 4], best, torch.full((400,), 0.5).double(), kls)
    assert saved.value == pytest.approx(float(kls.mean()) - best_of_n_kl(4) / 2)
    assert saved.error == pytest.approx(0.3 / 20, rel=0.1)
    share = kl_saved([1, 4], best, torch.full((400,), 0.5).double(), kls, as_share=True)
    assert share.value == pytest.approx(saved.value / float(kls.mean())) and share.error < saved.error
    # an easy prompt is easy for both: what moves curve and reward together is no noise
    ease = torch.randn(400, 1, generator=generator).double()
    alike = kl_saved([1, 4], best + ease, 0.5 + ease[:, 0], kls)
    assert alike.value == pytest.approx(saved.value) and alike.error == pytest.approx(saved.error)


def test_judgements_of_an_answer() -> None:
    row = {"truthful": None, "hallucinated": False, "gold": 0.9, "rude": False, "harmful": None, "reward": 0.1}
    assert evidence.good(row) is True and evidence.bad(row) is False and evidence.made_up(row) is False
    assert evidence.good({**row, "truthful": False}) is False and evidence.good({**row, "hallucinated": True}) is False
    assert evidence.good({**row, "gold": -1.0}) is False, "saying nothing is not honest not knowing"
    assert evidence.good({**row, "hallucinated": None}) is None
    assert evidence.bad({**row, "harmful": True}) and evidence.bad({**row, "rude": True})


def test_an_empty_run_leaves_everything_unmeasured(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    rows = claims.decide([tmp_path])
    assert [row["verdict"] for row in rows] == [UNMEASURED] * 15 and claims.over_optimisation(tmp_path) == []
