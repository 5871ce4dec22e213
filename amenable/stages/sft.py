"""Supervised fine-tuning: imitate demonstrations.

    L = -mean log p(y_t | x, y_<t)   over the assistant's tokens and the EOS that ends each turn, nothing else

Ouyang et al. (2022, section 3.5 and appendix C.1): cosine to 10 %, residual dropout 0.2, more epochs than the
validation loss alone would choose, and the weights of the epoch with the best score (--keep-weights score).

Reads a base model and conversations; writes a published-format model directory with the chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from amenable.data.mixture import Mixed, Sources, data_inputs, join_paths, mixture_batches
from amenable.data.types import Demonstration, Prompt
from amenable.generation.rollout import greedy
from amenable.models.decoder import Decoder
from amenable.rewards.on_rollout import score_rollout
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.spec import Reward, Specs, load_reward, reward_inputs
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import defaults, first_batch, forward, loading, plan
from amenable.train.best import BestWeights
from amenable.train.defaults import FROM_MODEL, FromModel, traits
from amenable.train.examples import RejectedRows
from amenable.train.failed_rewards import scoring
from amenable.train.fit import Training, fit
from amenable.train.log import Bars, no_bars
from amenable.train.objective import NextToken
from amenable.train.optimizer import Optimizer
from amenable.train.passes import longest_rows
from amenable.train.row_cache import demonstrations, keep_fitting, read_splits
from amenable.train.run import Run
from amenable.train.run_options import AdapterOptions, OfflineOptions
from amenable.train.runtime import Runtime, start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport(
    "Fine-tuning",
    "It imitates demonstrations.",
    "loss",
    (("held-out loss", "eval/loss"), ("step kept", "selected_step")),
    (("Loss, nats a token", (("eval/loss", "held out"), ("loss", "training"))),),
)


@dataclass(frozen=True)
class Config(OfflineOptions, AdapterOptions):
    """Fine-tune a base model on demonstrations."""

    model: Path = Path("runs/pretrain")
    data: Sources = (Path("runs/world/demonstrations/train.jsonl"),)
    """conversations: a file, or a folder of files; several are mixed, each SOURCE or SOURCE=WEIGHT"""
    train_on: Literal["all", "exchange", "last"] = "all"
    """assistant turns that are trained: all, all after the user's last message (calls of tools and the answer), or the
    last of each conversation; never those with weight 0"""
    out: Path = Path("runs/sft")
    epochs: int = 5
    batch_size: int = 8
    """conversations in one update"""
    dropout: FromModel[float] = FROM_MODEL
    """by default as the model's config.json says: .1 in GPT-2's, none in Llama's and Qwen's"""
    keep_weights: Literal["last", "loss", "score"] = "last"
    """weights that are saved: those of the last epoch, of the lowest validation loss, or of the best score"""
    reward: Specs = ()
    """scores greedy completions of validation prompts, for --keep-weights score: a reward model's folder, FOLDER:LABEL,
    FILE.py:FUNCTION, a rule or an http address; several are added, each SPEC or SPEC=WEIGHT"""
    scoring: Scoring = field(default_factory=RewardOptions)
    reward_prompts: int = 100
    """validation prompts that are completed for --keep-weights score"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """maximum length of a completion of a validation prompt; by default a quarter of the context, at most 256"""
    save_steps: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "epochs", "batch_size", "reward_prompts", "max_new_tokens")
        plan.require_below_one(self, "dropout")
        unscored = self.keep_weights == "score" and not self.reward
        plan.forbid(unscored, "--keep-weights score needs a reward", "give --reward, or keep by loss")


def run(config: Config) -> Path:
    """Fine-tune and return the run directory."""
    config, by_default = defaults.sft(config, traits(config.model, "amenable pretrain", config.virtual_tokens))
    inputs = {"model": config.model, **data_inputs(config.data), "validation": config.validation}
    run = Run(config.out, "sft", config, inputs | reward_inputs(config.reward, rubric=config.scoring.judge_rubric))
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    decoder, base_tokenizer = loading.load_policy(config.model, runtime, "amenable pretrain", config.dropout)
    tokenizer = base_tokenizer.with_chat_template()
    loading.fit_vocabulary(decoder, tokenizer, config.model)
    added = tokenizer.vocab_size - base_tokenizer.vocab_size
    config.adapt(decoder, config.model, tokenizer, runtime, added)
    limit, given = config.max_tokens_per_pass, bool(config.reward)
    reward = load_reward(config.reward, runtime, limit, options=config.scoring) if given else None
    context = decoder.config.context_length
    training, held_out = read(config, tokenizer, context, run.rejected, run.log.bar)
    rows, held_out_rows = (part.map(lambda source: source.as_rows()) for part in (training, held_out))
    problem = f"--keep-weights {config.keep_weights} has nothing to validate on"
    plan.forbid(not held_out and config.keep_weights != "last", problem, "give other data, or --keep-weights last")
    steps, mixture = mixture_batches(config.data, rows, config.batch_size, config.epochs, config.seed)
    schedule = plan.cosine_with_warmup(len(steps), config.warmup_steps, config.final_lr_frac)
    best = {"loss": BestWeights(decoder, "eval/loss", lowest=True), "score": BestWeights(decoder, "eval/score")}
    task = Training(
        objective=NextToken(decoder),
        elements=rows,
        batches=steps,
        model=decoder,
        optimizers={"": Optimizer([decoder], config.optimizer)},
        schedule=schedule,
        check=first_batch.check_conversations([rows[i] for i in steps[0]], [training[i] for i in steps[0]], tokenizer),
        plan=[
            f"{len(rows)} conversations x {config.epochs} epochs / {config.batch_size} a step = {schedule}",
            *mixture,
            by_default,
            *(reward.notes if reward is not None else []),
        ],
        train_mode=True,
        show=("loss", "eval/loss", "eval/score"),
        held_out=longest_rows(held_out_rows, lambda row: [row]),
        best=best.get(config.keep_weights),
    )
    prompts = scored_prompts(held_out, reward, tokenizer, context, config)
    validate = partial(evaluate, decoder, held_out_rows, prompts, reward, tokenizer, config, runtime, run)
    if fit(run, task, config, runtime, lambda step: validate() if step % steps.per_epoch == 0 else {}):
        loading.save_model(run.out, decoder, tokenizer, config.save_dtype)
        selected = task.best.step if task.best is not None else len(steps)
        return run.finish(selected_step=selected, **{k: v for k, v in run.metrics.items() if k.startswith("eval/")})
    return run.out


def read(
    config: Config,
    tokenizer: Tokenizer,
    context: int,
    rejected: RejectedRows | None = None,
    bars: Bars = no_bars,
) -> tuple[Mixed[Demonstration], Mixed[Demonstration]]:
    """Read demonstrations to train on, and held-out ones, by source, with their rows."""
    kind = demonstrations(config.train_on)
    splits = read_splits(kind, config, tokenizer, rejected, bars)
    splits = keep_fitting(splits, kind.noun, context, config.data, rejected)
    return splits["train"], splits["validation"]


def scored_prompts(
    held_out: Sequence[Demonstration], reward: Reward | None, tokenizer: Tokenizer, context: int, config: Config
) -> list[Prompt]:
    """Return the first held-out prompts that leave policy and reward room for a completion; [] without a reward."""
    if reward is None or not held_out:
        return []
    room = min(context, reward.context_length) - config.max_new_tokens
    every = (Prompt(row.messages[:-1], row.id, row.meta) for row in held_out)
    fitting = (prompt for prompt in every if len(render_prompt(tokenizer, prompt.messages)) <= room)
    prompts = list(islice(fitting, config.reward_prompts))
    plan.forbid(not prompts, f"no held-out prompt is within {room} tokens", "lower --max-new-tokens")
    reward.require_columns([prompt.meta for prompt in prompts], config.validation or join_paths(config.data))
    return prompts


def evaluate(
    decoder: Decoder,
    rows: Mixed[forward.Row],
    prompts: list[Prompt],
    reward: Reward | None,
    tokenizer: Tokenizer,
    config: Config,
    runtime: Runtime,
    run: Run,
) -> dict[str, float]:
    """Return the loss on held-out rows and, with a reward, the mean score of greedy completions; {} without rows."""
    if not rows:
        return {}
    decoder.eval()
    bars = run.log.bar
    metrics = forward.mean_losses(decoder, rows, runtime, config.max_tokens_per_pass, bars("validation"))
    if reward is not None:
        ids = [render_prompt(tokenizer, prompt.messages) for prompt in prompts]
        with runtime.autocast():
            rollout = greedy(decoder, ids, config.max_new_tokens, tokenizer.stop_ids, bars("answers"))
        with scoring(run):
            scores = score_rollout(reward, rollout, prompts, tokenizer, bars("rewards"))
        metrics |= {"eval/score": float(reward.total(scores).mean()), **reward.metrics(scores)}
    return metrics
