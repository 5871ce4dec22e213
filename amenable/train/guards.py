"""Guards: checks of a run's health, on its metrics after every step.

A check names the metrics that it reads, and skips stages without them. A failed check is a warning, printed once and
counted. Three failures stop the run: a loss that is not finite, a KL that stays above the limit, and a KL coefficient
that is no longer positive. The checks' state depends on the rows of metrics.jsonl alone: a run that resumes reads them
again and ends with the same summary.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, median, pstdev
from typing import Any

START = 5
"""first steps whose mean is a metric's initial value: a single step of PPO varies by a tenth"""
RECENT = 5
"""last steps whose mean is its current value: as many, for an equal standard error"""
MEMORY = 20
"""steps whose median a norm is compared with: a few outliers do not move it"""
EMPTY_BELOW = 0.9
"""least share of held-out prompts whose empty completion scores below the mean of the others: 0.5 is chance"""
MAX_KL_STEPS = 3
"""consecutive measurements above the limit on KL that stop the run: one odd batch should not"""
FAR = 10.0
"""nats a completion from the reference: as the best of exp(10 + 1) = 60,000 samples, by log n - (n - 1) / n"""
FAR_A_TOKEN = 0.1
"""nats a token from the reference: each token adds KL, so long completions may be further away"""
FALLEN = 12.0
"""nats by which chosen completions became less likely: 10 in our runs of the closed world, 15 in one that went too far
"""
FLAT_SCORES = 1e-3
"""least standard deviation of scores that rank anything: those of a reward model are around 1 in size"""
FLAT_ADVANTAGES = 1e-4
"""least standard deviation of advantages: dividing by less than this amplifies rounding errors"""
ENTROPY_LEFT = 0.5
"""least share of the initial entropy: our runs kept 0.76 to 0.95 with a KL penalty, 0.02 to 0.38 without one"""
MAX_TRUNCATED = 0.5
"""largest share of completions cut by the length limit: above it the limit decides what is learned"""
SHORT = 1.5
"""mean completion length in tokens, EOS included, at or below which half of the completions have one token: EOS, unless
the length limit is one token"""
CLIPPED = 0.5
"""largest share of tokens whose update is clipped: below 0.05 in our runs; at half most of a batch is wasted"""
STALENESS = "sampling/staleness"
"""metric of runs that learn from an older policy's answers: from the second step on these differ for that reason"""
RATIO_GAP = 0.05
"""largest difference of sampler and trainer before any update, in nats a token: ours had 0.0003 in bf16, 0.03 with
thirty layers"""
CRITIC_GRACE_STEPS = 10
"""steps that a critic, which starts as a reward model, may take to explain any variance: up to 7 in our runs"""
SPIKE = 10.0
"""multiple of the median of the last steps: healthy gradients reached 3, losses 4"""
DIVERGENCE_SIGMAS = 2.0
"""standard errors by which the trained score must have risen and the monitor's fallen: either alone may be chance, both
in two consecutive steps hardly"""


@dataclass
class History:
    """Latest row of metrics, and the first and last values of every metric."""

    row: dict[str, float] = field(default_factory=dict)
    first: dict[str, list[float]] = field(default_factory=dict)
    last: dict[str, deque[float]] = field(default_factory=dict)

    def append(self, values: dict[str, Any]) -> None:
        """Add a row; values that are not numbers are ignored."""
        self.row = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
        for key, value in self.row.items():
            first = self.first.setdefault(key, [])
            if len(first) < START:
                first.append(value)
            self.last.setdefault(key, deque(maxlen=MEMORY)).append(value)

    def recent(self, key: str) -> list[float]:
        """Return the values of the last RECENT steps."""
        return list(self.last[key])[-RECENT:]

    def change(self, key: str) -> float:
        """Return the change of the mean since the start, in standard errors; 0 in the first steps."""
        values = list(self.last[key])
        if len(values) < START + RECENT:
            return 0.0
        start, now = self.first[key], values[-RECENT:]
        error = math.sqrt((pstdev(start) ** 2 + pstdev(now) ** 2) / RECENT)
        return (fmean(now) - fmean(start)) / max(error, 1e-9)

    def spiked(self, key: str) -> bool:
        """Return True if the latest value is above SPIKE times the median of those before."""
        before = list(self.last[key])[:-1]
        return len(before) >= MEMORY // 2 and self.row[key] > SPIKE * max(median(before), 1e-12)


@dataclass(frozen=True)
class Check:
    """Health check: a condition on the metrics, the warning if it fails, and the summary if it passes."""

    name: str
    keys: tuple[str, ...]
    """metrics that it reads; rows without one of them are skipped"""
    failed: Callable[[History], bool]
    warning: str
    hint: str
    passed: str
    patience: int = 1
    """consecutive steps that it must fail for"""
    min_steps: int = 1
    """steps before it can fail: a shorter run does not pass it"""


