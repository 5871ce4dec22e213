"""Train a chat model on one's own clicks: compare its answers in a browser, train an adapter, see what changed.

    questions -> sample -> a person compares pairs of answers on a page -> dpo (an adapter, within a KL budget)
    -> the next round, if any -> evaluate before and after, on questions of their own -> report

Of several answers to a question two are compared: those with the fewest words in common, one of which ended by itself,
where any did. Some pairs come a second time, so
that the report can say how far the person agrees with themselves. A further round compares answers of the policy before
it, and trains on the labels of all rounds (Bai et al., 2022, section 4.5). Stopped anywhere, the same command goes on.

Reads a chat model's folder and prompts (900 questions are in the package); writes the stages' run directories,
report.json and report.html. Labels go into a database that nothing is ever deleted from.
"""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from amenable.data.files import read_json_lines
from amenable.evaluation.content import words_of
from amenable.feedback.store import Store
from amenable.models.lora import LoraOptions
from amenable.recipes import real, rounds_people
from amenable.recipes.pipeline import StageRun, run_all, stage_runs
from amenable.recipes.reports import personal_page
from amenable.recipes.rounds_labels import Round, unused_prompts, write_rows, write_training_set
from amenable.serve import label, security
from amenable.stages import dpo, evaluate, sample
from amenable.stages.sample import SamplingOptions
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading, plan
from amenable.train.optimizer import OptimizerConfig

SIZES = {"test": 100, "validation": 48, "train": 240}
"""prompts of each split"""
LEAST = 16
"""comparisons that prefer an answer, at least: they tell a share to within 25 points"""
SPARE = 4
"""questions for which the page has one more, in place of those that are skipped or end in a tie"""
VALIDATION = 0.2
"""share of the comparisons that training leaves out: KL and loss are measured on them"""
BATCH, STEPS = 8, 24
"""pairs of a step; steps at least, before the budget or the epochs end training"""
CLOSING_SECONDS = 3.0
"""between the last comparison and the end of the page, so that it shows its last message"""
INSTRUCTIONS = """\
# Which answer do you like better?

Press **←** or **→** for the better answer, **=** if you like both the same, **X** if you cannot tell. **U** takes the
last one back. Whatever you prefer is what the model learns: be consistent, there is no other rule. Some pairs come
twice.
"""
THANKS = "Thank you, that is enough. The model is being trained: see the terminal."


@dataclass(frozen=True)
class Config:
    """Train a chat model on one's own comparisons of its answers."""

    model: Path = Path("models/smollm2")
    """folder of a chat model; `amenable get smollm2` makes the default"""
    data: Path | None = None
    """questions: a file, or a folder of files; by default the 900 of the package"""
    out: Path = Path("runs/personalize")
    comparisons: int = 50
    """questions of a round whose answers are compared"""
    repeats: int = 5
    """comparisons that come a second time"""
    rounds: int = 1
    """rounds of comparing and training; more of them go on from those that are finished"""
    kl_budget: float = 5.0
    """nats an answer that the policy may be away from the model"""
    num_generations: int = 4
    """answers sampled to a question; two of them are compared"""
    temperature: float = 0.8
    max_new_tokens: int = 96
    """greatest length of an answer, in tokens"""
    test_prompts: int = 100
    """questions that are held out, to compare the model before and after"""
    labels_db: Path = Path("runs/labels.db")
    """database for labels"""
    port: int = 8017
    """of the page, on 127.0.0.1; 0 takes any free port"""
    seed: int = 0

    def __post_init__(self) -> None:
        plan.require_at_least(LEAST, self, "comparisons")
        plan.require_at_least(1, self, "rounds", "max_new_tokens", "test_prompts")
        plan.require_at_least(0, self, "repeats", "seed")
        plan.require_at_least(2, self, "num_generations")
        plan.require_above_zero(self, "kl_budget", "temperature")

    @property
    def turns(self) -> list[Round]:
        """The rounds, each with those before it."""
        turns: list[Round] = []
        for number in range(1, self.rounds + 1):
            turns.append(Round(self.out / f"round-{number}", "people", tuple(turns), policy_stage="dpo"))
        return turns


def run(config: Config) -> Path:
    """Go through all rounds, compare the model before and after, and return the folder that holds them."""
    loading.require_model(config.model, "amenable get smollm2")
    is_base = Tokenizer.load(config.model).chat_template is None
    plan.forbid(
        is_base, f"{config.model} cannot chat: it has no chat template", "give a chat model, as of amenable sft"
    )
    security.require_server()
    data = config.data or real.QUESTIONS
    real.write_prompts(config.out / "prompts", real.read_prompts(data), data, config.seed, SIZES)
    for turn in config.turns:
        collect_comparisons(turn, config)
        write_training_set(turn, None, None, 1)
        run_all([training_run(turn, config)])
    run_all([evaluation_run(config)])
    personal_page.write(config.out, f"evaluate-{config.rounds}", config.turns, config.kl_budget, command_of(config))
    print_next_steps(config)
    return config.out


