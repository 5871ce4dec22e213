"""Audits of judges with known biases: each bias is measured, and only that."""

from collections.abc import Callable, Sequence

import pytest

from amenable.data.types import Conversation, Message, Ranking
from amenable.evaluation.judge_audit import HumanPair, audit, draw_pairs, pad


class RuleJudge:
    """Judge of a rule: (answer shown first, second) -> 1, one half or 0 for the first."""

    def __init__(self, first_wins: Callable[[str, str], float]):
        self.first_wins = first_wins

    def both_orders(self, prompt: Conversation, a: str, b: str) -> tuple[float, float]:
        return self.first_wins(a, b), 1 - self.first_wins(b, a)


def prefers(key: Callable[[str], float]) -> RuleJudge:
    return RuleJudge(lambda a, b: 1.0 if key(a) > key(b) else 0.5 if key(a) == key(b) else 0.0)


@pytest.fixture
def rankings() -> list[Ranking]:
    """Forty questions; Ann prefers the answer with a fact, which is the shorter of two on thirty. Bo agrees on half."""
    rows = []
    for i in range(40):
        prompt = (Message("user", f"Question {i}?"),)
        answers = (f"fact {i}", "padding " * 9) if i < 30 else (f"fact {i} " + "padding " * 9, "none")
        meta = {"models": ["mine", "other"]}
        rows.append(Ranking(prompt, answers, (1.0, 2.0), str(i), "Ann", meta))
        rows.append(Ranking(prompt, answers, (1.0, 2.0) if i % 2 else (2.0, 1.0), str(i), "Bo", meta))
    return rows


def of_ann(rankings: Sequence[Ranking], own: str = "nobody") -> list[HumanPair]:
    return draw_pairs([ranking for ranking in rankings if ranking.annotator == "Ann"], 0, own, 0)


def test_a_fair_judge_has_no_bias(rankings: list[Ranking]) -> None:
    figures = audit(prefers(lambda text: float("fact" in text)), of_ann(rankings, "mine"), rankings, 2, 0)
    assert figures["pairs"] == figures["prompts"] == 40
    assert figures["agreement"]["share"] == 1.0 == figures["position"]["consistent"]["share"]
    assert figures["position"]["first_wins"]["share"] == 0.5
    assert figures["padding"]["padded_wins"]["share"] == figures["padding"]["original_wins"]["share"] == 0.0
    assert figures["length"]["judge"]["share"] == figures["length"]["people"]["share"] == 0.25
    assert figures["self_preference"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 40}
    assert figures["people"]["share"] == 0.5 and figures["people"]["n"] == 40


def test_a_judge_of_the_position_agrees_with_nobody(rankings: list[Ranking]) -> None:
    figures = audit(RuleJudge(lambda a, b: 1.0), of_ann(rankings), rankings, 2, 0)
    assert figures["position"]["first_wins"]["share"] == 1.0 and figures["position"]["consistent"]["share"] == 0.0
    assert figures["agreement"]["share"] == 0.5, "half a point each"
    assert figures["padding"]["padded_wins"]["share"] == 0.0 and figures["self_preference"] is None


def test_a_judge_of_length_is_measured_by_both_measures(rankings: list[Ranking]) -> None:
    length = audit(prefers(len), of_ann(rankings), rankings, 2, 0)
    assert length["padding"]["padded_wins"]["share"] == 1.0
    assert length["length"]["judge"]["share"] == 1.0 and length["length"]["difference"]["value"] == 0.75
    assert length["length"]["difference"]["low"] > 0.5
    assert length["length"]["agreement_longer"]["share"] == 1.0
    assert length["length"]["agreement_shorter"]["share"] == 0.0
    assert length["agreement"]["share"] == 0.25 and length["by_annotator"]["Ann"]["n"] == 40


def test_self_preference_is_measured_against_people(rankings: list[Ranking]) -> None:
    other = [Ranking(r.prompt, r.completions, r.ranks[::-1], r.id, r.annotator, r.meta) for r in rankings[::2]]
    figures = audit(prefers(lambda text: float("fact" in text)), of_ann(other, "mine"), other, 1, 0)
    assert figures["self_preference"]["judge"]["share"] == 1.0 and figures["self_preference"]["people"]["share"] == 0.0
    assert figures["self_preference"]["difference"]["value"] == 1.0
    assert audit(prefers(len), of_ann(other, "unknown"), other, 1, 0)["self_preference"] is None


def test_pairs_are_drawn_once_from_each_ranking_that_is_no_tie() -> None:
    prompt = (Message("user", "Which?"),)
    rows = [Ranking(prompt, ("a", "b", "c"), (1.0, 2.0, 2.0)), Ranking(prompt, ("a", "b"), (1.5, 1.5))]
    pairs = draw_pairs(rows * 3, 0, "", 1)
    assert len(pairs) == 3 and all(pair.better == "a" and pair.worse in "bc" for pair in pairs)
    assert len(draw_pairs(rows * 3, 2, "", 1)) == 2 and draw_pairs(rows * 3, 2, "", 1) == draw_pairs(rows * 3, 2, "", 1)
    assert pad("x").count("x") == 2
    equal = audit(prefers(len), [HumanPair(prompt, "a", "b", "", None)], [], 1, 0)
    assert equal["length"] is None and equal["people"]["share"] is None
