"""What is said of rounds: only what the intervals allow, and nothing that was not measured."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from amenable.recipes import rounds_report
from amenable.recipes.rounds_labels import Round

SCRIPT = "<script>alert('a model said this')</script>"


def share(wins: float, half: float = 0.04) -> dict[str, float]:
    return {"wins": wins, "low": wins - half, "high": wins + half, "n": 600}


def policy(gold: float) -> dict[str, Any]:
    report = {
        "gold": gold,
        "gold_low": gold - 0.1,
        "gold_high": gold + 0.1,
        "reward": 2 * gold,
        "kl": 1.0,
        "length": 9.0,
    }
    return {"sampled": report, "greedy": {**report, "kl": None}}


def against(new: str, old: str, wins: float) -> dict[str, Any]:
    report = {
        "preference": share(wins),
        "gold": {"value": 0.2, "low": 0.1, "high": 0.3},
        "reward": {"value": 0.4, "low": 0.3, "high": 0.5},
        "reward_agrees": share(0.8),
    }
    return {"new": new, "old": old, "sampled": report, "greedy": copy.deepcopy(report)}


def round_told(name: str, newest: str = "sft") -> dict[str, Any]:
    return {
        "name": name,
        "at_once": name.startswith("once"),
        "newest": newest,
        "best": "sft",
        "newest_preferred": None if newest == "sft" else share(0.6),
        "labels": {"prompts": 200, "rankings": 200, "pairs": 2500, "seconds": None},
        "agreement": 0.73,
        "accuracy": {"validation": {"accuracy": 0.7, "low": 0.66, "high": 0.74, "pairs": 400}},
        "score": 1.1,
        "kl": 1.4,
    }


@pytest.fixture
def result() -> dict[str, Any]:
    """Two rounds and one of all labels, as rounds.json holds them."""
    return {
        "prompts": 600,
        "judges": "heldout",
        "old": ["sft"],
        "rounds": [round_told("round-1"), round_told("round-2", "round-1"), round_told("once-2")],
        "models": {
            name: policy(gold) for name, gold in (("sft", 0.1), ("round-1", 0.3), ("round-2", 0.5), ("once-2", 0.4))
        },
        "against": [
            against("round-1", "sft", 0.6),
            against("round-2", "round-1", 0.55),
            against("round-2", "sft", 0.65),
            against("round-2", "once-2", 0.52),
        ],
    }


@pytest.mark.parametrize(
    ("wins", "reply"),
    [(0.56, "rounds beat asking"), (0.52, "no difference can be told"), (0.44, "did not beat .* it did worse")],
)
def test_whether_rounds_were_worth_it_is_said_as_it_is(result: dict[str, Any], wins: float, reply: str) -> None:
    result["against"][-1]["sampled"]["preference"] = share(wins)
    lines = rounds_report.headline(result)
    assert lines[0] == "2 rounds, 400 rankings with 5,000 ordered pairs."
    assert "Round 2 is preferred to all at once" in lines[-1]
    assert re.search(reply, lines[-1])
    assert sum("Asking in rounds" in line for line in lines) == 1


def test_the_page_holds_the_numbers_and_fetches_nothing(result: dict[str, Any]) -> None:
    page = rounds_report.page(result, f"amenable rounds --base-run {SCRIPT}")
    assert SCRIPT not in page and "http" not in page.split("<main>")[1]
    in_lines = page.replace("<small>", " (").replace("</small>", ")")
    for wanted in ("0.50 (0.40 to 0.60)", "60% (56–64%)", "+0.20 (+0.10 to +0.30)", "all at once", "70% (66–74%)"):
        assert wanted in in_lines
    assert page.count("<figure") == 3


def test_the_terminal_shows_the_same_tables(result: dict[str, Any], tmp_path: Path) -> None:
    console = Console(record=True, width=150, file=(tmp_path / "out").open("w"))
    rounds_report.print_rounds(result, tmp_path / "rounds.html", console)
    reply = (tmp_path / "out").read_text()
    assert "round 2 over all at once" in reply and "0.50 (0.40 to 0.60)" in reply and "rounds.html" in reply


def test_nothing_is_made_of_what_was_not_measured(result: dict[str, Any]) -> None:
    result["judges"] = None
    for report in result["models"].values():
        for decoding in report.values():
            decoding |= {"gold": None, "gold_low": None, "gold_high": None}
    for one in result["against"]:
        for decoding in ("sampled", "greedy"):
            one[decoding] = {"preference": None, "gold": None, "reward": None, "reward_agrees": None}
    for one in result["rounds"]:
        one |= {"agreement": None, "accuracy": {}, "score": None}
    assert rounds_report.headline(result) == ["2 rounds, 400 rankings with 5,000 ordered pairs."]
    page = rounds_report.page(result, "amenable rounds")
    assert "None" not in page and page.count("<figure") == 1  # the reward alone


def answer(gold: float | None, reward: float | None) -> dict[str, Any]:
    return {"gold": gold, "reward": reward}


def test_the_reward_model_sides_with_gold_where_both_tell_a_difference() -> None:
    reply = [
        (answer(0, 0), answer(1, 2)),  # with it
        (answer(0, 0), answer(-1, 2)),  # against it
        (answer(1, 1), answer(0, 0)),  # with it
        (answer(0, 1), answer(0, 2)),  # gold tells none
        (answer(None, 1), answer(0, 2)),
    ]
    report = rounds_report.reward_agreement(reply)
    assert report is not None and report["wins"] == pytest.approx(2 / 3) and report["n"] == 3
    assert rounds_report.reward_agreement(reply[3:]) is None


def test_who_is_compared() -> None:
    first = Round(Path("o/round-1"), "annotate")
    second = Round(Path("o/round-2"), "annotate", (first,))
    once = Round(Path("o/once-2"), "annotate", rounds=2)
    assert rounds_report.compared_pairs([first], ["sft"]) == [("round-1", "sft")]
    assert rounds_report.compared_pairs([first], ["sft", "ppo"]) == [("round-1", "ppo"), ("round-1", "sft")]
    assert rounds_report.compared_pairs([first, second, once], ["sft"]) == [
        ("round-1", "sft"),
        ("round-2", "round-1"),
        ("round-2", "sft"),
        ("round-2", "once-2"),
    ]


def test_people_agree_where_they_ranked_the_same() -> None:
    def row(who: str, ranks: list[int], id: str = "p") -> dict[str, Any]:
        request = [{"role": "user", "content": id}]
        return {"prompt": request, "completions": ["a", "b", "c"], "ranking": ranks, "annotator": who, "id": id}

    assert rounds_report.people_agreement([row("ann", [1, 2, 3])]) is None
    rows = [row("ann", [1, 2, 3]), row("bo", [1, 3, 2]), row("ann", [1, 2, 3], "q")]
    assert rounds_report.people_agreement(rows) == pytest.approx(2 / 3)


def test_figures_are_read_from_the_runs(tmp_path: Path) -> None:
    turn = Round(tmp_path / "round-1", "annotate")
    for folder, facts in (
        (turn.annotations, {"agreement": {"all": 0.7}}),
        (turn.reward, {"validation": {"accuracy": 0.6, "low": 0.5, "high": 0.7, "pairs": 9}}),
        (turn.policy, {"objective/scores": 1.5, "objective/kl": 0.5}),
    ):
        folder.mkdir(parents=True)
        (folder / "finished.json").write_text(json.dumps(facts))
    row = {"prompt": [], "completions": ["a", "b", "c"], "ranking": [1, 2, 2], "id": "x"}
    (turn.annotations / "train.jsonl").write_text(json.dumps(row) + "\n")
    report = rounds_report.round_row(turn, {"sft": Path("sft")})
    assert report["labels"] == {"prompts": 1, "rankings": 1, "pairs": 2, "seconds": None}
    assert (report["agreement"], report["score"], report["kl"]) == (0.7, 1.5, 0.5)
    assert report["accuracy"] == {"validation": {"accuracy": 0.6, "low": 0.5, "high": 0.7, "pairs": 9}}