def checks() -> list[Check]:
    """Return all checks, those of rewards first."""
    return [
        Check(
            "scores differ",
            ("objective/scores_std",),
            lambda history: history.row["objective/scores_std"] < FLAT_SCORES,
            "all answers of a step get the same score: the reward is constant or saturated",
            "check the reward model's accuracy and --score-clip; the answers may also have become identical",
            "scores differ between answers",
        ),
        Check(
            "advantages differ",
            ("objective/advantages_std",),
            lambda history: history.row["objective/advantages_std"] < FLAT_ADVANTAGES,
            "advantages hardly differ before they are standardized: noise is learned",
            "the reward has no more information: stop here, or check whether the answers have become identical",
            "advantages differ",
        ),
        Check(
            "KL",
            ("objective/kl", "completions/mean_length"),
            lambda history: (
                history.row["objective/kl"] > max(FAR, FAR_A_TOKEN * history.row["completions/mean_length"])
            ),
            f"the policy is more than {FAR:.0f} nats a response (and {FAR_A_TOKEN} a token) from its reference: it may "
            "have lost most of what the reference knew",
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
            min_steps=RECENT,
        ),
        Check(
            "entropy",
            ("policy/entropy_avg",),
            lambda history: collapsed(history, "policy/entropy_avg"),
            f"the policy's entropy fell below {ENTROPY_LEFT:.0%} of its initial value: answers become identical",
            "raise --kl-coef, lower the learning rate, or add --entropy-coef",
            "entropy holds",
            patience=2,
            min_steps=START + RECENT,
        ),
        Check(
            "answers end",
            ("completions/clipped_ratio",),
            lambda history: MAX_TRUNCATED < history.row["completions/clipped_ratio"] < 1,
            f"more than {MAX_TRUNCATED:.0%} of the answers are cut by the length limit",
            "raise --max-new-tokens, or raise --missing-eos-penalty to train on ending",
            "most answers end before the length limit",
        ),
        Check(
            "EOS is produced",
            ("completions/clipped_ratio",),
            lambda history: history.row["completions/clipped_ratio"] == 1,
            "no answer ends: all reach the length limit without EOS",
            "raise --max-new-tokens; check that fine-tuning trained EOS (its first_batch.html shows it)",
            "EOS is produced",
        ),
        Check(
            "answers are not empty",
            ("completions/mean_length", "completions/clipped_ratio"),
            lambda history: (
                history.row["completions/mean_length"] <= SHORT
                and history.row["completions/clipped_ratio"] <= MAX_TRUNCATED
            ),
            "half of the answers or more are empty: EOS is their first token",
            "check the reward model's score of empty answers; raise --kl-coef",
            "answers are not empty",
        ),
        Check(
            "critic",
            ("value/explained_variance",),
            lambda history: history.row["value/explained_variance"] < 0,
            f"the critic's explained variance was negative for {CRITIC_GRACE_STEPS} consecutive steps",
            "raise --critic-learning-rate, --num-ppo-epochs or --cliprange-value",
            "the critic explains the returns",
            patience=CRITIC_GRACE_STEPS,
            min_steps=CRITIC_GRACE_STEPS,
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
            lambda history: history.row["sampling/logp_difference"] > RATIO_GAP and not history.row.get(STALENESS),
            f"sampler and trainer differ by more than {RATIO_GAP} nats a token before any update",
            "compute in fp32, and check that both use the same temperature and template",
            "sampler and trainer agree",
        ),
        Check(
            "reward models agree",
            ("objective/scores", "eval_rm/score"),
            rewards_diverge,
            "the trained score rises while that of --eval-reward-model falls: likely reward hacking",
            "stop earlier (--keep-weights score), raise --kl-coef, or train the reward model on answers of this policy",
            "the score of --eval-reward-model does not fall",
            patience=2,
            min_steps=START + RECENT,
        ),
        Check(
            "empty answers",
            ("eval/empty_below",),
            lambda history: history.row["eval/empty_below"] < EMPTY_BELOW,
            f"an empty answer scores above the mean of the others on more than {1 - EMPTY_BELOW:.0%} of the held-out "
            "prompts: a policy trained on this reward may learn empty answers",
            "train on rankings in which an empty completion is the worst (annotate --empty-share 0.1 adds some)",
            "an empty answer scores low",
        ),
        *(spike(key, name) for key, name in NORMS),
    ]


NORMS = (("loss", "loss"), ("grad_norm", "gradient"), ("policy/grad_norm", "policy's gradient"))
"""metrics that must not jump. Not the critic's gradient, which is large until the critic knows the rewards"""


def spike(key: str, name: str) -> Check:
    return Check(
        f"{name} is steady",
        (key,),
        lambda history: history.spiked(key),
        f"the {name} jumped to more than {SPIKE:.0f} times its usual size",
        "lower the learning rate or lengthen the warm-up; check the rows of that step",
        f"no jump of the {name}",
        min_steps=MEMORY // 2 + 1,
    )


