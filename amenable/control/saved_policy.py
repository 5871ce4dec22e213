"""A trained policy in a folder: weights and moments of observations (safetensors), and what they are for (JSON)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Activation, Policy
from amenable.errors import InputError
from amenable.files import write_text
from amenable.models.tensor_files import write_tensors

WEIGHTS, DESCRIPTION = "policy.safetensors", "policy.json"


@dataclass(frozen=True)
class Description:
    """Environment and networks of a policy."""

    env: str
    env_options: dict[str, Any]
    shape: list[int]
    num_actions: int
    discrete: bool
    hidden: list[int]
    activation: Activation
    normalize: bool


def save(folder: Path, policy: Policy, normalizer: ObservationNormalizer, description: Description) -> None:
    """Write a policy's weights and description."""
    tensors = {f"policy.{name}": tensor for name, tensor in policy.state_dict().items()}
    moments = normalizer.state_dict()
    tensors |= {"observations.mean": moments["mean"], "observations.var": moments["var"]}
    write_tensors(folder / WEIGHTS, tensors)
    write_text(folder / DESCRIPTION, json.dumps(asdict(description), indent=1))


def load(folder: Path) -> tuple[Policy, ObservationNormalizer, Description]:
    """Read a policy and its normalisation. InputError for a folder without one."""
    try:
        description = Description(**json.loads((folder / DESCRIPTION).read_text("utf-8")))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError):
        raise InputError("holds no policy of amenable control", folder, "name the folder of a finished run") from None
    d = description
    policy = Policy(d.shape, d.num_actions, d.discrete, d.hidden, d.activation, torch.Generator())
    prefix = "policy."
    policy.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    normalizer = ObservationNormalizer(tuple(d.shape), d.normalize)
    moments = {"mean": tensors["observations.mean"], "var": tensors["observations.var"]}
    normalizer.load_state_dict({"count": 1.0, **moments})
    return policy, normalizer, description
