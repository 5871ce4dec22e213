"""One step of AdamW by hand, what decays, what Muon takes, what is frozen, and a state that goes on exactly."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.train import checkpoint
from amenable.train.optimizer import Optimizer, OptimizerConfig, grouped, is_hidden_matrix, regrouped
from amenable.train.trained_weights import freeze

PLAIN = OptimizerConfig(learning_rate=0.1, max_grad_norm=0.0)


def test_two_steps_of_adamw_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = Optimizer(
        [layer], OptimizerConfig(0.1, weight_decay=0.5, beta1=0.9, beta2=0.99, eps=1e-8, max_grad_norm=0)
    )
    weight, m, v = 2.0, 0.0, 0.0
    for step, (gradient, multiplier) in enumerate([(3.0, 1.0), (-1.0, 0.5)], start=1):
        layer.weight.grad = torch.tensor([[gradient]])
        assert optimizer.step(multiplier) == pytest.approx(abs(gradient))
        rate = 0.1 * multiplier
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        weight -= rate * 0.5 * weight
        weight -= rate * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.99**step)) + 1e-8)
        assert layer.weight.item() == pytest.approx(weight, rel=1e-5)
        assert layer.weight.grad is None


def test_gradients_are_clipped_to_the_norm_over_all_modules() -> None:
    a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    optimizer = Optimizer([a, b], OptimizerConfig(1.0, beta1=0.0, beta2=0.0, eps=1e6, max_grad_norm=1.0))
    nn.init.zeros_(a.weight), nn.init.zeros_(b.weight)
    a.weight.grad, b.weight.grad = torch.tensor([[3.0]]), torch.tensor([[4.0]])
    assert optimizer.step() == pytest.approx(5.0)
    # with so large an eps a step is gradient / eps: 3/5 and 4/5 after clipping
    assert [a.weight.item(), b.weight.item()] == pytest.approx([-0.6e-6, -0.8e-6], rel=1e-4)


def test_a_step_leaves_no_gradient_to_the_next(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder()
    optimizer = Optimizer([decoder], OptimizerConfig(0.1, muon_learning_rate=0.02))
    for p in decoder.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(p.grad is None or not p.grad.any() for p in decoder.parameters())


def test_only_matrices_decay(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder()
    optimizer = Optimizer([decoder], OptimizerConfig(0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in decoder.named_parameters()}
    for p in decoder.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in decoder.named_parameters():
        # nothing but decay moves a parameter whose gradient is zero
        assert torch.allclose(p, before[name] * (0.95 if p.ndim == 2 else 1.0), atol=1e-7), name


def test_muon_takes_the_hidden_matrices_and_nothing_else(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder()
    optimizer = Optimizer([decoder], OptimizerConfig(0.1, muon_learning_rate=0.02))
    adam, muon = ({id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts)
    assert not adam & muon and adam | muon == {id(p) for p in decoder.parameters()}
    names = {name for name, p in decoder.named_parameters() if id(p) in muon}
    assert len(names) == 2 * len({name.split(".", 2)[2] for name in names}) and all("layers" in name for name in names)
    assert id(decoder.token_embedding.weight) in adam
    assert not is_hidden_matrix("0.layers.0.norm.weight", nn.Parameter(torch.ones(3)))
    for p in decoder.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step(0.5)
    assert optimizer.rates() == {"lr": 0.05, "muon_lr": 0.01}
    assert Optimizer([nn.Linear(2, 2)], OptimizerConfig(0.1)).rates("critic_") == {"critic_lr": 0.1}


def test_a_saved_state_goes_on_to_the_bit(make_decoder: Callable[..., Decoder], tmp_path: Path) -> None:
    config = OptimizerConfig(0.01, muon_learning_rate=0.02, weight_decay=0.1)

    def push(decoder: Decoder, optimizer: Optimizer, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for p in decoder.parameters():
            p.grad = torch.randn(p.shape, generator=draw)
        optimizer.step()

    first = make_decoder()
    one = Optimizer([first], config)
    push(first, one, 1)
    checkpoint.save(tmp_path, 1, {"optimizer": one.state_dict(), "decoder": first.state_dict()})
    push(first, one, 2)
    result = checkpoint.newest(tmp_path)
    assert result is not None
    second = make_decoder(seed=9)
    other = Optimizer([second], config)
    second.load_state_dict(result[1]["decoder"])
    other.load_state_dict(result[1]["optimizer"])
    push(second, other, 2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_freezing_names_embeddings_and_the_lowest_layers(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder(positions="learned")
    total = sum(p.numel() for p in decoder.parameters())
    assert freeze(decoder, 0) == total
    left = freeze(decoder, 1)
    still = {name for name, p in decoder.named_parameters() if p.requires_grad}
    assert still == {
        name for name, _ in decoder.named_parameters() if "embedding" not in name and "layers.0." not in name
    }
    assert left == sum(p.numel() for name, p in decoder.named_parameters() if name in still) < total
    Optimizer([decoder], PLAIN)


def test_frozen_parameters_do_not_move(make_scalar_model: Callable[..., ScalarModel]) -> None:
    model = make_scalar_model()
    freeze(model.decoder, 1)
    optimizer = Optimizer([model], OptimizerConfig(0.1, muon_learning_rate=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    assert "score.weight" in moved and "decoder.token_embedding.weight" not in moved


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(InputError, match="freeze fewer layers"):
        Optimizer([nn.Linear(1, 1).requires_grad_(False)], PLAIN)


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": -1}, {"max_grad_norm": math.nan}, {"beta1": 1.0}, {"weight_decay": -0.1}, {"beta2": -0.5}],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"optimizer.{next(iter(wrong))}"):
        OptimizerConfig(**wrong)


@pytest.mark.parametrize("gradient", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_is_refused_before_the_step(gradient: float) -> None:
    layer = nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.tensor([[1.0, gradient]])
    with pytest.raises(InputError, match=r"gradient is not finite.*learning rate"):
        Optimizer([layer], PLAIN).step()
    assert torch.equal(layer.weight, before)


def test_weights_that_overflow_are_refused() -> None:
    layer = nn.Linear(2, 1, bias=False)
    optimizer = Optimizer([layer], OptimizerConfig(1e30, weight_decay=1e30))
    report: list[str] = []
    optimizer.on_nonfinite = lambda what, how: report.append(what)  # type: ignore[assignment, return-value]
    for _ in range(3):
        layer.weight.grad = torch.ones(1, 2)
        optimizer.step()
    assert report and "weights are no longer finite" in report[0]


def test_state_of_other_groups_is_that_of_the_same_parameters() -> None:
    first, second, third = (nn.Parameter(torch.full((1,), float(i))) for i in range(3))
    old = torch.optim.AdamW([{"params": [first, second], "weight_decay": 0.1}, {"params": [third]}], lr=0.5)
    for parameter in (first, second, third):
        parameter.grad = parameter.detach().clone()
    old.step()
    new = [[second], [first], [third]]
    state = regrouped(old.state_dict(), grouped(old), new)
    assert [group["params"] for group in state["param_groups"]] == [[0], [1], [2]]
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.1, 0.1, 0.01]
    assert torch.equal(state["state"][0]["exp_avg"], old.state[second]["exp_avg"])
    again = regrouped(state, new, grouped(old))
    assert again["param_groups"] == old.state_dict()["param_groups"]
    assert torch.equal(again["state"][1]["exp_avg"], old.state[second]["exp_avg"])