def collapsed(history: History, key: str) -> bool:
    """Return True if less than ENTROPY_LEFT of a metric's initial value is left."""
    early = len(history.last[key]) < START + RECENT
    return not early and fmean(history.recent(key)) < ENTROPY_LEFT * fmean(history.first[key])


def displaced(history: History) -> bool:
    """Return True for likelihood displacement: margins rise while chosen completions lose likelihood (Razin et al.,
    2025)."""
    risen = fmean(history.recent("rewards/margins")) > fmean(history.first["rewards/margins"])
    return risen and fmean(history.recent("logratios/chosen")) < -FALLEN


def rewards_diverge(history: History) -> bool:
    """Return True if the trained score rose since the start and the monitor's fell, both by DIVERGENCE_SIGMAS."""
    return (
        history.change("objective/scores") > DIVERGENCE_SIGMAS and history.change("eval_rm/score") < -DIVERGENCE_SIGMAS
    )


@dataclass
class Finding:
    """Counts of one check: steps checked, consecutive failures, steps with a warning, and the first of these."""

    checked: int = 0
    streak: int = 0
    warned: int = 0
    first_step: int = 0


class Guards:
    """All checks of one run and their findings."""

    def __init__(self, max_kl: float = 0.0, max_kl_steps: int = MAX_KL_STEPS):
        self.max_kl, self.max_kl_steps, self.over = max_kl, max_kl_steps, 0
        self.history = History()
        self.findings = [(check, Finding()) for check in checks()]

    def observe(self, step: int, values: dict[str, Any]) -> list[str]:
        """Check the metrics of a step; return the warnings that are new."""
        self.history.append(values)
        warnings = []
        for check, finding in self.findings:
            if not all(key in self.history.row for key in check.keys):
                continue
            finding.checked += 1
            finding.streak = finding.streak + 1 if check.failed(self.history) else 0
            if finding.streak >= check.patience:
                finding.warned += 1
                if finding.warned == 1:
                    finding.first_step = step
                    warnings.append(f"step {step}: {check.warning}; {check.hint}")
        if "objective/kl" in self.history.row:  # some stages do not measure it in every step
            self.over = self.over + 1 if self.max_kl and self.history.row["objective/kl"] > self.max_kl else 0
        return warnings

    def fatal(self, step: int, values: dict[str, Any]) -> tuple[str, str] | None:
        """Return a failure that must stop the run, and a hint; None if there is none. Call it after `observe`."""
        for key in ("loss", "loss/policy_avg", "loss/value_avg", "loss/ptx"):
            if key in values and not math.isfinite(float(values[key])):
                return f"{key} is {float(values[key])} at step {step}", LOWER
        coefficient, first = values.get("objective/kl_coef"), self.history.first.get("objective/kl_coef", [0.0])[0]
        if coefficient is not None and not (coefficient > 0 or coefficient == first == 0):
            failure = f"objective/kl_coef is {float(coefficient)} at step {step}: there is no KL penalty any more"
            return failure, "set --adaptive-kl-target 0, or raise --kl-horizon"
        if self.over >= self.max_kl_steps:
            times = f"{self.over} times in a row, " if self.over > 1 else ""
            failure = f"objective/kl was above --max-kl {self.max_kl:g} {times}up to step {step}"
            return failure, "raise --kl-coef (dpo: --beta), lower the learning rate, or raise --max-kl"
        return None

    def health(self) -> dict[str, Any]:
        """Return the summary for finished.json: checks that passed, and warnings with their number and first step."""
        checked = [(check, finding) for check, finding in self.findings if finding.checked >= check.min_steps]
        return {
            "fine": [check.passed for check, finding in checked if not finding.warned],
            "warnings": [
                {
                    "what": check.warning,
                    "how": check.hint,
                    "check": check.name,
                    "steps": finding.warned,
                    "of": finding.checked,
                    "first_step": finding.first_step,
                }
                for check, finding in checked
                if finding.warned
            ],
        }


LOWER = "lower the learning rate, lengthen the warm-up, or check the rows named in stopped.json"
"""hint for numbers that are not finite"""


def lines(health: dict[str, Any]) -> list[tuple[bool, str]]:
    """Return the summary as (passed, text) lines: all that passed in one, then the warnings."""
    passed = [(True, ", ".join(health["fine"]))] if health["fine"] else []
    return passed + [(False, warning_line(warning)) for warning in health["warnings"]]


def warning_line(warning: dict[str, Any]) -> str:
    """Return a warning as a sentence, with its counts."""
    times = f"{warning['steps']} of {warning['of']} steps, first at {warning['first_step']}"
    return f"{warning['what']} ({times}); {warning['how']}"
