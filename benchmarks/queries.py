"""Labels needed to reach a held-out accuracy, by the rule that chose what to ask; and votes needed for sure ratings.

    python -m benchmarks.queries --run runs/demo

On the closed world, with its simulated annotators, and the answers that a finished demo sampled. An item of the pool is
two answers to one prompt; a label is one annotator's word on them, which may be that they are equal. All rules begin
with the same random labels; then a rule reads reward models trained on its labels so far, and chooses the next batch.

Reward models are of two sorts. *Heads* are linear, on the mean state of the frozen SFT model over an answer: trained in
milliseconds, so that every rule can be followed through many seeds. *Whole* ones are trained by the reward stage, on
labels that were chosen with heads, for a few seeds. Accuracy is on pairs of answers to held-out prompts, against gold.

Then the votes: models that the demo has evaluated fight on its test prompts, drawn at random or by `next_battles`; the
error of their ratings is against those of all battles together.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from amenable.data.rankings import from_scores
from amenable.errors import InputError
from amenable.evaluation.load_answers import read_answers
from amenable.feedback.candidates import Candidates, read_candidates
from amenable.feedback.queries import RULES, SCORED, Pool, Rule, choose, next_battles
from amenable.feedback.ratings import SCALE, Comparison, strengths, win_table
from amenable.functional.statistics import bootstrap_mean
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.seeds import seeded_generator
from amenable.stages import annotate, reward
from amenable.text.chat import render_prompt
from amenable.train import forward, loading
from amenable.train.examples import ranking_rows
from amenable.train.runtime import DeviceOptions, Runtime, start_runtime
from amenable.world.annotators import fit_noise
from amenable.world.closed_world import ClosedWorld
from amenable.world.gold import GoldReport


@dataclass(frozen=True)
class Config:
    """Compare query rules, which choose the pairs that people label."""

    run: Path = Path("runs/demo")
    """a finished demo"""
    plot: Path = Path("benchmarks/queries.svg")
    """also .png"""
    figures: Path | None = None
    """a file for the numbers of every seed, as JSON"""
    rules: tuple[Rule, ...] = RULES
    budgets: tuple[int, ...] = (50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
    """labels at which reward models are trained anew; the first of them are random for all rules"""
    seeds: int = 40
    """each with its own held-out prompts, pool, annotators and errors, the same for all rules"""
    ensemble: int = 5
    """heads that a rule sees, each trained on a resample of the labels"""
    ridge: float = 3.0
    """weight penalty of the heads, where the answers to a prompt are 1 apart on average"""
    held_out: float = 0.25
    """share of the prompts"""
    targets: tuple[int, ...] = (200, 400, 800)
    """the accuracies aimed at are those that so many random labels reach"""
    whole_labels: int = 400
    """labels that whole reward models are trained on, one of the budgets; 0 for no such models"""
    whole_seeds: int = 5
    votes: tuple[int, ...] = (100, 200, 400, 800, 1600)
    """numbers of votes after which ratings are measured; none for no ratings"""
    batch: int = 10
    """votes that are chosen at once"""
    device: DeviceOptions = field(default_factory=lambda: DeviceOptions(threads=1))

    def __post_init__(self) -> None:
        if list(self.budgets) != sorted(set(self.budgets)) or not self.budgets or self.budgets[0] < 2:
            raise InputError(f"budgets are {self.budgets}", how="increasing numbers, 2 or more")
        if "random" not in self.rules:
            raise InputError("random is not among the rules", how="the others are compared with it")
        wrong = [
            n for n in (*self.targets, *([self.whole_labels] if self.whole_labels else ())) if n not in self.budgets
        ]
        if wrong:
            raise InputError(f"{wrong} labels are none of the budgets", how=f"the budgets are {self.budgets}")


@dataclass(frozen=True)
class Material:
    """Prompts with answers, judged and as features. A answers in all, the answers of a prompt beside each other."""

    prompts: list[Candidates]
    owners: Tensor
    """[A] the prompt of each answer"""
    judged: list[GoldReport]
    """A answers"""
    features: Tensor
    """[A, D], scaled so that two answers to a prompt are 1 apart, in the root mean square"""
    about: Tensor
    """[P, D] features of the prompts"""
    world: ClosedWorld
    """with noise fitted to these answers"""

    @property
    def gold(self) -> Tensor:
        return torch.tensor([parts.gold for parts in self.judged], dtype=torch.float64)


@dataclass(frozen=True)
class Trial:
    """Pool and test pairs of one seed, the same for all rules."""

    pairs: Tensor
    """[N, 2] pairs of answers that can be labelled"""
    labels: Tensor
    """[N] their labels: 1 the first is better, 0 the second, one half for a tie"""
    pool: Pool
    test: Tensor
    """[T, 2] pairs of held-out prompts, the better answer first"""


def main(config: Config) -> dict[str, Any]:
    began = time.monotonic()
    runtime = start_runtime(config.device)
    material = gather(config, runtime)
    print(f"{len(material.prompts)} prompts, {len(material.judged)} answers; {runtime.describe()}", flush=True)
    curves, whole = compare(material, config)
    figures: dict[str, Any] = {
        "budgets": config.budgets,
        "accuracy": curves,
        "whole": whole,
        "errors": rate(material.world, config),
    }
    figures["seconds"] = round(time.monotonic() - began)
    if config.figures is not None:
        config.figures.write_text(json.dumps(figures), "utf-8")
    print("\n\n".join(tables(figures, config)))
    draw_plot(figures, config)
    print(f"\n{figures['seconds']} s; {config.plot}")
    return figures


def gather(config: Config, runtime: Runtime) -> Material:
    """Load everything that does not depend on a seed."""
    prompts = read_candidates([config.run / "sample" / "samples.jsonl"])
    world = ClosedWorld.load(config.run / "world")
    decoder, tokenizer = loading.load_policy(config.run / "sft", runtime)
    usable, groups = [], []
    for prompt in prompts:
        rows = ranking_rows(
            annotate.ranking_of(prompt, (1.0,) * len(prompt.completions), ""), tokenizer, context_of(decoder)
        )
        if rows is not None:
            usable.append(prompt)
            groups.append(rows)
    owners = torch.tensor([i for i, rows in enumerate(groups) for _ in rows])
    judged = [[world.gold(row.id, *answer) for answer in zip(row.completions, row.ended)] for row in usable]
    prompt_ids = [render_prompt(tokenizer, row.prompt)[-context_of(decoder) :] for row in usable]
    features = mean_states(decoder, [row for rows in groups for row in rows], runtime)
    return Material(
        prompts=usable,
        owners=owners,
        judged=[parts for reports in judged for parts in reports],
        features=scaled(features, owners),
        about=standard(mean_states(decoder, [(ids, [True] * len(ids)) for ids in prompt_ids], runtime)),
        world=replace(world, noise=fit_noise(world.annotators, judged, 0)),
    )


def context_of(decoder: Decoder) -> int:
    return decoder.config.context_length


@torch.inference_mode()
def mean_states(decoder: Decoder, rows: Sequence[forward.Row], runtime: Runtime) -> Tensor:
    """Return the mean of the last hidden states over each row's trained tokens, [B, D]."""
    out = torch.zeros(len(rows), decoder.config.hidden_size)
    for chosen, batch in forward.length_sorted_batches(rows, runtime, 8192):
        layout = Layout.of(batch.lengths, batch.ids.device, batch.prefix_lengths)
        with runtime.autocast():
            hidden = decoder(batch.ids, layout).float() * batch.loss_mask[:, None]
        sums = torch.zeros(len(chosen), hidden.shape[1], device=hidden.device).index_add_(0, layout.rows, hidden)
        counts = torch.tensor([sum(rows[i][1]) for i in chosen])
        out[torch.tensor(chosen)] = sums.cpu() / counts[:, None]
    return out.double()


