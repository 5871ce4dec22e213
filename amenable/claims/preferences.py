"""Claims a, b, c, k, n, o: preference of annotators between two models."""

from __future__ import annotations

from amenable.claims import evidence
from amenable.claims.measurements import Runs, per_seed, win_rate
from amenable.claims.verdicts import Part, Verdict


def small_over_large(runs: Runs) -> Verdict:
    """Decide a: the aligned small model is preferred to a larger base model."""
    better = per_seed(runs, lambda run: run.bits("large", "base"))
    return Verdict(
        "a",
        "People prefer the small aligned model to a base model over four times its size, also when that is prompted",
        "1.3B PPO-ptx preferred to 175B GPT-3; at equal size 85 ± 3 %, or 71 ± 4 % if GPT-3 is few-shot prompted",
        (
            win_rate(runs, "ppo-ptx", "large", "PPO-ptx preferred to the larger base"),
            win_rate(runs, "ppo-ptx", "large-prompted", "PPO-ptx preferred to the larger base, few-shot prompted"),
            Part(
                "bits a byte that the small base needs more than the larger: it really is better", better, unit="bits"
            ),
            win_rate(
                runs, "ppo-ptx", "base", "PPO-ptx preferred to the base of its own size", "85 ± 3 %", decides=False
            ),
            win_rate(
                runs, "ppo-ptx", "prompted", "PPO-ptx preferred to it when few-shot prompted", "71 ± 4 %", decides=False
            ),
        ),
        ("evaluate-base", "evaluate-ptx", "evaluate-large"),
    )


def in_order(runs: Runs) -> Verdict:
    """Decide b: each step of the method is preferred to the one before."""
    return Verdict(
        "b",
        "Base < few-shot prompted base < SFT < PPO",
        "GPT-3 < GPT-3 prompted < SFT < PPO at every size (figure 1)",
        (
            win_rate(runs, "ppo", "sft", "PPO preferred to SFT"),
            win_rate(runs, "sft", "prompted", "SFT preferred to the few-shot prompted base"),
            win_rate(runs, "prompted", "base", "the base preferred when few-shot prompted to when not"),
            win_rate(runs, "ppo", "prompted", "PPO preferred to the few-shot prompted base", decides=False),
        ),
        ("evaluate", "evaluate-base", "evaluate-ppo"),
        "The prompt is an expert's: it goes on like dialogues at the clerk's desk in the raw text, whose answers have "
        "the manners of the demonstrations that SFT imitates.",
    )


def over_public_tasks(runs: Runs) -> Verdict:
    """Decide c: tuning on people's prompts and preferences beats tuning on public tasks."""
    return Verdict(
        "c",
        "The aligned model is preferred to one that was tuned on public tasks",
        "preferred to FLAN 78 ± 4 % and to T0 79 ± 4 %",
        (
            win_rate(
                runs, "ppo", "public", "PPO preferred to the model tuned on classification and closed QA", "78 ± 4 %"
            ),
            win_rate(runs, "sft", "public", "SFT preferred to it", decides=False),
        ),
        ("evaluate", "evaluate-public", "evaluate-ppo"),
    )


def more_epochs(runs: Runs) -> Verdict:
    """Decide k: overfitting demonstrations is worse in loss and better for people."""
    loss_rise = per_seed(runs, lambda run: run.demonstration_loss("sft", "sft-16"))
    return Verdict(
        "k",
        "SFT beyond the epochs of lowest validation loss worsens the loss and still improves reward and preference",
        "validation loss overfits after one epoch; training for sixteen helps reward and preference",
        (
            win_rate(runs, "sft-16", "sft", "SFT of 16 epochs preferred to SFT of 5, where the loss is lowest"),
            Part(
                "reward gained", per_seed(runs, lambda run: run.change("sft", "sft-16", evidence.reward)), unit="reward"
            ),
            Part("rise of the validation loss, nats a token", loss_rise, unit="nats"),
            win_rate(runs, "sft-16", "sft-1", "SFT of 16 epochs preferred to SFT of one", decides=False),
            win_rate(
                runs,
                "sft-16",
                "sft",
                "SFT of 16 epochs preferred to SFT of 5, greedy",
                decoding="greedy",
                decides=False,
            ),
        ),
        ("evaluate", "evaluate-sft"),
    )


def generalises(runs: Runs) -> Verdict:
    """Decide n: the behaviour carries over to new phrasings and new facts."""
    return Verdict(
        "n",
        "The behaviour generalises to held-out phrasings and entities",
        "it follows instructions in domains it was hardly trained on (section 4.3)",
        (
            win_rate(runs, "ppo", "sft", "PPO preferred to SFT: phrasings and entities both new"),
            win_rate(runs, "ppo", "sft", "new phrasings, known entities", suite="phrasings"),
            win_rate(runs, "ppo", "sft", "known phrasings, new entities", suite="entities"),
            win_rate(runs, "ppo", "sft", "both known", suite="familiar", decides=False),
        ),
        ("evaluate", "evaluate-ppo"),
    )


def not_mere_sharpening(runs: Runs) -> Verdict:
    """Decide o, the control of b: PPO against SFT sharpened to the same entropy."""
    return Verdict(
        "o",
        "PPO's gain is learned, not mere sharpening",
        "no paper controls for it",
        (
            win_rate(runs, "ppo", "sft", "PPO preferred to SFT, greedy against greedy", decoding="greedy"),
            win_rate(runs, "ppo", "sharpened", "PPO at temperature 1 preferred to SFT sharpened to PPO's entropy"),
            win_rate(runs, "ppo", "sft", "PPO preferred to SFT, both at temperature 1"),
        ),
        ("evaluate", "evaluate-ppo"),
    )
