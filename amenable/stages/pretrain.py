"""Pretrain a decoder on raw text: predict the next token. A model that is there is trained on.

    L = -mean_t log p(x_t | x_<t)

Documents are packed one after another, each with its own positions, and attend to themselves alone. The metric is bits
per byte of held-out text, which can be compared between vocabularies. Radford et al. (2018, 2019); Brown et al. (2020).

A new model starts at the rate of its size. A trained one (--model FOLDER) goes on at a tenth of it, where a cosine to
10 % has left it (Brown et al., 2020); warming up to more makes it forget more of its old text (Ibrahim et al., 2024).

Reads a tokenizer, or a model with its own, and text; writes a published-format model directory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from amenable.data.mixture import Sources, data_inputs, token_batches
from amenable.models.decoder import Decoder
from amenable.models.presets import PRESETS, preset
from amenable.seeds import seeded_generator
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, plan
from amenable.train.defaults import FROM_MODEL, FromModel
from amenable.train.fit import Metrics, Training, fit
from amenable.train.objective import NextToken
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import Run
from amenable.train.run_options import AdapterOptions, OfflineOptions
from amenable.train.runtime import Runtime, start_runtime
from amenable.train.stage_report import StageReport
from amenable.train.text_chunks import read_chunks

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
class Config(OfflineOptions, AdapterOptions):
    """Pretrain a decoder on raw text."""

    data: Sources = (Path("runs/world/text/train.jsonl"),)
    """text: a file, or a folder of files; several are mixed, each SOURCE or SOURCE=WEIGHT, a share of the tokens"""
    validation_split: float = field(default=0.02, kw_only=True)
    """share of the documents held out where no validation file is given"""
    tokenizer: Path | None = None
    """of a new model, by default runs/tokenizer; a model's folder has its own"""
    out: Path = Path("runs/pretrain")
    model: str = "nano"
    """a preset: nano tiny mini tiny-gpt2 gpt1 gpt2 gpt2-medium ... gpt3-175b; or the folder of a model to train on"""
    context: FromModel[int] = FROM_MODEL
    """maximum tokens of a chunk, by default the model's context, and of a trained model at most tokens_per_step; longer
    documents are cut into chunks"""
    dropout: float = 0.0
    tokens_per_step: int = 2048
    """tokens in one update"""
    epochs: float = 2.5
    """passes over the text, unless max_steps is given"""
    max_steps: int = 0
    """number of updates; 0 follows from the epochs"""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(muon_learning_rate=FROM_MODEL, weight_decay=0.01)
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
    folder = None if config.model in PRESETS else Path(config.model)
    config, by_default, tokenizer = prepare(config, folder)
    inputs = {"validation": config.validation, "tokenizer": config.tokenizer, "model": folder}
    run = Run(config.out, "pretrain", config, data_inputs(config.data) | inputs)
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    decoder = load(config, folder, tokenizer, runtime)
    texts = read_chunks(config, tokenizer, config.context, config.eval_tokens, run.rejected, run.log.bar)
    training, held_out = texts.training, texts.held_out
    length = config.max_steps or config.epochs
    steps, mixture = token_batches(config.data, texts.lengths, config.tokens_per_step, length, config.seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac, usual=20)
    tokens = int(steps.lengths.sum(dtype="int64"))
    line = f"{tokens:,} tokens in {len(training):,} chunks, {config.tokens_per_step} a step: {steps.epochs:.2f} epochs"
    task = Training(
        objective=NextToken(decoder),
        elements=training,
        batches=steps,
        model=decoder,
        optimizers={"": Optimizer([decoder], config.optimizer)},
        schedule=schedule,
        check=first_batch.check_chunks([training[i] for i in steps[0]], tokenizer),
        plan=[f"{'model' if folder else 'preset'} {config.model}; {line} in {schedule}", *mixture, by_default],
        train_mode=True,
        show=("loss", "eval/bpb"),
        held_out=held_out,
    )

    def measure() -> Metrics:
        limit, bar = config.max_tokens_per_pass, run.log.bar("validation")
        return forward.bits_per_byte(decoder.eval(), held_out, texts.byte_counts, runtime, limit, bar)

    def evaluate(step: int) -> Metrics:
        return {} if step % config.eval_steps and step != len(steps) else measure()

    def evaluate_first(step: int, _: list[forward.Row], stats: Metrics) -> Metrics:
        """Log the bits per byte of a trained model before its first update."""
        if folder is not None and step == 1:
            run.log.row(0, before := measure())
            run.log.info(f"step 0: {before['eval/bpb']:.4g} bits per byte of held-out text")
        return stats

    if not fit(run, task, config, runtime, evaluate, evaluate_first):
        return run.out
    loading.save_model(run.out, decoder, tokenizer, config.save_dtype)
    return run.finish(**{key: run.metrics[key] for key in ("loss", "eval/bpb")})


def prepare(config: Config, folder: Path | None) -> tuple[Config, str, Tokenizer]:
    """Fill the options that depend on the preset, or on the model in a folder; return them, a line on them, and the
    tokenizer."""
    if folder is None:
        hint = "name a model's folder as --model"
        plan.forbid(config.trains_adapters, "a new model has no weights for adapters", hint)
        plan.forbid(config.frozen_layers, "a new model has no weights to freeze", hint)
        shape, path = preset(config.model), config.tokenizer or Path("runs/tokenizer")
        tokenizer = Tokenizer.load(path)
        traits = defaults.traits_of(replace(shape, vocab_size=tokenizer.vocab_size))
        return *defaults.pretrain(replace(config, tokenizer=path), traits), tokenizer
    if not folder.exists() and len(folder.parts) == 1:
        preset(config.model)  # raises an error with the nearest name
    traits = defaults.traits(folder, "amenable pretrain", config.virtual_tokens)
    tokenizer = Tokenizer.load(folder)
    other = config.tokenizer is not None and Tokenizer.load(config.tokenizer).fingerprint != tokenizer.fingerprint
    plan.forbid(other, f"{config.tokenizer} is not the tokenizer of {folder}", "leave out --tokenizer")
    config, by_default = defaults.continue_pretraining(config, traits)
    plan.forbid(config.context > traits.context, f"context is {config.context}", f"the model's is {traits.context}")
    return config, by_default, tokenizer


def load(config: Config, folder: Path | None, tokenizer: Tokenizer, runtime: Runtime) -> Decoder:
    """Return a new model of the preset, or the model in a folder."""
    if folder is None:
        shape = preset(config.model, tokenizer.vocab_size)
        decoder = Decoder(replace(shape, context_length=config.context, dropout=config.dropout)).to(runtime.device)
        decoder.init_weights(seeded_generator(config.seed, "init"))
        return decoder
    decoder, _ = loading.load_policy(folder, runtime, "amenable pretrain", config.dropout)
    config.adapt(decoder, folder, tokenizer, runtime)
    return decoder
