"""PPO from a reward model: sample, score, estimate advantages, take a few clipped steps, repeat.

    r_t = -kl_coef (log pi(y_t) - log ref(y_t)),  plus the score on the last token
    A   = GAE(r, V), standardised over the batch
    L   = ppo_policy_loss - entropy_coef H,   L_V = vf_coef value_loss,   and  -ptx_coef log pi(raw text)  (PPO-ptx)

Policy and reference start as the SFT model, the critic as the reward model; dropout is off everywhere; the sampling
temperature divides the logits in every log-probability. Schulman et al. (2017); Stiennon et al. (2020);
Ouyang et al. (2022, eq. 2 and appendix C.4).

Reads run directories of `sft` (policy, reference) and `reward` (scorer, first critic), and prompts. Beside the model it
leaves answers to held-out prompts (answers.jsonl) and single tokens' numbers for `amenable inspect` (traces.jsonl).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from amenable.data import batches, sources
from amenable.functional.advantages import masked_gae
from amenable.functional.losses import ppo_policy_loss, value_loss
from amenable.functional.masked import scale, standardize
from amenable.functional.rewards import penalise_missing_eos, token_rewards
from amenable.generation.rollout import collect, pad_to_mask
from amenable.generation.sampling import Sampling
from amenable.rl import experience as seen
from amenable.rl.experience import Experience, Targets
from amenable.rl.kl_controller import KLCoefficient
from amenable.rl.models import Actors, load_actors
from amenable.rl.monitor import Asked, Purpose, watch_of
from amenable.seeds import derive_seed, seed_step
from amenable.train import defaults, first_batch, forward, loading, memory, plan, run_options
from amenable.train.best import Best
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import Sieve, fitting_prompts, pieces_of, prompts_of_step, raw_rows, usable
from amenable.train.log import Bars, Progress, no_bars, silent, tracked
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import Run
from amenable.train.runtime import Device, DeviceOptions, start_runtime
from amenable.train.step import backward_next_token


@dataclass(frozen=True)
class Config:
    """Train a policy to please a reward model without leaving its reference behind."""

    model: Path = Path("runs/sft")
    """policy and reference"""
    reward_model: Path = Path("runs/reward")
    """scorer and first critic"""
    watch_reward_model: Path | None = None
    """another reward model, not trained on: a warning is given where its score falls while the scorer's rises"""
    data: Path = Path("runs/world/prompts/ppo.jsonl")
    """prompts: a file, or a folder of files"""
    validation: Path | None = None
    """held-out prompts: answered every eval_steps, with the same random numbers each time"""
    out: Path = Path("runs/ppo")
    max_steps: int = 40
    """iterations of sampling and learning"""
    prompts_per_step: int = 128
    num_generations: int = 1
    """samples of each prompt"""
    num_mini_batches: int = 4
    """updates of one pass over the samples"""
    num_ppo_epochs: int = 1
    """passes over the samples"""
    temperature: FromModel[float] = FROM_MODEL
    """divides the logits when sampling and in every log-probability; by default generation_config.json's, or 0.7"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """by default a quarter of the context, at most 256"""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(eps=1e-5))
    critic_learning_rate: FromModel[float] = FROM_MODEL
    """by default from the size of the reward model"""
    warmup_steps: int | None = None
    """by default 5, and at most an eighth of the steps"""
    final_learning_rate: float = 0.1
    kl_coef: FromModel[float] = FROM_MODEL
    """price of a nat away from the reference, in units of reward; 0 is none, and stays none whatever the target; by
    default 0.3 for answers of at most 64 tokens, and in proportion less for longer ones"""
    kl_target: FromModel[float] = FROM_MODEL
    """nats a response; the coefficient adapts to meet it; 0 keeps it fixed; by default 1.5 for answers of at most 64
    tokens, and in proportion more for longer ones"""
    kl_horizon: float = 600.0
    """samples over which the coefficient changes by a fifth; below the samples of a step it does so in every step"""
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    entropy_coef: float = 0.0
    missing_eos_penalty: float = 1.0
    """taken from the score of an answer that was cut by the length limit"""
    score_clip: float = 0.0
    """scores are clipped to this size; 0 leaves them"""
    whiten_rewards: bool = False
    """divide the token rewards by their standard deviation"""
    target_kl: float = 0.0
    """an iteration's updates, the critic's too, end before the minibatch on which the policy's KL from the sampler is
    above this (k3 in nats a token, as policy/approxkl_avg; stable-baselines3 waits for 1.5 times as much); 0 never"""
    max_kl: float = 100.0
    """the run stops when objective/kl stays above this, in nats a response; 0 never"""
    ptx_coef: float = 0.0
    """weight of the next-token loss on raw text mixed in (PPO-ptx)"""
    ptx_data: Path | None = None
    ptx_tokens: int = 1024
    """raw tokens mixed into each update"""
    frozen_layers: int = 0
    """lowest layers (with the embeddings) that the policy does not train"""
    select: Literal["last", "score"] = "last"
    """which weights are kept: the last, or those of the best score on the validation prompts"""
    eval_steps: int = 10
    eval_prompts: int = 200
    """how many of the held-out prompts, from the first on; 0 takes all"""
    sample_steps: int = 5
    watched: int = 6
    """prompts of which every token's numbers are kept, every sample_steps; 0 is none"""
    max_tokens_per_pass: int = 8192
    save_steps: int = 10
    inspect_batch: bool = False
    """show the first batch as it would be trained, and stop"""
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)
    care: run_options.Care = field(default_factory=run_options.Options)

    def __post_init__(self) -> None:
        counts = "max_steps prompts_per_step num_generations num_mini_batches num_ppo_epochs max_new_tokens ptx_tokens"
        plan.require_at_least(1, self, *counts.split(), "eval_steps", "sample_steps", "max_tokens_per_pass")
        sizes = "kl_coef kl_target target_kl max_kl cliprange cliprange_value vf_coef score_clip ptx_coef frozen_layers"
        sizes += " critic_learning_rate eval_prompts watched warmup_steps save_steps entropy_coef missing_eos_penalty"
        plan.require_at_least(0, self, *sizes.split())
        plan.require_share(self, "gamma", "lam", "final_learning_rate")
        plan.require_above_zero(self, "temperature", "kl_horizon")
        plan.require_minibatches(self)
        plan.refuse(self.ptx_coef and not self.ptx_data, "--ptx-coef needs raw text", "give --ptx-data")
        plan.refuse(self.select == "score" and not self.validation, "--select score needs prompts", "give --validation")

    @property
    def samples(self) -> int:
        return self.prompts_per_step * self.num_generations


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.ppo(config, traits(config.model), traits(config.reward_model, "amenable reward"))
    inputs = ("model", "data", "validation", "ptx_data", "reward_model", "watch_reward_model")
    run = Run(config.out, "ppo", config, {name: getattr(config, name) for name in inputs}, config.max_kl)
    if run.done():
        return run.out
    actors = load_actors(config.model, config.reward_model, config.frozen_layers, start_runtime(config.device))
    asked, raw = read(config, actors, run.sieve)
    watch = watch_of(asked, partial(gather, actors, samples=1, config=config, bars=run.log.bar), config, actors, run)
    schedule = plan.cosine_with_warmup(config.max_steps, config.warmup_steps, config.final_learning_rate, usual=5)
    run.claim(schedule)
    optimizer = Optimizer([actors.policy], config.optimizer)
    critic_optimizer = Optimizer([actors.critic], replace(config.optimizer, learning_rate=config.critic_learning_rate))
    coefficient, best = KLCoefficient(config.kl_coef, config.kl_target, config.kl_horizon), Best(actors.policy)
    run.log.say(f"policy {plan.parameters(actors.policy)}; critic {plan.parameters(actors.critic)}")
    run.log.say(f"{plan.rollouts(config, schedule, len(asked))}; {memory.told_rollouts(actors, config, asked)}")
    run.log.say(by_default)
    state: dict[str, Any] = {"policy": actors.policy, "critic": actors.critic, "optimizer": optimizer}
    state |= {"critic_optimizer": critic_optimizer, "kl_coefficient": coefficient, "best": best}
    for step in run.steps(config.max_steps, state, config.save_steps):
        seed_step(config.seed, step)
        places = prompts_of_step(list(range(len(asked))), config.prompts_per_step, config.seed, step)
        run.feeding(step, places)
        prompts, purpose = [asked[i][1] for i in places], ("rollout", step)
        experience = gather(actors, prompts, purpose, config.num_generations, config, run.log.bar)
        if step == 1:
            seen.require_at_reference(experience, actors.runtime.tolerance, rounding_of(actors, experience, config))
        if step == 1 or config.inspect_batch:
            said = experience.rollout
            proof = first_batch.of_samples(said.prompts, said.completions, said.ended.tolist(), actors.tokenizer)
            if first_batch.show(run, proof, config.inspect_batch):
                return run.out
        targets = estimate(experience, coefficient.value, config)
        watch.before(step, coefficient.value)
        optimizers, bar = (optimizer, critic_optimizer), run.log.bar("updates")
        stats = learn(actors, optimizers, experience, targets, raw, step, schedule(step), config, bar)
        metrics = {**seen.objective_metrics(experience, targets, coefficient.value), **stats}
        coefficient.adapt(metrics["objective/kl"], config.samples)
        metrics |= {**optimizer.rates(), **critic_optimizer.rates("critic_"), **watch.after(step, experience)}
        if config.select == "last" or "eval/score" in metrics:
            best.offer(metrics["eval/score"] if config.select == "score" else step, step)
        tokens, shown = int(experience.rollout.lengths.sum()), ("objective/scores", "objective/kl", "eval/score")
        run.record(step, tokens, shown, **metrics)

    best.restore()
    loading.save_model(run.out, actors.policy, actors.tokenizer, config.care.save_dtype)
    return run.finish(selected_step=best.step, **run.metrics)


