"""Launch of a training command on a cluster: `--cluster ray`, the resources in one YAML file, a cluster's address.

    amenable ppo --cluster ray --cluster-resources resources.yaml --model runs/sft --reward runs/reward --out runs/ppo

The trainers get the command's options in a file beside the run's folder, which all nodes share with the command's own
folder. Servers of reward models and of the reference are on the first trainer's node, at 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from amenable.cluster.ray_placement import ray_placement, require_ray
from amenable.cluster.resources import Resources, read_resources
from amenable.cluster.supervisor import RunPlan, ServerPlan, Supervisor
from amenable.errors import InputError
from amenable.generation.vllm_engine import CPU_CACHE_GIB, RANKS
from amenable.generation.vllm_worker import WORKER
from amenable.rewards.remote import SERVED
from amenable.rewards.spec import spec_list, split_weight
from amenable.train.run_options import ClusterOptions, plain_values
from amenable.train.runtime import fast_bf16

REWARD, REFERENCE = "reward", "reference"
"""name of a model at its server"""
SAMPLERS, REFERENCES = "samplers", "references"
"""files of servers' addresses, in the folder that the run's processes share"""


def launch_on_ray(stage: str, config: Any) -> int:
    """Run a training command by Ray, and return its exit code. InputError for resources that do not fit its options."""
    require_ray()
    options: ClusterOptions = config.placement
    resources = read_resources(options.cluster_resources)
    workers = number_of_workers(resources, config.processes)
    require_samplers(stage, config, resources)
    require_rewards(config, resources)
    require_references(stage, config, resources)
    with shared_folder(Path(config.out)) as folder:
        plan = run_plan(stage, config, resources, workers, folder)
        with ray_placement(resources.bundles(workers), options.cluster_address) as placement:
            return Supervisor(plan, placement, Path.cwd()).run()


def number_of_workers(resources: Resources, processes: int) -> int:
    """Return the number of trainers. InputError where the resources and --processes name different ones."""
    wanted = resources.trainer.workers or processes
    if processes not in (1, wanted):
        raise InputError(f"processes is {processes}, and the resources name {wanted} workers", how="leave one out")
    return wanted


def require_samplers(stage: str, config: Any, resources: Resources) -> None:
    """Raise InputError for samplers that the command does not use."""
    if not resources.samplers.count:
        return
    if not hasattr(config, "sampler"):
        raise InputError("the resources name samplers", how=f"'{stage}' samples no answers: leave them out")
    if config.sampler != "vllm":
        raise InputError("the resources name samplers", how="add --sampler vllm")
    if config.sampler_url:
        raise InputError("the resources name samplers, and --sampler-url others", how="leave one out")


def require_rewards(config: Any, resources: Resources) -> None:
    """Raise InputError for the server of a reward model that the command does not use."""
    specs = [*spec_list(getattr(config, "reward", ())), *spec_list(getattr(config, "eval_reward_model", ()))]
    used = [Path(split_weight(str(spec))[0]) for spec in specs]
    for server in resources.rewards:
        if Path(server.model) not in used:
            raise InputError("the resources name a reward that --reward does not", server.model, "name it in both")


def require_references(stage: str, config: Any, resources: Resources) -> None:
    """Raise InputError for servers of a reference that the command does not use."""
    if not resources.references.count:
        return
    if not hasattr(config, "reference_url"):
        problem = "the resources name servers of a reference"
        raise InputError(problem, how=f"'{stage}' has none that could be on servers: leave them out")
    if config.reference_url:
        raise InputError("the resources name servers of a reference, and --reference-url others", how="leave one out")


@contextmanager
def shared_folder(out: Path) -> Iterator[Path]:
    """Make a folder beside the run's, for what its processes share besides, and remove it at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{out.name}.", suffix=".cluster", dir=out.parent)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_plan(stage: str, config: Any, resources: Resources, workers: int, folder: Path) -> RunPlan:
    """Return the trainers and servers of a command, whose options are written to a file of the folder."""
    own: dict[str, Any] = {"placement": ClusterOptions(), "processes": 1}
    if resources.samplers.count:
        own["sampler_url"] = (str(folder / SAMPLERS),)
    if resources.references.count:
        own["reference_url"] = (str(folder / REFERENCES),)
    (folder / "config.yaml").write_text(yaml.safe_dump(plain_values(replace(config, **own))), "utf-8")
    servers = reward_servers(config, resources, folder) + reference_servers(config, resources, folder)
    servers += sampler_servers(config, resources, workers, folder)

    def environment(urls: Sequence[str]) -> dict[str, str]:
        addresses = {each.model: url for each, url in zip(resources.rewards, urls)}
        return {SERVED: json.dumps(addresses)} if addresses else {}

    command = [sys.executable, "-m", "amenable", stage, "--config", str(folder / "config.yaml")]
    return RunPlan(command, workers, resources.trainer, servers, folder, environment, resources.restarts)


