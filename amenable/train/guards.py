"""Guards: what a run's own numbers say about its health, looked at after every step.

A check knows by name the metrics it reads and is silent where a stage has none of them. What it finds is a warning,
said once and counted. Three things stop the run: a number that is not finite, a KL that stays above the limit, and a
price on KL that is gone. All that the checks remember follows from the rows of metrics.jsonl alone, so a run that goes
on after a stop reads them again and ends with the same summary.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, median, pstdev
from typing import Any

START = 5
"""steps whose mean is what a run began with: one step of PPO alone scatters by a tenth"""
RECENT = 5
"""steps whose mean is where a run stands: the same number, so that both means scatter alike"""
MEMORY = 20
"""steps that a norm is compared with: their median shrugs off a few odd ones"""
EMPTY_BELOW = 0.9
"""share of held-out prompts whose empty answer scores below the mean of the given ones: 0.5 is chance"""
MAX_KL_STEPS = 3
"""a limit on KL stops the run after so many measurements above it in a row: one odd batch should not"""
FAR = 10.0
"""nats a response from the reference: as far as the best of exp(10 + 1) = 60,000 answers is, by log n - (n - 1) / n"""
FAR_A_TOKEN = 0.1
"""long answers may be further away, as each token adds its own"""
FALLEN = 12.0
"""nats by which chosen answers have become less likely: in our runs of the closed world it is 10, and 15 in a run that
had gone too far"""
FLAT_SCORES = 1e-3
"""scores that differ by less than this order nothing: those of a reward model are around 1 in size"""
FLAT_ADVANTAGES = 1e-4
"""advantages are divided by their standard deviation; below this it is mostly rounding that is made large"""
ENTROPY_LEFT = 0.5
"""share of the entropy at the start: with a price on KL 0.76 to 0.95 was left in our runs, without one 0.02 to 0.38"""
MAX_TRUNCATED = 0.5
"""share of answers cut by the length limit from which on the limit decides what is learned"""
SHORT = 1.5
"""mean tokens of an answer, EOS among them: at or below this half of them have one token. In an answer that ended by
itself that token is EOS; in one cut by a length limit of one token it is not"""
CLIPPED = 0.5
"""share of tokens whose update is clipped: in our runs it stayed below 0.05; at half, most of a batch is wasted"""
RATIO_GAP = 0.05
"""nats a token between sampler and trainer before any update: ours were 0.0003 in bf16, and 0.03 with thirty layers"""
CRITIC_GRACE_STEPS = 10
"""a critic starts as a reward model and needs some steps to explain any variance: up to 7 in our runs"""
SPIKE = 10.0
"""times the median of the last steps: healthy gradients reached 3 times it, losses 4 times"""
DIVERGENCE_SIGMAS = 2.0
"""standard errors by which the trained score must have risen and the watching one fallen: one of them may happen by
luck, both at once and two steps in a row hardly"""


@dataclass
class History:
    """The latest row, and what is remembered of the rows before it."""

    row: dict[str, float] = field(default_factory=dict)
    first: dict[str, list[float]] = field(default_factory=dict)
    last: dict[str, deque[float]] = field(default_factory=dict)

    def take(self, values: dict[str, Any]) -> None:
        """Take in a row; only numbers count."""
        self.row = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
        for key, value in self.row.items():
            first = self.first.setdefault(key, [])
            if len(first) < START:
                first.append(value)
            self.last.setdefault(key, deque(maxlen=MEMORY)).append(value)

    def recent(self, key: str) -> list[float]:
        """The values of the last few steps, the latest included."""
        return list(self.last[key])[-RECENT:]

    def change(self, key: str) -> float:
        """How far the mean has moved since the start, in standard errors of that difference; 0 while too early."""
        values = list(self.last[key])
        if len(values) < START + RECENT:
            return 0.0
        start, now = self.first[key], values[-RECENT:]
        error = math.sqrt((pstdev(start) ** 2 + pstdev(now) ** 2) / RECENT)
        return (fmean(now) - fmean(start)) / max(error, 1e-9)

    def spiked(self, key: str) -> bool:
        """Whether the latest value is many times the median of those before."""
        before = list(self.last[key])[:-1]
        return len(before) >= MEMORY // 2 and self.row[key] > SPIKE * max(median(before), 1e-12)


@dataclass(frozen=True)
class Check:
    """One thing that can go wrong."""

    name: str
    keys: tuple[str, ...]
    """metrics that it reads: rows without one of them are passed over"""
    wrong: Callable[[History], bool]
    warning: str
    how: str
    fine: str
    patience: int = 1
    """steps in a row that it must be wrong for"""
    needs: int = 1
    """steps before it can tell anything: a shorter run is not called fine"""


def checks() -> list[Check]:
    """Everything that is looked at, the rewards first."""
    return [
        Check(
            "scores differ",
            ("objective/scores_std",),
            lambda history: history.row["objective/scores_std"] < FLAT_SCORES,
            "all answers of a step get the same score: the reward is constant or saturated",
            "look at the reward model's accuracy and at --score-clip; answers may also have become all alike",
            "the reward tells answers apart",
        ),
        Check(
            "advantages differ",
            ("objective/advantages_std",),
            lambda history: history.row["objective/advantages_std"] < FLAT_ADVANTAGES,
            "advantages hardly differ before they are standardised, so that noise is what is learned",
            "the reward says nothing new: stop here, or look whether the answers have become all alike",
            "advantages differ",
        ),
        Check(
            "KL",
            ("objective/kl", "completions/mean_length"),
            lambda history: (
                history.row["objective/kl"] > max(FAR, FAR_A_TOKEN * history.row["completions/mean_length"])
            ),
            f"the policy is more than {FAR:.0f} nats a response (and {FAR_A_TOKEN} a token) from its reference: little "
            "may be left of what it knew",
            "raise --kl-coef (dpo: --beta), lower the learning rate, train for less, or set --max-kl",
            "the policy stays near its reference",
        ),
        Check(
            "chosen answers",
            ("logratios/chosen", "rewards/margins"),
            displaced,
            f"the chosen answers have become less likely by more than {FALLEN:.0f} nats while the margins rose: "
            "likelihood displacement",
            "lower the learning rate, train for less, raise --beta, or use pairs that differ more (--pairs best-worst)",
            "the chosen answers stay likely",
            needs=RECENT,
        ),
        Check(
            "entropy",
            ("policy/entropy_avg",),
            lambda history: collapsed(history, "policy/entropy_avg"),
            f"the policy's entropy fell below {ENTROPY_LEFT:.0%} of what it was: answers become all alike",
            "raise --kl-coef, lower the learning rate, or add --entropy-coef",
            "entropy holds",
            patience=2,
            needs=START + RECENT,
        ),
        Check(
            "answers end",
            ("completions/clipped_ratio",),
            lambda history: MAX_TRUNCATED < history.row["completions/clipped_ratio"] < 1,
            f"more than {MAX_TRUNCATED:.0%} of the answers are cut by the length limit",
            "raise --max-new-tokens, or --missing-eos-penalty so that answers learn to end",
            "most answers end by themselves",
        ),
        Check(
            "EOS is said",
            ("completions/clipped_ratio",),
            lambda history: history.row["completions/clipped_ratio"] == 1,
            "no answer ends: all of them reach the length limit, EOS is never said",
            "raise --max-new-tokens; see that fine-tuning trained EOS (its first_batch.html shows it)",
            "EOS is said",
        ),
        Check(
            "answers say something",
            ("completions/mean_length", "completions/clipped_ratio"),
            lambda history: (
                history.row["completions/mean_length"] <= SHORT
                and history.row["completions/clipped_ratio"] <= MAX_TRUNCATED
            ),
            "half of the answers or more are empty: EOS comes at once",
            "see what the reward model thinks of empty answers; raise --kl-coef",
            "answers are not empty",
        ),
        Check(
            "critic",
            ("value/explained_variance",),
            lambda history: history.row["value/explained_variance"] < 0,
            f"the critic explained less than nothing of the returns for {CRITIC_GRACE_STEPS} steps in a row",
            "raise --critic-learning-rate, --num-ppo-epochs or --cliprange-value",
            "the critic explains the returns",
            patience=CRITIC_GRACE_STEPS,
            needs=CRITIC_GRACE_STEPS,
        ),
        Check(
            "clipping",
            ("policy/clipfrac_avg",),
            lambda history: history.row["policy/clipfrac_avg"] > CLIPPED,
            f"more than {CLIPPED:.0%} of the tokens' updates are clipped: the policy moves too far in one step",
            "lower the learning rate or --num-ppo-epochs, or set --target-kl",
            "few updates are clipped",
        ),
        Check(
            "ratio",
            ("sampling/logp_difference",),
            lambda history: history.row["sampling/logp_difference"] > RATIO_GAP,
            f"sampler and trainer differ by more than {RATIO_GAP} nats a token before any update",
            "compute in fp32, and see that both use the same temperature and template",
            "sampler and trainer agree",
        ),
        Check(
            "a second opinion",
            ("objective/scores", "eval_rm/score"),
            rewards_diverge,
            "the score that is trained on rises while that of the watching reward model falls: likely reward hacking",
            "stop earlier (--keep-weights score), raise --kl-coef, or train the reward model on answers of this policy",
            "the watching reward model does not disagree",
            patience=2,
            needs=START + RECENT,
        ),
        Check(
            "empty answers",
            ("eval/empty_below",),
            lambda history: history.row["eval/empty_below"] < EMPTY_BELOW,
            f"an empty answer scores above the mean of the given ones on more than {1 - EMPTY_BELOW:.0%} of the "
            "held-out prompts: a policy that pleases this model may learn to say nothing",
            "train on rankings in which an empty completion is the worst (annotate --empty-share 0.1 makes some)",
            "an empty answer scores low",
        ),
        *(spike(key, name) for key, name in NORMS),
    ]


NORMS = (("loss", "loss"), ("grad_norm", "gradient"), ("policy/grad_norm", "policy's gradient"))
"""what must not jump. The critic's gradient is let alone: it is large until the critic knows the rewards"""


