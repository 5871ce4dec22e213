"""Memory of an online run: four models, two of them with moments; sizes of passes as they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from amenable.models.config import DecoderConfig
from amenable.rl import memory as rl_memory
from amenable.rl.critic import make_critic
from amenable.stages import ppo
from amenable.train import memory
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Runtime
from benchmarks import workloads

SHAPE = DecoderConfig(vocab_size=320, context_length=64, num_layers=2, hidden_size=32, num_heads=2)
FP32 = Runtime(torch.device("cpu"), False, 1)


def ppo_config(**changes: Any) -> ppo.Config:
    config = ppo.Config(**{"max_new_tokens": 16, **changes})
    return replace(config, critic_learning_rate=1e-4, optimizer=OptimizerConfig(learning_rate=1e-4))


def test_rollouts_hold_four_models_two_of_them_with_moments_and_the_best() -> None:
    """4 models, 2 x 2 moments and the best are held; of few tokens, gradients are most of the largest pass."""
    shape = replace(SHAPE, hidden_size=128, vocab_size=2000)
    config = ppo_config(max_steps=2, prompts_per_step=4, max_new_tokens=8, keep_weights="score", validation=Path("x"))
    algorithm, models = workloads.make_ppo(shape, FP32, config)
    policy, critic = (sum(p.numel() for p in module.parameters()) for module in algorithm.models.values())
    size = rl_memory.peak_bytes(algorithm, models, config, [[1, 2]])
    held = 4 * (5 * policy + 4 * critic)
    assert 4 * (policy + critic) < size - memory.LIBRARIES - held < 4 * 2 * (policy + critic)


def test_rollouts_grow_with_answers_and_not_with_minibatches() -> None:
    prompts = [[1] * 12] * 8
    algorithm, models = workloads.make_ppo(SHAPE, FP32, ppo_config())

    def size(**changes: Any) -> int:
        config = ppo_config(**{"prompts_per_step": 64, "max_new_tokens": 16, "max_steps": 2, **changes})
        return rl_memory.peak_bytes(algorithm, models, config, prompts)

    assert size(num_mini_batches=1) > size(num_mini_batches=4) >= size(num_mini_batches=16)
    assert size(max_new_tokens=40) > size(max_new_tokens=16)
    assert size(num_mini_batches=1, ptx_coef=1.0, ptx_data=Path("text"), ptx_tokens=8192) > size(num_mini_batches=1)
    line, *_ = rl_memory.describe(algorithm, models, ppo_config(max_new_tokens=64), prompts[:1])
    assert line.endswith("cpu, fp32, 1 thread")


def test_activations_of_policy_and_critic_are_not_held_together() -> None:
    """The second model that trains adds weights, moments, gradients and copies, and no activations."""
    prompts, config = [[1] * 40] * 8, ppo_config(prompts_per_step=64, max_steps=2, max_new_tokens=24)
    algorithm, models = workloads.make_ppo(SHAPE, FP32, config)
    both = rl_memory.peak_bytes(algorithm, models, config, prompts)
    critic = sum(p.numel() for p in algorithm.models.pop("critic").parameters())
    assert both - rl_memory.peak_bytes(algorithm, models, config, prompts) == 4 * 4 * critic


def test_a_value_head_on_the_trunk_has_no_critics_memory() -> None:
    prompts, config = [[1] * 40] * 8, ppo_config(prompts_per_step=64, max_steps=2, max_new_tokens=24)
    algorithm, models = workloads.make_ppo(SHAPE, FP32, config)
    separate = rl_memory.peak_bytes(algorithm, models, config, prompts)
    critic = sum(p.numel() for p in algorithm.models["critic"].parameters())
    config = replace(config, critic="shared")
    shared = ppo.PPO(models, make_critic(models, config), config)
    head = sum(p.numel() for p in shared.models["critic"].parameters())
    assert separate - rl_memory.peak_bytes(shared, models, config, prompts) == 4 * 4 * (critic - head)


def test_only_a_run_that_keeps_the_best_weights_holds_them_twice() -> None:
    shape = replace(SHAPE, hidden_size=128, vocab_size=2000)
    last = ppo_config(max_steps=2, prompts_per_step=4, max_new_tokens=8)
    algorithm, models = workloads.make_ppo(shape, FP32, last)
    best = replace(last, keep_weights="score", validation=Path("prompts"))
    sizes = [rl_memory.peak_bytes(algorithm, models, config, [[1, 2]]) for config in (last, best)]
    weights = sum(p.numel() for p in models.policy.parameters())
    assert sizes[1] - sizes[0] == 4 * weights


def test_answers_sampled_beside_training_take_a_copy_of_the_policy_and_their_own_room() -> None:
    prompts, config = [[1] * 12] * 8, ppo_config(prompts_per_step=64, max_steps=2)
    algorithm, models = workloads.make_ppo(SHAPE, FP32, config)
    policy = sum(p.numel() for p in models.policy.parameters())
    ahead = replace(config, max_staleness=1, sampler_correction="truncate")
    more = rl_memory.peak_bytes(algorithm, models, ahead, prompts) - rl_memory.peak_bytes(
        algorithm, models, config, prompts
    )
    assert more > 4 * policy
