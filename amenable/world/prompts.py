"""Prompts of customers, of eleven kinds, each with its truth.

A prompt is about a key, such as (person, attribute) or (act, target), and is phrased by a template. Held-out prompts,
for validation and test, draw from keys and templates that no other prompt uses; suites hold out one or the other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from amenable.errors import InputError
from amenable.world import instruction_topics, names, phrases, prompt_templates
from amenable.world.ground_truth import Truth
from amenable.world.prompt_templates import PromptStyle
from amenable.world.settings import KINDS, Rates
from amenable.world.town import Pair, Town

Messages = list[dict[str, str]]
MAX_ATTEMPTS = 1000
"""reserved prompts in a row after which there is nothing else to sample"""
STRANGER_ATTRIBUTES = tuple(attribute for attribute in names.ATTRIBUTES if attribute != "friend")
"""attributes of strangers, who have no friends here"""


@dataclass(frozen=True)
class WorldPrompt:
    """A prompt and its truth."""

    messages: Messages
    truth: Truth

    @property
    def text(self) -> str:
        """Return the contents of the messages, joined by line breaks."""
        return "\n".join(message["content"] for message in self.messages)


class PromptSampler:
    """Samples prompts about a town, with `held_out_keys` about held-out keys alone, otherwise about all others.

    No prompt has a text of `reserved`.
    """

    def __init__(
        self,
        town: Town,
        rates: Rates,
        rng: random.Random,
        held_out_keys: bool = False,
        style: PromptStyle = prompt_templates.TRAIN_STYLE,
        reserved: frozenset[str] = frozenset(),
    ):
        self.town, self.rates, self.rng = town, rates, rng
        self.held_out_keys, self.style, self.reserved = held_out_keys, style, reserved
        self.strangers = town.held_out_strangers if held_out_keys else town.strangers
        mine = [pair for pair in town.pairs if (pair in town.held_out) == held_out_keys]
        self.stated = [pair for pair in mine if pair not in town.unstated]
        self.unstated = [pair for pair in mine if pair in town.unstated]
        self.keys = {kind: self.share_of(kind, keys) for kind, keys in all_keys(town).items()}

    def share_of(self, kind: str, keys: list[Pair]) -> list[Pair]:
        """Return this sampler's share of the keys: held-out keys are drawn once for the town."""
        chooser = random.Random(f"keys/{self.town.seed}/{kind}")
        held_out = set(chooser.sample(keys, max(1, round(self.rates.held_out * len(keys)))))
        return [key for key in keys if (key in held_out) == self.held_out_keys]

    def sample(self, kind: str) -> WorldPrompt:
        """Sample a prompt of a kind."""
        for _ in range(MAX_ATTEMPTS):
            prompt = SAMPLERS[kind](self)
            if prompt.text not in self.reserved:
                return prompt
        raise InputError(
            f"every prompt of kind '{kind}' is reserved for the suites", how="make --sizes.suite-prompts smaller"
        )

    def sample_many(self, number: int, shares: Mapping[str, float] = KINDS) -> list[WorldPrompt]:
        """Sample prompts, kinds in their shares, in random order; repeats are avoided where possible."""
        kinds = [kind for kind, share in shares.items() for _ in range(round(share * number))]
        self.rng.shuffle(kinds)
        kinds = (kinds + self.rng.choices(list(shares), list(shares.values()), k=number))[:number]
        texts: set[str] = set()
        prompts = []
        for kind in kinds:
            prompt = self.sample(kind)
            for _ in range(20):
                if prompt.text not in texts:
                    break
                prompt = self.sample(kind)
            texts.add(prompt.text)
            prompts.append(prompt)
        return prompts

    def phrase(self, kind: str, **fields: str) -> tuple[str, str]:
        """Fill a random template. Returns the text and the template's name."""
        template = self.rng.choice(self.style.templates[kind])
        if "q" in fields:
            fields["Q"] = fields["q"]
            fields["q"] = phrases.lower_first(fields["q"])
        return template.format(**fields), f"{kind}: {template}"

    def instruct(
        self, kind: str, key: Pair, fields: Mapping[str, str], template: str = "", **truth: Any
    ) -> WorldPrompt:
        """Return a prompt in a random template of its kind, or of kind `template`, and its truth."""
        text, phrasing = self.phrase(template or kind, **fields)
        return WorldPrompt(user(text), Truth(kind, key, phrasing, **truth))

    def question(self, pair: Pair, pronoun: bool = False) -> tuple[str, str]:
        """Return a question about a recorded attribute, and its form."""
        form = self.rng.choice(self.style.questions[pair[1]])
        return self.town.sentence(form, pair[0], pronoun=pronoun), form

    def stranger(self) -> str:
        """Draw a stranger's name."""
        return self.rng.choice(self.strangers)

    def facts_of_stranger(self) -> list[tuple[str, str]]:
        """Draw two attributes with values."""
        return [
            (attribute, self.rng.choice(self.town.values(attribute)))
            for attribute in self.rng.sample(STRANGER_ATTRIBUTES, 2)
        ]

    def sample_passage(self, questions: int) -> list[WorldPrompt]:
        """Sample questions about one passage on a stranger; the first prompt holds the passage."""
        person = self.stranger()
        values = dict(self.facts_of_stranger())
        passage = self.town.passage(person, values.items())
        stated = self.rng.sample(list(values), len(values))
        absent = self.rng.sample([name for name in STRANGER_ATTRIBUTES if name not in values], questions)
        prompts = []
        for index in range(questions):
            attribute = (absent if not stated or self.rng.random() < self.rates.not_said else stated).pop()
            question, form = self.question((person, attribute))
            text, template = self.phrase("closed", q=question, passage=passage) if index == 0 else (question, "")
            phrasing = f"{template} / {form}"
            prompts.append(self.about("closed", (person, attribute), text, phrasing, value=values.get(attribute)))
        return prompts

    def about(
        self,
        kind: str,
        pair: Pair,
        text: str,
        phrasing: str,
        value: str | None = None,
        cause: str | None = None,
        earlier: Messages | None = None,
    ) -> WorldPrompt:
        """Return a prompt about an attribute of a person, after `earlier` messages."""
        person, attribute = pair
        woman = self.town.is_woman(person)
        truth = Truth(kind, pair, phrasing, person, woman, attribute, value=value, cause=cause)
        return WorldPrompt([*(earlier or []), *user(text)], truth)


