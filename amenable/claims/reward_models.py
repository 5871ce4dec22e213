"""Claims i, j: held-out annotators, and the batches of pairs that a reward model learns from."""

from __future__ import annotations

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

    def figure(run: Evidence, stage: str, key: str) -> Estimate | None:
        prefix = "" if key == "accuracy" else "loss_"
        return run.interval(stage, f"validation.{key}", f"validation.{prefix}low", f"validation.{prefix}high")

    def gap(key: str, higher: str, lower: str) -> tuple[Estimate, ...]:
        def difference(run: Evidence) -> Estimate | None:
            high, low = figure(run, higher, key), figure(run, lower, key)
            return None if high is None or low is None else high.minus(low)

        return per_seed(runs, difference)

    loss, accuracy = gap("loss", "reward-pairs", "reward"), gap("accuracy", "reward", "reward-pairs")
    return Verdict(
        "j",
        "All K-choose-2 pairs of a prompt as one element do better than shuffled pairs",
        "shuffled pairs overfit in one epoch; together they do not, with better accuracy and loss (section 3.5)",
        (
            Part("validation loss that shuffled pairs cost", loss, unit="nats"),
            Part("accuracy that pairs together gain", accuracy, unit="accuracy", decides=False),
        ),
        ("reward", "reward-pairs"),
    )
