"""Reference logits: outputs of a model on fixed ids, saved with the model to verify it after loading.

probe.tensors has the ids [N] of a few rows, their lengths [B], and the model's outputs at each row's last token: logits
[B, V] in fp32, or rewards [B]. Its header has the environment that computed them. It is a safetensors file under
another suffix, since servers load every *.safetensors of a folder as weights.
"""

from __future__ import annotations

import json
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
from amenable.models.sharding import reshard
from amenable.ranks import is_first
from amenable.train.runtime import processor_name

NAME = "probe.tensors"
LENGTHS = (1, 4, 9, 16)
"""tokens of each row, if the context is as long"""
TOLERANCE = 1e-4
"""largest difference on another machine, relative to the largest number stored"""


@dataclass(frozen=True, eq=False)
class Probe:
    """Outputs of a model: ids [N], lengths [B], values [B, V] or [B]; environment: `environment` of their device."""

    ids: Tensor
    lengths: tuple[int, ...]
    values: Tensor
    environment: dict[str, Any]

    def rows(self) -> tuple[Tensor, ...]:
        """Return the ids of each row."""
        return self.ids.split(list(self.lengths))


def save(folder: Path, model: Decoder | ScalarModel) -> None:
    """Compute a model's reference logits and write them atomically. Where several processes divide the weights each has
    to call this: the first writes."""
    probe = record(model)
    if is_first():
        write(folder, probe)


def record(model: Decoder | ScalarModel) -> Probe:
    """Compute a model's reference logits on its device, in fp32 and without dropout."""
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    lengths = tuple(min(length, decoder.config.context_length) for length in LENGTHS)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(decoder.config.vocab_size, (sum(lengths),), generator=generator)
    return Probe(ids, lengths, outputs(model, ids, lengths), environment(decoder.token_embedding.weight.device))


def replay(stored: Probe, model: Decoder | ScalarModel) -> Probe:
    """Compute a model's outputs on the stored ids, here. ValueError or IndexError if it cannot read these ids."""
    device = next(model.parameters()).device
    return Probe(stored.ids, stored.lengths, outputs(model, stored.ids, stored.lengths), environment(device))


@torch.no_grad()
def outputs(model: Decoder | ScalarModel, ids: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return logits [B, V], or rewards [B], at the last token of each row, on the CPU."""
    was_training = model.training
    model.eval()
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    device = decoder.token_embedding.weight.device
    layout = Layout.of(lengths, device)
    values = model(ids.to(device), layout, at=layout.last_tokens)
    if not isinstance(model, ScalarModel):
        values = decoder.padded_logits(values)
    reshard(model)
    model.train(was_training)
    return values.float().cpu()


def environment(device: torch.device) -> dict[str, Any]:
    """Return the facts that decide the last bits of a sum: torch version, device, processor, threads."""
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
    threads = torch.get_num_threads()
    return {"torch": torch.__version__, "device": device.type, "processor": processor, "threads": threads}


def write(folder: Path, probe: Probe) -> None:
    tensors = {"ids": probe.ids, "lengths": torch.tensor(probe.lengths), "values": probe.values.contiguous()}
    temporary = temporary_path(folder / NAME)
    save_file(tensors, temporary, metadata={"place": json.dumps(probe.environment)})
    commit_file(temporary, folder / NAME)


def read(folder: Path) -> Probe | None:
    """Read the reference logits of a model folder, or None. InputError for a file that is torn or altered."""
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
    """Return the largest difference, relative to the largest number stored or 1; infinite if the shapes differ or a
    number is not finite."""
    if stored.shape != values.shape or not (stored.isfinite().all() and values.isfinite().all()):
        return float("inf")
    return float((stored - values).abs().max() / stored.abs().max().clamp(min=1.0))
