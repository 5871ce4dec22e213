"""The layouts of a step that fit a cluster, the fastest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from amenable.models.config import DecoderConfig
from amenable.recipes.planning.gpus import Cluster
from amenable.recipes.planning.layout_memory import MemoryParts, phases_of, sampled_rows
from amenable.recipes.planning.layouts import ParallelLayout, layouts
from amenable.recipes.planning.step_time import Assumptions, Times, step_times
from amenable.recipes.planning.workload import Role, StepWork, roles, step_flops
from amenable.train.passes import Pass

PASSES = tuple(1 << power for power in range(15, 8, -1))
"""tokens of a pass that are tried, the most first: more than 32,768 gain nothing"""


@dataclass(frozen=True)
class PlanRequest:
    """Request for a plan: a step's work, the shapes of its models, and the assumptions."""

    work: StepWork
    shape: DecoderConfig
    reward: DecoderConfig | None
    """shape of the reward model; None where the reward is a function"""
    ranks: tuple[int, ...]
    """of adapters that are tried; 0 trains all weights"""
    assumed: Assumptions

    def models(self, rank: int) -> list[Role]:
        """Return the models of a step with adapters of a rank, or 0."""
        return roles(self.work, self.shape, self.reward, rank)


@dataclass(frozen=True)
class PlannedLayout:
    """A layout with its largest pass that fits, or the smallest where none does."""

    layout: ParallelLayout
    step: Pass
    phases: Mapping[str, MemoryParts]
    """memory of a GPU that trains, by phases of a step"""
    fits: bool
    times: Times = field(default_factory=Times)

    @property
    def memory(self) -> MemoryParts:
        """Memory of the largest phase."""
        return max(self.phases.values(), key=lambda phase: phase.total)

    def utilization(self, task: PlanRequest, cluster: Cluster) -> float:
        """Return the operations that the step needs over what all GPUs could do in its time (MFU): gradients of frozen
        weights and layers that are computed again do not count."""
        flops = 0.0
        for role in task.models(self.layout.rank):
            passes = task.work.epochs * (2 if self.layout.rank else 3) if role.trains else 0
            flops += (role.inferences + passes) * step_flops(task.work, role.model)
        return flops / (self.times.step * cluster.count * cluster.gpu.flops)


def candidates(task: PlanRequest, cluster: Cluster) -> list[PlannedLayout]:
    """Return every layout that has a row for each rank: those that fit, the fastest first, then the others, the
    smallest first."""
    models = {rank: task.models(rank) for rank in task.ranks}
    online = task.work.traits.scored
    every = [
        candidate
        for layout in layouts(cluster, task.shape, task.ranks, online)
        for candidate in evaluate(task, models[layout.rank], layout, cluster)
    ]
    fitting = sorted((c for c in every if c.fits), key=lambda c: (c.times.step, c.memory.total))
    return fitting + sorted((c for c in every if not c.fits), key=lambda c: c.memory.total)


def evaluate(
    task: PlanRequest, models: Sequence[Role], layout: ParallelLayout, cluster: Cluster
) -> Iterator[PlannedLayout]:
    """Yield a layout with the largest pass that fits, or the smallest that does not; nothing without rows for all."""
    share = task.work.shared(layout.ranks)
    if share is None:
        return
    smallest: PlannedLayout | None = None
    for limit in PASSES:
        step = share.pass_within(limit)
        if step is None or (smallest is not None and step == smallest.step):
            continue
        phases = phases_of(task.work, models, layout, cluster, step)
        rows = sampled_rows(task.work, task.shape, layout, cluster, phases)
        smallest = PlannedLayout(layout, step, phases, False)
        if smallest.memory.total <= cluster.usable and (rows or not task.work.traits.scored):
            times = step_times(task.work, models, layout, cluster, step, rows, task.assumed)
            yield replace(smallest, fits=True, times=times)
            return
    if smallest is not None:
        yield smallest


def distinct(fitting: Sequence[PlannedLayout]) -> list[PlannedLayout]:
    """Return the fastest of the layouts that differ in the size of a copy of the sampler alone, in order."""
    chosen: dict[ParallelLayout, PlannedLayout] = {}
    for candidate in fitting:
        chosen.setdefault(replace(candidate.layout, sampler_tensor=1), candidate)
    return list(chosen.values())


def scaled(cluster: Cluster, count: int) -> Cluster:
    """Return a cluster of another number of the same GPUs, in nodes as large as they are, or usually are."""
    size = cluster.per_node if cluster.nodes > 1 else max(cluster.per_node, cluster.gpu.per_node)
    return replace(cluster, count=count, per_node=min(size, count))