def spike(key: str, name: str) -> Check:
    return Check(
        f"{name} is steady",
        (key,),
        lambda history: history.spiked(key),
        f"the {name} jumped to more than {SPIKE:.0f} times its usual size",
        "lower the learning rate or lengthen the warm-up; look at the rows of that step",
        f"no jump of the {name}",
        needs=MEMORY // 2 + 1,
    )


def collapsed(history: History, key: str) -> bool:
    """Whether little is left of what there was at the start."""
    early = len(history.last[key]) < START + RECENT
    return not early and fmean(history.recent(key)) < ENTROPY_LEFT * fmean(history.first[key])


def displaced(history: History) -> bool:
    """Whether the rejected answers were pushed down together with the chosen ones (Razin et al., 2025)."""
    risen = fmean(history.recent("rewards/margins")) > fmean(history.first["rewards/margins"])
    return risen and fmean(history.recent("logratios/chosen")) < -FALLEN


def rewards_diverge(history: History) -> bool:
    """Whether the trained score has risen since the start and the watching one fallen, both beyond their scatter."""
    return (
        history.change("objective/scores") > DIVERGENCE_SIGMAS and history.change("eval_rm/score") < -DIVERGENCE_SIGMAS
    )


@dataclass
class Finding:
    """What a check has seen so far."""

    looked: int = 0
    streak: int = 0
    times: int = 0
    first_step: int = 0


