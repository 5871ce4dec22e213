"""Layouts that fit, in order."""

from dataclasses import replace

from amenable.models.published_shapes import PUBLISHED
from amenable.recipes.planning.gpus import parse_gpus
from amenable.recipes.planning.layouts import ParallelLayout
from amenable.recipes.planning.search import PASSES, PlanRequest, candidates, distinct, scaled
from amenable.recipes.planning.step_time import Assumptions
from amenable.recipes.planning.workload import StepWork

SHAPE = PUBLISHED["Qwen3-8B"]
TASK = PlanRequest(StepWork("ppo", 512, 512, 512), SHAPE, SHAPE, (0, 16), Assumptions(0.5))


def test_what_fits_comes_first_and_the_fastest_of_it() -> None:
    cluster = parse_gpus("8xH100")
    every = candidates(TASK, cluster)
    fitting = [candidate for candidate in every if candidate.fits]
    assert 0 < len(fitting) < len(every) and every[: len(fitting)] == fitting
    times = [candidate.times.step for candidate in fitting]
    assert times == sorted(times) and all(c.memory.total <= cluster.usable for c in fitting)
    sizes = [candidate.memory.total for candidate in every[len(fitting) :]]
    assert sizes == sorted(sizes)
    assert all(0 < candidate.utilization(TASK, cluster) < TASK.assumed.efficiency for candidate in fitting)


def test_data_parallel_training_of_all_weights_does_not_fit() -> None:
    """16 bytes a weight of two models are 262 GB; divided among eight GPUs they fit."""
    fits = {(c.layout.division(), c.layout.rank) for c in candidates(TASK, parse_gpus("8xH100")) if c.fits}
    assert ("data parallel 8", 0) not in fits and {("data parallel 8", 16), ("FSDP 8", 0)} <= fits


def test_the_largest_pass_that_fits_is_taken() -> None:
    some = [c for c in candidates(TASK, parse_gpus("8xH100")) if c.layout == ParallelLayout(shards=8)]
    assert len(some) == 1 and some[0].step.tokens in PASSES
    larger = candidates(TASK, parse_gpus("8xH200"))
    assert next(c for c in larger if c.layout == ParallelLayout(shards=8)).step.tokens > some[0].step.tokens


def test_no_layout_has_more_ranks_than_groups() -> None:
    few = replace(TASK, work=StepWork("ppo", 4, 512, 512))
    assert {c.layout.ranks for c in candidates(few, parse_gpus("8xH100"))} <= {1, 2, 3, 4}
    assert candidates(replace(TASK, work=StepWork("ppo", 4, 40_000, 512)), parse_gpus("8xH100")) == []


def test_sizes_of_a_samplers_copy_are_listed_once() -> None:
    fitting = [c for c in candidates(TASK, parse_gpus("8xH100")) if c.fits]
    chosen = distinct(fitting)
    assert chosen[0] == fitting[0] and len(chosen) < len(fitting)
    assert len({replace(c.layout, sampler_tensor=1) for c in chosen}) == len(chosen)


def test_a_cluster_grows_in_nodes_of_its_size() -> None:
    assert (scaled(parse_gpus("8xH100"), 1024).nodes, scaled(parse_gpus("4xH100"), 16).per_node) == (128, 8)
    assert scaled(parse_gpus("8xH100", per_node=4), 32).per_node == 4