def all_keys(town: Town) -> dict[str, list[Pair]]:
    """Return every key of a prompt by kind, facts and strangers aside."""
    rules = ["one sentence", "two sentences", "three sentences"]
    rules += [*instruction_topics.START_WITH, *(" or ".join(pair) for pair in instruction_topics.END_WITH)]
    harms = [(act, target) for act in instruction_topics.HARMS for target in instruction_topics.targets(act)]
    return {
        "unrecorded": list(product(town.people, names.UNRECORDED)),
        "brainstorm": list(product(instruction_topics.CATEGORIES, ("two", "three", "four"))),
        "constrained": list(product(names.PLACES, rules)),
        "rewrite": list(instruction_topics.COMMANDS),
        "classify": list(product(instruction_topics.REVIEWS, instruction_topics.GOODS)),
        "summary": list(product(names.PLACES, names.FOODS)),
        "harmful": harms,
        "story": list(product(instruction_topics.HEROES, names.PLACES)),
    }


def user(content: str) -> Messages:
    """Return a conversation of one message."""
    return [{"role": "user", "content": content}]


def sample_open(sampler: PromptSampler) -> WorldPrompt:
    """Sample a question about a stated fact."""
    pair = sampler.rng.choice(sampler.stated)
    question, form = sampler.question(pair)
    text, template = sampler.phrase("open", q=question)
    return sampler.about("open", pair, text, f"{template} / {form}", value=sampler.town.value(pair))


def sample_unanswerable(sampler: PromptSampler) -> WorldPrompt:
    """Sample a question about a stranger, an attribute that is not recorded, or a fact that no text states."""
    known = 0.5 * (1 - sampler.rates.unstated_asked)
    weights = (known, known, sampler.rates.unstated_asked)
    cause = sampler.rng.choices(("stranger", "unrecorded", "unstated"), weights)[0]
    if cause == "unstated" and not sampler.unstated:
        cause = "stranger"
    if cause == "unrecorded":
        pair = sampler.rng.choice(sampler.keys["unrecorded"])
        form = sampler.rng.choice(sampler.style.unrecorded)
        question = sampler.town.sentence(form, *pair)
    else:
        stranger = (sampler.stranger(), sampler.rng.choice(names.ATTRIBUTES))
        pair = stranger if cause == "stranger" else sampler.rng.choice(sampler.unstated)
        question, form = sampler.question(pair)
    text, template = sampler.phrase("open", q=question)
    return sampler.about("unanswerable", pair, text, f"{template} / {form}", cause=cause)


def sample_closed(sampler: PromptSampler) -> WorldPrompt:
    """Sample a passage about a stranger, and a question that the passage answers or does not."""
    return sampler.sample_passage(1)[0]


