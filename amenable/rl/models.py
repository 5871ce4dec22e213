"""The models that reinforcement learning from a reward model needs, as they start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.optimizer import freeze
from amenable.train.runtime import Runtime


@dataclass(frozen=True)
class Actors:
    """The four models of PPO, the tokenizer they share, and the machine they live on."""

    policy: Decoder
    reference: Decoder
    critic: ScalarModel
    scorer: ScalarModel
    tokenizer: Tokenizer
    runtime: Runtime


def load_actors(model: Path, reward_model: Path, frozen_layers: int, runtime: Runtime) -> Actors:
    """Policy and reference from the SFT model, scorer and critic from the reward model; dropout off in all."""
    policy, tokenizer = loading.load_policy(model, runtime)
    reference = runtime.only_asked(loading.load_policy(model, runtime)[0]).requires_grad_(False)
    scorer = loading.load_judge(reward_model, runtime, tokenizer)
    critic = loading.load_reward_model(reward_model, runtime, tokenizer)
    freeze(policy, frozen_layers)
    return Actors(policy, reference, critic, scorer, tokenizer, runtime)