def standard(features: Tensor) -> Tensor:
    """Return each column with mean 0 and standard deviation 1."""
    return (features - features.mean(dim=0)) / features.std(dim=0).clamp(min=1e-6)


def scaled(features: Tensor, owners: Tensor) -> Tensor:
    """Return standard columns, divided by the usual distance of two answers to one prompt."""
    columns = standard(features)
    next_ones = owners[1:] == owners[:-1]
    return columns / (columns[1:] - columns[:-1])[next_ones].square().sum(dim=1).mean().sqrt()


def compare(material: Material, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return accuracies by rule, a list for each seed: of heads at every budget, and of whole reward models."""
    heads: dict[str, Any] = {rule: [] for rule in config.rules}
    whole: dict[str, Any] = {rule: [] for rule in config.rules}
    for seed in range(config.seeds):
        trial = trial_of(material, seed, config)
        for rule in config.rules:
            accuracies, items = ask(material.features, trial, rule, seed, config)
            heads[rule].append(accuracies)
            if config.whole_labels and seed < config.whole_seeds:
                whole[rule].append(whole_accuracy(material, trial, items[: config.whole_labels], seed, config))
        last = ", ".join(f"{rule} {heads[rule][-1][-1]:.3f}" for rule in config.rules)
        print(f"seed {seed}: {len(trial.pairs)} pairs to ask, {len(trial.test)} held out; {last}", flush=True)
    return heads, whole


def trial_of(material: Material, seed: int, config: Config) -> Trial:
    """Hold prompts out; of the others' answers make pairs that share none, and have each judged by one annotator."""
    generator = seeded_generator(seed, "queries")
    order = torch.randperm(len(material.prompts), generator=generator).tolist()
    answers = [(material.owners == i).nonzero().flatten() for i in range(len(material.prompts))]
    apart = round(len(order) * config.held_out)
    pairs = []
    for i in sorted(order[apart:]):
        mixed = answers[i][torch.randperm(len(answers[i]), generator=generator)].tolist()
        pairs += list(zip(mixed[0::2], mixed[1::2]))
    chosen = torch.tensor(pairs)
    return Trial(
        pairs=chosen,
        labels=labels_of(material, pairs, generator),
        pool=Pool(
            size=len(pairs),
            embeddings=material.about[material.owners[chosen[:, 0]]],
            keys=material.owners[chosen[:, 0]].tolist(),
        ),
        test=ordered_pairs([answers[i].tolist() for i in order[:apart]], material.gold),
    )


def labels_of(material: Material, pairs: Sequence[tuple[int, int]], generator: torch.Generator) -> Tensor:
    """Return labels [N] of pairs, each by an annotator drawn from the panel."""
    panel, labels = material.world.panel, []
    for first, second in pairs:
        annotator = panel[int(torch.randint(len(panel), (), generator=generator))]
        ranks = annotator.rank([material.judged[first], material.judged[second]], generator, material.world.noise)
        labels.append(0.5 if ranks[0] == ranks[1] else float(ranks[0] < ranks[1]))
    return torch.tensor(labels, dtype=torch.float64)


def ordered_pairs(groups: Sequence[Sequence[int]], gold: Tensor) -> Tensor:
    """Return all pairs [T, 2] of a group's answers whose gold differs, the better answer first."""
    both = torch.tensor([pair for group in groups for pair in combinations(group, 2)])
    gaps = gold[both[:, 0]] - gold[both[:, 1]]
    both[gaps < 0] = both[gaps < 0].flip(1)
    return both[gaps.abs() > 1e-9]


def ask(features: Tensor, trial: Trial, rule: Rule, seed: int, config: Config) -> tuple[list[float], list[int]]:
    """Let a rule choose items. Returns accuracy at every budget, and the items in order."""
    items: list[int] = []
    accuracies = []
    for budget in config.budgets:
        generator = seeded_generator(seed, "ask", budget)
        rows = features[trial.pairs[items, 0]] - features[trial.pairs[items, 1]]
        pool, now = trial.pool, rule if items else "random"
        if now in SCORED:
            heads = [
                fit(rows, trial.labels[items], config.ridge, resampled(len(items), generator))
                for _ in range(config.ensemble)
            ]
            pool = replace(pool, scores=torch.stack([(features @ head)[trial.pairs] for head in heads]))
        items += choose(now, pool, budget - len(items), generator, items)
        rows = features[trial.pairs[items, 0]] - features[trial.pairs[items, 1]]
        head = fit(rows, trial.labels[items], config.ridge)
        gaps = (features[trial.test[:, 0]] - features[trial.test[:, 1]]) @ head
        accuracies.append(float(((gaps.sign() + 1) / 2).mean()))
    return accuracies, items


def resampled(n: int, generator: torch.Generator) -> Tensor:
    """Return the counts [n] of n labels in a bootstrap sample."""
    return torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).double()


