"""The loop of every online algorithm: sample, score, compute values and advantages, a few updates; repeat.

    rollout    = the policy's answers to some prompts          scores = reward(rollout)
    columns    = ref_logps (always), the algorithm's values, and its advantages
    minibatch  -> every loss of the algorithm -> one step of each optimizer

The algorithm (rl/algorithm.py) says what values are, what an advantage is, and the losses. All else is here once: KL
control, checks that sampler, trainer and reference agree, the mixed-in text of PPO-ptx, the early stop, evaluation on
held-out prompts, traces, metrics, checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amenable import processes
from amenable.data import batches, sources
from amenable.data.batches import Batch
from amenable.data.mixture import Mixed, describe, join_paths, order_of, parse_sources
from amenable.data.orders import Draws
from amenable.errors import InputError
from amenable.functional.masked import standardize
from amenable.functional.rewards import overlong_penalty, penalize_missing_eos
from amenable.generation.rollout import Rollout, pad_to_mask
from amenable.rewards.on_rollout import score_rollout
from amenable.rewards.spec import Reward, reads_column
from amenable.rl import memory
from amenable.rl.algorithm import Adaptive, Algorithm, Loss, MeanOver, Paired, Selective
from amenable.rl.dynamic_sampling import collect_varied
from amenable.rl.experience import (
    MAX_CORRECTED_GAP,
    Experience,
    Purpose,
    Ratios,
    TokenizedPrompt,
    mean_of,
    objective_metrics,
    require_at_reference,
    require_near,
    require_same_distribution,
    scores_by_source,
)
from amenable.rl.kl_controller import AdaptiveKLController
from amenable.rl.models import Models, divide_frozen
from amenable.rl.monitor import load_eval_reward, make_monitor
from amenable.rl.options import OnlineOptions
from amenable.rl.policy_sampler import PolicySampler
from amenable.seeds import derive_seed, seed_step
from amenable.train import first_batch, forward, loading, members, plan
from amenable.train.best import BestWeights
from amenable.train.checkpoint import Stateful
from amenable.train.examples import RejectedRows, chunk_texts, fitting_prompts, keep_usable, raw_rows
from amenable.train.failed_rewards import PendingStep, scoring
from amenable.train.forward import Row
from amenable.train.log import Bars, no_bars, tracked
from amenable.train.objective import NextToken, Objective, Output, Stats, accumulate
from amenable.train.run import Run
from amenable.train.trained_weights import TrainedWeights

NAMES = {"policy": ("", "policy"), "critic": ("critic_", "value")}
"""of a model: the prefix of its learning rate's metric, and the group of its gradient norm's"""


def improve(
    algorithm: Algorithm,
    models: Models,
    options: OnlineOptions,
    run: Run,
    lines: Sequence[str] = (),
    source: PolicySampler | None = None,
) -> Path:
    """Train the algorithm's models for `max_steps` iterations and save the policy. Returns the run directory.

    lines: of the plan, such as options that follow from the model. source: of the policy's answers; by default our
    engine.
    """
    source = source or PolicySampler(models, options)
    eval_reward = load_eval_reward(options, models)
    if options.optimizer.fsdp:
        divide_frozen(models, eval_reward)
    prompts, raw = read(options, models, run.rejected, eval_reward)
    mixture = parse_sources(options.data)
    order = order_of(mixture, prompts.sizes, options.seed)
    make_experience = partial(collect_experience, algorithm, models, options, bars=run.log.bar, source=source)
    pending = PendingStep()
    monitor = make_monitor(prompts, make_experience, options, algorithm, models, run, pending, eval_reward)
    schedule = plan.cosine_with_warmup(options.max_steps, options.warmup_steps, options.final_lr_frac, usual=5)
    forward.checkpoint_activations(algorithm.models.values(), options.checkpoint_activations)
    try:
        members.require_shares(min(options.prompts_per_step, options.samples // options.num_mini_batches))
        source.require_length(max(len(prompt.ids) for prompt in prompts) + options.max_new_tokens)
        needed, *warnings = memory.describe(algorithm, models, options, [prompt.ids for prompt in prompts])
    except InputError:
        run.lock.release()
        raise
    run.begin(schedule, models.runtime)
    controller = AdaptiveKLController(options.kl_coef, options.adaptive_kl_target, options.kl_horizon)
    selects = options.keep_weights == "score" or options.kl_budget
    best = BestWeights(models.policy, "eval/score", kl="eval/kl", kl_budget=options.kl_budget) if selects else None
    run.log.info("; ".join(f"{name} {plan.parameters(model)}" for name, model in algorithm.models.items()))
    run.log.info(f"{plan.rollouts(options, schedule, len(prompts))}; {needed}")
    shares = describe(mixture, prompts.sizes, order, options.max_steps * options.prompts_per_step)
    lines = [*shares, members.describe_products(), *lines, *plan.template_notes(models.tokenizer)]
    for line in filter(None, [*warnings, *models.reward.notes, memory.describe_sharing(algorithm, models), *lines]):
        run.log.info(line)
    state: dict[str, Stateful] = {"kl_controller": controller, "pending": pending}
    state |= {name: TrainedWeights(model) for name, model in algorithm.models.items()}
    state |= {f"{name}_optimizer": optimizer for name, optimizer in algorithm.optimizers.items()}
    state |= {"best": best} if best is not None else {}
    state |= {"algorithm": algorithm} if isinstance(algorithm, Adaptive) else {}
    state |= {"sampler": source} if options.max_staleness else {}
    draws = Draws(order)

    def ids_of(step: int) -> list[list[int]]:
        return [prompts[i].ids for i in draws.step(step, options.prompts_per_step)]

    for step in run.steps(options.max_steps, state, options.save_steps):
        seed_step(options.seed, step, members.data_rank())
        places = draws.step(step, options.prompts_per_step)
        run.note_batch(step, places)
        if not pending.metrics or options.inspect_batch:
            source.prepare(step, ids_of)
            with scoring(run, state):
                experience, sampled = collect_varied(make_experience, prompts, places, step, options)
            rounding = partial(measure_rounding, models, experience, options)
            if step == 1 and models.starts_at_reference:
                tolerance = models.runtime.tolerance if options.sampler == "amenable" else MAX_CORRECTED_GAP
                require_at_reference(experience, tolerance, rounding)
            if step == 1 or options.inspect_batch:
                rollout = experience.rollout
                samples = rollout.prompts, rollout.completions, rollout.ended.tolist()
                if first_batch.show(run, first_batch.check_samples(*samples, models.tokenizer), options.inspect_batch):
                    return run.out
            algorithm.compute_advantages(experience, controller.value)
            metrics = objective_metrics(experience, controller.value) | sampled
            metrics |= scores_by_source(experience.raw_scores, prompts.sources_of(places))
            with scoring(run, state):
                metrics |= monitor.before(step, experience, controller.value)
            metrics |= update(algorithm, models, experience, raw, step, schedule(step), options, rounding, run.log.bar)
            if isinstance(algorithm, Adaptive):
                metrics |= algorithm.adapt(experience)
            controller.update(metrics["objective/kl"], options.samples)
            for name, optimizer in algorithm.optimizers.items():
                metrics |= optimizer.rates(NAMES[name][0])
            monitor.after(step)
            pending.metrics = metrics
        source.version = step
        with scoring(run, state, pending):
            metrics = pending.metrics | monitor.evaluate(step)
        pending.write(run.log)
        if best is not None:
            best.update(metrics, step)
        shown = ("objective/scores", "objective/kl", "eval/score")
        run.record(step, round(metrics["completions/mean_length"] * options.samples), shown, **metrics)
        if best is not None and (reason := best.end_line(metrics)) is not None:
            run.end(reason)
    if best is not None:
        best.restore()
    source.close()
    loading.save_model(run.out, models.policy, models.tokenizer, options.save_dtype)
    return run.finish(selected_step=best.step if best is not None else options.max_steps, **run.metrics)


def read(
    options: OnlineOptions, models: Models, rejected: RejectedRows, eval_reward: Reward | None = None
) -> tuple[Mixed[TokenizedPrompt], list[list[int]]]:
    """Return prompts to learn on, by source, and pieces of raw text for PPO-ptx."""
    reads = reads_column(models.reward, eval_reward)
    context, room = models.policy.config.context_length, models.context_length - options.max_new_tokens
    prompts, ids = fitting_prompts(
        options.data, models.tokenizer, room, rejected=rejected, columns=options.columns, reward_reads=reads
    )
    models.reward.require_columns([prompt.meta for prompt in prompts], join_paths(options.data))
    pairs = Mixed(prompts.names, [list(map(TokenizedPrompt, *part)) for part in zip(prompts.parts, ids.parts)])
    texts = keep_usable(sources.read_texts(options.ptx_data), rejected) if options.ptx_data and options.ptx_coef else []
    return pairs, chunk_texts(texts, models.tokenizer, context)


def collect_experience(
    algorithm: Algorithm,
    models: Models,
    options: OnlineOptions,
    prompts: Sequence[TokenizedPrompt],
    purpose: Purpose,
    samples: int,
    bars: Bars = no_bars,
    source: PolicySampler | None = None,
) -> Experience:
    """Sample answers to B / samples prompts, score them, and add the columns `ref_logps` and the algorithm's values.

    purpose: names and numbers that decide the random numbers. source: of the answers; by default our engine.
    """
    limit = options.max_tokens_per_pass
    source = source or PolicySampler(models, options)
    rollout, staleness = source.rollout([prompt.ids for prompt in prompts], purpose, samples, bars("answers"))
    rows = rollout.rows()
    ref_logps = models.reference_logprobs(rows, limit, options.temperature, bars("reference"))
    texts = [prompt.prompt for prompt in prompts]
    parts = score_rollout(models.reward, rollout, texts, models.tokenizer, bars("scores"))
    reward_metrics, raw_scores = models.reward.metrics(parts), models.reward.total(parts)
    scores = shape_scores(raw_scores, rollout, options)
    columns = {"ref_logps": pad_to_mask(ref_logps, rollout.mask)}
    experience = Experience(rollout, raw_scores, scores, columns, texts, parts, reward_metrics)
    if options.max_staleness:
        experience.staleness = torch.full_like(rollout.lengths, staleness)
    algorithm.compute_values(experience, bars)
    return experience


def shape_scores(raw_scores: Tensor, rollout: Rollout, options: OnlineOptions) -> Tensor:
    """Return the scores [B] that are learned from: clipped, less the penalties of a missing end and of length."""
    bound = options.score_clip or float("inf")
    scores = penalize_missing_eos(raw_scores.clamp(-bound, bound), rollout.ended, options.missing_eos_penalty)
    if not options.overlong_buffer:
        return scores
    long = overlong_penalty(rollout.lengths, options.max_new_tokens, options.overlong_buffer)
    return scores + options.overlong_penalty * long


def update(
    algorithm: Algorithm,
    models: Models,
    experience: Experience,
    raw: list[list[int]],
    step: int,
    multiplier: float,
    options: OnlineOptions,
    rounding: Callable[[], float],
    bars: Bars = no_bars,
) -> dict[str, float]:
    """Take epochs times minibatches of updates, up to the first minibatch that shows the policy above `target_kl`.

    Returns the mean of each statistic over the updates, and their number.
    """
    if algorithm.standardize_advantages:
        advantages = experience.columns["advantages"]
        experience.columns["advantages"] = standardize(advantages, experience.rollout.mask)
    history: list[dict[str, float]] = []
    order = minibatches(algorithm, experience, options, step)
    objectives = objectives_of(algorithm, experience, models.runtime.device)
    for chosen in tracked(order, bars("updates")):
        stats = accumulate(objectives, chosen, models.runtime, options.max_tokens_per_pass)
        if not history:
            names = ("sampling/logp_difference", "sampling/ratio", "sampling/ratio_var")
            tokens = int(experience.rollout.mask[torch.tensor(chosen)].sum())
            ratios = Ratios(tokens, *(stats[name] for name in names))
            if options.sampler == "amenable" and not experience.is_stale:
                require_same_distribution(ratios, models.runtime.tolerance, models.policy.training, rounding)
            elif not experience.is_stale:
                require_near(ratios, models.runtime.tolerance, options.sampler_correction != "none", rounding)
            if len(order) > 1 and not isinstance(algorithm, Paired):
                exact = options.ratio_of_answers or ratios.gap > models.runtime.tolerance
                add_old_logprobs(experience, sorted({i for later in order[1:] for i in later}), models, options, exact)
        elif options.target_kl and stats["policy/approxkl_avg"] > options.target_kl:
            for optimizer in algorithm.optimizers.values():
                optimizer.zero_grad()
            break
        if raw:
            own = grad_norm(models.policy)
            rows = raw_rows(raw, options.ptx_tokens, options.seed, step, len(history))
            stats |= mix_in(models, rows, options)
            stats["policy/grad_norm_rl"] = own
        for name, optimizer in algorithm.optimizers.items():
            stats[f"{NAMES[name][1]}/grad_norm"] = optimizer.step(multiplier)
        history.append(stats)
    return mean_of(history) if history else {"updates": 0}


def minibatches(algorithm: Algorithm, experience: Experience, options: OnlineOptions, step: int) -> list[list[Any]]:
    """Return the answers of every update of a step: all in a new order each epoch, or what is selected of them."""
    splits = options.num_mini_batches, options.num_ppo_epochs, derive_seed(options.seed, "minibatch", step)
    if not isinstance(algorithm, Selective):
        return batches.minibatches(options.prompts_per_step, options.num_generations, *splits)
    elements = algorithm.select(experience)
    return [[elements[i] for i in part] for part in batches.minibatches(len(elements), 1, *splits)]


def objectives_of(algorithm: Algorithm, experience: Experience, device: torch.device) -> list[Objective[Any]]:
    """Return an algorithm's losses on an experience."""
    if isinstance(algorithm, Paired):
        return [algorithm.objective(experience)]
    return [MinibatchLoss(experience, loss, device, algorithm.mean_over) for loss in algorithm.losses]


