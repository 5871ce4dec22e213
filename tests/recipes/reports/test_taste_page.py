"""The report of a taste: rates with their intervals, what they cost, and what is missed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from amenable.recipes.reports import taste_page
from amenable.recipes.reports.taste_page import Settings, least_kl

SETTINGS = Settings("ended:length:4-30", True, "Be brief.", 5.0)


def answer(text: str, reward: float, kl: float = 0.0, ref_logp: float = -4.0) -> dict[str, Any]:
    return {"text": text, "ended": bool(reward), "reward": reward, "kl": kl, "ref_logp": ref_logp, "tokens": 4}


def both(*given: Any, **named: Any) -> dict[str, Any]:
    return {"sampled": answer(*given, **named), "greedy": answer(*given, **named)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten prompts: the policy keeps the rule on eight, the instruction on nine, the model as it was on one."""
    root = tmp_path / "run"
    (root / "prompts").mkdir(parents=True)
    prompts: list[dict[str, Any]] = []
    rows: dict[str, list[dict[str, Any]]] = {"evaluate-base": [], "evaluate": [], "evaluate-rloo": []}
    for i in range(10):
        prompts.append({"id": f"q{i}", "prompt": "Is it wet?", "reference": "No, the desert is dry."})
        untrained = {
            "base": both("No the desert is dry" + " and dry" * 20, float(i == 0)),
            "prompted": both("No, the desert.", float(i < 9), kl=3.0),
        }
        text = "Yes, the sea." if i < 3 else "No, the desert."
        trained = {"rloo": both(text, float(i < 8), kl=6.0, ref_logp=-10.0)}
        turns = [{"role": "user", "content": "Is it wet?"}]
        facts = {"suite": "test", "id": f"q{i}", "kind": "yes-or-no", "prompt": turns}
        for folder, answers in zip(rows, (untrained, {}, trained)):
            rows[folder].append({**facts, "answers": answers})
    files = {root / folder / "samples.jsonl": values for folder, values in rows.items()}
    for path, values in ({root / "prompts" / "test.jsonl": prompts} | files).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return root


def test_figures_are_those_of_the_answers(root: Path) -> None:
    figures = taste_page.collect([root], SETTINGS)
    row = figures["models"]["rloo"]["sampled"]
    assert (row["score"], row["n"], row["kl"], row["words"]) == (0.8, 10, 6.0, 3.0)
    assert row["low"] == pytest.approx(0.490, abs=1e-3) and row["high"] == pytest.approx(0.943, abs=1e-3)
    assert row["perplexity"] == pytest.approx(math.exp(2.5))
    # new words of "Yes, the sea." are yes and sea, of "No, the desert." desert alone; the first model's cut: desert
    assert row["content"]["value"] == pytest.approx(-0.3) and row["content"]["n"] == 10
    assert figures["models"]["base"]["sampled"]["content"] is None


def test_two_seeds_are_pooled(root: Path) -> None:
    figures = taste_page.collect([root, root], SETTINGS)
    assert figures["prompts"] == 20 and figures["models"]["rloo"]["sampled"]["score"] == 0.8


def test_the_headline_says_what_was_learned_and_what_is_missed(root: Path) -> None:
    lines = taste_page.collect([root], SETTINGS)["headline"]
    assert lines[0].startswith(
        "The model learned to stop, not to know more; RLOO falls short: it scores 10 points less"
    )
    assert "10 points less than the instruction (5 are allowed), is 1 nats beyond the KL budget, has a" in lines[0]
    assert "a perplexity of 12.2, above 8, may lose" in lines[0] and "of content, more than 0.03" in lines[0]
    assert "Answers of RLOO score 80% (49–94%)" in lines[1] and "whose answers score 10% (2–40%)" in lines[1]
    assert "Asked 'Be brief.' the model as it was scores 90% (60–98%)" in lines[2]
    generous = Settings("ended:length:4-30", False, "Be brief.", 7.0)
    assert "nats beyond" not in taste_page.collect([root], generous)["headline"][0]


def test_who_meets_every_aim_is_named(root: Path) -> None:
    path = root / "evaluate-rloo" / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["answers"]["rloo"] = both("No, the desert.", 1.0, kl=2.0)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = taste_page.collect([root], SETTINGS)["headline"]
    assert lines[0] == "The model learned to stop, not to know more; RLOO meets every aim."


def test_what_got_worse_is_shown(root: Path) -> None:
    examples = taste_page.collect([root], SETTINGS)["examples"]
    assert len(examples["turned"]) == 3 and len(examples["worse"]) == 6 and len(examples["random"]) == 8
    assert examples["yes_or_no"] == {
        "base": {"questions": 10, "answered": 10, "right": 10},
        "rloo": {"questions": 10, "answered": 10, "right": 7},
    }


def test_scores_that_are_no_rate_have_an_interval_of_their_mean(root: Path) -> None:
    path = root / "evaluate-rloo" / "samples.jsonl"
    path.write_text(path.read_text().replace('"reward": 1.0', '"reward": 2.5'))
    figures = taste_page.collect([root], SETTINGS)
    row = figures["models"]["rloo"]["sampled"]
    assert not row["is_rate"] and row["score"] == 2.0 and row["low"] < 2.0 < row["high"]
    assert taste_page.score_text(row).startswith("2.00 (")


def test_no_policy_reaches_a_rate_at_less_than_its_least_kl() -> None:
    assert least_kl(0.05, 0.05) == 0.0
    assert least_kl(0.78, 0.05) == pytest.approx(1.82, abs=0.01)


def test_the_page_has_table_chart_and_answers(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert taste_page.write(root, [root], SETTINGS) == root
    page = (root / "report.html").read_text()
    for text in ("Score against KL in nats, sampled", "with the instruction", "A right yes or no became the other"):
        assert text in page
    assert " src=" not in page and 'href="http' not in page
    assert "report: " in capsys.readouterr().err
