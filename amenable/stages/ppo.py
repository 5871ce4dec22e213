"""PPO from any reward: sample, score, estimate advantages, take a few clipped steps, repeat.

    r_t = -kl_coef (log pi(y_t) - log ref(y_t)),  plus the score on the last token
    A   = GAE(r, V), standardised over the batch
    L   = ppo_policy_loss - entropy_coef H,   L_V = vf_coef value_loss,   and  -ptx_coef log pi(raw text)  (PPO-ptx)

Policy and reference start as the SFT model, the critic as the reward model (as the policy where the reward is no
model); dropout is off everywhere; the sampling temperature divides the logits in every log-probability. Schulman et al.
(2017); Stiennon et al. (2020); Ouyang et al. (2022, eq. 2 and appendix C.4).

Reads run directories of `sft` (policy, reference) and `reward` (or another reward: --reward), and prompts. Writes a
model directory, answers to held-out prompts (answers.jsonl), and traces of single tokens (traces.jsonl, `amenable
inspect`). The loop (sampling, scores, KL control, updates, evaluation) is every online algorithm's: rl/improve.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional.advantages import masked_gae
from amenable.functional.losses import ppo_policy_loss, value_loss
from amenable.functional.masked import scale
from amenable.functional.rewards import token_rewards
from amenable.generation.rollout import pad_to_mask
from amenable.models.heads import ScalarModel
from amenable.rl.algorithm import Columns, MeanOver, every, policy_logprobs
from amenable.rl.experience import Experience
from amenable.rl.improve import improve
from amenable.rl.models import Models, critic_traits, inputs, load_critic, load_models
from amenable.rl.options import OnlineOptions
from amenable.train import defaults, forward, plan
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.run import Run
from amenable.train.runtime import start_runtime
from amenable.train.stage_report import online_report

REPORT = online_report("PPO", "The policy learns to please the reward model without leaving SFT far behind.")


@dataclass(frozen=True)
class Config(OnlineOptions):
    """Train a policy to please a reward model without leaving its reference behind."""

    out: Path = Path("runs/ppo")
    critic_learning_rate: FromModel[float] = FROM_MODEL
    """by default from the size of the critic"""
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    whiten_rewards: bool = False
    """divide the token rewards by their standard deviation"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "cliprange", "cliprange_value", "vf_coef", "critic_learning_rate")
        plan.require_share(self, "gamma", "lam")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    policy = traits(config.model, virtual_tokens=config.prompt_tuning)
    config, by_default = defaults.online(config, policy, critic_traits(config, policy))
    run = Run(config.out, "ppo", config, inputs(config), config.max_kl)
    if run.skip_finished():
        return run.out
    models = load_models(config, start_runtime(config.device))
    algorithm = PPO(models, load_critic(models, config), config)
    return improve(algorithm, models, config, run, [by_default])


class PPO:
    """Clipped surrogate with a critic (Schulman et al., 2017), a KL penalty in every token's reward."""

    mean_over: MeanOver = "tokens"
    standardize_advantages = True
    group = 1

    def __init__(self, models: Models, critic: ScalarModel, config: Config):
        self.policy, self.critic, self.runtime, self.config = models.policy, critic, models.runtime, config
        critic_config = replace(config.optimizer, learning_rate=config.critic_learning_rate)
        self.models = {"policy": self.policy, "critic": critic}
        self.optimizers = {
            "policy": Optimizer([self.policy], config.optimizer),
            "critic": Optimizer([critic], critic_config),
        }
        self.losses = (self.policy_loss, self.value_loss)

    def look(self, experience: Experience, bars: Bars) -> None:
        """Add the critic's values of the state before every response token."""
        rows, limit = experience.rollout.rows(), self.config.max_tokens_per_pass
        values = forward.compute_values(self.critic, rows, self.runtime, limit, bars("values"))
        experience.columns["values"] = pad_to_mask(values, experience.rollout.mask)

    def estimate(self, experience: Experience, kl_coef: float) -> None:
        """Add token rewards, advantages and value targets."""
        rollout, columns, config = experience.rollout, experience.columns, self.config
        rewards = token_rewards(rollout.logps, columns["ref_logps"], experience.scores, rollout.mask, kl_coef)
        if config.whiten_rewards:
            rewards = scale(rewards, rollout.mask)
        advantages, returns = masked_gae(rewards, columns["values"], rollout.mask, config.gamma, config.lam)
        columns.update(rewards=rewards, advantages=advantages, returns=returns)

    def policy_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L = ppo_policy_loss - entropy_coef H."""
        config = self.config
        temperature, entropy_coef = config.temperature, config.entropy_coef
        logps, entropies, stats = policy_logprobs(self.policy, batch, old, self.runtime, temperature, entropy_coef)
        loss, surrogate = ppo_policy_loss(logps, old["logps"], old["advantages"], every(logps), config.cliprange)
        stats |= {"loss/policy_avg": loss.detach(), "policy/clipfrac_avg": surrogate["clip_fraction"]}
        return loss - entropy_coef * entropies.mean() if entropy_coef else loss, stats

    def value_loss(self, batch: Batch, old: Columns) -> tuple[Tensor, Stats]:
        """L_V = vf_coef value_loss."""
        with self.runtime.autocast():
            values = forward.masked_values(self.critic, batch)
        clip = self.config.cliprange_value
        loss, stats = value_loss(values, old["values"], old["returns"], every(values), clip)
        return self.config.vf_coef * loss, {
            "loss/value_avg": loss.detach(),
            "value/clipfrac_avg": stats["clip_fraction"],
        }