def reward_servers(config: Any, resources: Resources, folder: Path) -> list[ServerPlan]:
    """Return the servers of reward models, in the first bundle."""
    plans = []
    for number, share in enumerate(resources.rewards):
        command = serve_command(
            config, ["--reward-models", f"{REWARD}={share.model}"], folder / f"{REWARD}-{number}.db"
        )
        plans.append(ServerPlan(f"the server of {share.model}", 0, share, command, {}, f"/rewards/{REWARD}"))
    return plans


def reference_servers(config: Any, resources: Resources, folder: Path) -> list[ServerPlan]:
    """Return the servers of the reference model, in the first bundle."""
    plans, share = [], resources.references
    for number in range(share.count):
        models = ["--models", f"{REFERENCE}={config.reference_folder}", "--max-batch-size", "1"]
        command, path = serve_command(config, models, folder / f"{REFERENCE}-{number}.db"), f"/logprobs/{REFERENCE}"
        plans.append(ServerPlan(f"reference {number}", 0, share, command, {}, path, folder / REFERENCES))
    return plans


def serve_command(config: Any, models: Sequence[str], labels_db: Path) -> Callable[[str, int], list[str]]:
    """Return the command of an `amenable serve` of some models, of its host and port."""
    device = config.device
    program = [sys.executable, "-m", "amenable", "serve", *models]
    limits = ["--rate-limit-per-minute", "1000000", "--labels-db", str(labels_db)]
    compute = ["--device", device.device, "--precision", device.precision, "--threads", str(device.threads)]
    return lambda host, port: [*program, "--host", host, "--port", str(port), *limits, *compute]


def sampler_servers(config: Any, resources: Resources, workers: int, folder: Path) -> list[ServerPlan]:
    """Return the vLLM servers, each in a bundle after the trainers'."""
    share, rank = resources.samplers, getattr(getattr(config, "lora", None), "rank", 0)
    fast = share.gpus > 0 or fast_bf16(torch.device("cpu"))
    bf16 = config.device.precision == "bf16" or (config.device.precision == "auto" and fast)
    environment = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    environment["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", CPU_CACHE_GIB)
    adapters: list[str] = []
    if rank:
        limit = next((limit for limit in RANKS if limit >= rank), rank)
        adapters = ["--enable-lora", "--max-lora-rank", str(limit)]
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"

    def command(host: str, port: int) -> list[str]:
        program = [share.python or sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        served = ["--model", str(config.model), "--host", host, "--port", str(port)]
        numbers = ["--dtype", "bfloat16" if bf16 else "float32", "--logprobs-mode", "processed_logprobs"]
        return [*program, *served, *numbers, "--worker-extension-cls", WORKER, *adapters, *share.options]

    return [
        ServerPlan(f"sampler {number}", workers + number, share, command, environment, addresses=folder / SAMPLERS)
        for number in range(share.count)
    ]
