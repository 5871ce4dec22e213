from pathlib import Path

from amenable.claims.stage_folders import read_stages
from amenable.recipes.reports import summary
from amenable.recipes.reports.report_data import Figures, collect


def summary_of(run: Path) -> str:
    stages = read_stages(run)
    return " ".join(summary.summary(collect(stages), stages))


def test_the_summary_tells_the_figures(demo_run: Path) -> None:
    text = summary_of(demo_run)
    assert "claims" not in text, "none was judged"
    assert "In 10 stages and 5 min 19 s of work" in text
    assert (
        "on 62% of prompts (58–66%) when both are sampled and on 55% of prompts (51–59%) when both are greedy" in text
    )
    assert "Both intervals lie above one half." in text
    assert "rises from −0.50 to 0.57 sampled and from 0.70 to 1.18 greedy" in text
    assert "nothing is known from 72% to 36%; rude answers from 12% to 0%" in text
    assert "0.300 bits per byte before, 0.420 after" in text
    assert (
        "never met in 70% (68–73%) of pairs; they agree among themselves in 73%; always preferring the longer" in text
    )


def test_a_summary_without_figures_invents_none(demo_run: Path) -> None:
    for name in ("evaluate", "reward"):
        (demo_run / name).rename(demo_run.parent / name)
    headline, details = summary.summary(collect(read_stages(demo_run)), read_stages(demo_run))
    assert headline.startswith("Not finished: so far a model has gone through 8 of 10 stages")
    assert details == "" and "prefer " not in headline


def test_the_claims_are_counted(claims: list[dict]) -> None:
    sentences = summary.claim_counts({"claims": claims})
    assert sentences == ["Of the papers’ 4 claims, 3 were put to the test: 1 holds, 1 does not, 1 is undecided."]
    assert summary.claim_counts({"claims": claims[:1] * 2}) == [
        "Of the papers’ 2 claims, 2 were put to the test: 2 hold."
    ]
    assert summary.claim_counts({"claims": claims[3:]}) == summary.claim_counts({"claims": []}) == []


def test_of_a_plan_every_stage_counts(demo_run: Path) -> None:
    (demo_run / "plan").mkdir()
    (demo_run / "plan" / "over.yaml").write_text("command: ppo\n")
    assert "has gone through 10 of 11 stages" in summary_of(demo_run)


def row(low: float, high: float) -> Figures:
    return {"low": low, "high": high}


def test_the_verdict_follows_the_intervals() -> None:
    better, level, worse = row(0.51, 0.6), row(0.48, 0.56), row(0.3, 0.4)
    assert summary.verdict({"sampled": better, "greedy": better}) == "Both intervals lie above one half."
    assert "sharpening" in summary.verdict({"sampled": better, "greedy": level})
    assert "no difference" in summary.verdict({"sampled": level, "greedy": level})
    assert (
        summary.verdict({"sampled": better, "greedy": worse}) == "When both are greedy, that is clearly for the worse."
    )
    assert summary.verdict({"sampled": better}) == ""


def test_gold_that_falls_is_called_falling() -> None:
    assert (summary.trend(0.5, 0.4), summary.trend(0.4, 0.5), summary.trend(0.501, 0.502)) == (
        "falls",
        "rises",
        "stays",
    )


def test_a_judge_that_was_trained_on_is_no_evidence() -> None:
    chance = summary.training_judge_warning({"reward_model": {"accuracy_heldout_annotators_low": 0.47}}, "PPO")
    assert "not that people would agree" in chance and "no better than chance" in chance
    better = summary.training_judge_warning({"reward_model": {"accuracy_heldout_annotators_low": 0.6}}, "PPO")
    assert "not that people would agree" in better and "chance" not in better
