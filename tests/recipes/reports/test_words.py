from pathlib import Path

from amenable.claims.stage_folders import read_stages
from amenable.recipes.reports import words
from amenable.recipes.reports.report_data import Figures, figures_of


def told(run: Path) -> str:
    stages = read_stages(run)
    return " ".join(words.summary(figures_of(stages), stages))


def test_numbers_as_people_write_them() -> None:
    assert [words.plain(value) for value in (-0.5, 0.004, -0.004, None)] == ["−0.50", "0.00", "0.00", "–"]
    assert [words.signed(value) for value in (1.07, -0.3, 0.0)] == ["+1.07", "−0.30", "0.00"]
    assert (words.percent(0.625), words.percent(0.0), words.percent(None)) == ("62%", "0%", "–")
    assert (words.span(0.58, 0.66), words.span(None, 0.5)) == ("58–66%", "")
    assert [words.amount(value) for value in (2_012_345, 12_345, 0.3012, 3.83, 402_112.5)] == [
        "2.0 million",
        "12,345",
        "0.301",
        "3.83",
        "402,112.5",
    ]


def test_durations() -> None:
    assert [words.duration(value) for value in (0.94, 9.96, 41, 59.9, 60, 451, 3600 + 125, None)] == [
        "0.9 s",
        "10 s",
        "41 s",
        "1 min 0 s",
        "1 min 0 s",
        "7 min 31 s",
        "1 h 2 min",
        "–",
    ]


def test_the_summary_tells_the_figures(demo_run: Path) -> None:
    text = told(demo_run)
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
    headline, rest = words.summary(figures_of(read_stages(demo_run)), read_stages(demo_run))
    assert headline.startswith("Not finished: so far a model has gone through 8 of 10 stages")
    assert rest == "" and "prefer " not in headline


def test_the_claims_are_counted(claims: list[dict]) -> None:
    told = words.claims({"claims": claims})
    assert told == ["Of the papers’ 4 claims, 3 were put to the test: 1 holds, 1 does not, 1 is undecided."]
    assert words.claims({"claims": claims[:1] * 2}) == ["Of the papers’ 2 claims, 2 were put to the test: 2 hold."]
    assert words.claims({"claims": claims[3:]}) == words.claims({"claims": []}) == []


def test_of_a_plan_every_stage_counts(demo_run: Path) -> None:
    (demo_run / "plan").mkdir()
    (demo_run / "plan" / "over.yaml").write_text("command: ppo\n")
    assert "has gone through 10 of 11 stages" in told(demo_run)


def test_values_in_their_units() -> None:
    assert [words.in_unit(value, "share") for value in (0.625, -0.034, 0.0, None)] == ["62%", "−3.4%", "0%", "–"]
    assert [words.in_unit(0.2461, unit) for unit in ("bits", "gold", "accuracy")] == ["0.246", "0.25", "25%"]


def row(low: float, high: float) -> Figures:
    return {"low": low, "high": high}


def test_the_verdict_follows_the_intervals() -> None:
    better, level, worse = row(0.51, 0.6), row(0.48, 0.56), row(0.3, 0.4)
    assert words.verdict({"sampled": better, "greedy": better}) == "Both intervals lie above one half."
    assert "sharpening" in words.verdict({"sampled": better, "greedy": level})
    assert "no difference" in words.verdict({"sampled": level, "greedy": level})
    assert words.verdict({"sampled": better, "greedy": worse}) == "When both are greedy, that is clearly for the worse."
    assert words.verdict({"sampled": better}) == ""


def test_gold_that_falls_is_said_to_fall() -> None:
    assert (words.moved(0.5, 0.4), words.moved(0.4, 0.5), words.moved(0.501, 0.502)) == ("falls", "rises", "stays")


def test_a_judge_that_was_trained_on_is_no_evidence() -> None:
    chance = words.own_judge({"reward_model": {"accuracy_heldout_annotators_low": 0.47}}, "PPO")
    assert "not that people would agree" in chance and "no better than chance" in chance
    better = words.own_judge({"reward_model": {"accuracy_heldout_annotators_low": 0.6}}, "PPO")
    assert "not that people would agree" in better and "chance" not in better
