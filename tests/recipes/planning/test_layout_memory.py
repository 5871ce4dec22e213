"""Memory of a GPU under a layout, by hand and against published numbers."""

from dataclasses import replace

import pytest

from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.presets import preset
from amenable.models.published_shapes import PUBLISHED
from amenable.recipes.planning.gpus import GIB, parse_gpus
from amenable.recipes.planning.layout_memory import (
    PARTS,
    SAMPLER_WORKSPACE,
    MemoryParts,
    cache_bytes,
    gathered_bytes,
    phases_of,
    sampled_rows,
    sampler_weights,
)
from amenable.recipes.planning.layouts import ParallelLayout
from amenable.recipes.planning.workload import CPU, CUDA, StepWork, roles, sized
from amenable.train import memory
from amenable.train.optimizer import OptimizerConfig

SHAPE = PUBLISHED["Qwen3-8B"]
COUNT = 8_190_735_360


def phases(work: StepWork, layout: ParallelLayout, gpus: str, shape: DecoderConfig = SHAPE, tokens: int = 4096) -> dict:
    step = work.pass_within(tokens)
    assert step is not None
    return phases_of(work, roles(work, shape, shape, layout.rank), layout, parse_gpus(gpus), step)


def test_states_of_fsdp_are_sixteen_bytes_a_weight() -> None:
    """Rajbhandari et al. (2020, figure 1): 7.5 billion weights on 64 GPUs leave 1.9 GB of states on each."""
    training = phases(StepWork("sft", 512, 512, 512), ParallelLayout(shards=64), "64xH100")["training"]
    states = training.weights + training.moments + training.gradients
    assert states == pytest.approx(16 * COUNT / 64, rel=1e-6)
    assert 7.5e9 / COUNT * states == pytest.approx(1.9e9, rel=0.02)


def test_a_token_of_a_13b_model_has_800_kb_of_keys_and_values() -> None:
    """Kwon et al. (2023, section 3) of OPT-13B: 2 x 5120 x 40 x 2 bytes."""
    opt = DecoderConfig(50272, context_length=2048, num_layers=40, hidden_size=5120, num_heads=40)
    assert cache_bytes(opt, 1) == 800 * 1024 and cache_bytes(opt, 4) == 200 * 1024
    assert cache_bytes(SHAPE, 1) == 2 * 36 * 8 * 128 * 2


def test_buffers_of_fsdp() -> None:
    """Two layers and the embeddings in bf16, the gradients of a layer in fp32; none where nothing is sharded."""
    layer, embeddings = (COUNT - 2 * 151936 * 4096) / 36, 2 * 151936 * 4096
    model = sized(SHAPE)
    assert gathered_bytes(model, ParallelLayout(shards=8), trains=True) == pytest.approx(
        2 * (2 * layer + embeddings) + 4 * layer, rel=1e-3
    )
    assert gathered_bytes(model, ParallelLayout(shards=8)) == pytest.approx(2 * (2 * layer + embeddings), rel=1e-3)
    assert (
        gathered_bytes(model, ParallelLayout(shards=4, tensor=2)) == gathered_bytes(model, ParallelLayout(shards=8)) / 2
    )
    assert gathered_bytes(model, ParallelLayout(replicas=8)) == 0


def test_one_gpu_is_what_a_run_plans() -> None:
    """The plan that a run prints (train/memory.py), part by part."""
    shape = preset("gpt2")
    work = StepWork("pretrain", 64, 0, 1024)
    step = work.pass_within(8192)
    assert step is not None
    for checkpointed in (False, True):
        training = phases(work, ParallelLayout(checkpointed=checkpointed), "H100", shape, 8192)["training"]
        model = replace(sized(shape), checkpointed=checkpointed)
        held = model.bytes + 4 * model.moments
        assert training.total == pytest.approx(held + memory.training_bytes(model, step, CUDA))


def test_a_processor_has_libraries_and_fragments() -> None:
    shape, work = preset("nano", 1536), StepWork("pretrain", 16, 0, 256)
    step = work.pass_within(4096)
    assert step is not None
    step = replace(step, accumulates=False)
    taken = phases_of(work, roles(work, shape, None, 0), ParallelLayout(), parse_gpus("cpu"), step)["training"]
    expected = memory.training_peak(Decoder(shape, "meta"), OptimizerConfig(), step, CPU, steps=100)
    assert taken.total == pytest.approx(expected, rel=0.01) and taken.overhead > 0


def test_layers_that_are_computed_again_need_less() -> None:
    work = StepWork("sft", 64, 512, 512)
    stored, again = (
        phases(work, ParallelLayout(shards=8, checkpointed=flag), "8xH100", tokens=16384)["training"].activations
        for flag in (False, True)
    )
    assert again < stored / 5


def test_tensor_parallel_divides_all_but_the_hidden_states() -> None:
    """Korthikanti et al. (2022, equation 2): 10 / 34 of a layer's activations stay on every GPU."""
    work, shape = StepWork("sft", 64, 512, 512), PUBLISHED["Llama-2-7B"]
    whole, part = (
        phases(work, ParallelLayout(shards=8 // size, tensor=size), "8xH100", shape, 16384)["training"].activations
        for size in (1, 8)
    )
    assert 1 / 8 < part / whole < 10 / 34 + 1 / 8


def test_a_sampler_has_what_the_states_leave() -> None:
    work, layout, cluster = StepWork("ppo", 512, 512, 512), ParallelLayout(shards=8), parse_gpus("8xH100")
    some = phases(work, layout, "8xH100")
    rows = sampled_rows(work, SHAPE, layout, cluster, some)
    assert rows == 64 and some["sampling"].cache == 64 * 1024 * cache_bytes(SHAPE, 1)
    assert some["sampling"].sampler == pytest.approx(sampler_weights(SHAPE, 1) + SAMPLER_WORKSPACE)
    assert sampler_weights(SHAPE, 1) == pytest.approx(2 * COUNT, rel=1e-3)
    own = replace(layout, sampler=8, sampler_tensor=2)
    separate = phases(work, own, "16xH100")
    assert "sampling" not in separate and sampled_rows(work, SHAPE, own, parse_gpus("16xH100"), separate) == 128


def test_a_cache_has_room_for_the_longest_completions() -> None:
    work = StepWork("ppo", 512, 512, 128, longest=512)
    cache = phases(work, ParallelLayout(shards=8), "8xH100")["sampling"].cache
    assert cache == 64 * 1024 * cache_bytes(SHAPE, 1)


def test_a_cache_too_small_for_eight_rows_does_not_fit() -> None:
    work, layout = StepWork("ppo", 512, 16384, 16384), ParallelLayout(replicas=1)
    cluster = parse_gpus("A100-40")
    assert sampled_rows(work, SHAPE, layout, cluster, phases(work, layout, "A100-40", tokens=32768)) == 0


def test_parts_add_up() -> None:
    some = MemoryParts(*(GIB * 2.0**index for index in range(len(PARTS))))
    assert some.total == GIB * (2 ** len(PARTS) - 1)
