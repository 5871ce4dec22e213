"""Resources of a run on a cluster, in one YAML file: its trainers, and servers that sample, score, or are a reference.

    trainer: {workers: 2, cpus: 1, gpus: 0}
    samplers: {count: 1, cpus: 1, gpus: 0, python: .venv-vllm/bin/python, options: [--max-model-len, "512"]}
    rewards:
    - {model: runs/reward, cpus: 1, gpus: 0}
    references: {count: 1, cpus: 1, gpus: 0}
    restarts: 3

All of it has defaults: as many trainers as `--processes` says, on a CPU each, and no servers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from amenable.errors import InputError
from amenable.yaml_options import from_yaml

MOST = 4096
"""workers, servers or restarts at most"""


@dataclass(frozen=True)
class Share:
    """CPUs and GPUs of one process."""

    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cpus", "gpus"):
            if not 0 <= getattr(self, name) <= MOST:
                raise InputError(f"{name} is {getattr(self, name)}", how=f"it must be 0 to {MOST:,}")
        if self.gpus != int(self.gpus):
            raise InputError(f"gpus is {self.gpus}", how="it must be a whole number")
        if not self.cpus + self.gpus:
            raise InputError("a process has neither CPUs nor GPUs", how="give a part of a CPU: cpus: 0.5")


@dataclass(frozen=True)
class TrainerShare(Share):
    """Processes that train together. workers: their number; 0 is that of --processes."""

    workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self, "workers")


@dataclass(frozen=True)
class SamplerShare(Share):
    """vLLM servers. python: interpreter of an environment that has vLLM and amenable, "" is this one; options: further
    options of each server."""

    count: int = 0
    python: str = ""
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self, "count")


@dataclass(frozen=True)
class RewardShare(Share):
    """Server of a reward model, which --reward names too. It is on the node of the first trainer."""

    model: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise InputError("a reward server has no model", how="write model: FOLDER, as in --reward")


@dataclass(frozen=True)
class ReferenceShare(Share):
    """Servers of the reference model, which share its work. They are on the node of the first trainer."""

    count: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count(self, "count")


@dataclass(frozen=True)
class Resources:
    """Trainers and servers of a run. restarts: times that the trainers, and each server, are started again."""

    trainer: TrainerShare = field(default_factory=TrainerShare)
    samplers: SamplerShare = field(default_factory=SamplerShare)
    rewards: tuple[RewardShare, ...] = ()
    references: ReferenceShare = field(default_factory=ReferenceShare)
    restarts: int = 3

    def __post_init__(self) -> None:
        require_count(self, "restarts")
        models = [server.model for server in self.rewards]
        if repeated := next((model for model in models if models.count(model) > 1), None):
            raise InputError(f"the reward server of {repeated} is given twice", how="leave one out")

    def bundles(self, workers: int) -> list[dict[str, float]]:
        """Return the CPUs and GPUs that Ray reserves on one node each: of the first trainer with the servers of
        rewards and of the reference, of every further trainer, and of every sampler."""
        first = [self.trainer, *self.rewards, *[self.references] * self.references.count]
        others = [self.trainer] * (workers - 1) + [self.samplers] * self.samplers.count
        return [total(first), *(total([share]) for share in others)]


def total(shares: list[Share]) -> dict[str, float]:
    """Return the sum of shares by Ray's names, without what is 0."""
    sums = {"CPU": sum(share.cpus for share in shares), "GPU": sum(share.gpus for share in shares)}
    return {name: amount for name, amount in sums.items() if amount}


def require_count(options: object, name: str) -> None:
    """Raise InputError unless an option is a count."""
    if not 0 <= getattr(options, name) <= MOST:
        raise InputError(f"{name} is {getattr(options, name)}", how=f"it must be 0 to {MOST:,}")


def read_resources(file: Path | None) -> Resources:
    """Return the resources of a YAML file; the defaults without one. InputError, with the file's name, for a mistake in
    it."""
    if file is None:
        return Resources()
    if not file.is_file():
        raise InputError("no such file", file, "name a YAML file, as in docs/scale.md")
    try:
        return from_yaml(Resources, file)
    except InputError as error:
        raise InputError(error.what, file, error.how) from None
