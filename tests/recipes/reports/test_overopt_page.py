"""The report of over-optimization: curves, fits, the loss after the peak, the advice."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.functional.overoptimization import law_at
from amenable.recipes.reports import overopt_page
from amenable.recipes.reports.overopt_page import Curve, Settings

KL = torch.tensor([0.0, 0.25, 1.0, 4.0, 9.0, 16.0, 25.0], dtype=torch.float64)


def curve(alpha: float, beta: float, noise: float = 0.02) -> Curve:
    """A policy whose gold follows the law on the mean of 40 prompts."""
    gains = [0.0, *(law_at(math.sqrt(kl), alpha, beta, "rl") for kl in KL[1:].tolist())]
    spread = torch.randn(len(KL), 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = spread - spread.mean(1, keepdim=True)
    gold = torch.tensor(gains, dtype=torch.float64)[:, None] + noise * spread
    return Curve("rl", KL, gold, gold + KL.sqrt()[:, None])


def test_a_curve_gives_back_its_law_and_peak() -> None:
    row = overopt_page.figures_of(curve(1.0, 0.6), seed=0)
    law = row["law"]
    assert law["alpha"]["value"] == pytest.approx(1.0) and law["beta"]["value"] == pytest.approx(0.6)
    assert law["beta"]["low"] < 0.6 < law["beta"]["high"] and law["explained"] == pytest.approx(1.0)
    assert law["peak_kl"]["value"] == pytest.approx(math.exp(1 / 0.6 - 1) ** 2)
    assert row["peak_kl"] == 4.0 and row["end"]["kl"] == 25.0
    assert row["points"][0]["gold"] == 0.0 and row["end"]["reward"] == pytest.approx(row["end"]["gold"] + 5.0)
    lost = law_at(5.0, 1.0, 0.6, "rl") - law_at(2.0, 1.0, 0.6, "rl")
    assert row["lost"]["value"] == pytest.approx(lost, abs=0.02) and row["lost"]["high"] < 0


def test_a_curve_that_rises_loses_nothing_and_has_no_peak() -> None:
    row = overopt_page.figures_of(curve(0.1, -0.3), seed=0)
    assert row["law"]["peak_kl"]["value"] is None and row["lost"]["value"] == 0.0
    assert "was not shown to fall up to 25.0 nats" in overopt_page.advice(row)
    assert not overopt_page.shows_fall(row) and overopt_page.shows_fall(overopt_page.figures_of(curve(1.0, 0.6), 0))


def test_the_advice_is_where_gold_was_highest() -> None:
    assert overopt_page.advice(overopt_page.figures_of(curve(1.0, 0.6), 0)).startswith("Stop PPO at about 4.0 nats")


def test_too_few_settings_have_no_law() -> None:
    whole = curve(1.0, 0.6)
    short = Curve("rl", whole.kl[:3], whole.gold[:3], whole.reward[:3])
    assert overopt_page.figures_of(short, 0)["law"] is None


def test_the_best_of_n_is_exact(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "reward": [1.0, 2.0], "gold": [5.0, 3.0]},
        {"id": "b", "reward": [0.0, 4.0], "gold": [1.0, 2.0]},
    ]
    path = tmp_path / "centre.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    best = overopt_page.best_of_n(path)
    assert best.gold.tolist() == [[4.0, 1.5], [3.0, 2.0]] and best.reward.tolist() == [[1.5, 2.0], [2.0, 4.0]]
    assert best.kl.tolist() == pytest.approx([0.0, math.log(2) - 0.5])


def test_the_headline_counts_the_curves_without_a_fall_and_has_each_way_against_the_ensemble() -> None:
    falls, rises = (overopt_page.figures_of(each, 0) for each in (curve(1.0, 0.6), curve(0.1, -0.3)))
    rows: dict[str, Any] = {"ppo-centre": falls, "ppo-priced": rises, "rloo": rises, "grpo": falls}
    rows |= {"best of n-centre": falls, "best of n-ensemble": rises}
    rows |= {"ppo-ensemble": rises, "rloo-ensemble": falls, "grpo-ensemble": falls}
    lines = overopt_page.headline(rows, Settings(Path("out"), ["centre"], "centre", 0))
    assert lines[0].startswith("Stop PPO at about 4.0 nats")
    assert law_at(5.0, 1.0, 0.6, "rl") == pytest.approx(0.17, abs=5e-3)
    assert law_at(5.0, 0.1, -0.3, "rl") == pytest.approx(2.91, abs=5e-3)
    assert lines[2] == (
        "Gold at the end against the worst of three reward models: best of n +2.91 in place of +0.17, PPO +2.91 in"
        " place of +0.17, RLOO +0.17 in place of +2.91, GRPO +0.17 in place of +0.17."
    )
    assert "here 4 of 9 do not show it" in lines[-1]


def test_a_curve_is_named_by_its_way_and_its_reward_model() -> None:
    names = ("best of n-centre", "ppo-labels-4", "rloo", "grpo-ensemble")
    assert [overopt_page.label(name) for name in names] == [
        "best of n, all labels, the policy's size",
        "PPO, a quarter of the labels",
        "RLOO",
        "GRPO, the worst of three reward models",
    ]
