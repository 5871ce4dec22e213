"""Direct preference optimisation: fit the policy to comparisons without a reward model.

    L = -log sigma(beta [(log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))] - m)

which is the reward model's loss with the implicit reward beta * log(pi / ref); m is 0, or the `margin` that the data
gives of a pair, in units of reward (Amini et al., 2024). Log-probabilities are summed over the answer's tokens, EOS
included; the reference's are computed once. Rafailov et al. (2023, eq. 7).

The loss holds the policy near its reference only on the answers that it is shown. So the KL on the policy's own answers
to held-out prompts is measured as well, and can stop the run.

Reads the SFT model and pairs or rankings (of each a few pairs that are not tied, see --pairs); writes a model directory
and some of the answers to held-out prompts (samples.jsonl).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from amenable.data import batches, sources
from amenable.data.types import Ranking
from amenable.errors import InputError
from amenable.evaluation import divergence
from amenable.feedback.comparisons import Choice, choose_pairs
from amenable.functional.losses import dpo_loss
from amenable.models.decoder import Decoder
from amenable.seeds import derive_seed
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, memory, plan, run_options
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import Sieve, keep_fitting, ranking_rows, usable
from amenable.train.log import Bars, Progress, no_bars, silent
from amenable.train.optimizer import Optimizer, OptimizerConfig, freeze
from amenable.train.run import Run
from amenable.train.runtime import Device, DeviceOptions, Runtime, start_runtime
from amenable.train.step import backward_elements

EVAL_STEPS = 50
SAMPLES = 8
"""held-out answers that samples.jsonl keeps each time"""


@dataclass(frozen=True)
class Config:
    """Fit a policy to comparisons, by DPO."""

    model: Path = Path("runs/sft")
    """policy and reference"""
    data: Path = Path("runs/annotate/train.jsonl")
    """rankings or pairs: a file, or a folder of files"""
    validation: Path | None = None
    """held-out rankings or pairs; without it a share of the prompts is held out"""
    out: Path = Path("runs/dpo")
    beta: float = 0.1
    label_smoothing: float = 0.0
    """share of labels taken to be flipped (conservative DPO)"""
    epochs: int = 1
    pairs: Choice = "random"
    """of each ranking: all its pairs, the best answer against the worst, or pairs at random"""
    pairs_per_prompt: int = 4
    """with --pairs random: at most so many pairs of one ranking, drawn by the seed; 0 takes all"""
    batch_size: int = 32
    """pairs in one update"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    warmup_steps: int | None = None
    """by default 10, and at most an eighth of the steps"""
    final_learning_rate: float = 0.1
    frozen_layers: int = 0
    """lowest layers (with the embeddings) that are not trained"""
    max_kl: float = 100.0
    """the run stops when objective/kl is above this, in nats a response; 0 never"""
    held_out: float = 0.05
    max_tokens_per_pass: int = 8192
    eval_steps: int | None = None
    """steps between two measurements on what is held out; by default 50, and at most a quarter of the steps"""
    eval_prompts: int = 32
    """held-out prompts that the policy answers each time, to measure its KL to the reference; 0 is none"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """of these answers"""
    save_steps: int = 100
    inspect_batch: bool = False
    """show the first batch as it would be trained, and stop"""
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)
    care: run_options.Care = field(default_factory=run_options.Options)

    def __post_init__(self) -> None:
        plan.require_above_zero(self, "beta")
        if not 0 <= self.label_smoothing < 0.5:
            raise InputError(f"label_smoothing is {self.label_smoothing}", how="it must lie in [0, 0.5)")
        plan.require_at_least(1, self, "epochs", "batch_size", "max_tokens_per_pass", "eval_steps", "max_new_tokens")
        counts = ("pairs_per_prompt", "warmup_steps", "save_steps", "frozen_layers", "eval_prompts")
        plan.require_at_least(0, self, *counts, "max_kl")
        plan.require_share(self, "final_learning_rate")
        plan.require_held_out(self)


@dataclass(frozen=True)
class Pair:
    """One comparison as rows, and the reference's summed log-probabilities of both answers."""

    chosen: forward.Row
    rejected: forward.Row
    margin: float = 0.0
    ref_chosen: float = 0.0
    ref_rejected: float = 0.0

    @property
    def prompt(self) -> list[int]:
        """What both answers follow."""
        ids, trained = self.chosen
        return ids[: trained.index(True)]

    @property
    def tokens(self) -> int:
        return batches.unique_tokens([self.chosen, self.rejected])


