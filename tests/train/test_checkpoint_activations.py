"""Layers computed again in the backward pass: the same numbers to the bit, and less that is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.batches import collate
from amenable.models.decoder import Block, Decoder, DecoderConfig
from amenable.models.heads import ScalarModel
from amenable.models.lora import LoraOptions, add_adapters
from amenable.models.presets import preset
from amenable.seeds import seed_step
from amenable.stages import dpo, ppo, pretrain, reward, sft
from amenable.train.forward import checkpoint_activations, masked_logprobs, masked_nll, rewards
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Runtime
from benchmarks import machine, scaling

PLAIN = DecoderConfig(100, context_length=64, num_layers=3, hidden_size=32, num_heads=2, dropout=0.2)
MODERN = replace(preset("nano", 100), context_length=64, num_layers=3, hidden_size=48, num_heads=3, dropout=0.1)
SHARED = [([1, 2, 3, 4, *range(end, end + 9)], [False] * 4 + [True] * 9) for end in (10, 30, 50)]
ROWS = [([9] * 5, [False] + [True] * 4), ([*range(40)], [place % 3 == 2 for place in range(40)])]


def gradients(model: Decoder | ScalarModel, on: bool, runtime: Runtime, share: bool) -> list[torch.Tensor]:
    """The loss and the gradient of every weight that trains, with the random numbers of one step."""
    checkpoint_activations([model], on)
    model.train()
    seed_step(3, 1)
    batch = collate(SHARED, [0, 4, 4]) if share else collate(SHARED + ROWS)
    with runtime.autocast():
        if isinstance(model, ScalarModel):
            loss = rewards(model, batch).square().mean()
        elif share:
            loss = masked_logprobs(model, batch)[0].square().mean()
        else:
            loss = masked_nll(model, batch, 0.1)[0]
    loss.backward()
    result = [p.grad for p in model.parameters() if p.grad is not None]
    for parameter in model.parameters():
        parameter.grad = None
    return [loss.detach(), *result]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("share", [False, True], ids=["apart", "shared prefix"])
@pytest.mark.parametrize("kind", ["decoder", "scalar", "adapters"])
@pytest.mark.parametrize(
    "shape", [PLAIN, MODERN, replace(PLAIN, norm_placement="post")], ids=["plain", "modern", "post"]
)
def test_gradients_are_equal_to_the_bit(shape: DecoderConfig, kind: str, share: bool, bf16: bool) -> None:
    runtime, model = Runtime(torch.device("cpu"), bf16, 1), Decoder(shape)
    if kind == "scalar":
        model = ScalarModel.from_decoder(model, torch.Generator().manual_seed(0))
    if kind == "adapters":
        add_adapters(model, LoraOptions(rank=2, dropout=0.3), seed=0)
        for name, parameter in model.named_parameters():
            if ".b." in name:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    stored, again = (gradients(model, on, runtime, share) for on in (False, True))
    assert len(stored) == len(again) > 10
    assert all(torch.equal(a, b) for a, b in zip(stored, again))


def test_each_layer_is_computed_twice_and_only_for_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *a: calls.append(self) or forward(self, *a))
    model, batch = Decoder(PLAIN), collate(ROWS)
    checkpoint_activations([model], True)
    masked_nll(model, batch, 1.0)[0].backward()
    assert len(calls) == 2 * 3
    with torch.inference_mode():
        masked_nll(model, batch, 1.0)[0]
    assert len(calls) == 3 * 3


def test_random_numbers_after_the_backward_pass_are_those_without() -> None:
    model, draws = Decoder(PLAIN).train(), []
    for on in (False, True):
        checkpoint_activations([model], on)
        seed_step(1, 1)
        masked_nll(model, collate(ROWS), 1.0)[0].backward()
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes() + (out / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["pretrain", "sft", "reward", "dpo", "ppo"])
def test_a_stage_trains_the_same_model(
    name: str,
    pretrain_config: pretrain.Config,
    sft_config: sft.Config,
    reward_config: reward.Config,
    files: Any,
    judge: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    model, quick = reward_config.model, OptimizerConfig(learning_rate=3e-3)
    short = {"max_steps": 2, "warmup_steps": 1, "optimizer": quick}
    stage, config = {
        "pretrain": (pretrain, replace(pretrain_config, max_steps=2, dropout=0.1)),
        "sft": (sft, replace(sft_config, epochs=1, batch_size=24, dropout=0.1)),
        "reward": (reward, replace(reward_config, epochs=1, prompts_per_step=12)),
        "dpo": (dpo, dpo.Config(model=model, data=files.rankings, epochs=1, batch_size=12, optimizer=quick)),
        "ppo": (
            ppo,
            ppo.Config(model=model, reward=judge, data=files.prompts, prompts_per_step=4, max_new_tokens=8, **short),
        ),
    }[name]
    config = replace(config, device=pretrain_config.device)
    plain = weights(stage.run(replace(config, out=tmp_path / "plain")))
    request: list[bool] = []
    original: Callable[..., Any] = Decoder.apply_layers
    monkeypatch.setattr(
        Decoder, "apply_layers", lambda self, *a: request.append(self.checkpoint_activations) or original(self, *a)
    )
    assert weights(stage.run(replace(config, out=tmp_path / "less", checkpoint_activations=True))) == plain
    assert any(request)


@pytest.mark.slow
def test_a_run_uses_less_and_its_plan_knows() -> None:
    """Half of the memory of a run that keeps them, which test_memory.py measures too."""
    case = scaling.Case("pretrain", "5M", "fp32", rows=16, steps=2)
    result = machine.alone(scaling.use, replace(case, checkpointed=True), 1)
    assert result is not None
    predicted, used = result
    assert used < 200 << 20
    assert predicted == pytest.approx(used, rel=0.15)
