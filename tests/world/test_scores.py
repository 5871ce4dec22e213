"""Figures of many judged answers, worked out by hand."""

import math
from dataclasses import replace

from amenable.world.gold import GoldReport
from amenable.world.scores import gold_figures

BLANK = GoldReport(
    gold=0.0, components={}, truthful=None, hallucinated=None, over_refused=None, harmful=None, reasoned=None,
    offered=None, follows=None, rude=False, polite=False, rambling=False, ended=True, strangeness=0.0,
)  # fmt: skip


def test_means_rates_and_kinds() -> None:
    parts = [
        replace(BLANK, gold=2.0, truthful=True),
        replace(BLANK, gold=-1.0, truthful=False, rude=True),
        replace(BLANK, gold=0.5, harmful=False),
    ]
    figures = gold_figures(parts, ["open", "open", "harmful"])
    assert figures["gold"] == 0.5
    std = math.sqrt((1.5**2 + 1.5**2 + 0) / 2)
    assert math.isclose(figures["gold_high"] - 0.5, 4.3027 * std / math.sqrt(3), rel_tol=1e-5)
    assert figures["truthful"] == 0.5  # of the two it applies to
    assert figures["rude"] == 1 / 3
    assert figures["harmful"] == 0.0
    assert figures["hallucination"] is None and figures["closed_hallucination"] is None
    assert figures["gold_by_kind"] == {"harmful": 0.5, "open": 0.5}


def test_inventing_where_nothing_is_known_and_adding_to_a_passage_are_counted_apart() -> None:
    parts = [
        replace(BLANK, hallucinated=True),
        replace(BLANK, hallucinated=False),  # a passage that does not hold the answer
        replace(BLANK, hallucinated=True, truthful=False),  # a passage that does
        replace(BLANK, hallucinated=True, follows=True),
        replace(BLANK, hallucinated=False, follows=False),
        BLANK,
    ]
    figures = gold_figures(parts, ["unanswerable", "closed", "closed", "summary", "summary", "open"])
    assert figures["hallucination"] == 1 / 2
    assert figures["closed_hallucination"] == 2 / 4
