"""A few numbers that a model gives, stored beside it when it is saved: whoever loads it can tell that it is the same.

probe.tensors holds ids [N] of a few rows one after another, their lengths [B], and what the model says at each row's
last token: logits [B, V] in fp32, or rewards [B]. Its header says where they were computed. It is a safetensors file by
another name, since servers take every *.safetensors of a folder for weights.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from amenable.errors import InputError
from amenable.files import commit_file, temporary_path
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout

NAME = "probe.tensors"
LENGTHS = (1, 4, 9, 16)
"""tokens of each row, as far as the context allows"""
TOLERANCE = 1e-4
"""what another machine may differ by, as a share of the largest number stored"""


@dataclass(frozen=True, eq=False)
class Probe:
    """What a model said. ids [N], lengths [B], values [B, V] or [B]; place: torch, device, processor and threads."""

    ids: Tensor
    lengths: tuple[int, ...]
    values: Tensor
    environment: dict[str, Any]

    def rows(self) -> tuple[Tensor, ...]:
        """The ids of each row."""
        return self.ids.split(list(self.lengths))


def save(folder: Path, model: Decoder | ScalarModel) -> None:
    """Ask a model, and write down what it says: beside, synced, renamed."""
    write(folder, record(model))


def record(model: Decoder | ScalarModel) -> Probe:
    """Ask a model, in fp32 and without dropout, where it is."""
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    lengths = tuple(min(length, decoder.config.context_length) for length in LENGTHS)
    drawing = torch.Generator().manual_seed(0)
    ids = torch.randint(decoder.config.vocab_size, (sum(lengths),), generator=drawing)
    return Probe(ids, lengths, outputs(model, ids, lengths), environment(decoder.unembedding.device))


def replay(stored: Probe, model: Decoder | ScalarModel) -> Probe:
    """The same asked of a model here. ValueError or IndexError where it cannot read these ids."""
    device = next(model.parameters()).device
    return Probe(stored.ids, stored.lengths, outputs(model, stored.ids, stored.lengths), environment(device))


@torch.inference_mode()
def outputs(model: Decoder | ScalarModel, ids: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Logits [B, V], or rewards [B], at the last token of each row, on the CPU."""
    was_training = model.training
    model.eval()
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    device = decoder.unembedding.device
    layout = Layout.of(lengths, device)
    found = model(ids.to(device), layout, at=layout.last_tokens)
    values = found if isinstance(model, ScalarModel) else decoder.padded_logits(found)
    model.train(was_training)
    return values.float().cpu()


def environment(device: torch.device) -> dict[str, Any]:
    """What decides the last bits of a sum, as far as we know it."""
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
    threads = torch.get_num_threads()
    return {"torch": torch.__version__, "device": device.type, "processor": processor, "threads": threads}


def processor_name() -> str:
    """As Linux calls it; elsewhere the little that Python knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def write(folder: Path, probe: Probe) -> None:
    tensors = {"ids": probe.ids, "lengths": torch.tensor(probe.lengths), "values": probe.values.contiguous()}
    temporary = temporary_path(folder / NAME)
    save_file(tensors, temporary, metadata={"place": json.dumps(probe.environment)})
    commit_file(temporary, folder / NAME)


def read(folder: Path) -> Probe | None:
    """The probe of a model folder; None where there is none. InputError for a file that is torn or altered."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in ("ids", "lengths", "values")}
            environment = json.loads(file.metadata()["place"])
        return Probe(tensors["ids"], tuple(tensors["lengths"].tolist()), tensors["values"], dict(environment))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot be read ({error})", path, "save the model again") from None


def difference(stored: Tensor, values: Tensor) -> float:
    """The largest difference, as a share of the largest number stored or of 1; infinite where the shapes differ, or
    where anything is not finite."""
    if stored.shape != values.shape or not (stored.isfinite().all() and values.isfinite().all()):
        return float("inf")
    return float((stored - values).abs().max() / stored.abs().max().clamp(min=1.0))