def add_old_logprobs(
    experience: Experience, answers: Sequence[int], models: Models, options: OnlineOptions, exact: bool = True
) -> None:
    """Add the column `logps` of the policy that sampled, for the answers that later updates read.

    In fp32 it is the sampler's, which agree. In bf16, where `exact`, the trainer computes it in a pass of its own: the
    rounding of a sampler's cache alone moves the ratio of a whole answer as far as a clip, and in a deep model that of
    a token by some hundredths. Elsewhere the pass, a fifteenth of an iteration of PPO, would change a ratio by less
    than a hundredth.
    """
    rollout, runtime = experience.rollout, models.runtime
    logps = rollout.logps.clone()
    if (runtime.bf16 and exact) or options.sampler_correction != "none":
        rows, limit = rollout.rows(answers), options.max_tokens_per_pass
        mask = torch.zeros_like(rollout.mask)
        mask[answers] = rollout.mask[answers]
        logps[mask] = torch.cat(forward.compute_logprobs(models.policy, rows, runtime, limit, options.temperature))
    experience.columns["logps"] = logps


@dataclass(frozen=True)
class MinibatchLoss:
    """A loss of an algorithm over answers of an experience. An element is an answer, of weight `mean_over`."""

    experience: Experience
    of_batch: Loss
    device: torch.device
    mean_over: MeanOver = "tokens"
    share_prefixes: bool = True
    couples_elements: bool = False
    output: Output = "logprobs"

    def rows(self, answer: int) -> list[Row]:
        return self.experience.rollout.rows([answer])

    def weight(self, answer: int) -> float:
        return float(len(self.experience.rollout.completions[answer])) if self.mean_over == "tokens" else 1.0

    def outputs(self, batch: Batch) -> Batch:
        return batch

    def loss(self, answers: Sequence[int], batch: Batch) -> tuple[Tensor, Stats]:
        return self.of_batch(batch, self.experience.flat(answers, self.device))


def mix_in(models: Models, rows: list[Row], options: OnlineOptions) -> dict[str, float]:
    """Add the gradient of ptx_coef * next-token loss on raw text (PPO-ptx). Returns the loss and its norm."""
    own = [p.grad for p in models.policy.parameters()]
    for parameter in models.policy.parameters():
        parameter.grad = None
    objective, limit = NextToken(models.policy, "loss/ptx"), options.max_tokens_per_pass
    stats = accumulate(objective, rows, models.runtime, limit, scale=options.ptx_coef)
    stats["policy/grad_norm_ptx"] = grad_norm(models.policy)
    for parameter, grad in zip(models.policy.parameters(), own):
        if grad is not None:
            parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)
    return stats


def grad_norm(module: nn.Module) -> float:
    """Return the Euclidean norm of a module's gradients."""
    return processes.gradient_norm(list(module.parameters()))


def measure_rounding(models: Models, experience: Experience, options: OnlineOptions) -> float:
    """Measure the rounding of the first answers' log-probabilities in bf16, in nats a token."""
    rows = experience.rollout.rows(range(min(8, len(experience.rollout.completions))))
    return forward.rounding(models.policy, rows, models.runtime, options.max_tokens_per_pass, options.temperature)
