"""Device, precision and where randomness comes from."""

import os

import pytest
import torch

from amenable.errors import InputError
from amenable.train.runtime import DeviceOptions, start_runtime


def test_autocast_makes_products_bf16_only_when_asked() -> None:
    a = torch.ones(2, 2)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        runtime = start_runtime(DeviceOptions("cpu", precision))  # type: ignore[arg-type]
        with runtime.autocast():
            assert (a @ a).dtype == dtype


def test_unknown_devices_are_named() -> None:
    with pytest.raises(InputError, match="toaster"):
        start_runtime(DeviceOptions(device="toaster"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA"):
            start_runtime(DeviceOptions(device="cuda"))
    with pytest.raises(InputError, match="threads"):
        DeviceOptions(threads=-1)


def test_few_kernels_are_kept_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    start_runtime(DeviceOptions(device="cpu", precision="fp32", threads=1))
    assert os.environ["LRU_CACHE_CAPACITY"] == "64"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
