"""Options of agents. Those whose default is None have a default of each algorithm's own, in its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from amenable.control.policies import Activation
from amenable.errors import InputError
from amenable.train import plan
from amenable.train.optimizer import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """Options of an agent: what it collects, how it estimates advantages, its networks and updates."""

    num_envs: int = 8
    """copies of the environment"""
    num_steps: int | None = None
    """steps in every copy between two updates; by default 256, and 8 for a2c. reinforce plays whole episodes, of at
    least as many steps in all"""
    num_epochs: int | None = None
    """passes over these steps; by default 10 for ppo and trpo (of the critic), 1 for the others"""
    minibatch_size: int | None = None
    """steps in one update; by default 64 for ppo, 128 for trpo's critic, all for the others"""
    gamma: float = 0.99
    lam: float | None = None
    """GAE's lambda; by default .95 for ppo and trpo, 1 for the others"""
    cliprange: float = 0.2
    """ppo: how far the probability ratio may move before its gradient stops"""
    cliprange_value: float = 0.0
    """ppo: how far a value may move in an update, in units of scaled return; 0 does not clip"""
    target_kl: float = 0.0
    """ppo: updates on a rollout end where the KL from the policy that acted is above this; 0 never"""
    trust_region: float = 0.01
    """trpo: mean KL(old || new) that a step may come to, in nats"""
    cg_iterations: int = 15
    """trpo: products of conjugate gradient with the Fisher matrix"""
    cg_damping: float = 0.1
    """trpo: added to the diagonal of the Fisher matrix"""
    line_search_steps: int = 10
    """trpo: times that a step is halved at most"""
    entropy_coef: float = 0.0
    vf_coef: float = 1.0
    """of the halved squared error; stable-baselines3's .5 is of the whole one"""
    learning_rate: float | None = None
    """of Adam; by default 3e-4 for ppo, 7e-4 for a2c, 1e-3 for reinforce and trpo's critic"""
    max_grad_norm: float = 0.5
    """the gradient is scaled down to this norm; 0 leaves it"""
    adam_eps: float = 1e-5
    final_lr_frac: float = 0.0
    """share of the learning rate at the end, to which it falls in a straight line"""
    normalize_observations: bool = True
    """shift and scale vectors by their running moments; images are divided by 255"""
    scale_rewards: bool = True
    """divide rewards by the running standard deviation of the discounted return"""
    hidden: tuple[int, ...] = (64, 64)
    """widths of the layers of policy and critic; those of images have convolutions and a layer of 512"""
    activation: Activation = "tanh"

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "num_envs", "num_steps", "num_epochs", "minibatch_size")
        plan.require_at_least(1, self, "cg_iterations", "line_search_steps")
        plan.require_share(self, "gamma", "final_lr_frac")
        if self.lam is not None:
            plan.require_share(self, "lam")
        plan.require_at_least(0, self, "cliprange", "cliprange_value", "target_kl", "cg_damping", "entropy_coef")
        plan.require_at_least(0, self, "vf_coef", "learning_rate", "max_grad_norm")
        plan.require_above_zero(self, "trust_region", "adam_eps")
        if not self.hidden or min(self.hidden) < 1 or max(self.hidden) > 2**16:
            raise InputError(f"hidden is {self.hidden}", how="give the width of each layer, from 1 to 65536")

    @property
    def adam(self) -> OptimizerConfig:
        """Adam's options, without weight decay. ValueError before `fill` has given the learning rate."""
        if self.learning_rate is None:
            raise ValueError("the learning rate is the algorithm's: fill the options first")
        norm, rate = self.max_grad_norm, self.learning_rate
        return OptimizerConfig(rate, beta1=0.9, beta2=0.999, eps=self.adam_eps, max_grad_norm=norm)


Options = TypeVar("Options", bound=AgentOptions)


def fill(options: Options, defaults: Mapping[str, float]) -> Options:
    """Return the options with an algorithm's defaults in place of None."""
    values: dict[str, Any] = {name: value for name, value in defaults.items() if getattr(options, name) is None}
    return replace(options, **values)