def run(config: Config) -> Path:
    """Train and return the run directory."""
    config, by_default = defaults.dpo(config, traits(config.model))
    inputs = {"model": config.model, "data": config.data, "validation": config.validation}
    run = Run(config.out, "dpo", config, inputs, config.max_kl, max_kl_steps=1)
    if run.done():
        return run.out
    runtime = start_runtime(config.device)
    policy, tokenizer = loading.load_policy(config.model, runtime)
    freeze(policy, config.frozen_layers)
    training, validation = read(config, tokenizer, policy.config.context_length, run.sieve)
    prompts = prompts_of(validation, policy.config.context_length, config)
    per_epoch = plan.epochs_of(1, len(training), config.batch_size)
    total = per_epoch * config.epochs
    eval_steps = config.eval_steps or max(1, min(EVAL_STEPS, total // 4))
    schedule = plan.cosine_with_warmup(total, config.warmup_steps, config.final_learning_rate)
    first = batches.by_rows(len(training), config.batch_size, config.seed, 0)[0]
    rows = [(pair.chosen, pair.rejected) for pair in training]
    proof = first_batch.of_answers(rows, first, tokenizer)
    run.claim(schedule)
    run.log.say(by_default)
    if first_batch.show(run, proof, config.inspect_batch):
        return run.out
    initial = runtime.only_asked(loading.load_policy(config.model, runtime)[0])
    training, validation = (
        with_reference(initial, pairs, config, runtime, run.log.bar("reference")) for pairs in (training, validation)
    )
    reference = initial if prompts else None
    del initial  # nobody holds it where no KL is measured
    optimizer = Optimizer([policy], config.optimizer)
    order, limit = batches.by_rows(len(rows), config.batch_size, config.seed, 0), config.max_tokens_per_pass
    works = memory.heaviest(rows, order, limit, share=True)
    reading = memory.largest_reading([row for pair in rows for row in pair], limit)
    answering = divergence.peaks(policy, prompts, config.max_new_tokens, limit, runtime)
    size = memory.training(
        policy, config.optimizer, works, runtime, total, reading, reference=reference, others=answering
    )
    run.log.say(f"{plan.parameters(policy)}, {memory.told(size, runtime, works)}")
    run.log.say(f"{len(training)} pairs x {config.epochs} epochs / {config.batch_size} a step = {schedule}")
    if config.eval_prompts and not prompts:
        what = f"no held-out prompt leaves room for --max-new-tokens {config.max_new_tokens}"
        run.log.warn(f"{what}: the KL to the reference is not measured")

    with_margins = any(pair.margin for pair in training)
    policy.eval()  # dropout is off: the reference was computed without it
    for step in run.steps(total, {"policy": policy, "optimizer": optimizer}, config.save_steps):
        epoch, place = divmod(step - 1, per_epoch)
        chosen = batches.by_rows(len(training), config.batch_size, config.seed, epoch)[place]
        run.feeding(step, chosen)
        pairs = [training[i] for i in chosen]
        stats = walk(policy, pairs, config, runtime)
        if with_margins:
            stats["margin/given"] = fmean(pair.margin for pair in pairs)
        norm = optimizer.step(schedule(step))
        if step % eval_steps == 0 or step == total:
            stats |= validate(policy, validation, config, runtime, run.log.bar("validation"))
            found, samples = examine(policy, reference, prompts, tokenizer, config, runtime, run.log.bar)
            run.log.samples(step, samples)
            stats |= found
        tokens, shown = sum(pair.tokens for pair in pairs), ("loss", "rewards/accuracies", "objective/kl")
        run.record(step, tokens, shown, **stats, grad_norm=norm, **optimizer.rates())

    loading.save_model(run.out, policy, tokenizer, config.care.save_dtype)
    return run.finish(**run.metrics)


def read(
    config: Config, tokenizer: Tokenizer, context: int, sieve: Sieve | None = None
) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and held-out ones, no prompt in both."""
    training = usable(sources.read_rankings(config.data), sieve)
    if config.validation is not None:
        validation = usable(sources.read_rankings(config.validation), sieve)
    else:
        training, validation = sources.split_holdout(training, config.held_out, config.seed)
    splits = []
    for split, rankings, required in (("train", training, config.data), ("validation", validation, None)):
        found = [pairs_from(ranking, tokenizer, context, config) for ranking in rankings]
        _, kept = keep_fitting(split, rankings, found, "rankings", context, sieve, required)
        splits.append([pair for pairs in kept for pair in pairs])
    return splits[0], splits[1]


def pairs_from(ranking: Ranking, tokenizer: Tokenizer, context: int, config: Config) -> list[Pair] | None:
    """The chosen pairs of a ranking; None where they are longer than the context."""
    rows = ranking_rows(ranking, tokenizer, context)
    if rows is None:
        return None
    seed = derive_seed(config.seed, "pairs", ranking.id)
    pairs = choose_pairs(ranking.ranks, config.pairs, config.pairs_per_prompt, seed)
    return [Pair(rows[better], rows[worse], ranking.margin or 0.0) for better, worse in pairs]


def prompts_of(pairs: list[Pair], context: int, config: Config) -> list[list[int]]:
    """The first prompts of the pairs, each once, that leave room for an answer in the context."""
    prompts = dict.fromkeys(tuple(pair.prompt) for pair in pairs)
    room = context - config.max_new_tokens
    return [list(prompt) for prompt in prompts if len(prompt) <= room][: config.eval_prompts]


def with_reference(
    reference: Decoder, pairs: list[Pair], config: Config, runtime: Runtime, progress: Progress = silent
) -> list[Pair]:
    """The pairs with the log-probabilities that the reference gives them."""
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    logps = forward.row_logprobs(reference, rows, runtime, config.max_tokens_per_pass, progress=progress)
    sums = [float(part.sum()) for part in logps]
    return [replace(pair, ref_chosen=sums[2 * i], ref_rejected=sums[2 * i + 1]) for i, pair in enumerate(pairs)]


def walk(
    policy: Decoder, pairs: list[Pair], config: Config, runtime: Runtime, progress: Progress = silent
) -> dict[str, float]:
    """The numbers DPO users watch and, with gradients on, the gradient of the mean loss, over several passes."""

    def loss_of_some(places: list[int], sums: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return loss_of([pairs[i] for i in places], sums, config)

    elements, outputs = [(pair.chosen, pair.rejected) for pair in pairs], partial(forward.summed_logprobs, policy)
    return backward_elements(elements, outputs, loss_of_some, runtime, config.max_tokens_per_pass, progress)


def loss_of(pairs: list[Pair], sums: Tensor, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """DPO's loss on some pairs; sums [2 * pairs]: each pair's log-probabilities, of the chosen and the rejected row."""
    chosen, rejected = sums.view(len(pairs), 2).unbind(1)
    ref_chosen = torch.tensor([pair.ref_chosen for pair in pairs], device=sums.device)
    ref_rejected = torch.tensor([pair.ref_rejected for pair in pairs], device=sums.device)
    margin = torch.tensor([pair.margin for pair in pairs], device=sums.device)
    loss, stats = dpo_loss(chosen - ref_chosen, rejected - ref_rejected, config.beta, config.label_smoothing, margin)
    logps = {"logps/chosen": chosen, "logps/rejected": rejected, "logratios/chosen": chosen - ref_chosen}
    return loss, {**stats, **{name: values.mean().detach() for name, values in logps.items()}}


@torch.no_grad()
def validate(
    policy: Decoder, pairs: list[Pair], config: Config, runtime: Runtime, progress: Progress = silent
) -> dict[str, float]:
    """Loss and accuracy on held-out pairs; nothing where there are none."""
    if not pairs:
        return {}
    found = walk(policy, pairs, config, runtime, progress)
    return {"eval/loss": found["loss"], "eval/accuracy": found["rewards/accuracies"]}


def examine(
    policy: Decoder,
    reference: Decoder | None,
    prompts: list[list[int]],
    tokenizer: Tokenizer,
    config: Config,
    runtime: Runtime,
    bars: Bars = no_bars,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The policy's answers to held-out prompts, with the same random numbers every time: their mean KL to the reference
    and mean length, and rows of samples.jsonl. Nothing where there is no reference."""
    if reference is None:
        return {}, []
    rollout, kls = divergence.answers_with_kl(
        policy,
        reference,
        prompts,
        max_new_tokens=config.max_new_tokens,
        eos_id=tokenizer.stop_ids,
        seeds=[derive_seed(config.seed, "held out", i) for i in range(len(prompts))],
        runtime=runtime,
        max_tokens=config.max_tokens_per_pass,
        bars=bars,
    )
    shown = zip(prompts, rollout.completions, rollout.ended.tolist(), kls.tolist())
    rows = [
        {"prompt": tokenizer.decode(prompt), "completion": tokenizer.decode(answer), "ended": ended, "kl": round(kl, 4)}
        for prompt, answer, ended, kl in islice(shown, SAMPLES)
    ]
    return {"objective/kl": float(kls.mean()), "completions/mean_length": float(rollout.lengths.float().mean())}, rows
