"""Supervised fine-tuning: imitate demonstrations.

    L = -mean log p(y_t | x, y_<t)   over the assistant's tokens and the EOS that ends each turn, nothing else

Ouyang et al. (2022, section 3.5 and appendix C.1): cosine to 10 %, residual dropout 0.2, more epochs than validation
loss likes, the checkpoint chosen by a reward model's score where there is one.

Reads a base model and conversations; writes a published-format model directory with the chat template.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from amenable.data import batches, sources
from amenable.data.types import Demonstration, last_trained
from amenable.errors import InputError
from amenable.generation.rollout import greedy
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.seeds import seed_step
from amenable.text.chat import render, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, memory, plan, run_options
from amenable.train.best import Best
from amenable.train.checkpoint import Stateful
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import Sieve, keep_fitting, usable
from amenable.train.log import Bars, no_bars
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import Run
from amenable.train.runtime import Device, DeviceOptions, Runtime, start_runtime
from amenable.train.step import backward_next_token


@dataclass(frozen=True)
class Config:
    """Fine-tune a base model on demonstrations."""

    model: Path = Path("runs/pretrain")
    data: Path = Path("runs/world/demonstrations/train.jsonl")
    """conversations: a file, or a folder of files"""
    validation: Path | None = None
    """held-out conversations; without it a share of them is held out"""
    train_on: Literal["all", "last"] = "all"
    """turns of the assistant that are trained: all, or the last of each conversation; never those with weight 0"""
    out: Path = Path("runs/sft")
    epochs: int = 5
    batch_size: int = 8
    """conversations in one update"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    warmup_steps: int | None = None
    """by default 10, and at most an eighth of the steps"""
    final_learning_rate: float = 0.1
    """share of the peak at which the cosine ends"""
    dropout: FromModel[float] = FROM_MODEL
    """by default as the model's config.json says: .1 in GPT-2's, none in Llama's and Qwen's"""
    held_out: float = 0.05
    """share of the conversations held out where no validation file is given"""
    select: Literal["last", "loss", "reward"] = "last"
    """which epoch's weights are kept: the last, the one of lowest validation loss, or of highest reward"""
    reward_model: Path | None = None
    """scores greedy answers to the validation prompts, for --select reward"""
    reward_prompts: int = 100
    """how many validation prompts are answered for --select reward"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """of an answer to a validation prompt; by default a quarter of the context, at most 256"""
    max_tokens_per_pass: int = 8192
    """tokens computed at once; a step of more is accumulated, with the same result"""
    save_steps: int = 200
    inspect_batch: bool = False
    """show the first batch as it would be trained, and stop"""
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)
    care: run_options.Care = field(default_factory=run_options.Options)

    def __post_init__(self) -> None:
        plan.require_at_least(
            1, self, "epochs", "batch_size", "reward_prompts", "max_new_tokens", "max_tokens_per_pass"
        )
        plan.require_at_least(0, self, "warmup_steps", "save_steps")
        plan.require_share(self, "final_learning_rate")
        plan.require_held_out(self)
        plan.require_below_one(self, "dropout")
        if self.select == "reward" and self.reward_model is None:
            raise InputError("--select reward needs a judge", how="give --reward-model, or select by loss")


def run(config: Config) -> Path:
    """Fine-tune and return the run directory."""
    config, by_default = defaults.sft(config, traits(config.model, "amenable pretrain"))
    inputs = {"model": config.model, "data": config.data, "validation": config.validation}
    run = Run(config.out, "sft", config, {**inputs, "reward_model": config.reward_model})
    if run.done():
        return run.out
    runtime = start_runtime(config.device)
    decoder, base_tokenizer = loading.load_policy(config.model, runtime, "amenable pretrain", config.dropout)
    tokenizer = base_tokenizer.with_chat_template()
    loading.fit_vocabulary(decoder, tokenizer, config.model)
    judge = None
    if config.reward_model is not None:
        judge = loading.load_judge(config.reward_model, runtime, tokenizer)
    training, held_out = read(config, run.sieve)
    training, rows = fitting("train", training, tokenizer, decoder.config.context_length, run.sieve, config.data)
    held_out, held_out_rows = fitting("validation", held_out, tokenizer, decoder.config.context_length, run.sieve)
    if not held_out and config.select != "last":
        raise InputError(
            f"--select {config.select} has nothing to validate on", how="give other data, or --select last"
        )
    per_epoch = plan.epochs_of(1, len(rows), config.batch_size)
    total = per_epoch * config.epochs
    schedule = plan.cosine_with_warmup(total, config.warmup_steps, config.final_learning_rate)
    first = batches.by_rows(len(rows), config.batch_size, config.seed, 0)[0]
    proof = first_batch.of_conversations(rows, first, training, tokenizer)
    run.claim(schedule)
    optimizer = Optimizer([decoder], config.optimizer)
    best = Best(decoder)
    order = batches.by_rows(len(rows), config.batch_size, config.seed, 0)
    works = memory.heaviest([[row] for row in rows], order, config.max_tokens_per_pass, summed=True)
    reading = memory.largest_reading(held_out_rows, config.max_tokens_per_pass)
    size = memory.training(decoder, config.optimizer, works, runtime, total, reading, best=True)
    run.log.say(f"{plan.parameters(decoder)}, {memory.told(size, runtime, works)}")
    run.log.say(f"{len(rows)} conversations x {config.epochs} epochs / {config.batch_size} a step = {schedule}")
    run.log.say(by_default)
    if first_batch.show(run, proof, config.inspect_batch):
        return run.out

    state: dict[str, Stateful] = {"decoder": decoder, "optimizer": optimizer, "best": best}
    for step in run.steps(total, state, config.save_steps):
        seed_step(config.seed, step)
        epoch, place = divmod(step - 1, per_epoch)
        chosen = batches.by_rows(len(rows), config.batch_size, config.seed, epoch)[place]
        run.feeding(step, chosen)
        part = [rows[i] for i in chosen]
        loss = backward_next_token(decoder.train(), part, runtime, config.max_tokens_per_pass)
        norm = optimizer.step(schedule(step))
        extra = {"grad_norm": norm}
        if place == per_epoch - 1:
            if held_out:
                extra |= validate(decoder, held_out, held_out_rows, judge, tokenizer, config, runtime, run.log.bar)
            best.offer(standing(config, extra, step), step)
        tokens = sum(len(ids) for ids, _ in part)
        run.record(step, tokens, ("loss", "val_loss", "val_reward"), loss=loss, **optimizer.rates(), **extra)

    best.restore()
    loading.save_model(run.out, decoder, tokenizer, config.care.save_dtype)
    return run.finish(selected_step=best.step, **{k: v for k, v in run.metrics.items() if k.startswith("val_")})


def read(config: Config, sieve: Sieve) -> tuple[list[Demonstration], list[Demonstration]]:
    """Demonstrations to train on, and held-out ones."""
    training = usable(sources.read_demonstrations(config.data), sieve)
    if config.validation is not None:
        held_out = usable(sources.read_demonstrations(config.validation), sieve)
    else:
        training, held_out = sources.split_holdout(training, config.held_out, config.seed)
    if config.train_on == "last":
        training, held_out = (
            [replace(row, messages=last_trained(row.messages)) for row in rows] for rows in (training, held_out)
        )
    return training, held_out


def fitting(
    split: str,
    demonstrations: list[Demonstration],
    tokenizer: Tokenizer,
    context: int,
    sieve: Sieve,
    required: Path | None = None,
) -> tuple[list[Demonstration], list[forward.Row]]:
    """The demonstrations that are within the context, as rows of token ids and trained marks; the others left out."""
    rendered = [render(tokenizer, demonstration.messages) for demonstration in demonstrations]
    rows = [(one.ids, one.trained) if len(one.ids) <= context else None for one in rendered]
    return keep_fitting(split, demonstrations, rows, "conversations", context, sieve, required)


def validate(
    decoder: Decoder,
    held_out: list[Demonstration],
    rows: list[forward.Row],
    judge: ScalarModel | None,
    tokenizer: Tokenizer,
    config: Config,
    runtime: Runtime,
    bars: Bars = no_bars,
) -> dict[str, float]:
    """Validation loss, and the reward of greedy answers where there is a judge."""
    decoder.eval()
    limit = config.max_tokens_per_pass
    figures = {"val_loss": forward.mean_loss(decoder, rows, runtime, limit, bars("validation"))}
    if judge is not None:
        prompts = [render_prompt(tokenizer, row.messages[:-1]) for row in held_out[: config.reward_prompts]]
        with runtime.autocast():
            rollout = greedy(decoder, prompts, config.max_new_tokens, tokenizer.stop_ids, bars("answers"))
        scores = forward.row_rewards(judge, rollout.rows(), runtime, limit, bars("rewards"))
        figures["val_reward"] = float(scores.mean())
    return figures


def standing(config: Config, figures: dict[str, float], step: int) -> float:
    """The number by which epochs are compared; higher is better."""
    if config.select == "last":
        return float(step)
    return -figures["val_loss"] if config.select == "loss" else figures["val_reward"]
