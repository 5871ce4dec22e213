"""Labelling tasks, out of files of samples and of gold items: rankings, comparisons and demonstrations.

Completions to one prompt are pooled over all files of `amenable sample`, so that several models' are ranked together.
Gold items have known ranks: they qualify new annotators (purpose "screening") and check all (purpose "calibration").
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from amenable.data import sources
from amenable.data.samples import read_samples
from amenable.data.types import Conversation, Ranking
from amenable.errors import InputError
from amenable.feedback.store import turns
from amenable.train.examples import RejectedRows, keep_usable

Kind = Literal["rank", "compare", "demonstrate", "converse"]
Purpose = Literal["label", "overlap", "repeat", "calibration", "screening"]
"""as stored in events"""
REPEAT_EVERY, REPEAT_AFTER = 8, 10
"""one comparison in so many is shown again, after so many others"""


@dataclass(frozen=True)
class Task:
    """One thing to label. completions, sources and ended are of one length K; K is 0 where a person writes."""

    id: str
    kind: Kind
    prompt: Conversation = ()
    completions: tuple[str, ...] = ()
    sources: tuple[dict[str, Any], ...] = ()
    """of each completion: its model and sampling settings"""
    ended: tuple[bool, ...] = ()
    gold_ranks: tuple[float, ...] | None = None
    """the right ranks of a gold item"""
    purpose: Purpose = "label"
    other_sources: tuple[tuple[dict[str, Any], ...], ...] = ()
    """of each completion: further models that gave the same text; empty where no completion has any"""
    columns: dict[str, Any] = field(default_factory=dict)
    """of the prompt's row, which rewards may read"""

    @property
    def source_fields(self) -> dict[str, Any]:
        """The sources as fields of an event."""
        others = {"other_sources": list(map(list, self.other_sources))} if any(self.other_sources) else {}
        return {"sources": list(self.sources), **others}


@dataclass
class Candidate:
    """A completion in the pool of its prompt. sources: the models that gave this text, with their settings."""

    text: str
    ended: bool
    sources: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class PooledPrompt:
    """The different completions to a prompt over all files, and the columns of its rows, the first file's first."""

    candidates: dict[str, Candidate] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)


def read_tasks(
    files: Sequence[Path], kinds: Sequence[Kind], max_completions: int, overlap: float = 0.1, seed: int = 0
) -> list[Task]:
    """Return the tasks of files of samples in order, for each prompt one of every kind.

    Of more than `max_completions` candidates that many are drawn; a comparison draws two. A share `overlap` of the
    tasks is for several annotators. Raises InputError where no prompt has two different completions.
    """
    tasks = []
    for prompt, pooled in pool_samples(files).items():
        candidates = list(pooled.candidates.values())
        for kind in kinds:
            if kind == "converse":
                continue
            size = {"rank": max_completions, "compare": 2, "demonstrate": 0}[kind]
            if kind == "demonstrate":
                chosen: list[Candidate] = []
            elif len(candidates) < 2 or (kind == "rank" and len(candidates) < 3 and "compare" in kinds):
                continue
            else:
                draw = random.Random(f"{seed} {kind} {prompt}")
                chosen = draw.sample(candidates, min(size, len(candidates)))
            texts = tuple(candidate.text for candidate in chosen)
            identity = digest(kind, json.dumps(turns(prompt)), *texts)
            overlaps = random.Random(f"{seed} {identity}").random() < overlap
            tasks.append(
                Task(
                    id=identity,
                    kind=kind,
                    prompt=prompt,
                    completions=texts,
                    sources=tuple(candidate.sources[0] for candidate in chosen),
                    other_sources=tuple(tuple(candidate.sources[1:]) for candidate in chosen),
                    ended=tuple(candidate.ended for candidate in chosen),
                    purpose="overlap" if overlaps else "label",
                    columns=pooled.columns,
                )
            )
    if not tasks and any(kind != "converse" for kind in kinds):
        raise InputError("no prompt has two different answers", files[0], "sample more answers a prompt")
    return tasks


def with_repeats(tasks: Sequence[Task], count: int) -> list[Task]:
    """Return the tasks with up to `count` of the comparisons a second time, REPEAT_AFTER comparisons later."""
    comparisons = [task for task in tasks if task.kind == "compare" and task.purpose in ("label", "overlap")]
    after = {
        comparisons[i + REPEAT_AFTER].id: replace(
            comparisons[i], id=digest("repeat", comparisons[i].id), purpose="repeat"
        )
        for i in range(0, len(comparisons) - REPEAT_AFTER, REPEAT_EVERY)[:count]
    }
    return [each for task in tasks for each in (task, after.get(task.id)) if each is not None]


def pool_samples(files: Sequence[Path]) -> dict[Conversation, PooledPrompt]:
    """Return the different completions to each prompt over all files; all blank ones are the empty text."""
    pool: dict[Conversation, PooledPrompt] = defaultdict(PooledPrompt)
    for file in files:
        settings = sampling_settings(file)
        for _, row in read_samples(file):
            source = {"model": row.model, **settings}
            pool[row.prompt].columns = {**row.meta, "id": row.id, "kind": row.kind} | pool[row.prompt].columns
            for text, ended in zip((text if text.strip() else "" for text in row.completions), row.ended):
                candidate = pool[row.prompt].candidates.setdefault(text, Candidate(text, ended))
                candidate.sources += [source] if source not in candidate.sources else []
    return dict(pool)


def sampling_settings(file: Path) -> dict[str, Any]:
    """Return the sampling settings and seed in the config.yaml beside a file of samples, {} where there is none."""
    options = file.parent / "config.yaml"
    if not options.is_file():
        return {}
    try:
        config = yaml.safe_load(options.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return {key: config[key] for key in ("sampling", "seed") if key in config} if isinstance(config, dict) else {}


def read_gold_tasks(file: Path | None, purpose: Purpose) -> list[Task]:
    """Return the gold items of a file of rankings or comparisons."""
    if file is None:
        return []
    rankings = keep_usable(sources.read_rankings(file), RejectedRows())
    return [gold_task(ranking, purpose, file) for ranking in rankings]


def gold_task(ranking: Ranking, purpose: Purpose, file: Path) -> Task:
    return Task(
        id=digest(purpose, json.dumps(turns(ranking.prompt)), *ranking.completions),
        kind="rank",
        prompt=ranking.prompt,
        completions=ranking.completions,
        sources=tuple({"file": str(file)} for _ in ranking.completions),
        ended=(True,) * len(ranking.completions),
        gold_ranks=ranking.ranks,
        purpose=purpose,
    )


def digest(*parts: str) -> str:
    """Return 16 hex digits that identify these strings."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
