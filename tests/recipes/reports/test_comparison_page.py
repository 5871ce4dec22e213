"""A comparison as sentences, tables and a page."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from amenable.recipes.reports import comparison_page

SCRIPT = "<script>alert('a model said this')</script>"


def a_comparison() -> dict:
    """Everything a comparison can hold at once."""
    preference = {"wins": 0.625, "low": 0.55, "high": 0.7, "n": 80, "judges": "heldout"}
    change = {"value": 0.5, "low": 0.25, "high": 0.75}
    reply = {name: {"text": SCRIPT, "ended": False, "worth": 1.5} for name in "ab"}
    row = {"id": "p1", "kind": "open_question", "prompt": [{"role": "user", "content": SCRIPT}], "gain": 0.0, **reply}
    measures = [{"name": "gold", "a": -1.0, "b": -0.5}, {"name": "rude", "a": 0.25, "b": 0.0}]
    outcome = {"preference": preference, "gold": change, "reward": None, "kl": 1.25, "same": 0.1, "measures": measures}
    judged = {"accuracy": 0.6, "low": 0.5, "high": 0.7, "loss": 0.65, "brier": 0.2, "ece": 0.1, "pairs": 90}
    judged |= {"accuracy_longer": None, "accuracy_shorter": 0.5, "by_annotator": {}, "calibration": [], "worst": None}
    models = {"one/sft": judged, "two/sft": {**judged, "difference": change}}
    answers = [
        {"text": SCRIPT, "rank": 2.0, "scores": {"one/sft": 1.0, "two/sft": -1.0}},
        {"text": "yes", "rank": 1.0, "scores": {"one/sft": 0.0, "two/sft": 0.5}},
    ]
    verdict = {"verdict": "holds", "measured": 0.7, "low": 0.6, "high": 0.8, "null": 0.5, "unit": "share"}
    return {
        "a": {"name": "one/sft", "folder": "runs/one/sft", "kind": "language model"},
        "b": {"name": "two/sft", "folder": "runs/two/sft", "kind": "language model"},
        "notes": [SCRIPT],
        "options": [{"name": "seed", "a": 0, "b": 1}, {"name": "limit", "b": None}],
        "inputs": [{"name": "data", "a": {"path": "/far/away/runs/world/x.jsonl", "sha256": "12345678"}}],
        "versions": [],
        "figures": [{"name": "loss", "a": 2.0, "b": 1.5}, {"name": "validation.by_annotator.Bo", "a": 1.0, "b": 1.0}],
        "metrics": [{"name": "lr", **{side: {"last": 1.0, "low": 0.5, "high": 2.0, "steps": 3} for side in "ab"}}],
        "answers": {
            "prompts": 80,
            "judges": "heldout",
            "sampled": outcome,
            "greedy": {**outcome, "preference": None, "gold": None, "kl": None},
            "examples": [{"group": "won", "rows": [row]}],
        },
        "rankings": {
            "rankings": 30,
            "left_out": 0,
            "pairs": 90,
            "group_by": "annotator",
            "models": models,
            "best": "one/sft",
            "agreement": [{"a": "one/sft", "b": "two/sft", "value": 0.8, "low": 0.7, "high": 0.9}],
            "disputes": [{"id": "r1", "annotator": "Bo", "prompt": row["prompt"], "strength": 1.0, "answers": answers}],
        },
        "evaluations": [
            {
                "model": "ppo",
                "suite": "closed",
                "sampled": measures,
                "greedy": measures[:1],
                "gain": {"sampled": change},
            }
        ],
        "claims": [{"name": "a", "claim": "PPO is preferred.", "a": verdict}],
    }


def test_the_page_shows_all_and_a_model_can_write_no_script() -> None:
    html = comparison_page.page(a_comparison(), [], "amenable compare runs/one/sft runs/two/sft")
    assert SCRIPT not in html and html.count("&lt;script&gt;") >= 5
    assert html.count("<script") == html.count("</script>") == 1
    assert not re.findall(r"https?://|//\w+\.|@import|url\(", html) and "default-src 'none'" in html
    for report in (
        "two/sft against one/sft",
        "62%",
        "+0.50",
        "Rude",
        "PPO is preferred.",
        "✓",
        "open question",
        "rank 2",
    ):
        assert report in html, report
    assert "Annotators who took no part in training judged." in html and "cut off" in html


@pytest.mark.parametrize("width", [60, 110])
def test_the_terminal_tells_the_same(width: int) -> None:
    file = io.StringIO()
    comparison_page.print_comparison(
        a_comparison(), Path("out/compare.html"), Console(file=file, width=width, force_terminal=True)
    )
    report = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert "seed" in report and "world/x.jsonl 1234567" in report and "page: out/compare.html" in report
    assert "by_annotator" not in report, "what nobody watches stays in compare.json"
    assert "a  PPO is preferred.: holds 70% | –" in report
    assert "−0.5" in next(line for line in report.splitlines() if line.strip().startswith("loss"))


def test_the_headline_tells_what_was_measured_and_nothing_else() -> None:
    result = a_comparison()
    rankings = result.pop("rankings")
    result["rankings"] = None
    assert comparison_page.headline(result) == [
        "two/sft is preferred to one/sft on 62% of 80 prompts (55–70%) sampled.",
        "Its gold changes by +0.50 (+0.25 to +0.75) sampled.",
        "It is 1.25 nats an answer away from one/sft (KL, sampled).",
    ]
    result["answers"] = None
    assert comparison_page.headline({**result, "rankings": rankings}) == [
        "one/sft predicts people best: it orders 60% (50–70%) of 90 pairs as they did.",
        "two/sft, paired with it: +50.00 (+25.00 to +75.00) percentage points, not shown to be worse.",
        "one/sft and two/sft agree on 80% of the pairs (70–90%).",
    ]
    assert comparison_page.headline(result) == ["Of 0 claims that both examined, 0 came to the same verdict."]
    result["claims"] = []
    assert comparison_page.headline(result) == ["Both measured PPO."]
    result["evaluations"] = []
    assert comparison_page.headline(result) == ["They differ in 2 options."]
    assert comparison_page.tiles(result) == [] == comparison_page.result_grids(result)


def test_tiles_are_the_preference_and_the_gold() -> None:
    tiles = comparison_page.tiles(a_comparison())
    assert [tile["value"] for tile in tiles] == ["62%", "+0.50"] and tiles[1]["note"] == "+0.25 to +0.75"


def test_an_empty_table_is_left_out() -> None:
    titles = [grid.title for grid in comparison_page.run_grids(a_comparison())]
    assert titles == ["Options that differ", "What went in and differs", "Closing figures", "Metrics"]


@pytest.mark.parametrize(
    ("a", "b", "report"), [(1.0, 1.5, "+0.5"), (1.5, 1.0, "−0.5"), (1.0, 1.0, "0"), (None, 1.0, "")]
)
def test_a_gap_has_its_sign(a: float | None, b: float, report: str) -> None:
    assert comparison_page.difference(a, b, comparison_page.to_text) == report
    assert comparison_page.difference(0.5, 0.501, lambda value: f"{value:.0%}") == "0%", (
        "what rounds to nothing has no sign"
    )
