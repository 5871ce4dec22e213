"""Rewards on the same held-out rankings: which one predicts people best, on whom it fails, and where they disagree.

Rankings are read and scored a block at a time; of each pair only the gaps of the scores are kept.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable.data import sources
from amenable.data.rankings import pairs_of
from amenable.data.samples import Sample
from amenable.data.types import Ranking, message_fields
from amenable.errors import InputError
from amenable.evaluation.ranking_accuracy import accuracy_by_group, correct, pair_metrics
from amenable.evaluation.reward_bench import sections
from amenable.feedback.export_import import training_rankings
from amenable.feedback.store import Store, is_store, ranking_of
from amenable.functional.statistics import FEW, bootstrap_mean, clustered_share
from amenable.rewards.samples import score_samples
from amenable.rewards.spec import Reward
from amenable.seeds import seeded_generator
from amenable.train.examples import RejectedRows, ended_flags, keep_usable

Row = dict[str, Any]

BLOCK = 256
"""rankings scored at once"""
PAUSE = 10.0
"""seconds between two lines of progress"""
SHOWN = 6
"""disagreements shown"""
MIN_PAIRS = 20
"""pairs of a group, below which it is not named as the worst"""


@dataclass
class ScoredPairs:
    """Every pair that an annotator ordered, with the gaps of several rewards' scores."""

    gaps: list[array[float]]
    """of each reward: score of the better answer less that of the worse"""
    lengths: array[int] = field(default_factory=lambda: array("q"))
    """characters of the better and of the worse answer, one after the other"""
    prompts: array[int] = field(default_factory=lambda: array("q"))
    annotators: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    rankings: int = 0
    left_out: int = 0
    """rankings that are longer than the context of one of the rewards"""
    disputes: list[Row] = field(default_factory=list)

    def add(self, ranking: Ranking, scores: Sequence[Sequence[float]], prompt: int, group: str) -> None:
        """Add the pairs of a ranking; scores: those of its answers by each reward."""
        for better, worse in pairs_of(ranking.ranks):
            for gaps, own in zip(self.gaps, scores):
                gaps.append(own[better] - own[worse])
            self.lengths.extend((len(ranking.completions[better]), len(ranking.completions[worse])))
            self.prompts.append(prompt)
            self.annotators.append(sys.intern(ranking.annotator or ""))
            self.groups.append(sys.intern(group))
        self.rankings += 1


def compare(
    rewards: Mapping[str, Reward],
    data: Path,
    seed: int,
    limit: int = 0,
    columns: Sequence[str] = (),
    group_by: str = "",
) -> Row:
    """Return the figures of each reward by its name, the name of the best, their agreement, and disagreements.

    data: rankings, or a store of labels. limit: rankings that are read; 0 reads all. columns: entries TARGET=COLUMN.
    group_by: a further column of the rankings, such as the annotator's country, whose values are compared too; those
    of RewardBench and LLMBar by section as well.
    """
    scored = score(rewards, data, limit, columns, group_by)
    gaps = {name: torch.tensor(own, dtype=torch.float64) for name, own in zip(rewards, scored.gaps)}
    prompts, lengths = torch.tensor(scored.prompts), torch.tensor(scored.lengths).view(-1, 2)
    models = {
        name: pair_metrics(own, lengths, prompts, scored.annotators, seeded_generator(seed, "compare"))
        for name, own in gaps.items()
    }
    best = max(models, key=lambda name: (models[name]["accuracy"], -models[name]["loss"]))
    for name, figures in models.items():
        hits = correct(gaps[name])
        if name != best:
            figures["difference"] = mean_difference(hits - correct(gaps[best]), prompts, seed)
        if group_by:
            figures["by_group"] = accuracy_by_group(hits, prompts, scored.groups)
            figures["by_section"] = sections(figures["by_group"])
        figures["worst"] = worst_group(figures["by_group" if group_by else "by_annotator"])
    return {
        "rankings": scored.rankings,
        "left_out": scored.left_out,
        "pairs": len(prompts),
        "group_by": group_by or "annotator",
        "models": models,
        "best": best,
        "agreement": [
            {"a": a, "b": b, **share_of(correct(gaps[a] * gaps[b]), prompts)} for a, b in combinations(rewards, 2)
        ],
        "disputes": scored.disputes,
    }