def read(config: Config, actors: Actors, sieve: Sieve) -> tuple[list[Asked], list[list[int]]]:
    """Prompts to learn on, and pieces of raw text for PPO-ptx."""
    context = actors.policy.config.context_length
    asked = list(zip(*fitting_prompts(config.data, actors.tokenizer, context - config.max_new_tokens, sieve=sieve)))
    texts = usable(sources.read_texts(config.ptx_data), sieve) if config.ptx_data and config.ptx_coef else []
    return asked, pieces_of(texts, actors.tokenizer, context)


def gather(
    actors: Actors, prompts: list[list[int]], purpose: Purpose, samples: int, config: Config, bars: Bars = no_bars
) -> Experience:
    """Sample answers, and ask reference, critic and scorer about them once. `purpose` decides the random numbers."""
    runtime, limit, eos_id = actors.runtime, config.max_tokens_per_pass, actors.tokenizer.stop_ids
    sampling = Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
    seeds = [derive_seed(config.seed, *purpose, i) for i in range(len(prompts))]
    with runtime.autocast():
        shown = bars("answers")
        rollout = collect(actors.policy, prompts, sampling, eos_id=eos_id, seeds=seeds, samples=samples, progress=shown)
    rows = rollout.rows()
    ref_logps = forward.row_logprobs(actors.reference, rows, runtime, limit, config.temperature, bars("reference"))
    raw_scores = forward.row_rewards(actors.scorer, rows, runtime, limit, bars("scores"))
    bound = config.score_clip or float("inf")
    return Experience(
        rollout=rollout,
        ref_logps=pad_to_mask(ref_logps, rollout.mask),
        values=pad_to_mask(forward.row_values(actors.critic, rows, runtime, limit, bars("values")), rollout.mask),
        raw_scores=raw_scores,
        scores=penalise_missing_eos(raw_scores.clamp(-bound, bound), rollout.ended, config.missing_eos_penalty),
    )


