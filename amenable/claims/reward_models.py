"""Claims i, j: held-out annotators, and the batches of pairs that a reward model learns from."""

from __future__ import annotations

from collections.abc import Callable

from amenable.claims.evidence import Evidence
from amenable.claims.measurements import TOLERANCE, Runs, per_seed, win_rate
from amenable.claims.verdicts import Estimate, Part, Verdict, paired


def held_out_people(runs: Runs) -> Verdict:
    """Decide i: held-out annotators, whose labels trained nothing, agree."""

    def gap(run: Evidence) -> Estimate | None:
        heldout = run.votes("ppo", "sft", judges="heldout")
        training = run.votes("ppo", "sft", judges="training")
        return None if heldout is None or training is None else paired(training, heldout)

    def drop(run: Evidence) -> Estimate | None:
        training = run.interval("reward", "validation.accuracy", "validation.low", "validation.high")
        heldout = run.interval("reward", "heldout.accuracy", "heldout.low", "heldout.high")
        return None if training is None or heldout is None else training.minus(heldout)

    return Verdict(
        "i",
        "Held-out annotators prefer the aligned model as often as those whose labels trained it",
        "held-out labelers prefer it as often; reward model 72.4 % right on its labelers' pairs, 69.6 % on others'",
        (
            Part(
                f"PPO over SFT: training annotators' preference less held-out ones' (within {TOLERANCE:.0%})",
                per_seed(runs, gap),
                TOLERANCE,
                "below",
            ),
            win_rate(runs, "ppo", "sft", "PPO preferred to SFT by held-out annotators"),
            Part(
                "accuracy of the reward model: own annotators less held-out ones (paper: 2.8 points; ours below 10)",
                per_seed(runs, drop),
                0.1,
                "below",
                "accuracy",
                "2.8 points",
            ),
        ),
        ("reward", "evaluate", "evaluate-ppo"),
    )


def pairs_together(runs: Runs) -> Verdict:
    """Decide j: all pairs of a prompt in one batch element, against shuffled pairs."""

    def figure(stage: str, key: str) -> Callable[[Evidence], Estimate | None]:
        return lambda run: run.interval(
            stage,
            f"validation.{key}",
            "validation.low" if key == "accuracy" else "validation.loss_low",
            "validation.high" if key == "accuracy" else "validation.loss_high",
        )

    def gap(key: str, sign: int) -> tuple[Estimate, ...]:
        def difference(run: Evidence) -> Estimate | None:
            by_prompt, shuffled = figure("reward", key)(run), figure("reward-pairs", key)(run)
            if by_prompt is None or shuffled is None:
                return None
            return by_prompt.minus(shuffled) if sign > 0 else shuffled.minus(by_prompt)

        return per_seed(runs, difference)

    return Verdict(
        "j",
        "All K-choose-2 pairs of a prompt as one element do better than shuffled pairs",
        "shuffled pairs overfit in one epoch; together they do not, with better accuracy and loss (section 3.5)",
        (
            Part("validation loss that shuffled pairs cost", gap("loss", -1), unit="nats"),
            Part("accuracy that pairs together gain", gap("accuracy", 1), unit="accuracy", decides=False),
        ),
        ("reward", "reward-pairs"),
    )
