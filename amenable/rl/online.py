"""The run of an online algorithm: options that follow from its models, the run directory, the models, the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from amenable.rl.algorithm import Algorithm
from amenable.rl.critic import Critic, CriticOptions, make_critic
from amenable.rl.improve import improve
from amenable.rl.models import Models, critic_traits, inputs, load_models
from amenable.rl.policy_sampler import PolicySampler, make_sampler, require_sampler
from amenable.train import defaults
from amenable.train.run import Run
from amenable.train.runtime import start_runtime

A = TypeVar("A", bound=CriticOptions)


def run_online(name: str, config: Any, make: Callable[[Models, Any], Algorithm], lines: Sequence[str] = ()) -> Path:
    """Train a policy by an algorithm and return the run directory; a finished run stays as it is.

    name: of the stage. config: its `OnlineOptions`, with `out`. make: returns the algorithm for loaded models and the
    options with their defaults filled. lines: of the plan.
    """
    policy = defaults.traits(config.model, virtual_tokens=config.virtual_tokens)
    critic = critic_traits(config, policy) if isinstance(config, CriticOptions) else None
    config, by_default = defaults.online(config, policy, critic)
    run = Run(config.out, name, config, inputs(config), config.max_kl)
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    require_sampler(config)
    models = load_models(config, runtime)
    with closing(PolicySampler(models, config, make_sampler(models, config, run.out))) as source:
        return improve(make(models, config), models, config, run, [*lines, by_default], source)


def with_critic(make: Callable[[Models, Critic, A], Algorithm]) -> Callable[[Models, A], Algorithm]:
    """Return a `make` of `run_online` from one that takes a critic as well."""
    return lambda models, config: make(models, make_critic(models, config), config)
