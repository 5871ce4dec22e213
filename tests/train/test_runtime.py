"""Device, precision and where randomness comes from."""

import os

import pytest
import torch

from amenable.errors import InputError
from amenable.train import runtime


def test_seeds_are_stable_and_differ_by_purpose() -> None:
    assert runtime.number(0, "a", 1) == runtime.number(0, "a", 1)
    seeds = {runtime.number(seed, name, step) for seed in (0, 1) for name in ("a", "b") for step in (0, 1)}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat() -> None:
    draws = [torch.rand(3, generator=runtime.generator(5, "x")) for _ in range(2)]
    assert torch.equal(*draws)


def test_dropout_is_a_function_of_seed_and_step() -> None:
    def drop(step: int) -> torch.Tensor:
        runtime.seed_step(1, step)
        return torch.nn.functional.dropout(torch.ones(50), 0.5)

    assert torch.equal(drop(3), drop(3)) and not torch.equal(drop(3), drop(4))


def test_autocast_makes_products_bf16_only_when_asked() -> None:
    a = torch.ones(2, 2)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        machine = runtime.start(runtime.Machine("cpu", precision))  # type: ignore[arg-type]
        with machine.autocast():
            assert (a @ a).dtype == dtype


def test_unknown_devices_are_named() -> None:
    with pytest.raises(InputError, match="toaster"):
        runtime.start(runtime.Machine(device="toaster"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA"):
            runtime.start(runtime.Machine(device="cuda"))
    with pytest.raises(InputError, match="threads"):
        runtime.Machine(threads=-1)


def test_few_kernels_are_kept_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    runtime.start(runtime.Machine(device="cpu", precision="fp32", threads=1))
    assert os.environ["LRU_CACHE_CAPACITY"] == "64"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
