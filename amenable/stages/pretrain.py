"""Pretrain a decoder on raw text: predict the next token.

    L = -mean_t log p(x_t | x_<t)

Documents are packed one after another, each with its own positions, and never see each other. Progress is told in bits
per byte of held-out text, which is comparable between vocabularies. Radford et al. (2018, 2019); Brown et al. (2020).

Reads a tokenizer and text; writes a published-format model directory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from amenable.data import batches, sources
from amenable.models.decoder import Decoder
from amenable.models.presets import preset
from amenable.seeds import seed_step, seeded_generator
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, memory, plan, run_options
from amenable.train.defaults import FROM_MODEL, FromModel, traits_of
from amenable.train.examples import Sieve, measured_text, pieces_of, usable, whole
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import Run
from amenable.train.runtime import Device, DeviceOptions, Runtime, start_runtime
from amenable.train.step import backward_next_token


@dataclass(frozen=True)
class Config:
    """Pretrain a decoder on raw text."""

    data: Path = Path("runs/world/text/train.jsonl")
    """text: a file, or a folder of files"""
    validation: Path | None = None
    """held-out text; without it a share of the documents is held out"""
    tokenizer: Path = Path("runs/tokenizer")
    out: Path = Path("runs/pretrain")
    model: str = "nano"
    """a preset: nano tiny mini tiny-gpt2 gpt1 gpt2 gpt2-medium ... gpt3-175b"""
    context: FromModel[int] = FROM_MODEL
    """tokens of the longest document piece, by default the preset's; longer documents are cut into pieces"""
    dropout: float = 0.0
    tokens_per_step: int = 2048
    """tokens in one update"""
    epochs: float = 2.5
    """passes over the text (max_steps, where given, decides instead)"""
    max_steps: int = 0
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_learning_rate=0.02, weight_decay=0.01)
    )
    warmup_steps: int | None = None
    """by default 20, and at most an eighth of the steps"""
    final_learning_rate: float = 0.1
    """share of the peak at which the cosine ends"""
    held_out: float = 0.02
    """share of the documents held out where no validation file is given"""
    eval_steps: int = 200
    """validate every so many steps"""
    eval_tokens: int = 50_000
    """at most so many tokens of held-out text a validation"""
    max_tokens_per_pass: int = 8192
    """tokens computed at once; a step of more is accumulated, with the same result"""
    save_steps: int = 500
    inspect_batch: bool = False
    """show the first batch as it would be trained, and stop"""
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)
    care: run_options.Care = field(default_factory=run_options.Options)

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "tokens_per_step", "eval_steps", "eval_tokens", "max_tokens_per_pass")
        plan.require_at_least(2, self, "context")
        plan.require_at_least(0, self, "max_steps", "warmup_steps", "save_steps")
        plan.require_share(self, "final_learning_rate")
        plan.require_held_out(self)
        plan.require_below_one(self, "dropout")
        if self.max_steps < 1:
            plan.require_above_zero(self, "epochs")


def run(config: Config) -> Path:
    """Train and return the run directory."""
    tokenizer = Tokenizer.load(config.tokenizer)
    shape = preset(config.model, tokenizer.vocab_size)
    config, by_default = defaults.pretrain(config, traits_of(shape))
    shape = replace(shape, context_length=config.context, dropout=config.dropout)
    inputs = {"data": config.data, "validation": config.validation, "tokenizer": config.tokenizer}
    run = Run(config.out, "pretrain", config, inputs)
    if run.done():
        return run.out
    runtime = start_runtime(config.device)
    training, held_out, byte_count = read(config, tokenizer, run.sieve)
    steps = epoch_plan(config, [len(row) for row in training])
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_learning_rate, usual=20)
    proof = first_batch.of_pieces([whole(training[i]) for i in steps[0]], tokenizer)
    run.claim(schedule)
    decoder = Decoder(shape).to(runtime.device)
    decoder.init_weights(seeded_generator(config.seed, "init"))
    optimizer = Optimizer([decoder], config.optimizer)
    tell_plan(run, config, decoder, training, held_out, steps, schedule, runtime)
    run.log.say(by_default)
    if first_batch.show(run, proof, config.inspect_batch):
        return run.out

    for step in run.steps(len(steps), {"decoder": decoder, "optimizer": optimizer}, config.save_steps):
        seed_step(config.seed, step)
        run.feeding(step, steps[step - 1])
        rows = [whole(training[i]) for i in steps[step - 1]]
        loss = backward_next_token(decoder.train(), rows, runtime, config.max_tokens_per_pass)
        norm = optimizer.step(schedule(step))
        extra = {"grad_norm": norm}
        if step % config.eval_steps == 0 or step == len(steps):
            limit, bar = config.max_tokens_per_pass, run.log.bar("validation")
            bpb = forward.bits_per_byte(decoder.eval(), held_out, byte_count, runtime, limit, bar)
            extra["val_bpb"] = bpb
        tokens = sum(len(ids) for ids, _ in rows)
        run.record(step, tokens, ("loss", "val_bpb"), loss=loss, **optimizer.rates(), tokens=tokens, **extra)

    loading.save_model(run.out, decoder, tokenizer, config.care.save_dtype)
    return run.finish(**{key: run.metrics[key] for key in ("loss", "val_bpb")})


def read(
    config: Config, tokenizer: Tokenizer, sieve: Sieve | None = None
) -> tuple[list[list[int]], list[forward.Row], int]:
    """Pieces to train on, held-out rows, and how many bytes of text the held-out rows are."""
    texts = usable(sources.read_texts(config.data), sieve)
    if config.validation is not None:
        held_out = usable(sources.read_texts(config.validation), sieve)
    else:
        texts, held_out = sources.split_holdout(texts, config.held_out, config.seed)
    rows, byte_count = measured_text(held_out, tokenizer, config.context, config.eval_tokens)
    return pieces_of(texts, tokenizer, config.context), rows, byte_count


def epoch_plan(config: Config, lengths: list[int]) -> list[list[int]]:
    """Which pieces each step trains on: a function of the seed alone, so that a step number is the data cursor."""
    total = sum(lengths) * config.epochs / config.tokens_per_step
    wanted = config.max_steps or max(1, round(total))
    steps: list[list[int]] = []
    epoch = 0
    while len(steps) < wanted:
        order = batches.shuffled(len(lengths), config.seed, epoch)
        steps += batches.by_tokens(lengths, config.tokens_per_step, order)
        epoch += 1
    return steps[:wanted]


def tell_plan(
    run: Run,
    config: Config,
    decoder: Decoder,
    training: list[list[int]],
    held_out: list[forward.Row],
    steps: list[list[int]],
    schedule: plan.Schedule,
    runtime: Runtime,
) -> None:
    tokens, limit = sum(map(len, training)), config.max_tokens_per_pass
    pieces = [[whole(piece)] for piece in (*(training[i] for i in steps[0]), max(training, key=len))]
    works = memory.heaviest(pieces, [range(len(pieces) - 1), [len(pieces) - 1]], limit, summed=True)
    reading = memory.largest_reading(held_out, limit)
    size = memory.training(decoder, config.optimizer, works, runtime, len(steps), reading, listed=tokens)
    run.log.say(f"{config.model}: {plan.parameters(decoder)}, {memory.told(size, runtime, works)}")
    run.log.say(
        f"{tokens:,} tokens in {len(training):,} pieces, {config.tokens_per_step} a step: "
        f"{len(steps) * config.tokens_per_step / tokens:.2f} epochs in {schedule}"
    )
