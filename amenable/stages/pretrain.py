"""Pretrain a decoder on raw text: predict the next token.

    L = -mean_t log p(x_t | x_<t)

Documents are packed one after another, each with its own positions, and attend to themselves alone. The metric is bits
per byte of held-out text, which can be compared between vocabularies. Radford et al. (2018, 2019); Brown et al. (2020).

Reads a tokenizer and text; writes a published-format model directory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from amenable.data import batches, sources
from amenable.models.decoder import Decoder
from amenable.models.presets import preset
from amenable.seeds import seeded_generator
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, plan
from amenable.train.defaults import FROM_MODEL, FromModel, traits_of
from amenable.train.examples import RejectedRows, chunk_texts, read_splits, text_row, validation_rows
from amenable.train.fit import Training, fit
from amenable.train.objective import NextToken
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import Run
from amenable.train.run_options import OfflineOptions
from amenable.train.runtime import start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Pretraining",
    "A decoder learns to predict the next token of raw text.",
    "loss",
    (("bits per byte", "eval/bpb"), ("loss", "loss")),
    (
        ("Loss, nats a token", (("loss", "training"),)),
        ("Bits per byte, held-out text", (("eval/bpb", "held out"),)),
    ),
)


@dataclass(frozen=True)
class Config(OfflineOptions):
    """Pretrain a decoder on raw text."""

    data: Path = Path("runs/world/text/train.jsonl")
    """text: a file, or a folder of files"""
    validation_split: float = field(default=0.02, kw_only=True)
    """share of the documents held out where no validation file is given"""
    tokenizer: Path = Path("runs/tokenizer")
    out: Path = Path("runs/pretrain")
    model: str = "nano"
    """a preset: nano tiny mini tiny-gpt2 gpt1 gpt2 gpt2-medium ... gpt3-175b"""
    context: FromModel[int] = FROM_MODEL
    """maximum tokens of a chunk, by default the preset's context; longer documents are cut into chunks"""
    dropout: float = 0.0
    tokens_per_step: int = 2048
    """tokens in one update"""
    epochs: float = 2.5
    """passes over the text, unless max_steps is given"""
    max_steps: int = 0
    """number of updates; 0 follows from the epochs"""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_learning_rate=0.02, weight_decay=0.01)
    )
    eval_steps: int = 200
    """steps between two evaluations"""
    eval_tokens: int = 50_000
    """maximum tokens of held-out text in an evaluation"""
    save_steps: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "tokens_per_step", "eval_steps", "eval_tokens")
        plan.require_at_least(2, self, "context")
        plan.require_at_least(0, self, "max_steps")
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
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    training, held_out, byte_count = read(config, tokenizer, run.rejected)
    steps = epoch_plan(config, [len(row) for row in training])
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac, usual=20)
    decoder = Decoder(shape).to(runtime.device)
    decoder.init_weights(seeded_generator(config.seed, "init"))
    tokens = sum(map(len, training))
    epochs = len(steps) * config.tokens_per_step / tokens
    line = f"{tokens:,} tokens in {len(training):,} chunks, {config.tokens_per_step} a step: {epochs:.2f} epochs"
    task = Training(
        objective=NextToken(decoder),
        elements=[text_row(chunk) for chunk in training],
        batches=steps,
        model=decoder,
        optimizers={"": Optimizer([decoder], config.optimizer)},
        schedule=schedule,
        check=first_batch.check_chunks([text_row(training[i]) for i in steps[0]], tokenizer),
        plan=[f"preset {config.model}; {line} in {schedule}", by_default],
        train_mode=True,
        show=("loss", "eval/bpb"),
        held_out=held_out,
        data_tokens=tokens,
    )

    def evaluate(step: int) -> dict[str, float]:
        if step % config.eval_steps and step != len(steps):
            return {}
        limit, bar = config.max_tokens_per_pass, run.log.bar("validation")
        return {"eval/bpb": forward.bits_per_byte(decoder.eval(), held_out, byte_count, runtime, limit, bar)}

    if not fit(run, task, config, runtime, evaluate):
        return run.out
    loading.save_model(run.out, decoder, tokenizer, config.save_dtype)
    return run.finish(**{key: run.metrics[key] for key in ("loss", "eval/bpb")})


def read(
    config: Config, tokenizer: Tokenizer, rejected: RejectedRows | None = None
) -> tuple[list[list[int]], list[forward.Row], int]:
    """Read chunks of ids to train on, held-out rows, and the number of bytes that the held-out rows encode."""
    split, seed = config.validation_split, config.seed
    texts, held_out = read_splits(sources.read_texts, config.data, config.validation, split, seed, rejected)
    rows, byte_count = validation_rows(held_out, tokenizer, config.context, config.eval_tokens)
    return chunk_texts(texts, tokenizer, config.context), rows, byte_count


def epoch_plan(config: Config, lengths: list[int]) -> list[list[int]]:
    """Return the chunks of every step. They depend on the seed alone, so a step number is the data cursor.

    lengths: tokens of each chunk.
    """
    total = config.max_steps or max(1, round(sum(lengths) * config.epochs / config.tokens_per_step))
    steps: list[list[int]] = []
    epoch = 0
    while len(steps) < total:
        order = batches.shuffled(len(lengths), config.seed, epoch)
        steps += batches.by_tokens(lengths, config.tokens_per_step, order)
        epoch += 1
    return steps[:total]
