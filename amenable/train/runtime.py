"""Runtime of a run: device, precision and threads.

Nothing is decided at import: a stage calls `start_runtime` once and passes the result on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from tyro.conf import arg

from amenable.errors import InputError
from amenable.models.inference import Model, cast_for_inference
from amenable.models.sharding import whole
from amenable.ranks import in_group, local_rank

Precision = Literal["auto", "fp32", "bf16"]
KERNELS = 64
"""matrix products that oneDNN's cache and torch's keep each"""


@dataclass(frozen=True)
class DeviceOptions:
    """Options for device and precision."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps"""
    precision: Precision = "auto"
    """bf16: matrix products in bfloat16, weights in fp32; auto uses it if the device is faster at it"""
    threads: int = 0
    """processor threads; 0 is one for each core"""
    ignore_memory: bool = False
    """go on where the plan of a run needs more memory than is free"""

    def __post_init__(self) -> None:
        if not 0 <= self.threads <= 4096:
            raise InputError(f"threads is {self.threads}", how="use 1 or more, or 0 for one on each core")


Device = Annotated[DeviceOptions, arg(name="")]
"""field of a Config: its options are the command's own, --device, --precision and --threads"""


@dataclass(frozen=True)
class Runtime:
    """Device and precision of one run. Weights stay in fp32; `autocast` makes the matrix products bf16."""

    device: torch.device
    bf16: bool
    threads: int
    ignore_memory: bool = False

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return a context of bf16 matrix products, or an empty one in fp32."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def inference_copy(self, model: Model) -> Model:
        """Return the model for inference: in a bf16 run a copy with its matrices stored in bf16, in half the memory. Of
        weights that are divided among processes each gets a whole copy."""
        return cast_for_inference(model, torch.bfloat16) if self.bf16 else whole(model)

    def to_inference(self, model: Model) -> Model:
        """Like `inference_copy`, but converts `model` in place, without keeping its fp32 matrices."""
        return cast_for_inference(model, torch.bfloat16, in_place=True) if self.bf16 else model

    @property
    def tolerance(self) -> float:
        """Largest mean difference of two computations of the same log-probability, in nats a token.

        A model of four layers has 0.0003 in bf16 and below 0.0001 in fp32; temperatures of 0.75 and 0.7 differ by
        0.013. Deeper models have more in bf16: see `forward.rounding`.
        """
        return 0.01 if self.bf16 else 0.001

    def describe(self) -> str:
        precision = "bf16 products, fp32 weights" if self.bf16 else "fp32"
        return f"{self.device.type}, {precision}, {self.threads} thread{'s' if self.threads != 1 else ''}"


def start_runtime(options: DeviceOptions) -> Runtime:
    """Choose device and precision, set the number of threads, and keep freed memory for the next step."""
    device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    if device.type == "cpu":
        keep_memory()
        keep_few_kernels()
    bf16 = options.precision == "bf16" or (options.precision == "auto" and fast_bf16(device))
    return Runtime(device, bf16, torch.get_num_threads(), options.ignore_memory)


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is CUDA if available, else the CPU; of several processes each
    has a GPU of its own. InputError if there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and in_group():
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"no device is called '{name}'", how="use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device '{name}' is not supported", how="use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("this machine has no CUDA device", how="use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"this machine has no '{name}'", how=f"it has {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("this machine has no MPS device", how="use --device cpu")
    return device


def fast_bf16(device: torch.device) -> bool:
    """Return True if bf16 matrix products are faster than fp32: on CUDA, and on processors with bf16 instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and processor_multiplies_bf16()


def processor_multiplies_bf16() -> bool:
    """Return True if the processor has AMX tiles or AVX-512 BF16, by Linux's /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            flags = file.read()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def processor_name() -> str:
    """Return the processor's name from /proc/cpuinfo, macOS's sysctl, or else from Python's `platform`."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def processor_instructions() -> str:
    """Return torch's word for the processor's vectors, and whether it has instructions for bf16."""
    bf16 = "bf16" if processor_multiplies_bf16() else "no bf16"
    return f"{torch.backends.cpu.get_cpu_capability()}, {bf16} instructions"


def keep_memory() -> None:
    """Make glibc keep large freed blocks: returning them costs page faults at every step."""
    set_heap(mmap_threshold=1 << 30, trim_threshold=2**31 - 1, top_pad=64 << 20)


def return_memory() -> None:
    """Make glibc return large freed blocks at once, so that a process has no more than is live: blocks that are kept
    between passes of many sizes can come to twice of that."""
    set_heap(mmap_threshold=1 << 20, trim_threshold=1 << 20, top_pad=128 << 10)


def set_heap(mmap_threshold: int, trim_threshold: int, top_pad: int) -> None:
    """Set options of glibc's heap, in bytes, unless the environment does; nothing on other systems."""
    if platform.system() != "Linux" or os.environ.get("MALLOC_TRIM_THRESHOLD_"):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-3, mmap_threshold), (-1, trim_threshold), (-2, top_pad)):
            libc.mallopt(option, value)


def keep_few_kernels() -> None:
    """Make oneDNN cache the products of the last KERNELS shapes, not of the last thousand: nearly every batch has
    another number of tokens, so that the others are never used again, and fill up to a gigabyte."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS))