def collect_comparisons(turn: Round, config: Config) -> None:
    """Sample answers, and serve the page until enough of them are compared; the labels by then are the round's."""
    pairs = turn.folder / "pairs.jsonl"
    if rounds_people.has_labels(turn):
        rounds_people.collect(turn, [pairs], config.labels_db, 0, VALIDATION, config.seed)
        return
    write_questions(turn, config)
    sampling = sampling_run(turn, config)
    run_all([sampling])
    write_rows(pairs, different_pairs(read_json_lines(sampling.out / "samples.jsonl")))
    page = label.Config(
        data=(pairs,),
        tasks=("compare",),
        one_key=True,
        repeats=config.repeats,
        overlap=0.0,
        labels_db=config.labels_db,
        port=config.port,
        seed=config.seed,
    )
    pool = rounds_people.pool_of([pairs])

    def is_complete() -> bool:
        rows = rounds_people.rankings(pool, config.labels_db)
        return not rounds_people.rankings_left(rows, config.comparisons, LEAST)

    with Store(config.labels_db) as store:
        app = label.make_label_app(page, store, label.load_tasks(page), INSTRUCTIONS, None, None)
        app.goal, app.thanks, app.is_complete = config.comparisons, THANKS, is_complete
        with label.background_page(page, app) as address:
            print(f"{turn.name}: compare {config.comparisons} pairs of answers, by a key each, at", file=sys.stderr)
            print(f"  {address}", file=sys.stderr, flush=True)
            wanted = (config.comparisons, VALIDATION, config.seed)
            rounds_people.collect(turn, [pairs], config.labels_db, *wanted, least=LEAST, max_skips=1)
            time.sleep(CLOSING_SECONDS)


def write_questions(turn: Round, config: Config) -> None:
    """Write the questions of a round, once: none of earlier rounds, and some to spare."""
    if turn.prompts.exists():
        return
    earlier = [each.prompts for each in turn.before]
    rows = unused_prompts(config.out / "prompts" / "train.jsonl", earlier, config.seed)
    count = config.comparisons + config.comparisons // SPARE + 1
    lack = f"{count} more questions are needed and {len(rows)} are left"
    plan.forbid(len(rows) < count, lack, "lower --comparisons or --rounds, or give more with --data")
    write_rows(turn.prompts, rows[:count])


def different_pairs(samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield samples with the two answers of each that are compared; those whose answers are all alike are left out."""
    for row in samples:
        pair = most_different(row["completions"], row["ended"])
        if pair is not None:
            yield {**row, **{name: [row[name][i] for i in pair] for name in ("completions", "ended")}}


def most_different(texts: Sequence[str], ended: Sequence[bool]) -> tuple[int, int] | None:
    """Return the indices of the two texts that share the fewest of their words (Jaccard), one of which ended by itself,
    where any did; None where all are alike.

    >>> most_different(["a red fish", "a red fish swims", "blue"], [True, True, True])
    (0, 2)
    """
    words = [frozenset(words_of(text)) for text in texts]
    order = {
        (i, j): (not (ended[i] or ended[j]), len(words[i] & words[j]) / max(1, len(words[i] | words[j])))
        for i, j in combinations(range(len(texts)), 2)
        if texts[i].strip() != texts[j].strip()
    }
    return min(order, key=lambda pair: order[pair], default=None)


def sampling_run(turn: Round, config: Config) -> StageRun:
    """Return the run that samples answers: of the model, or of the policy of the round before."""
    sampling = sample.Config(
        model=turn.before[-1].policy if turn.before else config.model,
        data=turn.prompts,
        num_generations=config.num_generations,
        sampling=SamplingOptions(temperature=config.temperature, max_new_tokens=config.max_new_tokens),
    )
    (run,) = stage_runs(turn.folder, config.seed, {"sample": sampling})
    return run


def training_run(turn: Round, config: Config) -> StageRun:
    """Return the run of DPO, from the model as it was, on the comparisons of all rounds so far."""
    pairs = len(read_json_lines(turn.labels / "train.jsonl"))
    policy = dpo.Config(
        model=config.model,
        data=(turn.labels / "train.jsonl",),
        validation=turn.labels / "validation.jsonl",
        lora=LoraOptions(rank=16),
        optimizer=OptimizerConfig(learning_rate=2e-4),
        epochs=math.ceil(STEPS / math.ceil(pairs / BATCH)),
        batch_size=BATCH,
        kl_budget=config.kl_budget,
        kl_prompts=config.out / "prompts" / "validation.jsonl",
        eval_steps=2,
        max_new_tokens=config.max_new_tokens,
        warmup_steps=2,
    )
    (run,) = stage_runs(turn.folder, config.seed, {"dpo": policy})
    return run


def evaluation_run(config: Config) -> StageRun:
    """Return the evaluation of the model before and after every round, on held-out questions."""
    models = {"before": config.model, **{turn.name: turn.policy for turn in config.turns}}
    evaluation = evaluate.Config(
        models=tuple(f"{name}={folder}" for name, folder in models.items()),
        data=config.out / "prompts" / "test.jsonl",
        reference="before",
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        max_prompts=config.test_prompts,
    )
    (run,) = stage_runs(config.out, config.seed, {f"evaluate-{config.rounds}": evaluation})
    return run


def command_of(config: Config) -> str:
    """Return the command that repeats a run, with the options that are not the defaults."""
    given = [(option.name, getattr(config, option.name), option.default) for option in fields(config)]
    words = [[f"--{name.replace('_', '-')}", str(value)] for name, value, default in given if value != default]
    return shlex.join(["amenable", "personalize", *chain.from_iterable(words)])


def print_next_steps(config: Config) -> None:
    """Print the commands to chat with the model, and to compare it blindly with the one before."""
    policy, model, store = map(str, (config.turns[-1].policy, config.model, config.labels_db))
    chat = ["amenable", "chat", "--model", policy, "--compare", model]
    arena = ["amenable", "arena", "--models", f"before={model}", f"after={policy}", "--labels-db", store]
    for purpose, command in (("chat with both side by side", chat), ("vote without knowing which is which", arena)):
        print(f"{purpose}:\n  {shlex.join(command)}", file=sys.stderr, flush=True)
