"""The models of an online algorithm as they start, and the score that it learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from amenable.generation.rollout import Rollout
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.rl.options import OnlineOptions
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.log import Progress, silent
from amenable.train.optimizer import freeze
from amenable.train.runtime import Runtime

Reward = Callable[..., Tensor]
"""(rollout, progress) -> scores [B]"""


@dataclass(frozen=True)
class Models:
    """Policy, frozen reference, tokenizer, reward, and the runtime they are on."""

    policy: Decoder
    reference: Decoder
    tokenizer: Tokenizer
    reward: Reward
    runtime: Runtime
    frozen: tuple[nn.Module, ...] = ()
    """every model that is held and only read, the reference among them"""


def load_models(options: OnlineOptions, runtime: Runtime) -> Models:
    """Load policy and reference from the SFT model, and the reward; dropout off in all."""
    policy, tokenizer = loading.load_policy(options.model, runtime)
    reference = runtime.only_asked(loading.load_policy(options.model, runtime)[0]).requires_grad_(False)
    scorer = loading.load_judge(options.reward, runtime, tokenizer)
    freeze(policy, options.frozen_layers)
    reward = model_reward(scorer, runtime, options.max_tokens_per_pass)
    return Models(policy, reference, tokenizer, reward, runtime, (reference, scorer))


def model_reward(scorer: ScalarModel, runtime: Runtime, max_tokens: int) -> Reward:
    """Return the reward that a reward model gives a rollout: it scores the sampled ids as they are."""
    return partial(score_rollout, scorer, runtime, max_tokens)


def score_rollout(
    scorer: ScalarModel, runtime: Runtime, max_tokens: int, rollout: Rollout, progress: Progress = silent
) -> Tensor:
    """Return the scores [B] of a rollout's answers."""
    return forward.row_rewards(scorer, rollout.rows(), runtime, max_tokens, progress)


def load_critic(reward_model: Path, models: Models) -> ScalarModel:
    """Load a critic that starts as a reward model."""
    return loading.load_reward_model(reward_model, models.runtime, models.tokenizer)
