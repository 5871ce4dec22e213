"""Objectives and the one place where they become gradients: microbatches, their shares, backward passes.

An objective is a mean over elements e of weight w_e: L = sum_e w_e l_e / sum_e w_e. An element is the rows that its
loss couples: one conversation, the answers of a ranking, a pair, one sampled answer. `accumulate` computes it in as
many microbatches as a budget of tokens needs, and the gradient does not depend on how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from amenable import processes
from amenable.data.batches import Batch, LossGroup, group_by_prompt, loss_groups, microbatches
from amenable.data.mixture import Mixed
from amenable.models.decoder import Decoder
from amenable.train.forward import Row, load, masked_nll, spans
from amenable.train.log import Progress, silent, tracked
from amenable.train.runtime import Runtime

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)
Stats = dict[str, Tensor]
"""scalars without gradient, by metric name"""
BY_SOURCE = frozenset({"loss", "accuracy", "rewards/accuracies"})
"""statistics that are also computed by source"""
Output = Literal["nll", "logprobs", "scalar", "states"]
"""the summed loss of the trained tokens; a log-probability of each; one number a row; the hidden state before each
trained token, of elements of one row"""


class Objective(Protocol[E_contra]):
    """A loss over elements of one kind."""

    @property
    def share_prefixes(self) -> bool:
        """True where rows with one context have it computed once."""
        ...

    @property
    def output(self) -> Output:
        """Kind of the model's outputs, which decides the memory they take."""
        ...

    @property
    def couples_elements(self) -> bool:
        """True where the loss of an element depends on the others of its step, which are then one group."""
        ...

    def rows(self, element: E_contra, /) -> Sequence[Row]:
        """Return the rows of an element."""
        ...

    def weight(self, element: E_contra, /) -> float:
        """Return how much an element counts in the mean: its trained tokens, or 1."""
        ...

    def outputs(self, batch: Batch, /) -> Any:
        """Run the model on a batch. For elements of several rows: one number a row, Tensor [B]."""
        ...

    def loss(self, elements: Sequence[E_contra], outputs: Any, /) -> tuple[Tensor, Stats]:
        """Return the mean loss of some elements and its statistics, from the outputs of their rows in order."""
        ...


@processes.data_parallel()
def accumulate(
    objectives: Objective[E] | Sequence[Objective[E]],
    elements: Sequence[E],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
    scale: float = 1.0,
    sources: Sequence[str] | None = None,
) -> dict[str, float]:
    """Add the gradient of scale * (the mean loss over the elements); with gradients off, none. Returns mean statistics.

    sources: name of each element's source; loss and accuracy are then also returned by source, as `loss/NAME`.

    Several objectives over the same elements, such as those of a policy and its critic, are computed and
    backpropagated one after another in each microbatch, so that one model's activations are held at a time. Elements
    of weight 0 are left out.

    Elements of several rows that are over the budget, and coupled ones, are computed in parts p, exactly as long as
    outputs do not depend on chance (dropout is off): o = (o_p)_p without gradients; g = dL/do; for each part the
    gradient of sum(g_p o_p).

    Several processes divide the elements, or a coupled group's parts; each adds its share of the gradient, and the sum
    is the optimizer's (train/optimizer.py). Processes that hold one model count as one. Statistics are of all.
    """
    objectives = list(objectives) if isinstance(objectives, Sequence) else [objectives]
    first, stats = objectives[0], Stats()
    by_source = SourceStats()
    names = [name for name, element in zip(sources or (), elements) if first.weight(element)]
    elements = [element for element in elements if first.weight(element)]
    total = sum(first.weight(element) for element in elements)
    portion = portion_of(first, elements, names, max_tokens)
    elements, names, weights, groups = portion.elements, portion.names, portion.weights, portion.groups
    owned = [own_parts(first, group) for group in groups]
    for group, own, passes in tracked(list(zip(groups, owned, passes_of_all(owned))), progress):
        members, share = [elements[i] for i in group.elements], sum(weights[i] for i in group.elements) / total
        parts = [load(portion.rows, part, runtime, max_tokens) for part in group.microbatches]
        for objective in objectives:
            outputs = compute(objective, parts, runtime, own, passes)
            loss, figures = objective.loss(members, outputs)
            if loss.requires_grad:  # of a microbatch that is another process's nothing counts
                (scale * share * (bool(own) or len(parts) > 1) * loss).backward()
            if isinstance(outputs, Tensor) and outputs.is_leaf and outputs.grad is not None:
                slopes = outputs.grad.split([len(part.lengths) for part in parts])
                for number in range(passes):
                    i, counts = part_of_pass(own, number)
                    (compute(objective, [parts[i]], runtime, [0]) * (slopes[i] * counts)).sum().backward()
            if not share or (first.couples_elements and processes.number() > 0):
                continue  # a filler's; or the first process counts the group
            for name, value in figures.items():
                stats[name] = stats.get(name, torch.zeros(())) + share * value.detach().float().cpu()
            if sources is not None:
                by_source.add(objective, members, outputs, [names[i] for i in group.elements])
    return processes.summed_numbers({name: float(value) for name, value in stats.items()}) | by_source.means()


