"""Weights divided among processes; in one process they are whole. tests/test_several_processes.py divides them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

from amenable import processes
from amenable.errors import InputError
from amenable.models import sharding
from amenable.models.decoder import Decoder
from amenable.train import optimizer
from amenable.train.optimizer import Optimizer, OptimizerConfig


def test_one_process_holds_everything(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder()
    weights = list(decoder.parameters())
    sharding.shard(decoder)
    assert not sharding.is_sharded(decoder) and sharding.whole(decoder) is decoder and not hasattr(decoder, "unsharded")
    assert all(first is second for first, second in zip(decoder.parameters(), weights))
    assert sharding.gathered(weights[0]) is weights[0] and processes.local_part(weights[0]) is weights[0]
    assert sharding.own_part(weights[1], like=weights[0]) is weights[1]


def test_weights_are_loaded_by_name() -> None:
    layer = nn.Linear(2, 1)
    sharding.load_weights(layer, {"weight": torch.tensor([[3.0, 4.0]])})
    assert layer.weight.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("offload", [False, True])
def test_offloading_reaches_every_block(
    offload: bool, make_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[nn.Module, OffloadPolicy]] = []
    monkeypatch.setattr(processes, "size", lambda: 2)
    monkeypatch.setattr(
        sharding, "fully_shard", lambda part, mesh, offload_policy: calls.append((part, offload_policy))
    )
    decoder = make_decoder()
    Optimizer([decoder], OptimizerConfig(learning_rate=1e-3, fsdp=True, fsdp_offload=offload))
    assert [part for part, _ in calls] == [*decoder.layers, decoder]
    assert {isinstance(policy, CPUOffloadPolicy) for _, policy in calls} == {offload}
    assert not offload or not any(policy.pin_memory for _, policy in calls), "a processor's memory has no need of it"


def test_offloading_of_whole_weights_is_refused() -> None:
    with pytest.raises(InputError, match="fsdp_offload moves what fsdp divides; add --optimizer"):
        OptimizerConfig(fsdp_offload=True)


def test_what_takes_whole_matrices_is_refused(
    make_decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OptimizerConfig(learning_rate=1e-3, muon_learning_rate=1e-2, fsdp=True)
    with pytest.raises(InputError, match="Muon takes whole matrices, and fsdp divides them"):
        Optimizer([make_decoder()], config)
    monkeypatch.setattr(optimizer, "tensor_size", lambda: 2)
    with pytest.raises(InputError, match="Muon takes whole matrices, and tensor_parallel divides them"):
        Optimizer([make_decoder()], replace(config, fsdp=False))
