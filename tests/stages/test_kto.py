"""`amenable kto`: desirable completions gain on undesirable ones, without pairs, against a reference that stays."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.stages import dpo, kto
from amenable.text.tokenizer import Tokenizer
from amenable.train.objective import accumulate
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime
from amenable.train.unpaired import LabeledRow, add_reference_logps


@pytest.fixture(scope="module")
def config(assistant: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> kto.Config:
    return kto.Config(
        model=assistant,
        data=(labelled,),
        out=tmp_path_factory.mktemp("kto") / "run",
        beta=0.3,
        epochs=3,
        batch_size=24,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        warmup_steps=2,
        validation_split=0.25,
        eval_steps=3,
        max_new_tokens=20,
        save_steps=0,
        device=DeviceOptions("cpu", "fp32", 1),
    )


@pytest.fixture
def elements(
    config: kto.Config, words: Tokenizer, runtime: Runtime, make_decoder: Callable[..., Decoder]
) -> list[LabeledRow]:
    """Eight completions, with another model's log-probabilities as the reference's."""
    training, _ = kto.read(config, words, 64)
    return list(add_reference_logps(make_decoder(seed=7), training, runtime, 8192))[:8]


def test_it_learns_the_labels(config: kto.Config, rows_of: Callable, capsys: pytest.CaptureFixture) -> None:
    rows = rows_of(kto.run(config))
    first, last = rows[0], rows[-1]
    assert first["loss"] == pytest.approx(0.5, abs=1e-4) and first["kl"] == pytest.approx(0, abs=1e-4)
    assert last["rewards/margins"] > first["rewards/margins"] + 0.3 and last["eval/loss"] < 0.47
    assert last["eval/accuracy"] > 0.75 and 0 < last["objective/kl"] < 20
    assert "53 undesirable completions, weighted 1.38 to 1" in " ".join(capsys.readouterr().err.split())


def test_a_stopped_run_goes_on_to_the_bit(
    config: kto.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    short = replace(config, epochs=1, out=tmp_path / "two")
    whole = outcome(kto.run(replace(short, out=tmp_path / "whole")))
    assert outcome(run_in_two(kto, short, 2)) == whole


@pytest.mark.parametrize("max_tokens", [1, 150])
def test_passes_change_nothing_though_completions_share_the_kl(
    config: kto.Config,
    elements: list[LabeledRow],
    make_decoder: Callable[..., Decoder],
    runtime: Runtime,
    max_tokens: int,
) -> None:
    policy, results = make_decoder(), []
    for limit in (8192, max_tokens):
        stats = accumulate(kto.KTO(policy, config), elements, runtime, limit)
        results.append((stats, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])))
        policy.zero_grad(set_to_none=True)
    (whole, gradient), (parts, same) = results
    assert parts == pytest.approx(whole, rel=1e-4) and gradient.norm() > 1e-3
    assert torch.allclose(gradient, same, atol=1e-5)


def test_the_loss_by_hand(config: kto.Config) -> None:
    """Log-ratios 1 (desirable) and -2, of mismatched ones .1 and .5: z = .3, beta .1."""
    row = ([1, 2], [False, True])
    elements = [LabeledRow(row, True, row, -3.0, -5.1), LabeledRow(row, False, row, -1.0, -4.5)]
    sums = torch.tensor([-2.0, -5.0, -3.0, -4.0], requires_grad=True)
    weighted = replace(config, beta=0.1, desirable_weight=2.0)
    loss, stats = kto.KTO(None, weighted).loss(elements, sums)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == pytest.approx((2 * 0.482507 + 0.442752) / 2, abs=1e-6)
    assert stats["kl"].item() == pytest.approx(0.3) and stats["rewards/accuracies"].item() == 1
    assert stats["rewards/margins"].item() == pytest.approx(0.3) and stats["logratios/chosen"].item() == 1
    assert sums.grad is not None and sums.grad[0] < 0 < sums.grad[2] and sums.grad[1] == sums.grad[3] == 0


def test_bco_by_hand_and_on_the_labels(config: kto.Config, rows_of: Callable, tmp_path: Path) -> None:
    """Log-ratios 1 (desirable) and -2, beta .1: rewards .1 and -.2 around -.05."""
    row = ([1, 2], [False, True])
    elements = [LabeledRow(row, True, row, -3.0), LabeledRow(row, False, row, -1.0)]
    objective = kto.KTO(None, replace(config, loss="bco", beta=0.1))  # type: ignore[arg-type]
    loss, stats = objective.loss(elements, torch.tensor([-2.0, -3.0]))
    assert loss.item() == pytest.approx(0.620957, abs=1e-6) and stats["reward_shift"].item() == pytest.approx(-0.05)
    assert [len(objective.rows(each)) for each in elements] == [1, 1]
    rows = rows_of(kto.run(replace(config, loss="bco", epochs=1, out=tmp_path / "run")))
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert rows[-1]["rewards/margins"] > rows[0]["rewards/margins"] and rows[-1]["eval/loss"] < 0.69


def test_pairs_and_labels_name_each_others_command(config: kto.Config, labelled: Path, files: Any) -> None:
    with pytest.raises(InputError, match="a comparison, not a completion with a label; 'amenable dpo' trains on"):
        kto.run(replace(config, data=(files.pairs,), out=config.out.parent / "pairs"))
    with pytest.raises(InputError, match="a completion with a label, not a comparison; 'amenable kto' trains on"):
        dpo.run(dpo.Config(model=config.model, data=(labelled,), out=config.out.parent / "dpo"))


@pytest.mark.parametrize("wrong", [{"beta": 0}, {"batch_size": 1}, {"undesirable_weight": 0}, {"max_kl": -1}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        kto.Config(**wrong)
