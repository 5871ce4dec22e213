"""KL that the best of n saves, and curves of proxy and gold."""

from pathlib import Path

import pytest
import torch

from amenable.claims.overoptimization import crossing, kl_saved, tracked_curves
from amenable.functional.statistics import best_of_n_kl


def test_a_run_without_curves_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    assert tracked_curves(tmp_path) == []


def test_the_best_of_n_is_read_where_its_curve_crosses() -> None:
    xs = torch.tensor([0.0, 0.2, 0.6]).double()
    heights = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]).double()
    result = crossing(xs, heights, torch.tensor([0.25, 0.75, 3.0]).double())
    assert result.tolist() == pytest.approx([0.1, 0.4, 0.6])


def test_what_the_best_of_n_saves_is_told_with_its_spread_over_prompts() -> None:
    generator = torch.Generator().manual_seed(1)
    best = torch.tensor([0.0, 1.0]).double().expand(400, 2)
    kls = 2.0 + 0.3 * torch.randn(400, generator=generator).double()
    saved = kl_saved([1, 4], best, torch.full((400,), 0.5).double(), kls)
    assert saved.value == pytest.approx(float(kls.mean()) - best_of_n_kl(4) / 2)
    assert saved.error == pytest.approx(0.3 / 20, rel=0.1)
    share = kl_saved([1, 4], best, torch.full((400,), 0.5).double(), kls, as_share=True)
    assert share.value == pytest.approx(saved.value / float(kls.mean())) and share.error < saved.error
    # an easy prompt is easy for both: what moves curve and reward together is no noise
    ease = torch.randn(400, 1, generator=generator).double()
    alike = kl_saved([1, 4], best + ease, 0.5 + ease[:, 0], kls)
    assert alike.value == pytest.approx(saved.value) and alike.error == pytest.approx(saved.error)
