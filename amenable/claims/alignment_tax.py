"""Claims g, h: the alignment tax on raw text and few-shot tasks, and PPO-ptx, which pays it back."""

from __future__ import annotations

from amenable.claims.measurements import TOLERANCE, Runs, per_seed, win_rate
from amenable.claims.verdicts import Part, Verdict


def tax(runs: Runs) -> Verdict:
    """Decide g: the alignment tax, the cost of alignment on raw text and few-shot tasks."""
    return Verdict(
        "g",
        "The alignment tax: raw text and few-shot tasks get worse under PPO",
        "PPO falls behind GPT-3 on SQuAD, DROP, HellaSwag and translation (figure 29)",
        (
            Part(
                "bits a byte of raw text that PPO needs more than the base",
                per_seed(runs, lambda run: run.bits("base", "ppo")),
                unit="bits",
            ),
            Part(
                "accuracy that PPO loses on endings of texts, a task as HellaSwag is",
                per_seed(runs, lambda run: run.accuracy("ppo", "base", "endings")),
                unit="accuracy",
            ),
            Part(
                "accuracy that PPO loses on questions about passages, a task as SQuAD is",
                per_seed(runs, lambda run: run.accuracy("ppo", "base", "passages")),
                unit="accuracy",
            ),
            Part(
                "accuracy that PPO loses on facts of the raw text",
                per_seed(runs, lambda run: run.accuracy("ppo", "base", "facts")),
                unit="accuracy",
                decides=False,
            ),
            Part(
                "accuracy that PPO loses on all few-shot tasks",
                per_seed(runs, lambda run: run.accuracy("ppo", "base")),
                unit="accuracy",
                decides=False,
            ),
            Part(
                "bits a byte from base to SFT",
                per_seed(runs, lambda run: run.bits("base", "sft")),
                unit="bits",
                decides=False,
            ),
        ),
        ("evaluate", "evaluate-base", "evaluate-ppo"),
    )


def tax_paid_back(runs: Runs) -> Verdict:
    """Decide h: raw text mixed in pays the tax back, better than staying closer to SFT does."""
    return Verdict(
        "h",
        "PPO-ptx pays the tax back without loss of preference, better than a larger KL coefficient does",
        "PPO-ptx mends most regressions; no KL coefficient does (figures 33, 34)",
        (
            Part(
                "bits a byte that PPO needs more than PPO-ptx",
                per_seed(runs, lambda run: run.bits("ppo-ptx", "ppo")),
                unit="bits",
            ),
            win_rate(
                runs,
                "ppo-ptx",
                "ppo",
                f"PPO-ptx preferred to PPO (no loss: within {TOLERANCE:.0%} of a tie)",
                null=0.5 - TOLERANCE,
            ),
            Part(
                "bits a byte that PPO with a larger KL coefficient needs more than PPO-ptx",
                per_seed(runs, lambda run: run.bits("ppo-ptx", "ppo-kl")),
                unit="bits",
            ),
            win_rate(runs, "ppo-ptx", "ppo-kl", "PPO-ptx preferred to PPO with a larger KL coefficient", decides=False),
            win_rate(
                runs,
                "ppo-ptx",
                "ppo",
                "PPO-ptx preferred to PPO, greedy",
                decoding="greedy",
                null=0.5 - TOLERANCE,
                decides=False,
            ),
        ),
        ("evaluate-ppo", "evaluate-ptx", "evaluate-kl"),
    )