def fit(rows: Tensor, labels: Tensor, ridge: float, times: Tensor | None = None) -> Tensor:
    """Fit weights [D] of the linear reward that makes labels [N] likeliest; rows [N, D] are differences of two answers.

    Bradley-Terry with weight penalty ridge / 2 |w|^2, by Newton's method; ties count for nothing, as in the stage.
    """
    decided = labels != 0.5
    rows, labels = rows[decided], labels[decided]
    weight = torch.ones_like(labels) if times is None else times[decided]
    w = torch.zeros(rows.shape[1], dtype=torch.float64)
    penalty = ridge * torch.eye(len(w), dtype=torch.float64)
    for _ in range(30):
        p = torch.sigmoid(rows @ w)
        gradient = rows.t() @ (weight * (labels - p)) - ridge * w
        if gradient.norm() < 1e-6 * max(1, len(labels)):
            break
        w = w + torch.linalg.solve(rows.t() @ ((weight * p * (1 - p))[:, None] * rows) + penalty, gradient)
    return w


def whole_accuracy(material: Material, trial: Trial, items: Sequence[int], seed: int, config: Config) -> float:
    """Train a reward model by the stage on the labels of these items; return its accuracy."""
    training = [
        ranking_row(material, trial.pairs[i].tolist(), [2 - float(trial.labels[i]), 1 + float(trial.labels[i])])
        for i in items
        if trial.labels[i] != 0.5
    ]
    held = material.owners[trial.test[:, 0]].unique().tolist()
    groups = [(material.owners == i).nonzero().flatten().tolist() for i in held]
    golds = [[material.judged[answer].gold for answer in group] for group in groups]
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        write_rows(folder / "train.jsonl", training)
        write_rows(
            folder / "test.jsonl", [ranking_row(material, *pair) for pair in zip(groups, map(from_scores, golds))]
        )
        options = reward.Config(
            model=config.run / "sft",
            data=folder / "train.jsonl",
            validation=folder / "test.jsonl",
            demonstrations=None,
            out=folder / "reward",
            warmup_steps=min(10, len(training) // 32),
            save_steps=0,
            seed=seed,
            device=config.device,
        )
        done = json.loads((reward.run(options) / "finished.json").read_text("utf-8"))
    return float(done["validation"]["accuracy"])


def ranking_row(material: Material, answers: Sequence[int], ranks: Sequence[float]) -> dict[str, Any]:
    """Return ranked answers to one prompt as a row of a file."""
    index = int(material.owners[answers[0]])
    first = int((material.owners < index).sum())
    row = material.prompts[index]
    return {
        "prompt": [{"role": message.role, "content": message.content} for message in row.prompt],
        "completions": [row.completions[answer - first] for answer in answers],
        "ended": [row.ended[answer - first] for answer in answers],
        "ranking": list(ranks),
        "id": row.id,
    }


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def rate(world: ClosedWorld, config: Config) -> dict[str, Any]:
    """Return the error of ratings in Elo points after each number of votes, by choice of pairs, a list for each seed.

    Empty where fewer than three models were evaluated.
    """
    answers = read_answers(sorted(config.run.glob("evaluate*"))) if config.votes else None
    players = [] if answers is None else [name for name in answers.models if answers.of(name)]
    if answers is None or len(players) < 3:
        print("fewer than three models were evaluated: no ratings")
        return {}
    by_model = [answers.of(name) for name in players]
    prompts = sorted(set.intersection(*(set(rows) for rows in by_model)))
    judged = [
        [world.gold(prompt, rows[prompt]["text"], rows[prompt]["ended"]) for prompt in prompts] for rows in by_model
    ]
    truth = true_strengths(world, judged)
    print(f"{len(players)} models, {len(prompts)} prompts they all answered", flush=True)
    return {
        way: [vote(world, judged, players, truth, way, seed, config) for seed in range(config.seeds)]
        for way in ("random", "next_battles")
    }


def true_strengths(world: ClosedWorld, judged: Sequence[Sequence[GoldReport]]) -> Tensor:
    """Return strengths [P] in nats, mean 0, of all models on all prompts, judged by the whole panel."""
    generator = seeded_generator(0, "truth")
    wins = torch.zeros(len(judged), len(judged), dtype=torch.float64)
    for a, b in combinations(range(len(judged)), 2):
        wins[a, b] = world.votes(judged[a], judged[b], generator, held_out=False).sum()
        wins[b, a] = len(judged[a]) - wins[a, b]
    return strengths(wins, [str(number) for number in range(len(judged))], prior=0.1)


def vote(
    world: ClosedWorld,
    judged: Sequence[Sequence[GoldReport]],
    players: Sequence[str],
    truth: Tensor,
    way: str,
    seed: int,
    config: Config,
) -> list[float]:
    """Return the root mean square error of the ratings after each number of votes."""
    generator = seeded_generator(seed, "votes")
    pairs = list(combinations(range(len(players)), 2))
    index = {name: number for number, name in enumerate(players)}
    battles: list[Comparison] = []
    errors = []
    for goal in config.votes:
        while len(battles) < goal:
            n = min(config.batch, goal - len(battles))
            if way == "random":
                drawn = [pairs[i] for i in torch.randint(len(pairs), (n,), generator=generator).tolist()]
            else:
                drawn = [(index[a], index[b]) for a, b in next_battles(battles, players, n, generator)]
            battles += [
                Comparison(players[a], players[b], outcome(world, judged[a], judged[b], generator)) for a, b in drawn
            ]
        rated = strengths(win_table(battles, players), players, prior=0.1)
        errors.append(SCALE * float((rated - truth).square().mean().sqrt()))
    return errors


def outcome(
    world: ClosedWorld, first: Sequence[GoldReport], second: Sequence[GoldReport], generator: torch.Generator
) -> float:
    """Return the label of an annotator on the answers to a prompt; annotator and prompt are drawn."""
    prompt = int(torch.randint(len(first), (), generator=generator))
    annotator = world.panel[int(torch.randint(len(world.panel), (), generator=generator))]
    ranks = annotator.rank([first[prompt], second[prompt]], generator, world.noise)
    return 0.5 if ranks[0] == ranks[1] else float(ranks[0] < ranks[1])


def tables(figures: dict[str, Any], config: Config) -> list[str]:
    """Return tables in Markdown; intervals resample the seeds, differences are within a seed."""
    parts = [accuracy_table(figures, config), needed_table(figures, config)]
    if config.whole_labels and config.whole_seeds:
        parts.append(whole_table(figures, config))
    return [*parts, votes_table(figures, config)] if figures["errors"] else parts


def accuracy_table(figures: dict[str, Any], config: Config) -> str:
    shown = [n for n in config.budgets if n in config.targets or n in (config.budgets[0], config.budgets[-1])]
    columns = [config.budgets.index(n) for n in shown]
    rows = [["held-out accuracy (heads), and less random's", *(f"{n} labels" for n in shown)]]
    base = torch.tensor(figures["accuracy"]["random"])
    for rule in config.rules:
        values = torch.tensor(figures["accuracy"][rule])
        cells = [f"{values[:, c].mean():.3f}{against(values[:, c], base[:, c], rule)}" for c in columns]
        rows.append([rule, *cells])
    return markdown(rows)


def against(values: Tensor, base: Tensor, rule: str, digits: int = 3) -> str:
    """Return the difference from random in the same seeds, with its 95 % interval; empty for random itself."""
    if rule == "random":
        return ""
    mean, low, high = bootstrap_mean(values - base, torch.Generator().manual_seed(0))
    return f" ({mean:+.{digits}f}, {low:+.{digits}f} to {high:+.{digits}f})"


def needed_table(figures: dict[str, Any], config: Config) -> str:
    rows = [["labels needed (heads) for the accuracy of", *(f"{n} at random" for n in config.targets)]]
    for rule in config.rules:
        rows.append([rule, *(with_interval(*needed(figures, rule, n, config)) for n in config.targets)])
    return markdown(rows)


def with_interval(number: float, low: float, high: float) -> str:
    words = ["never" if math.isinf(value) else f"{value:.0f}" for value in (number, low, high)]
    return f"{words[0]} ({words[1]} to {words[2]})"


def needed(figures: dict[str, Any], rule: str, target: int, config: Config) -> tuple[float, float, float]:
    """Return labels until a rule's mean accuracy is that of `target` random labels, with its 95 % interval.

    Seeds are resampled for both together. Infinite where the most labels do not suffice.
    """
    base, own = (torch.tensor(figures["accuracy"][name], dtype=torch.float64) for name in ("random", rule))
    column = config.budgets.index(target)
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(500):
        drawn = torch.randint(len(base), (len(base),), generator=generator)
        samples.append(crossing(config.budgets, own[drawn].mean(dim=0), float(base[drawn, column].mean())))
    ordered = sorted(samples)
    return crossing(config.budgets, own.mean(dim=0), float(base[:, column].mean())), ordered[12], ordered[487]


def crossing(budgets: Sequence[int], accuracies: Tensor, aim: float) -> float:
    """Return labels at which a curve first reaches an accuracy, logarithmic between budgets; infinite for never."""
    values = accuracies.tolist()
    for i, value in enumerate(values):
        if value >= aim - 1e-12:
            if i == 0:
                return float(budgets[0])
            before, share = budgets[i - 1], (aim - values[i - 1]) / (value - values[i - 1])
            return float(before * (budgets[i] / before) ** share)
    return math.inf


def whole_table(figures: dict[str, Any], config: Config) -> str:
    rows = [["whole reward models, less random's", f"{config.whole_labels} labels"]]
    base = torch.tensor(figures["whole"]["random"])
    for rule in config.rules:
        values = torch.tensor(figures["whole"][rule])
        rows.append([rule, f"{values.mean():.3f}{against(values, base, rule)}"])
    return markdown(rows)


def votes_table(figures: dict[str, Any], config: Config) -> str:
    rows = [["error of ratings in Elo points, and less random's", *(f"{n} votes" for n in config.votes)]]
    base = torch.tensor(figures["errors"]["random"])
    for way, errors in figures["errors"].items():
        values = torch.tensor(errors)
        cells = [
            f"{values[:, c].mean():.0f}{against(values[:, c], base[:, c], way, 0)}" for c in range(len(config.votes))
        ]
        rows.append([way, *cells])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first row is the heading."""
    ruled = [rows[0], ["---", *("--:" for _ in rows[0][1:])], *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def draw_plot(figures: dict[str, Any], config: Config) -> None:
    """Draw accuracy by labels, labels needed, and error by votes: means with 95 % intervals over the seeds."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_curves(left, config.budgets, figures["accuracy"])
    left.set(xlabel="labels", ylabel="accuracy on held-out pairs", title="What to ask: reward models (heads)")
    draw_needed(middle, figures, config)
    middle.set(xlabel="labels needed", title="Labels for the accuracy of so many at random")
    draw_curves(right, config.votes, figures["errors"])
    right.set(xlabel="votes", ylabel="error of ratings, Elo points", title="Whom to compare: ratings")
    config.plot.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "queries"}):  # the same numbers, the same file
        figure.savefig(config.plot, metadata={"Date": None} if config.plot.suffix == ".svg" else None)


