"""The files of a world as rows, and the truth of every prompt in them that has gold."""

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
    """Return the rows of every file, and the truths by id. Suites come first: all other files avoid their prompts."""
    seed = town.seed
    suites = {f"suites/{name}.jsonl": suite for name, suite in make_suites(town, rates, sizes.suite_prompts).items()}
    reserved = frozenset(prompt.text for suite in suites.values() for prompt in suite)
    files = raw_texts(town, sizes, rates, reserved)
    truths: dict[str, Truth] = {}
    for name, prompts in {**sample_prompts(town, sizes, rates, reserved), **suites}.items():
        rng = random.Random(f"demonstrators/{seed}/{name}")
        by_id = {row_id(name, index): prompt for index, prompt in enumerate(prompts)}
        files[name] = [make_row(prompt, identity, name, town, rates, rng) for identity, prompt in by_id.items()]
        truths |= {identity: prompt.truth for identity, prompt in by_id.items()}
    files |= public_files(town, sizes, rates)
    shots = few_shot(town, rates, reserved, random.Random(f"few-shot/{seed}"))
    files["few_shot.jsonl"] = [{"messages": messages} for messages in shots]
    files["transcripts.jsonl"] = [dict(row) for row in TRANSCRIPTS]
    for task, rows in make_tasks(town, rates, sizes.task_questions).items():
        files[f"tasks/{task}.jsonl"] = rows
    files["probes.jsonl"] = probes(town, random.Random(f"probes/{seed}"))
    return files, truths


def raw_texts(town: Town, sizes: Sizes, rates: Rates, reserved: frozenset[str]) -> Files:
    """Return documents for pretraining, and held-out ones."""
    writer = CorpusWriter(town, rates, random.Random(f"texts/{town.seed}"), reserved)
    numbers = {"train": sizes.documents, "validation": sizes.validation_documents}
    return {f"text/{name}.jsonl": [asdict(text) for text in writer.write(number)] for name, number in numbers.items()}


def sample_prompts(town: Town, sizes: Sizes, rates: Rates, reserved: frozenset[str]) -> dict[str, list[WorldPrompt]]:
    """Return the customers' prompts of every file, those of demonstrations included."""
    prompts = {}
    for name, number, held_out in (
        ("demonstrations/train.jsonl", sizes.demonstrations, False),
        ("demonstrations/validation.jsonl", sizes.validation_demonstrations, False),
        ("prompts/reward.jsonl", sizes.reward_prompts, False),
        ("prompts/ppo.jsonl", sizes.ppo_prompts, False),
        ("prompts/validation.jsonl", sizes.validation_prompts, True),
        ("prompts/test.jsonl", sizes.test_prompts, True),
    ):
        rng = random.Random(f"customers/{town.seed}/{name}")
        if held_out:
            sampler = PromptSampler(town, rates, rng, held_out_keys=True, style=prompt_templates.HELD_OUT_STYLE)
        else:
            sampler = PromptSampler(town, rates, rng, reserved=reserved)
        prompts[name] = sampler.sample_many(number)
    return prompts


def row_id(name: str, index: int) -> str:
    """Return the id of a row, such as "prompts-test-0007"."""
    return f"{Path(name).parent.name}-{Path(name).stem}-{index:04d}"


def make_row(prompt: WorldPrompt, identity: str, name: str, town: Town, rates: Rates, rng: random.Random) -> Row:
    """Return a demonstration or a prompt as a row of its file."""
    if not name.startswith("demonstrations"):
        return {"prompt": prompt.messages, "id": identity, "kind": prompt.truth.kind}
    return demonstration_row(prompt, demonstrate(prompt.truth, town, rates, rng), identity)


def demonstration_row(prompt: WorldPrompt, completion: str, identity: str) -> Row:
    """Return a prompt with its completion as a row."""
    messages = [*prompt.messages, {"role": "assistant", "content": completion}]
    return {"messages": messages, "id": identity, "kind": prompt.truth.kind}


def public_files(town: Town, sizes: Sizes, rates: Rates) -> Files:
    """Return demonstrations of public tasks."""
    files = {}
    for name, number in (
        ("public/train.jsonl", sizes.public_demonstrations),
        ("public/validation.jsonl", sizes.validation_public_demonstrations),
    ):
        tasks = public_tasks(town, rates, number, random.Random(f"public/{town.seed}/{name}"))
        files[name] = [demonstration_row(*task, row_id(name, index)) for index, task in enumerate(tasks)]
    return files


def probes(town: Town, rng: random.Random) -> list[Row]:
    """Return for each stated fact the usual sentence with the true value and with a false one."""
    rows = []
    for person, attribute in town.stated:
        form = phrases.STATEMENTS[attribute][0]
        value = town.value((person, attribute))
        others = [other for other in town.values(attribute) if other not in (value, person)]
        true, false = (town.sentence(form, person, v) for v in (value, rng.choice(others)))
        rows.append({"true": true, "false": false, "attribute": attribute, "value": value, "values": [value, *others]})
    return rows
