"""GPUs by name, with the numbers of their data sheets, and clusters of them such as 8xH100."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace

import torch

from amenable.errors import InputError
from amenable.train.memory_limit import available_bytes

USABLE = 0.92
"""share of a GPU's memory that a plan fills: the rest is CUDA's context, NCCL's buffers and what fragments"""
MAX_GPUS = 100_000


@dataclass(frozen=True)
class Gpu:
    """Device: what it holds, and what it does in a second. Rates are those of one direction."""

    name: str
    memory: float
    """bytes, as torch reports them"""
    flops: float
    """bf16 matrix products a second without sparsity, 2 for each product and sum"""
    bandwidth: float
    """bytes of its memory read or written"""
    link: float
    """bytes sent to other GPUs of the node"""
    network: float
    """bytes sent to other nodes, for each GPU of a node"""
    efficiency: float
    """share of `flops` that large matrix products reach in training"""
    source: str
    decoding: float = 0.7
    """share of the bandwidth, or of that efficiency, that decoding reaches: vLLM takes 6.5 ms a token of Llama 3.1 8B
    on H100 and 13.3 on A100, whose bandwidth alone asks for 4.5 and 9.7"""
    per_node: int = 8
    hop: float = 3.4e-6
    """seconds of a step of a ring within the node: NVLink 3.4, PCIe 5.7 microseconds (NCCL's src/graph/tuning.cc)"""


GIB, GB, TFLOP = 2**30, 1e9, 1e12
FITTED = "efficiency fitted on MosaicML's llm-foundry, 1B and 7B in scripts/train/benchmarking/README.md"
NVLINK, PCIE = 3.4e-6, 5.7e-6
GPUS = (
    Gpu(
        *("H200", 139.8 * GIB, 989 * TFLOP, 4800 * GB, 450 * GB, 50 * GB, 0.56),
        "NVIDIA H200 data sheet; 400 Gbit/s a GPU, as DGX H200; efficiency as fitted for H100",
    ),
    Gpu(
        *("H100", 79.1 * GIB, 989 * TFLOP, 3350 * GB, 450 * GB, 50 * GB, 0.56),
        f"NVIDIA H100 SXM data sheet; 400 Gbit/s a GPU, as DGX H100; {FITTED}",
    ),
    Gpu(
        *("A100-80", 79.2 * GIB, 312 * TFLOP, 2039 * GB, 300 * GB, 25 * GB, 0.72),
        f"NVIDIA A100 SXM data sheet; 200 Gbit/s a GPU, as DGX A100; {FITTED}",
    ),
    Gpu(
        *("A100-40", 39.4 * GIB, 312 * TFLOP, 1555 * GB, 300 * GB, 25 * GB, 0.72),
        f"NVIDIA A100 SXM data sheet; 200 Gbit/s a GPU, as DGX A100; {FITTED}",
    ),
    Gpu(
        *("MI300X", 191.6 * GIB, 1307 * TFLOP, 5300 * GB, 448 * GB, 50 * GB, 0.4),
        "AMD Instinct MI300X data sheet (seven links of 64 GB/s); 400 Gbit/s a GPU; efficiency assumed",
    ),
    Gpu(
        *("L40S", 44.4 * GIB, 362 * TFLOP, 864 * GB, 32 * GB, 12.5 * GB, 0.6),
        "NVIDIA L40S data sheet; PCIe 4.0 x16; 100 Gbit/s a GPU and efficiency assumed",
        hop=PCIE,
    ),
    Gpu(
        *("4090", 23.6 * GIB, 165 * TFLOP, 1008 * GB, 16 * GB, 1.25 * GB, 0.9),
        "NVIDIA Ada whitepaper, sums in fp32; PCIe 4.0 x16 through the host's memory, since there is no peer access: "
        "half; 10 Gbit/s a GPU assumed; efficiency by one point, LoRA of 8B in torchtune's README.md",
        hop=PCIE,
    ),
    Gpu(
        *("cpu", 0.0, 0.43 * TFLOP, 33 * GB, 10 * GB, 1.25 * GB, 0.9),
        "measured: two cores of an EPYC with AVX-512 bf16, ceilings, copies and decoding in benchmarks/RESULTS.md; "
        "memory: what is free here; 10 Gbit/s assumed",
        decoding=0.13,
        per_node=1,
    ),
)
ALIASES = {
    "a100": "A100-80",
    "a100-80gb": "A100-80",
    "a100-40gb": "A100-40",
    "h100-80gb": "H100",
    "h100-sxm": "H100",
    "rtx4090": "4090",
    "rtx-4090": "4090",
}
"""other names of some"""


@dataclass(frozen=True)
class Cluster:
    """Some GPUs of one kind, in nodes of equal size."""

    gpu: Gpu
    count: int
    per_node: int

    @property
    def nodes(self) -> int:
        return -(-self.count // self.per_node)

    @property
    def usable(self) -> float:
        """Bytes of a GPU that a plan may fill."""
        return self.gpu.memory if self.gpu.name == "cpu" else USABLE * self.gpu.memory

    def __str__(self) -> str:
        nodes = f" in {self.nodes} nodes" if self.nodes > 1 else ""
        return f"{self.count:,} x {self.gpu.name} ({self.gpu.memory / GIB:.1f} GiB each){nodes}"


def parse_gpus(text: str, per_node: int = 0, network: float = 0.0) -> Cluster:
    """Return the cluster that a text such as "8xH100" or "H200" names. InputError for an unknown GPU, with the nearest.

    per_node: GPUs of a node, network: Gbit/s to other nodes for each GPU; 0 takes those of the GPU's usual machine.
    """
    match = re.fullmatch(r"\s*(?:(\d+)\s*[xX*]\s*)?(\S+)\s*", text)
    if match is None:
        raise InputError(f"--gpus is {text!r}", how="give a number and a GPU, such as 8xH100")
    count, gpu = int(match[1] or 1), find_gpu(match[2])
    if not 1 <= count <= MAX_GPUS:
        raise InputError(f"--gpus has {count:,} of them", how=f"1 to {MAX_GPUS:,} can be planned")
    if network:
        gpu = replace(gpu, network=network * 1e9 / 8)
    size = min(per_node or gpu.per_node, count)
    if count % size:
        raise InputError(f"{count} GPUs are not nodes of {size}", how="give a multiple of it, or --gpus-per-node")
    return Cluster(gpu, count, size)


def find_gpu(name: str) -> Gpu:
    """Return the GPU of a name, in any case. InputError for another, with the nearest."""
    known = {gpu.name.lower(): gpu for gpu in GPUS}
    key = ALIASES.get(name.lower(), name).lower()
    if key not in known:
        near = difflib.get_close_matches(key, [*known, *ALIASES], n=1, cutoff=0.5)
        hint = f"did you mean '{find_gpu(near[0]).name}'? " if near else ""
        raise InputError(f"no GPU is known as '{name}'", how=f"{hint}known are {', '.join(gpu.name for gpu in GPUS)}")
    gpu = known[key]
    return replace(gpu, memory=float(available_bytes(torch.device("cpu")) or 8 * GIB)) if key == "cpu" else gpu
