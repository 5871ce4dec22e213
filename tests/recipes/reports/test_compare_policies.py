"""Two language models asked the same."""

import math

import pytest

from amenable.recipes.reports import compare_policies


def row(place: int, one: float | None, other: float | None) -> dict:
    report = [
        {"text": f"answer {place}{name}", "ended": True} | ({"gold": gold} if gold is not None else {})
        for name, gold in (("a", one), ("b", other))
    ]
    answers = {name: {"sampled": answer, "greedy": answer} for name, answer in zip("ab", report)}
    return {"id": f"p{place}", "kind": "open", "prompt": [{"role": "user", "content": "?"}], "answers": answers}


def test_a_gain_is_paired() -> None:
    """The answers are worth anything, b's one half more, give or take a quarter."""
    pairs = [({"gold": float(value)}, {"gold": value + (0.25 if value % 2 else 0.75)}) for value in range(-9, 9)]
    result = compare_policies.gain(pairs, "gold")
    reach = 2.1098 * 0.25 * math.sqrt(18 / 17) / math.sqrt(18)
    assert result == {
        "value": 0.5,
        "low": pytest.approx(0.5 - reach, abs=1e-3),
        "high": pytest.approx(0.5 + reach, abs=1e-3),
    }
    turned = compare_policies.gain([(b, a) for a, b in pairs], "gold")
    assert turned is not None and turned["value"] == -0.5 and turned["high"] == pytest.approx(-result["low"])
    assert compare_policies.gain(pairs, "reward") is None


@pytest.mark.parametrize("prompts", [1, 2, 18])
def test_differences_that_are_all_the_same_tell_no_interval(prompts: int) -> None:
    pairs = [({"gold": float(value)}, {"gold": value + 0.5}) for value in range(prompts)]
    assert compare_policies.gain(pairs, "gold") == {"value": 0.5, "low": None, "high": None}


def test_examples_are_the_best_the_worst_and_some_by_lot() -> None:
    rows = [row(place, 0.0, gold) for place, gold in enumerate([0.0, 2.0, -1.0, 1.0, -2.0, *[0.0] * 30])]
    groups = {part["group"]: [one["id"] for one in part["rows"]] for part in compare_policies.examples(rows, 0)}
    assert groups["won"] == ["p1", "p3"] and groups["lost"] == ["p4", "p2"]
    assert len(groups["drawn"]) == compare_policies.SHOWN and not {"p1", "p2", "p3", "p4"} & set(groups["drawn"])
    assert (
        compare_policies.examples(rows, 0) == compare_policies.examples(rows, 0) != compare_policies.examples(rows, 1)
    )


def test_where_nobody_judges_examples_are_drawn_by_lot() -> None:
    groups = compare_policies.examples([row(place, None, None) for place in range(9)], 0)
    assert [(part["group"], len(part["rows"])) for part in groups] == [("drawn", compare_policies.SHOWN)]
    assert groups[0]["rows"][0]["gain"] is None and groups[0]["rows"][0]["a"]["worth"] is None


def test_an_outcome_is_told_of_b() -> None:
    rows = [row(place, 0.0, float(place)) for place in range(3)]
    rows[0]["answers"]["b"]["greedy"] = rows[0]["answers"]["a"]["greedy"]
    models = {"a": {"gold": 0.0, "greedy": {"gold": 0.0}}, "b": {"gold": 1.0, "kl": 2.0, "greedy": {"gold": 1.0}}}
    table = [
        {"a": "a", "b": "b", "decoding": name, "judges": "heldout", "wins": 0.25, "low": 0.2, "high": 0.3, "n": 3}
        for name in ("sampled", "greedy")
    ]
    report = compare_policies.outcome({"models": models, "preference": table}, rows, "sampled", "heldout")
    assert report["preference"]["wins"] == 0.75 and report["preference"]["low"] == pytest.approx(0.7)
    assert report["gold"]["value"] == 1.0 and report["kl"] == 2.0 and report["reward"] is None and report["same"] == 0.0
    assert report["measures"] == [{"name": "gold", "a": 0.0, "b": 1.0}]
    greedy = compare_policies.outcome({"models": models, "preference": table}, rows, "greedy", None)
    assert greedy["preference"] is None and greedy["kl"] is None and greedy["same"] == pytest.approx(1 / 3)