def draw_needed(axes: Any, figures: dict[str, Any], config: Config) -> None:
    """Draw a mark with its interval for every rule and target; one that is never reached lies at the right edge."""
    edge = 2 * config.budgets[-1]
    for row, rule in enumerate(config.rules):
        for number, target in enumerate(config.targets):
            at, low, high = (min(value, edge) for value in needed(figures, rule, target, config))
            y = -row - 0.22 * (number - (len(config.targets) - 1) / 2)
            axes.plot([low, high], [y, y], color=f"C{number}")
            axes.plot([at], [y], "o", color=f"C{number}", label=f"{target}" if row == 0 else None)
    for number, target in enumerate(config.targets):
        axes.axvline(target, color=f"C{number}", alpha=0.4, linestyle=":")
    axes.set_yticks([-row for row in range(len(config.rules))], config.rules)
    axes.set_xscale("log")
    axes.set_xticks([*config.budgets, edge], [*map(str, config.budgets), "never"], rotation=45)
    axes.minorticks_off()
    axes.legend(title="as random's")


def draw_curves(axes: Any, numbers: Sequence[int], curves: dict[str, Any]) -> None:
    for name, by_seed in curves.items():
        columns = torch.tensor(by_seed).t()
        middle, low, high = zip(*(bootstrap_mean(column, torch.Generator().manual_seed(0)) for column in columns))
        (line,) = axes.plot(numbers, middle, marker="o", markersize=3, label=name)
        axes.fill_between(numbers, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(numbers, [str(number) for number in numbers], rotation=45)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