def estimate(experience: Experience, kl_coef: float, config: Config) -> Targets:
    """Token rewards, standardised advantages, value targets."""
    rollout = experience.rollout
    rewards = token_rewards(rollout.logps, experience.ref_logps, experience.scores, rollout.mask, kl_coef)
    if config.whiten_rewards:
        rewards = scale(rewards, rollout.mask)
    advantages, returns = masked_gae(rewards, experience.values, rollout.mask, config.gamma, config.lam)
    return Targets(standardize(advantages, rollout.mask), returns, rewards)


def learn(
    actors: Actors,
    optimizers: tuple[Optimizer, Optimizer],
    experience: Experience,
    targets: Targets,
    raw: list[list[int]],
    step: int,
    multiplier: float,
    config: Config,
    progress: Progress = silent,
) -> dict[str, float]:
    """Epochs times minibatches of updates, up to the first minibatch that shows the policy above `target_kl`: it is not
    stepped on. Returns the mean of each statistic over the updates, and how many `updates` there were."""
    history: list[dict[str, float]] = []
    sizes = (config.prompts_per_step, config.num_generations, config.num_mini_batches, config.num_ppo_epochs)
    order = batches.minibatches(*sizes, derive_seed(config.seed, "minibatch", step))
    for chosen in tracked(order, progress):
        stats = backward(actors, experience, targets, chosen, config)
        if not history:
            count = int(experience.rollout.mask[chosen].sum())
            ratios = seen.Ratios(count, stats["val/ratio_gap"], stats["val/ratio"], stats["val/ratio_var"])
            rounding = rounding_of(actors, experience, config)
            seen.require_same_distribution(ratios, actors.runtime.tolerance, actors.policy.training, rounding)
        elif config.target_kl and stats["policy/approxkl_avg"] > config.target_kl:
            for part in optimizers:
                part.zero_grad()
            break
        if raw:
            rows = raw_rows(raw, config.ptx_tokens, config.seed, step, len(history))
            limit, weight = config.max_tokens_per_pass, config.ptx_coef
            stats["loss/ptx"] = float(backward_next_token(actors.policy, rows, actors.runtime, limit, weight))
        stats["policy/grad_norm"], stats["val/grad_norm"] = (part.step(multiplier) for part in optimizers)
        history.append(stats)
    return seen.mean_of(history)