def score(rewards: Mapping[str, Reward], data: Path, limit: int, columns: Sequence[str], group_by: str) -> ScoredPairs:
    """Score all rankings by every reward. InputError where none fits the context of all of them."""
    scored, prompts, last = ScoredPairs([array("d") for _ in rewards]), dict[int, int](), time.monotonic()

    def add(block: Sequence[Ranking]) -> None:
        nonlocal last
        samples = list(map(sample_of, block))
        if not scored.rankings + scored.left_out:
            require(rewards, samples, data, group_by)
        several = [score_samples(reward, samples) for reward in rewards.values()]
        for ranking, *scores in zip(block, *several):
            fitting = [own for own in scores if own is not None]
            if len(fitting) < len(rewards):
                scored.left_out += 1
                continue
            group = ranking.meta.get(group_by)
            prompt = prompts.setdefault(hash(ranking.prompt), len(prompts))
            scored.add(ranking, fitting, prompt, "" if group is None else str(group))
            scored.disputes += disagreement(ranking, dict(zip(rewards, fitting)))
        scored.disputes = sorted(scored.disputes, key=lambda row: row["strength"], reverse=True)[:SHOWN]
        if time.monotonic() - last > PAUSE:
            last = time.monotonic()
            print(f"compare  {scored.rankings:,} rankings scored", file=sys.stderr)

    for_each_block(data, limit, columns, add)
    if not scored.rankings:
        raise InputError("no ranking fits the context of every reward", data, "give --data with shorter ones")
    return scored


def require(rewards: Mapping[str, Reward], samples: Sequence[Sample], data: Path, group_by: str) -> None:
    """Require the columns that the rewards need, and that of the groups, in the first rows."""
    for reward in rewards.values():
        reward.require_tokenizers()
        reward.require_columns([{"kind": sample.kind, **sample.meta} for sample in samples], data)
    if group_by and all(sample.meta.get(group_by) is None for sample in samples):
        known = dict.fromkeys(name for sample in samples for name in sample.meta)
        raise InputError(
            f"no ranking has the column '{group_by}' of --group-by", data, f"columns are: {', '.join(known) or 'none'}"
        )


def for_each_block(data: Path, limit: int, columns: Sequence[str], use: Callable[[Sequence[Ranking]], None]) -> None:
    """Call `use` with the rankings of a file, a folder of files or a store of labels, BLOCK at a time."""
    block: list[Ranking] = []

    def add(ranking: Ranking) -> None:
        block.append(ranking)
        if len(block) == BLOCK:
            use(block)
            block.clear()

    if is_store(data):
        with Store(data) as store:
            events = training_rankings(store)[: limit or None]
        if not events:
            raise InputError("there is no label to compare with", data, "'amenable label' collects them")
        for event in events:
            add(ranking_of(event.payload))
    else:
        keep_usable(sources.read_rankings(data, limit=limit or None, columns=columns, convert=add), RejectedRows())
    if block:
        use(block)


def sample_of(ranking: Ranking) -> Sample:
    """Return the answers of a ranking as a row of samples."""
    ended = tuple(ended_flags(ranking))
    kind = str(ranking.meta.get("kind") or "")
    return Sample(ranking.id, ranking.prompt, ranking.completions, ended, None, kind, ranking.meta)


def mean_difference(values: Tensor, prompts: Tensor, seed: int) -> Row:
    """Return the mean of values [N] of pairs, and its interval over prompts [N]; None for that of fewer than FEW."""
    mean, low, high = bootstrap_mean(values, seeded_generator(seed, "compare"), clusters=prompts)
    enough = len(prompts.unique()) >= FEW
    return {"value": mean, "low": low if enough else None, "high": high if enough else None}


def share_of(values: Tensor, prompts: Tensor) -> Row:
    """Return the mean of shares [N] of pairs, and its interval over prompts [N]."""
    return dict(zip(("value", "low", "high"), clustered_share(values, prompts)))


def worst_group(groups: Mapping[str, Row]) -> str | None:
    """Return the group, of several with MIN_PAIRS or more, whose pairs are predicted worst; None for fewer."""
    large = {name: row["accuracy"] for name, row in groups.items() if name and row["pairs"] >= MIN_PAIRS}
    return min(large, key=lambda name: large[name]) if len(large) > 1 else None


def disagreement(ranking: Ranking, scores: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return the pair of answers that divides the rewards most, or none; `strength` is the lesser of the largest gaps
    of one reward each way."""
    strongest: tuple[float, int, int] = (0.0, 0, 0)
    for i, j in combinations(range(len(ranking.completions)), 2):
        gaps = [own[i] - own[j] for own in scores.values()]
        strongest = max(strongest, (min(max(gaps), -min(gaps)), i, j))
    strength, *pair = strongest
    if strength <= 0:
        return []
    answers = [
        {
            "text": ranking.completions[k],
            "rank": ranking.ranks[k],
            "scores": {name: own[k] for name, own in scores.items()},
        }
        for k in pair
    ]
    prompt = [message_fields(message) for message in ranking.prompt]
    return [
        {
            "id": ranking.id,
            "annotator": ranking.annotator,
            "prompt": prompt,
            "strength": strength,
            "answers": answers,
        }
    ]
