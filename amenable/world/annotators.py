"""Simulated annotators: each weighs the components of gold in an own way, and errs.

    u = sum_k w_k c_k + scale * Gumbel noise      rank by u

Gumbel noise makes the preference between two answers logistic in the difference of their utilities, which is the model
of Bradley and Terry (1952); its scale is fitted so that two annotators agree as often as InstructGPT's did, in 73 % of
pairs (Ouyang et al., 2022, section 3.4).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amenable.world.gold import GoldReport

COMPONENTS = ("truthful", "honest", "harmless", "follows", "polite", "brief", "rambling", "rude", "ended", "fluent")
AGREEMENT = 0.73
"""share of pairs on which two of InstructGPT's annotators agreed"""
NOTICEABLE = 0.25
"""completions whose noisy utilities fall into one step of this size, in units of the noise scale, share a rank"""


Item = Sequence[GoldReport]
"""the graded completions of one prompt"""


@dataclass(frozen=True)
class Annotator:
    """A name, and a weight for each component of gold. Held-out annotators label nothing that is trained on."""

    name: str
    held_out: bool
    weights: dict[str, float]

    def utility(self, parts: GoldReport) -> float:
        """Return the utility of a completion to this annotator, without noise."""
        return sum(self.weights[name] * value for name, value in parts.components.items())

    def rank(self, answers: Item, generator: torch.Generator, noise: float) -> tuple[float, ...]:
        """Return ranks of completions of one prompt, 1 the best; ties share a rank. `noise` is the Gumbel scale."""
        utilities = torch.tensor([self.utility(parts) for parts in answers], dtype=torch.float64)
        return ranks(utilities + noise * gumbel(len(answers), generator), noise * NOTICEABLE)

    def as_row(self) -> dict[str, Any]:
        """Return the annotator's row in world.json."""
        return {"name": self.name, "held_out": self.held_out, "weights": self.weights}


def draw_annotators(seed: int, number: int = 10, held_out: int = 4, spread: float = 0.3) -> tuple[Annotator, ...]:
    """Draw annotators with log-normal weights around 1; the last `held_out` of them are held out."""
    rng = random.Random(f"annotators/{seed}")
    return tuple(
        Annotator(
            name=f"annotator-{index + 1:02d}",
            held_out=index >= number - held_out,
            weights={name: round(rng.lognormvariate(0, spread), 4) for name in COMPONENTS},
        )
        for index in range(number)
    )


def gumbel(number: int, generator: torch.Generator) -> Tensor:
    """Draw standard Gumbel noise, [number]."""
    uniform = torch.rand(number, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return -torch.log(-torch.log(uniform))


def ranks(utilities: Tensor, step: float) -> tuple[float, ...]:
    """Return ranks 1, 2, ... of utilities [K]; utilities in the same step of the scale tie."""
    rounded = levels(utilities, step).tolist()
    order = sorted(set(rounded), reverse=True)
    return tuple(float(order.index(level) + 1) for level in rounded)


def levels(utilities: Tensor, step: float) -> Tensor:
    """Round utilities down to whole steps of the scale, counted from 0; with step 0 return them as they are."""
    return (utilities / step).floor() if step > 0 else utilities


def agreement(annotators: Sequence[Annotator], items: Sequence[Item], noise: float, seed: int) -> float:
    """Return the share of completion pairs on which two annotators agree, of the pairs that both order strictly.

    Every item is ranked by all annotators, each with own noise. nan where nothing is ordered.
    """
    return agreement_of(noisy_parts(annotators, items, seed), noise)


def fit_noise(annotators: Sequence[Annotator], items: Sequence[Item], seed: int, target: float = AGREEMENT) -> float:
    """Find the Gumbel scale at which annotators agree in a share `target` of pairs, by bisection with common noise."""
    prepared = noisy_parts(annotators, items, seed)
    low, high = 0.01, 8.0
    for _ in range(16):
        middle = (low + high) / 2
        if agreement_of(prepared, middle) > target:
            low = middle
        else:
            high = middle
    return round((low + high) / 2, 4)


def noisy_parts(annotators: Sequence[Annotator], items: Sequence[Item], seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return utilities [A, K] and standard Gumbel noise [A, K] of each item of K completions."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.tensor([[person.utility(parts) for parts in item] for person in annotators], dtype=torch.float64),
            gumbel(len(annotators) * len(item), generator).view(len(annotators), len(item)),
        )
        for item in items
    ]


def agreement_of(prepared: list[tuple[Tensor, Tensor]], noise: float) -> float:
    """Return the agreement of annotators whose noise has this scale."""
    agreed = ordered = 0
    for utilities, noises in prepared:
        rounded = levels(utilities + noise * noises, noise * NOTICEABLE)
        left, right = torch.triu_indices(rounded.shape[1], rounded.shape[1], 1)
        signs = torch.sign(rounded[:, left] - rounded[:, right])  # [A, pairs]
        first, second = torch.triu_indices(len(signs), len(signs), 1)
        both = signs[first] * signs[second]
        agreed += int((both > 0).sum())
        ordered += int((both != 0).sum())
    return agreed / ordered if ordered else float("nan")


def prefer(
    annotators: Sequence[Annotator], first: GoldReport, second: GoldReport, generator: torch.Generator, noise: float
) -> float:
    """Return the share of annotators who prefer the first of two completions; ties count half."""
    votes = 0.0
    for annotator in annotators:
        left, right = annotator.rank([first, second], generator, noise)
        votes += 0.5 if left == right else float(left < right)
    return votes / len(annotators)


def votes(
    annotators: Sequence[Annotator],
    first: Sequence[GoldReport],
    second: Sequence[GoldReport],
    generator: torch.Generator,
    noise: float,
) -> Tensor:
    """Return the share of annotators who prefer the first of each pair, [N]: `prefer` for many pairs in one draw.

    Every pair is shown in both orders, each with own noise, and the shares are averaged: (forth + 1 - back) / 2. Ties
    count half. Two completions that are equal in all components get 0.5, as a completion shown twice does.
    """
    utilities = torch.stack([panel_utilities(annotators, answers) for answers in (first, second)])  # [2, A, N]
    noises = gumbel(2 * utilities.numel(), generator).view(2, *utilities.shape)  # one draw for each order
    left, right = levels(utilities + noise * noises, noise * NOTICEABLE).unbind(1)  # [2, A, N]
    shares = ((torch.sign(left - right) + 1) / 2).mean(dim=(0, 1))
    equal = torch.tensor([a == b for a, b in zip(first, second, strict=True)], dtype=torch.bool)
    return shares.masked_fill(equal, 0.5)


def panel_utilities(annotators: Sequence[Annotator], answers: Sequence[GoldReport]) -> Tensor:
    """Return the utility of each completion to each annotator, without noise, [A, N]."""
    table = [[annotator.weights[name] for name in COMPONENTS] for annotator in annotators]
    weights = torch.tensor(table, dtype=torch.float64)
    values = [[parts.components.get(name, 0.0) for name in COMPONENTS] for parts in answers]
    return weights @ torch.tensor(values, dtype=torch.float64).view(len(answers), len(COMPONENTS)).T
