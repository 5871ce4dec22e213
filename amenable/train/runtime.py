"""Where a run computes: device, precision, threads, and where its randomness comes from.

Nothing here is decided at import: a stage calls `start` once and hands the result on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from tyro.conf import arg

from amenable.errors import InputError
from amenable.models.inference import Model, cast_for_inference

Precision = Literal["auto", "fp32", "bf16"]
KERNELS = 64
"""products that each of oneDNN's and torch's caches keeps"""


@dataclass(frozen=True)
class DeviceOptions:
    """Where to compute."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps"""
    precision: Precision = "auto"
    """bf16: matrix products in bfloat16, weights in fp32; auto takes it where the processor is fast at it"""
    threads: int = 0
    """processor threads; 0 is one a core"""

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= 4096:
            raise InputError(f"threads is {self.threads}", how="use 1 or more, or 0 for one on each core")


Device = Annotated[DeviceOptions, arg(name="")]
"""the field of a Config: its options stand among the command's own, as --device, --precision and --threads"""


@dataclass(frozen=True)
class Runtime:
    """Device and precision of one run. Weights stay in fp32; `autocast` makes the matrix products bf16."""

    device: torch.device
    bf16: bool
    threads: int

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 matrix products where the run uses them, else nothing."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def inference_copy(self, model: Model) -> Model:
        """The model for whoever only asks it and never trains it: with bf16 products, in half the memory."""
        return cast_for_inference(model, torch.bfloat16) if self.bf16 else model

    def to_inference(self, model: Model) -> Model:
        """The same of a model that nobody needs as it was: it is changed itself."""
        return cast_for_inference(model, torch.bfloat16, in_place=True) if self.bf16 else model

    @property
    def tolerance(self) -> float:
        """Nats a token by which two ways of computing the same log-probability may differ on average.

        A model of four layers has gaps of 0.0003 in bf16 and below 0.0001 in fp32; temperatures of 0.75 and 0.7 make
        0.013. Deeper models have more in bf16: see `passes.rounding`.
        """
        return 0.01 if self.bf16 else 0.001

    def describe(self) -> str:
        precision = "bf16 products, fp32 weights" if self.bf16 else "fp32"
        return f"{self.device.type}, {precision}, {self.threads} thread{'s' if self.threads != 1 else ''}"


def start_runtime(options: DeviceOptions) -> Runtime:
    """Choose device and precision, set the threads, and keep freed memory for the next step."""
    device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    if device.type == "cpu":
        keep_memory()
        keep_few_kernels()
    bf16 = options.precision == "bf16" or (options.precision == "auto" and fast_bf16(device))
    return Runtime(device, bf16, torch.get_num_threads())


def pick_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"no device is called '{name}'", how="use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"nothing is computed on device '{name}'", how="use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("this machine has no CUDA device", how="use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"this machine has no '{name}'", how=f"it has {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("this machine has no MPS device", how="use --device cpu")
    return device


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products beat fp32 here: on CUDA, and on processors with instructions for them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and processor_multiplies_bf16()


def processor_multiplies_bf16() -> bool:
    """Whether the processor has AMX tiles or AVX-512 BF16 (Linux says so in /proc/cpuinfo)."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            flags = file.read()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def keep_memory() -> None:
    """Ask glibc to keep large freed blocks: giving them back costs page faults at every step."""
    if platform.system() != "Linux" or os.environ.get("MALLOC_TRIM_THRESHOLD_"):
        return
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((mmap_threshold, 1 << 30), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20)):
            libc.mallopt(option, value)


def keep_few_kernels() -> None:
    """Ask oneDNN to keep the products of the last few shapes, not of the last thousand: nearly every batch has another
    number of tokens, so that the others are never met again, and fill up to a gigabyte."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS))