@dataclass(frozen=True)
class Portion(Generic[E]):
    """Elements, rows and groups of a step that one process computes."""

    elements: Sequence[E]
    names: list[str]
    """of the elements' sources; none where they are not counted by source"""
    weights: Sequence[float]
    rows: Sequence[Row]
    groups: Sequence[LossGroup]


def portion_of(objective: Objective[E], elements: Sequence[E], names: Sequence[str], max_tokens: int) -> Portion[E]:
    """Return this process's portion of a step, all of it in a process alone; several have as many groups each, some of
    which may be fillers of weight 0, of the step's shortest element."""
    chosen = own_elements(objective, elements)
    own, own_names = [elements[i] for i in chosen], [names[i] for i in chosen] if names else []
    of_elements, weights = [objective.rows(element) for element in own], [objective.weight(element) for element in own]
    groups = divide(objective, of_elements, max_tokens)
    if elements and processes.size() > 1:
        filler = min(elements, key=lambda element: sum(len(ids) for ids, _ in objective.rows(element)))
        own, weights, of_elements = [*own, filler], [*weights, 0.0], [*of_elements, objective.rows(filler)]
        groups = pad_groups(groups, filler_group(objective, of_elements, max_tokens))
    return Portion(own, own_names, weights, list(chain.from_iterable(of_elements)), groups)


def filler_group(objective: Objective[Any], elements: Sequence[Sequence[Row]], max_tokens: int) -> LossGroup:
    """Return the group of the last of some elements alone."""
    (group,) = divide(objective, elements[-1:], max_tokens)
    before = sum(map(len, elements[:-1]))
    parts = [replace(part, rows=[before + row for row in part.rows]) for part in group.microbatches]
    return LossGroup([len(elements) - 1], parts)


def pad_groups(groups: Sequence[LossGroup], filler: LossGroup) -> list[LossGroup]:
    """Return as many groups as every other process has: weights that are divided among processes are gathered in each
    pass, which all have to come to. A filler's loss counts nothing."""
    most = max(processes.gather(len(groups)))
    return [*groups, *[filler] * (most - len(groups))]


def own_parts(objective: Objective[Any], group: LossGroup) -> list[int]:
    """Return the microbatches of a group that this process computes: of a coupled one its share, else all."""
    sizes = [part.tokens for part in group.microbatches]
    return processes.own_share(sizes) if objective.couples_elements else list(range(len(sizes)))


def passes_of_all(owned: Sequence[Sequence[int]]) -> list[int]:
    """Return the passes of each group: as many as the process with most microbatches of it has, at least 1."""
    counts = processes.gather([len(own) for own in owned])
    return [max(1, *column) for column in zip(*counts)]


def part_of_pass(own: Sequence[int], number: int) -> tuple[int, bool]:
    """Return the microbatch of a pass, and False where the process has computed all of its own before."""
    return (own[number], True) if number < len(own) else ((own[-1] if own else 0), False)


