"""Claims g, h: the alignment tax on raw text and few-shot tasks, and PPO-ptx, which pays it back."""

from __future__ import annotations

from amenable.claims.measurements import TOLERANCE, Runs, per_seed, win_rate
from amenable.claims.verdicts import Estimate, Part, Verdict


def tax(runs: Runs) -> Verdict:
    """Decide g: the alignment tax, the cost of alignment on raw text and few-shot tasks."""

    def loss(task: str | None = None) -> tuple[Estimate, ...]:
        return per_seed(runs, lambda run: run.accuracy("ppo", "base", task))

    passages = "accuracy that PPO loses on questions about passages, a task as SQuAD is"
    return Verdict(
        "g",
        "The alignment tax: raw text and few-shot tasks get worse under PPO",
        "PPO falls behind GPT-3 on SQuAD, DROP, HellaSwag and translation (figure 29)",
        (
            Part("bits a byte of raw text that PPO needs more than the base", bits(runs, "base", "ppo"), unit="bits"),
            Part(
                "accuracy that PPO loses on endings of texts, a task as HellaSwag is", loss("endings"), unit="accuracy"
            ),
            Part(passages, loss("passages"), unit="accuracy"),
            Part("accuracy that PPO loses on facts of the raw text", loss("facts"), unit="accuracy", decides=False),
            Part("accuracy that PPO loses on all few-shot tasks", loss(), unit="accuracy", decides=False),
            Part("bits a byte from base to SFT", bits(runs, "base", "sft"), unit="bits", decides=False),
        ),
        ("evaluate", "evaluate-base", "evaluate-ppo"),
    )


def tax_paid_back(runs: Runs) -> Verdict:
    """Decide h: raw text mixed in pays the tax back, better than staying closer to SFT does."""
    no_loss = f"PPO-ptx preferred to PPO (no loss: within {TOLERANCE:.0%} of a tie)"
    tie, greedy = 0.5 - TOLERANCE, "PPO-ptx preferred to PPO, greedy"
    larger = "bits a byte that PPO with a larger KL coefficient needs more than PPO-ptx"
    return Verdict(
        "h",
        "PPO-ptx pays the tax back without loss of preference, better than a larger KL coefficient does",
        "PPO-ptx mends most regressions; no KL coefficient does (figures 33, 34)",
        (
            Part("bits a byte that PPO needs more than PPO-ptx", bits(runs, "ppo-ptx", "ppo"), unit="bits"),
            win_rate(runs, "ppo-ptx", "ppo", no_loss, null=tie),
            Part(larger, bits(runs, "ppo-ptx", "ppo-kl"), unit="bits"),
            win_rate(runs, "ppo-ptx", "ppo-kl", "PPO-ptx preferred to PPO with a larger KL coefficient", decides=False),
            win_rate(runs, "ppo-ptx", "ppo", greedy, decoding="greedy", null=tie, decides=False),
        ),
        ("evaluate-ppo", "evaluate-ptx", "evaluate-kl"),
    )


def bits(runs: Runs, before: str, after: str) -> tuple[Estimate, ...]:
    """Return the rise in bits per byte of raw text from one model to another, by seed."""
    return per_seed(runs, lambda run: run.bits(before, after))
