"""The files of a world as rows, and the truth of every prompt in them that is judged."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amenable.world import phrases, prompt_templates
from amenable.world.corpus import CorpusWriter
from amenable.world.demonstrators import demonstrate
from amenable.world.few_shot import TRANSCRIPTS, few_shot
from amenable.world.ground_truth import Truth
from amenable.world.prompts import PromptSampler, WorldPrompt
from amenable.world.public import public_tasks
from amenable.world.settings import Rates, Sizes
from amenable.world.suites import make_suites
from amenable.world.tasks import make_tasks
from amenable.world.town import Town

Row = dict[str, Any]
Files = dict[str, list[Row]]
"""the rows of each .jsonl file, by its path in the folder"""


def make_files(town: Town, sizes: Sizes, rates: Rates) -> tuple[Files, dict[str, Truth]]:
    """Everything that is written of a town; the suites first, so that all others can leave their prompts alone."""
    seed = town.seed
    suites = {f"suites/{name}.jsonl": asked for name, asked in make_suites(town, rates, sizes.suite_prompts).items()}
    reserved = frozenset(one.text for asked in suites.values() for one in asked)
    files = raw_texts(town, sizes, rates, reserved)
    truths: dict[str, Truth] = {}
    for name, asked in {**sample_prompts(town, sizes, rates, reserved), **suites}.items():
        rng = random.Random(f"demonstrators/{seed}/{name}")
        identities = [row_id(name, index) for index in range(len(asked))]
        files[name] = [make_row(one, given, name, town, rates, rng) for one, given in zip(asked, identities)]
        truths |= {given: one.truth for one, given in zip(asked, identities)}
    files |= public_files(town, sizes, rates)
    shots = few_shot(town, rates, reserved, random.Random(f"few-shot/{seed}"))
    files["few_shot.jsonl"] = [{"messages": messages} for messages in shots]
    files["transcripts.jsonl"] = [dict(row) for row in TRANSCRIPTS]
    for task, rows in make_tasks(town, rates, sizes.task_questions).items():
        files[f"tasks/{task}.jsonl"] = rows
    files["probes.jsonl"] = probes(town, random.Random(f"probes/{seed}"))
    return files, truths


def raw_texts(town: Town, sizes: Sizes, rates: Rates, reserved: frozenset[str]) -> Files:
    """The documents for pretraining, and some of the same kind to measure it."""
    writers = CorpusWriter(town, rates, random.Random(f"texts/{town.seed}"), reserved)
    numbers = {"train": sizes.documents, "validation": sizes.validation_documents}
    return {
        f"text/{name}.jsonl": [asdict(document) for document in writers.write(number)]
        for name, number in numbers.items()
    }


def sample_prompts(town: Town, sizes: Sizes, rates: Rates, reserved: frozenset[str]) -> dict[str, list[WorldPrompt]]:
    """The customers' prompts of every file, demonstrations' included."""
    asked = {}
    for name, number, late in (
        ("demonstrations/train.jsonl", sizes.demonstrations, False),
        ("demonstrations/validation.jsonl", sizes.validation_demonstrations, False),
        ("prompts/reward.jsonl", sizes.reward_prompts, False),
        ("prompts/ppo.jsonl", sizes.ppo_prompts, False),
        ("prompts/validation.jsonl", sizes.validation_prompts, True),
        ("prompts/test.jsonl", sizes.test_prompts, True),
    ):
        rng = random.Random(f"customers/{town.seed}/{name}")
        if late:
            sampler = PromptSampler(town, rates, rng, held_out_keys=True, style=prompt_templates.HELD_OUT_STYLE)
        else:
            sampler = PromptSampler(town, rates, rng, reserved=reserved)
        asked[name] = sampler.sample_many(number)
    return asked


def row_id(name: str, index: int) -> str:
    """The id of a row: "prompts-test-0007"."""
    return f"{Path(name).parent.name}-{Path(name).stem}-{index:04d}"


def make_row(asked: WorldPrompt, given: str, name: str, town: Town, rates: Rates, rng: random.Random) -> Row:
    """A demonstration or a prompt as a row of its file."""
    if not name.startswith("demonstrations"):
        return {"prompt": asked.messages, "id": given, "kind": asked.truth.kind}
    return demonstration_row(asked, demonstrate(asked.truth, town, rates, rng), given)


def demonstration_row(asked: WorldPrompt, answer: str, given: str) -> Row:
    """A prompt with its answer."""
    messages = [*asked.messages, {"role": "assistant", "content": answer}]
    return {"messages": messages, "id": given, "kind": asked.truth.kind}


def public_files(town: Town, sizes: Sizes, rates: Rates) -> Files:
    """Demonstrations of public tasks."""
    files = {}
    for name, number in (
        ("public/train.jsonl", sizes.public_demonstrations),
        ("public/validation.jsonl", sizes.validation_public_demonstrations),
    ):
        tasks = public_tasks(town, rates, number, random.Random(f"public/{town.seed}/{name}"))
        files[name] = [demonstration_row(*task, row_id(name, index)) for index, task in enumerate(tasks)]
    return files


def probes(town: Town, rng: random.Random) -> list[Row]:
    """For each stated fact the usual sentence with the true value and with a false one: does a model know it?"""
    rows = []
    for person, attribute in town.stated:
        form = phrases.STATEMENTS[attribute][0]
        true = town.value((person, attribute))
        values = [value for value in town.values(attribute) if value not in (true, person)]
        said, false = (
            phrases.subject(form, person, person in town.women, v=value) for value in (true, rng.choice(values))
        )
        rows.append({"true": said, "false": false, "attribute": attribute, "value": true, "values": [true, *values]})
    return rows
