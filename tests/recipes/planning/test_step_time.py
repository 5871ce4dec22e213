"""Time of a step, by hand."""

from dataclasses import replace

import pytest

from amenable.models.published_shapes import PUBLISHED
from amenable.recipes.planning.gpus import parse_gpus
from amenable.recipes.planning.layouts import ParallelLayout
from amenable.recipes.planning.step_time import (
    ELEMENTWISE,
    LOGIT_BYTES,
    Assumptions,
    Times,
    compute_seconds,
    handover_seconds,
    sampling_seconds,
    step_times,
    step_volumes,
    token_seconds,
)
from amenable.recipes.planning.workload import StepWork, matrix_numbers, roles, sized, step_flops

SHAPE = PUBLISHED["Qwen3-8B"]
H100 = parse_gpus("8xH100")
HALF = Assumptions(efficiency=0.5)
WORK = StepWork("sft", 64, 512, 512)


def test_training_is_products_and_element_wise_operations() -> None:
    model = sized(SHAPE)
    layers = ELEMENTWISE * 4096 * 36 * WORK.tokens
    logits = LOGIT_BYTES * 151936 * 64 * 512
    forward = step_flops(WORK, model) / (0.5 * 989e12) + (layers + logits) / (0.8 * 3350e9)
    assert compute_seconds(WORK, model, ParallelLayout(), H100, HALF) == pytest.approx(forward)
    assert compute_seconds(WORK, model, ParallelLayout(), H100, HALF, trains=True) == pytest.approx(3 * forward)


def test_layers_computed_again_are_a_forward_pass_without_the_head() -> None:
    model = sized(SHAPE)
    plain, again = (
        compute_seconds(WORK, model, ParallelLayout(checkpointed=flag), H100, HALF, trains=True)
        for flag in (False, True)
    )
    head = 2 * 151936 * 4096 * 64 * 512
    layers = ELEMENTWISE * 4096 * 36 * WORK.tokens
    assert again - plain == pytest.approx((step_flops(WORK, model) - head) / (0.5 * 989e12) + layers / (0.8 * 3350e9))


def test_adapters_save_the_gradients_of_the_weights() -> None:
    model, adapted = sized(SHAPE), sized(SHAPE, 16)
    whole = compute_seconds(WORK, model, ParallelLayout(), H100, HALF, trains=True)
    some = compute_seconds(WORK, adapted, ParallelLayout(rank=16), H100, HALF, trains=True)
    assert whole - some == pytest.approx(step_flops(WORK, model) / (0.5 * 989e12))


def test_fsdp_moves_three_times_the_weights() -> None:
    """Two all-gathers in bf16 and a reduce-scatter in fp32 a pass; data parallel one all-reduce an update."""
    models, count = roles(WORK, SHAPE, None, 0), 8_190_735_360
    step = WORK.pass_within(4096)
    assert step is not None
    sharded = step_volumes(WORK, models, ParallelLayout(shards=8), step)
    passes = 64 / 8 * 1024 / 4096
    assert (sharded.gathered, sharded.scattered) == (passes * 2 * 2 * count, passes * 4 * count)
    copies = step_volumes(WORK, models, ParallelLayout(replicas=8), step)
    assert (copies.gathered, copies.scattered, copies.replicas) == (0, 0, 4 * count)
    hybrid = step_volumes(WORK, models, ParallelLayout(replicas=2, shards=4), step)
    assert hybrid.replicas == 4 * count / 4 and hybrid.gathered > 0
    tensors = step_volumes(WORK, models, ParallelLayout(shards=4, tensor=2), step)
    assert tensors.tensors == 4 * 36 * 2 * 4096 * WORK.tokens / 4


