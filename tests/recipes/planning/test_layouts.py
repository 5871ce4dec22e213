"""Divisions of a cluster, and of a model's tensors."""

from dataclasses import replace

import pytest

from amenable.models.decoder import Decoder
from amenable.models.published_shapes import PUBLISHED
from amenable.recipes.planning.gpus import parse_gpus
from amenable.recipes.planning.layouts import (
    ParallelLayout,
    layouts,
    local_model,
    sampler_counts,
    tensor_part,
    tensor_sizes,
)
from amenable.recipes.planning.workload import matrix_numbers, sized

SHAPE = PUBLISHED["Qwen3-8B"]


def test_layouts_divide_every_gpu_once() -> None:
    cluster = parse_gpus("16xH100")
    every = list(layouts(cluster, SHAPE, (0, 16), online=True))
    assert len(every) == len(set(every)) > 100
    assert all(layout.trainers + layout.sampler == 16 for layout in every)
    assert all((layout.sampler or layout.trainers) % layout.sampler_tensor == 0 for layout in every)
    divisions = {layout.division() for layout in every if not layout.sampler}
    assert divisions == {
        *("data parallel 16", "FSDP 16", "hybrid FSDP 2 x 8"),
        *("data parallel 8 x tensor 2", "FSDP 8 x tensor 2", "hybrid FSDP 2 x 4 x tensor 2"),
        *("data parallel 4 x tensor 4", "FSDP 4 x tensor 4", "hybrid FSDP 2 x 2 x tensor 4"),
        *("data parallel 2 x tensor 8", "FSDP 2 x tensor 8"),
    }


def test_a_stage_that_samples_nothing_trains_on_all() -> None:
    every = list(layouts(parse_gpus("4xA100"), SHAPE, (0,), online=False))
    assert {(layout.sampler, layout.sampler_tensor) for layout in every} == {(0, 1)}
    assert [layout.division() for layout in layouts(parse_gpus("H100"), SHAPE, (0,), False)] == ["data parallel 1"] * 2


def test_what_divides_the_heads_divides_tensors() -> None:
    cluster = parse_gpus("8xH100")
    assert tensor_sizes(cluster, SHAPE) == [1, 2, 4, 8]
    assert tensor_sizes(cluster, PUBLISHED["SmolLM2-135M"]) == [1]
    assert tensor_sizes(cluster, PUBLISHED["Qwen2.5-7B"]) == [1, 2, 4]
    assert tensor_sizes(parse_gpus("2xH100"), SHAPE) == [1, 2]
    assert sampler_counts(cluster) == [0, 1, 2, 4, 6] and sampler_counts(parse_gpus("H100")) == [0]


@pytest.mark.parametrize("name", ["Qwen3-8B", "Llama-2-7B", "gemma-7b"])
def test_parts_of_a_model_add_up(name: str) -> None:
    shape = PUBLISHED[name]
    part = tensor_part(shape, 4)
    assert 4 * matrix_numbers(part)[0] == matrix_numbers(shape)[0]
    assert 4 * Decoder(part, "meta").token_embedding.weight.numel() == shape.vocab_size * shape.hidden_size
    assert tensor_part(shape, 1) == shape


def test_states_are_divided_among_shards_and_tensors() -> None:
    model = sized(SHAPE)
    local = local_model(model, ParallelLayout(replicas=2, shards=4, tensor=2))
    assert (local.bytes, local.training, local.moments) == (model.bytes // 8, model.training // 8, model.moments // 8)
    assert local.matrices == 0, "sharded weights are cast as they are gathered"
    assert local_model(model, ParallelLayout(replicas=4, tensor=2)).matrices == model.matrices // 2


def test_layouts_are_named() -> None:
    assert ParallelLayout(replicas=2, shards=4).division() == "hybrid FSDP 2 x 4"
    assert ParallelLayout(tensor=8).division() == "tensor 8"
    assert ParallelLayout(sampler=2, sampler_tensor=2).sampling(True) == "2 more, tensor 2"
    assert (
        replace(ParallelLayout(), sampler_tensor=1).sampling(True) == "the same"
        and ParallelLayout().sampling(False) == ""
    )
