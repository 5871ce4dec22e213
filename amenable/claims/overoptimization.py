"""Claims l, m: reward-model over-optimization and best of n, gold and proxy against KL. Gao et al. (2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable.claims import evidence
from amenable.claims.evidence import Evidence
from amenable.claims.measurements import Runs, per_seed, win_rate
from amenable.claims.verdicts import Curve, Estimate, Part, Verdict, paired
from amenable.functional.statistics import Z95, best_of_n_kl

Curves = dict[str, Curve]
"""gold and proxy of one run"""

GOLD_TOLERANCE = 0.3
"""two means of gold are equal when they differ by less: an eighth of the best possible"""
TRACKED = ("over", "over-kl")
"""the PPO runs on a small reward model, without a price on KL and with one"""


def over_optimised(runs: Runs) -> Verdict:
    """Decide l: proxy and gold diverge as KL grows."""

    def on_curves(measure: Callable[..., Estimate], *stages: str) -> tuple[Estimate, ...]:
        def measure_run(run: Evidence) -> Estimate | None:
            curves = [run.over_optimisation(stage) for stage in stages]
            return None if None in curves else measure(*curves)

        return per_seed(runs, measure_run)

    def gold_at_peak(curves: Curves, step: int) -> tuple[Tensor, Tensor]:
        """Return gold at its peak on one half of the prompts, and at `step`, both on the other half."""
        values, prompts = curves["gold"].values, torch.arange(curves["gold"].values.shape[1])
        return values[curves["gold"].peak(prompts[::2])][prompts[1::2]], values[step][prompts[1::2]]

    def against_stopping(free: Curves, priced: Curves) -> Estimate:
        return paired(priced["gold"].values[-1], free["gold"].at(float(priced["gold"].kl[-1])))

    fall = on_curves(lambda curves: paired(*gold_at_peak(curves, -1)), "over")
    rise = on_curves(lambda curves: paired(*gold_at_peak(curves, 0)), "over")
    proxy = on_curves(lambda curves: paired(curves["proxy"].values[-1], curves["proxy"].values[0]), "over")
    return Verdict(
        "l",
        "With a small reward model gold rises, then falls as KL grows; a price on KL acts like stopping early",
        "Gao et al.: gold = d (alpha - beta log d), d the root of KL; a KL penalty moves along the same curve",
        (
            Part("gold lost from its peak to the end", fall, unit="gold"),
            Part("gold gained from the start to the peak", rise, unit="gold"),
            Part("proxy gained from start to end", proxy, unit="reward"),
            Part(
                f"gold with a price on KL, less gold at the same KL without (no gain of more than {GOLD_TOLERANCE})",
                on_curves(against_stopping, *TRACKED),
                GOLD_TOLERANCE,
                "below",
                "gold",
            ),
        ),
        TRACKED,
        "The peak is chosen on one half of the prompts and measured on the other.",
    )


def tracked_curves(run: Path) -> list[dict[str, Any]]:
    """Return proxy and gold of the tracked PPO runs against KL, a row a saved step."""
    rows = []
    for stage in TRACKED:
        curves = Evidence(run).over_optimisation(stage)
        if curves is None:
            continue
        for i, step in enumerate(curves["gold"].steps):
            gold, proxy = Estimate.of(curves["gold"].values[i]), Estimate.of(curves["proxy"].values[i])
            row = {"run": stage, "step": step, "kl": float(curves["gold"].kl[i]), "proxy": proxy.value}
            half = Z95 * gold.error
            rows.append({**row, "gold": gold.value, "gold_low": gold.value - half, "gold_high": gold.value + half})
    return rows


def cheap_best_of_n(runs: Runs) -> Verdict:
    """Decide m: the best of n samples buys reward with far less KL than PPO."""

    def saved(run: Evidence, as_share: bool) -> Estimate | None:
        best, ppo = run.rows("best16"), run.rows("ppo")
        ids = [name for name in best if name in ppo and ppo[name]["kl"] is not None]
        if not ids:
            return None
        sizes = list(best[ids[0]]["best_of"])
        curve = torch.tensor([[best[name]["best_of"][n] for n in sizes] for name in ids], dtype=torch.float64)
        spent = torch.tensor([[ppo[name]["reward"], ppo[name]["kl"]] for name in ids], dtype=torch.float64)
        return kl_saved([int(n) for n in sizes], curve, spent[:, 0], spent[:, 1], as_share)

    def gained(run: Evidence) -> Estimate | None:
        return run.change("ppo", "best16", evidence.reward)

    return Verdict(
        "m",
        "The best of n samples reaches PPO's reward at far less KL",
        "the best of n is far cheaper in KL for the same reward (Gao et al.; Nakano et al.)",
        (
            Part(
                "share of PPO's KL that the best of n saves for PPO's reward (far less: half)",
                per_seed(runs, lambda run: saved(run, as_share=True)),
                null=0.5,
            ),
            Part(
                "nats that PPO spends more than the best of n for PPO's reward",
                per_seed(runs, lambda run: saved(run, as_share=False)),
                unit="nats",
                decides=False,
            ),
            Part(
                "reward of the best of 16 (1.84 nats) over PPO's, sampled",
                per_seed(runs, gained),
                unit="reward",
                decides=False,
            ),
            win_rate(runs, "best16", "sft", "the best of 16 preferred to SFT", decides=False),
        ),
        ("evaluate-best", "evaluate-ppo", "evaluate"),
    )


def kl_saved(
    sizes: Sequence[int], best: Tensor, rewards: Tensor, kls: Tensor, as_share: bool = False, draws: int = 2000
) -> Estimate:
    """Return PPO's KL less the KL at which the best of n reaches PPO's reward (the largest n's KL if never).
    In nats, or as a share of PPO's KL.

    best [P, S]: a prompt's expected reward of the best of each of S sizes; rewards, kls [P]: of PPO's answers to the
    same prompts. The error is the bootstrap's over prompts.
    """
    generator = torch.Generator().manual_seed(0)
    resampled = torch.randint(len(rewards), (draws, len(rewards)), generator=generator)
    resampled = torch.cat([torch.arange(len(rewards))[None], resampled])
    heights = torch.stack([column[resampled].mean(1) for column in best.T])
    kl_best_of_n = crossing(
        torch.tensor([best_of_n_kl(n) for n in sizes], dtype=torch.float64), heights, rewards[resampled].mean(1)
    )
    spent = kls[resampled].mean(1)
    saved = (spent - kl_best_of_n) / spent if as_share else spent - kl_best_of_n
    return Estimate(float(saved[0]), float(saved[1:].std()))


def crossing(xs: Tensor, heights: Tensor, targets: Tensor) -> Tensor:
    """Return the x [D] at which rising curves [P, D] over xs [P] first reach the targets [D], clamped to the ends."""
    upper = (heights < targets).sum(0).clamp(1, len(xs) - 1)
    low, high = heights.gather(0, (upper - 1)[None])[0], heights.gather(0, upper[None])[0]
    share = ((targets - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return torch.lerp(xs[upper - 1], xs[upper], share)