def test_decoding_reads_weights_and_cache_for_each_token() -> None:
    embedding = 151936 * 4096
    weights = 2 * (matrix_numbers(SHAPE)[0] + embedding)
    cache = 16 * 1000 * 2 * 36 * 8 * 128 * 2
    assert token_seconds(SHAPE, 16, 1000, 1, H100, 0.5) == pytest.approx((weights + cache) / (0.7 * 3350e9))
    flops = 2 * (matrix_numbers(SHAPE)[0] + embedding) * 4096
    assert token_seconds(SHAPE, 4096, 1, 1, H100, 0.5) == pytest.approx(flops / (0.5 * 989e12) / 0.7)
    halves = token_seconds(SHAPE, 16, 1000, 2, H100, 0.5)
    assert halves > (weights + cache) / 2 / (0.7 * 3350e9), "an all-reduce after attention and MLP of each layer"


def test_sampling_is_a_prefill_and_waves() -> None:
    work, layout = StepWork("ppo", 512, 512, 256), ParallelLayout(shards=8)
    prefill = 2 * matrix_numbers(SHAPE)[0] * 64 * 512 / (0.5 * 989e12)
    wave = 256 * token_seconds(SHAPE, 32, 512 + 128, 1, H100, 0.5)
    assert sampling_seconds(work, SHAPE, layout, H100, 32, HALF) == pytest.approx(prefill + 2 * wave)
    group = replace(work, group=8)
    assert sampling_seconds(group, SHAPE, layout, H100, 32, HALF) == pytest.approx(prefill / 8 + 2 * wave)


def test_a_step_waits_for_its_longest_completion() -> None:
    """64 rows a GPU in two waves of 32: the first of mean length, the last as long as the longest, half full."""
    work = replace(StepWork("ppo", 512, 512, 256), longest=512)
    layout = ParallelLayout(shards=8)
    full, thin = (token_seconds(SHAPE, rows, 512 + 128, 1, H100, 0.5) for rows in (32, 16))
    prefill = 2 * matrix_numbers(SHAPE)[0] * 64 * 512 / (0.5 * 989e12)
    assert sampling_seconds(work, SHAPE, layout, H100, 32, HALF) == pytest.approx(prefill + 256 * full + 512 * thin)


def test_weights_go_to_a_sampler() -> None:
    separate = ParallelLayout(shards=4, sampler=4)
    weights = 2 * (matrix_numbers(SHAPE)[0] + 2 * 151936 * 4096)
    assert handover_seconds(SHAPE, separate, H100) == pytest.approx(weights / 450e9)
    assert handover_seconds(SHAPE, separate, parse_gpus("16xH100")) == pytest.approx(weights / 50e9)
    assert (
        handover_seconds(SHAPE, ParallelLayout(replicas=8), H100)
        == 0
        < handover_seconds(SHAPE, ParallelLayout(shards=8), H100)
    )


def test_a_step_is_the_sum_or_the_longer_of_two_at_once() -> None:
    times = Times(sampling=5, handover=1, scoring=2, training=3, communication=1, optimizer=0.5)
    assert times.step == 12.5 and replace(times, concurrent=True).step == 7.5
    assert replace(times, concurrent=True, sampling=9).step == 10


def test_staleness_lets_a_sampler_of_its_own_run_ahead() -> None:
    work = StepWork("ppo", 512, 512, 512)
    models = roles(work, SHAPE, SHAPE, 0)
    step = work.pass_within(4096)
    assert step is not None
    for sampler, expected in ((4, True), (0, False)):
        layout = ParallelLayout(shards=8 - sampler, sampler=sampler)
        times = step_times(work, models, layout, H100, step, 64, Assumptions(0.5, max_staleness=1))
        assert times.concurrent == expected
    every = step_times(work, models, ParallelLayout(shards=8), H100, step, 64, Assumptions(0.5))
    assert every.scoring > 0 and every.training > every.scoring and every.optimizer > 0 and every.handover > 0


def test_more_passes_wait_longer() -> None:
    models = roles(WORK, SHAPE, None, 0)
    waits = []
    for tokens in (1024, 8192):
        step = WORK.pass_within(tokens)
        assert step is not None
        waits.append(step_times(WORK, models, ParallelLayout(shards=8), H100, step, 0, HALF).communication)
    assert waits[0] > 2 * waits[1]