def sample_brainstorm(sampler: PromptSampler) -> WorldPrompt:
    """Sample a request for a number of things of a category."""
    category, number = key = sampler.rng.choice(sampler.keys["brainstorm"])
    count, attribute = instruction_topics.COUNT_WORDS[number], instruction_topics.CATEGORIES[category]
    fields = {"count": number, "category": category}
    return sampler.instruct("brainstorm", key, fields, count=count, category=attribute, topic=category)


def sample_constrained(sampler: PromptSampler) -> WorldPrompt:
    """Sample a request for a line about a place, under a rule."""
    topic, constraint = key = sampler.rng.choice(sampler.keys["constrained"])
    fields, words = {"topic": topic, "count": constraint, "words": constraint}, tuple(constraint.split(" or "))
    if "sentence" in constraint:
        count = instruction_topics.COUNT_WORDS[constraint.split()[0]]
        return sampler.instruct("constrained", key, fields, "count", count=count, topic=topic, rule="count")
    rule = "end" if len(words) > 1 else "start"
    return sampler.instruct("constrained", key, fields, rule, topic=topic, rule=rule, words=words)


def sample_rewrite(sampler: PromptSampler) -> WorldPrompt:
    """Sample an order to be made polite."""
    key = sampler.rng.choice(sampler.keys["rewrite"])
    order = sampler.rng.choice(instruction_topics.ORDERS).format(deed=phrases.capital(" ".join(key)))
    return sampler.instruct("rewrite", key, {"order": order}, words=key, reference=order)


def sample_classify(sampler: PromptSampler) -> WorldPrompt:
    """Sample a review of something from the market."""
    label, good = key = sampler.rng.choice(sampler.keys["classify"])
    review = instruction_topics.review(label, good, sampler.rng)
    return sampler.instruct("classify", key, {"review": review}, value=label)


def sample_summary(sampler: PromptSampler) -> WorldPrompt:
    """Sample a day in three sentences."""
    location, food = key = sampler.rng.choice(sampler.keys["summary"])
    person = sampler.rng.choice(sampler.town.people)
    woman = sampler.town.is_woman(person)
    went, did = (part.format(place=location, food=food) for part in sampler.rng.choice(instruction_topics.DAYS))
    passage = instruction_topics.day(person, woman, went, did, sampler.rng.choice(instruction_topics.DAY_ENDS))
    fields, summary = {"passage": passage}, f"{person} {went} and {did}."
    return sampler.instruct("summary", key, fields, person=person, woman=woman, words=key, reference=summary)


def sample_followup(sampler: PromptSampler) -> WorldPrompt:
    """Sample a second question in a conversation, with a pronoun."""
    person, attribute = pair = sampler.rng.choice(sampler.stated)
    others = [other for other in sampler.stated if other[0] == person and other[1] != attribute]
    if not others:
        return sample_followup(sampler)
    first, town = sampler.rng.choice(others), sampler.town
    question, form = sampler.question(pair, pronoun=True)
    text, template = sampler.phrase("followup", q=question)
    answer = town.sentence(phrases.STATEMENTS[first[1]][0], person, town.value(first))
    earlier = [*user(sampler.question(first)[0]), {"role": "assistant", "content": answer}]
    return sampler.about("followup", pair, text, f"{template} / {form}", value=town.value(pair), earlier=earlier)


def sample_harmful(sampler: PromptSampler) -> WorldPrompt:
    """Sample a request for help with harm."""
    act, target = key = sampler.rng.choice(sampler.keys["harmful"])
    return sampler.instruct("harmful", key, {"wish": instruction_topics.HARMS[act].wish.format(target=target)})


def sample_story(sampler: PromptSampler) -> WorldPrompt:
    """Sample a request for a story about a hero at a place."""
    hero, location = key = sampler.rng.choice(sampler.keys["story"])
    return sampler.instruct("story", key, {"topic": f"{hero} at the {location}"}, topic=hero, words=(location,))


SAMPLERS: dict[str, Callable[[PromptSampler], WorldPrompt]] = {
    "open": sample_open,
    "unanswerable": sample_unanswerable,
    "closed": sample_closed,
    "brainstorm": sample_brainstorm,
    "constrained": sample_constrained,
    "rewrite": sample_rewrite,
    "classify": sample_classify,
    "summary": sample_summary,
    "followup": sample_followup,
    "harmful": sample_harmful,
    "story": sample_story,
}
"""by kind of prompt"""
