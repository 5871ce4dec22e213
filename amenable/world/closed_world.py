"""The closed world as one object: made from a seed, written as files, loaded again to grade completions.

Training reads text/, demonstrations/, public/ and prompts/. Evaluation reads prompts/test.jsonl, suites/, tasks/ and
few_shot.jsonl. Grading alone reads truths.jsonl, reader.json and world.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from amenable.errors import InputError
from amenable.world import names, phrases
from amenable.world.annotators import Annotator, agreement, draw_annotators, fit_noise, votes
from amenable.world.annotators import prefer as vote
from amenable.world.answer_generator import best_answer
from amenable.world.answer_parser import AnswerParser
from amenable.world.demonstrators import demonstrate
from amenable.world.gold import GoldReport, gold
from amenable.world.ground_truth import Truth
from amenable.world.settings import Rates, Sizes
from amenable.world.splits import Files, Row, make_files
from amenable.world.town import Town

VERSION = 2


@dataclass(frozen=True)
class ClosedWorld:
    """A town's texts, prompts and demonstrations as rows by file name; truths, parser and annotators to grade with."""

    facts: Row
    """world.json: seed, sizes, rates, version, annotators' noise"""
    rows: Files
    """the rows of each .jsonl file, by its path in the folder"""
    truths: dict[str, Truth]
    """the truth of every prompt and demonstration, by id"""
    parser: AnswerParser
    annotators: tuple[Annotator, ...]
    noise: float
    """scale of the annotators' Gumbel noise"""

    @classmethod
    def make(cls, seed: int = 0, sizes: Sizes | None = None, rates: Rates | None = None) -> ClosedWorld:
        """Make a world; the same seed, sizes and rates give the same world to the byte."""
        sizes, rates = sizes or Sizes(), rates or Rates()
        town = Town.make(seed, sizes.people, rates)
        rows, truths = make_files(town, sizes, rates)
        parser = AnswerParser.of((*town.women, *town.men), known_texts(rows, truths, town, rates, seed))
        annotators = draw_annotators(seed)
        noise = fit_noise(annotators, grade_samples(truths, town, rates, parser, seed), seed)
        facts = {"version": VERSION, "seed": seed, "town": town.name, "sizes": asdict(sizes), "rates": asdict(rates)}
        facts["fingerprint"] = fingerprint(town)
        return cls(facts, rows, truths, parser, annotators, noise)

    @classmethod
    def load(cls, folder: str | Path) -> ClosedWorld:
        """Load the world that `write` wrote to a folder."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / "world.json").read_text("utf-8"))
            if facts.get("version") != VERSION:
                unread = f"the world has version {facts.get('version')}, and this code reads version {VERSION}"
                raise InputError(unread, folder, "make it again: amenable world")
            truths = {row["id"]: Truth.from_row(row) for row in read_rows(folder / "truths.jsonl")}
            parser = AnswerParser.from_json(json.loads((folder / "reader.json").read_text("utf-8")))
            annotators = tuple(Annotator(**row) for row in facts.pop("annotators"))
            noise = facts.pop("noise")
            rows = {name: read_rows(folder / name) for name in facts.pop("files")}
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            raise InputError(f"not a closed world: no {missing}", folder, "make one: amenable world") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the world is damaged: {error}", folder, "make it again: amenable world") from None
        world = cls(facts, rows, truths, parser, annotators, noise)
        if facts.get("fingerprint") != fingerprint(world.town):
            raise InputError("this code draws another town from the seed", folder, "make it again: amenable world")
        return world

    @cached_property
    def town(self) -> Town:
        """Return the town, made again from the seed."""
        return Town.make(self.facts["seed"], self.facts["sizes"]["people"], self.rates)

    @property
    def rates(self) -> Rates:
        """Return the rates that the world was made with."""
        return Rates(**self.facts["rates"])

    @property
    def panel(self) -> tuple[Annotator, ...]:
        """Return the annotators whose labels train reward models."""
        return tuple(annotator for annotator in self.annotators if not annotator.held_out)

    @property
    def held_out_panel(self) -> tuple[Annotator, ...]:
        """Return the held-out annotators, who only evaluate."""
        return tuple(annotator for annotator in self.annotators if annotator.held_out)

    def truth(self, prompt_id: str) -> Truth:
        """Return the truth of a prompt. InputError for an id that is not of this world."""
        if prompt_id not in self.truths:
            raise InputError(f"prompt '{prompt_id}' is not of this world", how="use the prompts that came with it")
        return self.truths[prompt_id]

    def gold(self, prompt_id: str, completion: str, ended: bool = True) -> GoldReport:
        """Compute the gold of a completion; `ended` is False where the length limit cut it."""
        return gold(self.truth(prompt_id), completion, ended, self.parser)

    def rank(
        self,
        annotator: Annotator,
        prompt_id: str,
        completions: Sequence[str],
        ended: Sequence[bool],
        generator: torch.Generator,
    ) -> tuple[float, ...]:
        """Return an annotator's ranks of completions, 1 the best; ties and equal completions share a rank."""
        answers = list(zip(completions, ended, strict=True))
        distinct = list(dict.fromkeys(answers))
        reports = [self.gold(prompt_id, *answer) for answer in distinct]
        ranks = dict(zip(distinct, annotator.rank(reports, generator, self.noise)))
        return tuple(ranks[answer] for answer in answers)

    def prefer(
        self,
        prompt_id: str,
        first: tuple[str, bool],
        second: tuple[str, bool],
        generator: torch.Generator,
        held_out: bool = True,
    ) -> float:
        """Return the share of a panel that prefers the first (completion, ended) to the second; ties count half."""
        if first == second:
            return 0.5
        panel = self.held_out_panel if held_out else self.panel
        return vote(panel, self.gold(prompt_id, *first), self.gold(prompt_id, *second), generator, self.noise)

    def votes(
        self,
        first: Sequence[GoldReport],
        second: Sequence[GoldReport],
        generator: torch.Generator,
        held_out: bool = True,
    ) -> Tensor:
        """Return the share of a panel that prefers the first of each pair, [N]; every pair is shown in both orders."""
        panel = self.held_out_panel if held_out else self.panel
        return votes(panel, first, second, generator, self.noise)

    def best_answer(self, prompt_id: str, seed: int = 0) -> str:
        """Write a completion of the best gold."""
        return best_answer(self.truth(prompt_id), self.town, random.Random(f"best/{seed}/{prompt_id}"))

    def contents(self) -> dict[str, str]:
        """Return the text of every file of the world, by its path."""
        files = {name: lines(rows) for name, rows in self.rows.items()}
        files["truths.jsonl"] = lines([{"id": name, **truth.as_row()} for name, truth in self.truths.items()])
        files["reader.json"] = json.dumps(self.parser.as_json(), indent=0) + "\n"
        facts = {
            **self.facts,
            "noise": self.noise,
            "annotators": [annotator.as_row() for annotator in self.annotators],
            "files": list(self.rows),
        }
        files["world.json"] = json.dumps(facts, indent=2) + "\n"
        return files

    def write(self, out: str | Path) -> Path:
        """Write the folder in one move; leave the same world alone, refuse a folder that holds anything else."""
        out = Path(out)
        files = self.contents()
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            if all(holds(out / name, text) for name, text in files.items()):
                return out
            raise InputError("something else is there already", out, "remove it or choose another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            for name, text in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(text.encode())
            os.replace(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return out


def fingerprint(town: Town) -> str:
    """Hash a town and every value that a parser knows: the seed alone does not fix them across versions."""
    known = [sorted(town.facts.items()), sorted(town.unstated), sorted(town.held_out), sorted(town.rumours.items())]
    values = [town.values(attribute) for attribute in names.ATTRIBUTES]
    text = json.dumps([town.name, town.women, town.men, known, values, names.PLACES, town.openings, town.colours])
    return hashlib.sha256(text.encode()).hexdigest()


def known_texts(rows: Files, truths: dict[str, Truth], town: Town, rates: Rates, seed: int) -> list[str]:
    """Return all that counts as language here: texts, demonstrations, good and human completions of all prompts."""
    texts = [row["text"] for row in rows["text/train.jsonl"]]
    for name in ("demonstrations/train.jsonl", "public/train.jsonl"):
        texts += [row["messages"][-1]["content"] for row in rows[name]]
    texts += [*phrases.COURTESIES, *phrases.CHATTER, *phrases.INSULTS, *phrases.ADMISSIONS, *phrases.REFUSALS]
    rng = random.Random(f"language/{seed}")
    texts += [demonstrate(truth, town, rates, rng) for truth in truths.values()]
    return texts + [best_answer(truth, town, rng) for truth in truths.values() for _ in range(2)]


def grade_samples(
    truths: dict[str, Truth], town: Town, rates: Rates, parser: AnswerParser, seed: int, prompts: int = 400
) -> list[list[GoldReport]]:
    """Grade four demonstrations of each of some prompts, on which annotators' agreement is measured.

    The prompts are the customers', without the suites', whose kinds have other shares.
    """
    rng = random.Random(f"agreement/{seed}")
    customers = [truth for name, truth in truths.items() if not name.startswith("suites")]
    chosen = rng.sample(customers, min(prompts, len(customers)))
    return [[gold(truth, demonstrate(truth, town, rates, rng), True, parser) for _ in range(4)] for truth in chosen]


def measure_agreement(world: ClosedWorld, annotators: Sequence[Annotator], seed: int = 1) -> float:
    """Return the agreement of two of these annotators, on fresh demonstrations."""
    items = grade_samples(world.truths, world.town, world.rates, world.parser, seed)
    return agreement(annotators, items, world.noise, seed)


def holds(path: Path, text: str) -> bool:
    """Return True if a file has this content."""
    return path.is_file() and path.read_bytes() == text.encode()


def lines(rows: list[Row]) -> str:
    """Write rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """Read JSON lines as rows."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