def rounding_of(actors: Actors, experience: Experience, config: Config) -> Callable[[], float]:
    """Measures the rounding of the first answers' log-probabilities in bf16, in nats a token, when it is called."""
    rows = experience.rollout.rows(range(min(8, config.samples)))
    return partial(
        forward.rounding, actors.policy, rows, actors.runtime, config.max_tokens_per_pass, config.temperature
    )


def backward(
    actors: Actors, experience: Experience, targets: Targets, chosen: list[int], config: Config
) -> dict[str, float]:
    """Gradients of policy and critic on the chosen rows: the mean over their tokens, however many passes it takes."""
    rollout, device, stats = experience.rollout, actors.runtime.device, dict[str, float]()
    rows, total = rollout.rows(chosen), int(rollout.mask[chosen].sum())
    for part, batch in forward.in_order(rows, actors.runtime, config.max_tokens_per_pass):
        old_logps, old_values, advantages, returns = seen.flat(experience, targets, [chosen[i] for i in part], device)
        every = torch.ones_like(old_logps, dtype=torch.bool)
        with actors.runtime.autocast():
            logps, entropies = forward.trained_logprobs(actors.policy, batch, config.temperature, entropy=True)
            values = forward.trained_values(actors.critic, batch)
        policy_loss, policy_stats = ppo_policy_loss(logps, old_logps, advantages, every, config.cliprange)
        critic_loss, critic_stats = value_loss(values, old_values, returns, every, config.cliprange_value)
        entropy = torch.zeros(()) if entropies is None else entropies.mean()
        share = logps.numel() / total
        loss = policy_loss - config.entropy_coef * entropy + config.vf_coef * critic_loss
        (share * loss).backward()
        metrics = seen.update_metrics(policy_loss, policy_stats, critic_loss, critic_stats, entropy, logps - old_logps)
        stats = {key: stats.get(key, 0.0) + share * value for key, value in metrics.items()}
    return stats
