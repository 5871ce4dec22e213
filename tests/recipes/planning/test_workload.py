"""A step's rows, models and operations, by hand."""

from dataclasses import replace

import pytest
import torch

from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.inference import cast_for_inference
from amenable.models.presets import preset
from amenable.recipes.planning.workload import (
    STAGES,
    StepWork,
    forward_flops,
    frozen,
    head_flops,
    matrix_numbers,
    roles,
    sized,
    step_flops,
    whole_model,
)
from amenable.train import memory
from amenable.train.optimizer import OptimizerConfig
from amenable.train.passes import Pass

PLAIN = DecoderConfig(100, context_length=64, num_layers=2, hidden_size=32, num_heads=2)
UNTIED = replace(preset("nano", 100), context_length=64, num_layers=2, hidden_size=48, num_heads=3)
UNTIED = replace(UNTIED, tie_embeddings=False)


def test_a_prompt_is_computed_once_a_group() -> None:
    work = StepWork("grpo", 16, 10, 4, group=8)
    assert (work.length, work.group_tokens, work.tokens, work.predicted) == (14, 42, 84, 4)
    whole = Pass(42, 8 * 14, 8 * 4, 8, accumulates=True)
    assert work.pass_within(42) == work.pass_within(83) == whole
    assert work.pass_within(10_000) == Pass(84, 16 * 14, 16 * 4, 16, accumulates=True)
    assert work.pass_within(20) == Pass(18, 28, 8, 2, accumulates=True), "part of a group, with its prompt"
    assert work.pass_within(13) is None
    assert replace(work, longest=30).longest_length == 40 and replace(work, longest=30).pass_within(39) is None


def test_ranks_share_whole_groups() -> None:
    work = StepWork("rloo", 24, 10, 4, group=4)
    shares = [work.shared(ranks) for ranks in (1, 4, 6, 7)]
    assert [share.rows if share else None for share in shares] == [24, 8, 4, None]


def test_what_is_predicted() -> None:
    assert StepWork("pretrain", 4, 6, 2).predicted == 8 and StepWork("sft", 4, 6, 2).predicted == 2
    step = StepWork("pretrain", 4, 6, 2).pass_within(16)
    assert step == Pass(16, 16, 16, 2, accumulates=True, summed=True)


def test_operations_of_shared_prompts() -> None:
    """Two layers of 12 x 32 x 32 weights; attention of two rows of three tokens, as often as rows have them."""
    weights, last = matrix_numbers(PLAIN)
    assert weights == 2 * 12 * 32 * 32 and last == (1 + 8) * 32 * 32
    attention = 2 * 2 * 2 * 32 * 3 * 4
    assert forward_flops(PLAIN, [3, 3], 0, 4, tokens=4) == 2 * weights * 4 + attention
    assert head_flops(PLAIN, 5) == 2 * 100 * 32 * 5
    work = StepWork("grpo", 4, 2, 1, group=2)
    group = 2 * weights * 4 + attention - 2 * last * (4 - 2) + head_flops(PLAIN, 2)
    assert step_flops(work, whole_model(PLAIN)) == 2 * group


@pytest.mark.parametrize("shape", [PLAIN, UNTIED], ids=["tied", "untied"])
def test_a_frozen_model_is_an_inference_copy(shape: DecoderConfig) -> None:
    decoder = cast_for_inference(Decoder(shape), torch.bfloat16, in_place=True)
    stored = sum(p.nbytes for p in decoder.parameters())
    assert frozen(sized(shape)).bytes == pytest.approx(stored, rel=0.02), "biases are in bf16 too"


def test_models_of_a_step() -> None:
    names = {stage: [role.name for role in roles(StepWork(stage, 8, 4, 4), PLAIN, PLAIN, 0)] for stage in STAGES}
    assert names["ppo"] == ["policy", "critic", "reference", "reward"]
    assert names["grpo"] == names["rloo"] == ["policy", "reference", "reward"]
    assert {tuple(names[stage]) for stage in ("pretrain", "sft", "reward", "dpo")} == {("policy",)}
    assert [r.name for r in roles(StepWork("grpo", 8, 4, 4), PLAIN, None, 0)] == ["policy", "reference"]


def test_a_critic_is_a_scalar_model_that_trains() -> None:
    policy, critic, reference, _ = roles(StepWork("ppo", 8, 4, 4), UNTIED, UNTIED, 0)
    expected = memory.model_of(ScalarModel(Decoder(UNTIED, "meta")), OptimizerConfig())
    head = UNTIED.hidden_size + 1
    assert critic.model.training == expected.training - head and not critic.model.predicts
    assert policy.model.training == policy.model.parameters == sum(p.numel() for p in Decoder(UNTIED).parameters())
    assert (reference.model.training, reference.model.moments, reference.inferences) == (0, 0, 1)


def test_adapters_share_one_base() -> None:
    policy, critic, reference, reward = roles(StepWork("ppo", 8, 4, 4), UNTIED, UNTIED, 4)
    assert critic.model.bytes == 4 * critic.model.training and reference.model.bytes == reward.model.bytes == 0
    whole = sized(UNTIED)
    assert policy.model.bytes == whole.bytes - 2 * whole.matrices + 4 * policy.model.training
    other = roles(StepWork("ppo", 8, 4, 4), UNTIED, PLAIN, 4)[-1]
    assert other.model.bytes > 0, "a reward model of another shape has weights of its own"


def test_probabilities_before_several_updates_are_a_pass_of_their_own() -> None:
    counts = [roles(StepWork("ppo", 8, 4, 4, updates=n), PLAIN, PLAIN, 0)[0].inferences for n in (1, 2)]
    assert counts == [0, 1]