def own_elements(objective: Objective[E], elements: Sequence[E]) -> Sequence[int]:
    """Return the indices of the elements that this process computes: all of those that are coupled, which it computes a
    part of, and else its share, where neighbours that share a prompt stay together if there are enough of them."""
    if processes.size() == 1 or objective.couples_elements:
        return range(len(elements))
    of_elements = [objective.rows(element) for element in elements]
    families = [[i] for i in range(len(elements))]
    if objective.share_prefixes and all(len(rows) == 1 for rows in of_elements):
        together = group_by_prompt([rows[0] for rows in of_elements])
        families = together if len(together) >= processes.size() else families
    sizes = [sum(len(ids) for i in family for ids, _ in of_elements[i]) for family in families]
    return [i for number in processes.own_share(sizes) for i in families[number]]


class SourceStats:
    """Mean statistics by source, from the outputs of some groups of elements."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def add(self, objective: Objective[E], elements: Sequence[E], outputs: Any, sources: Sequence[str]) -> None:
        """Add the statistics of elements, each of the source that `sources` names."""
        if isinstance(outputs, TokenLoss):
            parts = outputs.logps.split([int(objective.weight(element)) for element in elements])
        elif objective.output == "states":
            parts = outputs.detach().split([int(objective.weight(element)) for element in elements])
        else:
            parts = outputs.detach().split([len(objective.rows(element)) for element in elements])
        for source in dict.fromkeys(sources):
            mine = [i for i, name in enumerate(sources) if name == source]
            part = torch.cat([parts[i] for i in mine])
            own = TokenLoss(-part.mean(), part) if isinstance(outputs, TokenLoss) else part
            weight = sum(objective.weight(elements[i]) for i in mine)
            _, stats = objective.loss([elements[i] for i in mine], own)
            for name in BY_SOURCE & stats.keys():
                key = f"{name}/{source}"
                self.sums[key] = self.sums.get(key, 0.0) + weight * float(stats[name])
                self.weights[key] = self.weights.get(key, 0.0) + weight

    def means(self) -> dict[str, float]:
        """Return the weighted mean of each statistic, over all processes."""
        sums, weights = processes.summed_numbers(self.sums), processes.summed_numbers(self.weights)
        return {key: sums[key] / weights[key] for key in sorted(sums)}


@torch.no_grad()
def mean_stats(
    objective: Objective[E],
    elements: Sequence[E],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> dict[str, float]:
    """Return the mean statistics over held-out elements, by source too if they are of several; {} where there are none.
    Without gradients. The elements of a span (`forward.spans`) are in memory at a time, and coupled in it if at all.
    """
    sums, weights = dict[str, float](), dict[str, float]()
    for start, part, bar in spans(elements, progress):
        numbers = range(start, start + len(part))
        sources = elements.sources_of(numbers) if isinstance(elements, Mixed) else None
        stats = accumulate(objective, part, runtime, max_tokens, bar, sources=sources)
        if len(part) == len(elements):
            return stats
        weight = {"": 0.0}
        for element, source in zip(part, sources or [""] * len(part)):
            weight[source] = weight.get(source, 0.0) + objective.weight(element)
        weight[""] = sum(weight.values())
        for name, value in stats.items():
            source = next((each for each in weight if name in {f"{base}/{each}" for base in BY_SOURCE}), "")
            sums[name] = sums.get(name, 0.0) + weight[source] * value
            weights[name] = weights.get(name, 0.0) + weight[source]
    return {name: sums[name] / weights[name] for name in sums}


def eval_metrics(stats: Mapping[str, float]) -> dict[str, float]:
    """Return loss and accuracy, by source too, among the statistics of held-out pairs: eval/loss, eval/accuracy."""
    named = {f"eval/{key.replace('rewards/accuracies', 'accuracy')}": value for key, value in stats.items()}
    return {key: value for key, value in named.items() if key.startswith(("eval/loss", "eval/accuracy"))}


def require_zero_outputs(objective: Objective[E], elements: Sequence[E], loss: float, *width: int) -> None:
    """Raise RuntimeError unless `loss`, the first of a new head, is that of outputs that are all 0: a number a row, or
    `width` numbers."""
    elements = [element for element in elements if objective.weight(element)]
    outputs = torch.zeros(sum(len(objective.rows(element)) for element in elements), *width)
    expected = float(objective.loss(elements, outputs)[0]) if elements else 0.0
    if abs(loss - expected) > 1e-5:
        problem = f"the first loss is {loss:.6g} and must be {expected:.6g}, as the new head is zero"
        raise RuntimeError(f"{problem}; likely causes: a head trained before, weights that do not sum to 1")


def divide(objective: Objective[Any], elements: Sequence[Sequence[Row]], max_tokens: int) -> list[LossGroup]:
    """Group elements into microbatches of at most `max_tokens` ids; those of one row each are never divided further."""
    share = objective.share_prefixes
    if objective.couples_elements and elements:
        rows = list(chain.from_iterable(elements))
        tokens = max(1, sum(len(ids) for ids, _ in rows) // processes.size())
        whole = loss_groups([rows], min(max_tokens, tokens) if processes.size() > 1 else max_tokens, share)
        return [LossGroup(list(range(len(elements))), whole[0].microbatches)]
    if any(len(rows) > 1 for rows in elements):
        return loss_groups(elements, max_tokens, share)
    parts = microbatches([row for rows in elements for row in rows], max_tokens, share)
    return [LossGroup(part.rows, [part]) for part in parts]


def compute(
    objective: Objective[Any], parts: Sequence[Batch], runtime: Runtime, own: Sequence[int], passes: int = 1
) -> Any:
    """Return the outputs of one batch, or from several passes as one leaf tensor without the passes' graphs.

    own: the batches that this process computes; the others' outputs are those of other processes.
    """
    if passes == 1 and len(parts) == 1:
        with runtime.autocast():
            return objective.outputs(parts[0])
    outputs: dict[int, Tensor] = {}
    for number in range(passes):
        i, counts = part_of_pass(own, number)
        with torch.no_grad(), runtime.autocast():
            output = objective.outputs(parts[i])
        outputs |= {i: output} if counts else {}
    if len(own) < len(parts):
        shapes = processes.gather([list(part.shape[1:]) for part in outputs.values()])
        shape = next(own_shapes[0] for own_shapes in shapes if own_shapes)
        blank = [torch.zeros(len(part.lengths), *shape, device=part.ids.device) for part in parts]
        whole = processes.summed(torch.cat([outputs.get(i, zeros) for i, zeros in enumerate(blank)]))
    else:
        whole = torch.cat([outputs[i] for i in own])
    return whole.requires_grad_(torch.is_grad_enabled())


class TokenLoss(NamedTuple):
    """Loss of a batch's trained tokens."""

    mean: Tensor
    """mean negative log-probability, a scalar with gradient"""
    logps: Tensor
    """[M] log-probability of each trained token, without gradient"""


class NextToken:
    """Mean negative log-probability of the trained tokens: pretraining, fine-tuning, PPO-ptx. An element is a row.

    Without dropout, which draws for each row, a pass computes a system prompt, or a prompt of several rows, once.
    """

    couples_elements = False
    output: Output = "nll"

    def __init__(self, decoder: Decoder, name: str = "loss"):
        self.decoder, self.name = decoder, name
        self.share_prefixes = not decoder.config.dropout

    def rows(self, row: Row) -> list[Row]:
        return [row]

    def weight(self, row: Row) -> float:
        return float(sum(row[1]))

    def outputs(self, batch: Batch) -> TokenLoss:
        return TokenLoss(*masked_nll(self.decoder, batch, 1 / int(batch.loss_mask.sum())))

    def loss(self, rows: Sequence[Row], outputs: TokenLoss) -> tuple[Tensor, Stats]:
        return outputs.mean, {self.name: outputs.mean.detach()}
