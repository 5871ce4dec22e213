"""Report of a stage: its title, facts and charts, which each stage module declares as `REPORT`."""

from __future__ import annotations

from dataclasses import dataclass

Curve = tuple[str, tuple[tuple[str, str], ...]]
"""chart: title, and (metric, label) of each line"""


@dataclass(frozen=True)
class StageReport:
    """Title, summary in a sentence, facts and charts of a stage."""

    title: str
    summary: str
    spark: str = ""
    """metric of the sparkline, if any"""
    facts: tuple[tuple[str, str], ...] = ()
    """(label, key in finished.json), most important first; without any, the first numbers are shown"""
    curves: tuple[Curve, ...] = ()
    matrix: str = ""
    """key in finished.json of an object with `labels` and a `confusion` matrix, a row a label, if any"""


SCORE_AND_KL: tuple[Curve, ...] = (
    ("Score from the reward model", (("objective/scores", "samples"), ("eval/score", "held out"))),
    ("KL to SFT, nats an answer", (("objective/kl", "samples"), ("eval/kl", "held out"))),
    ("KL coefficient", (("objective/kl_coef", "coefficient"),)),
    ("Entropy, nats an answer", (("objective/entropy", "entropy"),)),
    ("Length, tokens", (("completions/mean_length", "length"),)),
    ("Share of answers cut by the length limit", (("completions/clipped_ratio", "cut"),)),
    ("Clip fraction", (("policy/clipfrac_avg", "policy"),)),
    ("Explained variance of the critic", (("value/explained_variance", "critic"),)),
)
"""charts of every online algorithm; one without a critic has no points in the last"""


def online_report(title: str, summary: str) -> StageReport:
    """Return the report of an online algorithm."""
    facts = (("score", "objective/scores"), ("KL, nats", "objective/kl"), ("step kept", "selected_step"))
    return StageReport(title, summary, "objective/scores", facts, SCORE_AND_KL)


def offline_report(title: str, summary: str) -> StageReport:
    """Return the report of a policy's offline training on what people prefer."""
    facts = (("accuracy", "rewards/accuracies"), ("margin", "rewards/margins"), ("KL, nats", "objective/kl"))
    curves = (
        ("Loss", (("loss", "training"), ("eval/loss", "held out"))),
        ("Accuracy", (("rewards/accuracies", "training"), ("eval/accuracy", "held out"))),
        ("Margin of the implicit reward", (("rewards/margins", "margin"),)),
        ("KL to SFT, nats a completion", (("objective/kl", "held out"),)),
    )
    return StageReport(title, summary, "loss", facts, curves)