class Guards:
    """All checks of one run and what they have found."""

    def __init__(self, max_kl: float = 0.0, max_kl_steps: int = MAX_KL_STEPS):
        self.max_kl, self.max_kl_steps, self.over = max_kl, max_kl_steps, 0
        self.history = History()
        self.found = {check.name: (check, Finding()) for check in checks()}

    def look(self, step: int, values: dict[str, Any]) -> list[str]:
        """Take in the row of a step and return what is to be said now: each warning the first time it is true."""
        self.history.take(values)
        said = []
        for check, finding in self.found.values():
            if not all(key in self.history.row for key in check.keys):
                continue
            finding.looked += 1
            finding.streak = finding.streak + 1 if check.wrong(self.history) else 0
            if finding.streak >= check.patience:
                finding.times += 1
                if finding.times == 1:
                    finding.first_step = step
                    said.append(f"step {step}: {check.warning}; {check.how}")
        if "objective/kl" in self.history.row:  # some stages measure it now and then
            self.over = self.over + 1 if self.max_kl and self.history.row["objective/kl"] > self.max_kl else 0
        return said

    def fatal(self, step: int, values: dict[str, Any]) -> tuple[str, str] | None:
        """What must stop the run at once, and what to try; None where nothing must. Call it after `look`."""
        for key in ("loss", "loss/policy_avg", "loss/value_avg", "loss/ptx"):
            if key in values and not math.isfinite(float(values[key])):
                return f"{key} is {float(values[key])} at step {step}", LOWER
        coefficient, first = values.get("objective/kl_coef"), self.history.first.get("objective/kl_coef", [0.0])[0]
        if coefficient is not None and not (coefficient > 0 or coefficient == first == 0):
            what = f"objective/kl_coef is {float(coefficient)} at step {step}: leaving the reference would cost nothing"
            return what, "set --adaptive-kl-target 0, or raise --kl-horizon"
        if self.over >= self.max_kl_steps:
            times = f"{self.over} times in a row, " if self.over > 1 else ""
            what = f"objective/kl was above --max-kl {self.max_kl:g} {times}up to step {step}"
            return what, "raise --kl-coef (dpo: --beta), lower the learning rate, or raise --max-kl"
        return None

    def health(self) -> dict[str, Any]:
        """What was looked at and is fine, and the warnings with how often and since when."""
        looked = [(check, finding) for check, finding in self.found.values() if finding.looked >= check.needs]
        return {
            "fine": [check.fine for check, finding in looked if not finding.times],
            "warnings": [
                {
                    "what": check.warning,
                    "how": check.how,
                    "check": check.name,
                    "steps": finding.times,
                    "of": finding.looked,
                    "first_step": finding.first_step,
                }
                for check, finding in looked
                if finding.times
            ],
        }


LOWER = "lower the learning rate, lengthen the warm-up, or look at the rows named in stopped.json"
"""what to try where numbers are not finite"""


def lines(health: dict[str, Any]) -> list[tuple[bool, str]]:
    """The summary as lines to show, each with whether it is good news: all that is fine in one line, then warnings."""
    told = [(True, ", ".join(health["fine"]))] if health["fine"] else []
    return told + [(False, told_warning(warning)) for warning in health["warnings"]]


def told_warning(warning: dict[str, Any]) -> str:
    """A warning in one sentence, with its counts."""
    times = f"{warning['steps']} of {warning['of']} steps, first at {warning['first_step']}"
    return f"{warning['what']} ({times}); {warning['how']}"
