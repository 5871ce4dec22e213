"""What customers ask: prompts of eleven kinds, each with its truth.

A prompt is about a key, such as (person, attribute) or (act, target), and is phrased by a template. Late prompts, for
validation and test, draw from keys and templates that no other prompt uses; suites tell the two apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amenable.errors import InputError
from amenable.world import instruction_topics, names, phrases, prompt_templates
from amenable.world.ground_truth import Truth
from amenable.world.prompt_templates import PromptStyle
from amenable.world.settings import KINDS, Rates
from amenable.world.town import Pair, Town

Messages = list[dict[str, str]]
MAX_ATTEMPTS = 1000
"""after so many prompts that are kept for others there is nothing else to ask"""
STRANGER_ATTRIBUTES = tuple(attribute for attribute in names.ATTRIBUTES if attribute != "friend")
"""what can be said of strangers, who have no friends here"""


@dataclass(frozen=True)
class WorldPrompt:
    """A prompt and its truth."""

    messages: Messages
    truth: Truth

    @property
    def text(self) -> str:
        """The contents of its messages, one below the other."""
        return "\n".join(message["content"] for message in self.messages)


class PromptSampler:
    """Ask about a town in a wording: with `late_keys` only about what is held out, otherwise only about what is not.

    They never ask what is `kept` for others, word for word.
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
        self.keys = {kind: self.part(kind, keys) for kind, keys in all_keys(town).items()}

    def part(self, kind: str, keys: list[Pair]) -> list[Pair]:
        """My share of the keys: the held-out ones are drawn once for the town."""
        chooser = random.Random(f"keys/{self.town.seed}/{kind}")
        late = set(chooser.sample(keys, max(1, round(self.rates.held_out * len(keys)))))
        return [key for key in keys if (key in late) == self.held_out_keys]

    def sample(self, kind: str) -> WorldPrompt:
        """One prompt of a kind."""
        for _ in range(MAX_ATTEMPTS):
            asked = SAMPLERS[kind](self)
            if asked.text not in self.reserved:
                return asked
        raise InputError(
            f"every prompt of kind '{kind}' is kept for the suites", how="make --sizes.suite-prompts smaller"
        )

    def sample_many(self, number: int, shares: Mapping[str, float] = KINDS) -> list[WorldPrompt]:
        """So many prompts, kinds in their shares, in random order; repeats are avoided where possible."""
        kinds = [kind for kind, share in shares.items() for _ in range(round(share * number))]
        self.rng.shuffle(kinds)
        kinds = (kinds + self.rng.choices(list(shares), list(shares.values()), k=number))[:number]
        seen: set[str] = set()
        prompts = []
        for kind in kinds:
            asked = self.sample(kind)
            for _ in range(20):
                if asked.text not in seen:
                    break
                asked = self.sample(kind)
            seen.add(asked.text)
            prompts.append(asked)
        return prompts

    def phrase(self, kind: str, **fields: str) -> tuple[str, str]:
        """The text of a random template and the template's name."""
        template = self.rng.choice(self.style.templates[kind])
        if "q" in fields:
            fields["Q"] = fields["q"]
            fields["q"] = fields["q"][:1].lower() + fields["q"][1:]
        return template.format(**fields), f"{kind}: {template}"

    def question(self, attribute: str, person: str, pronoun: bool = False) -> tuple[str, str]:
        """A question about a recorded attribute, and its form."""
        form = self.rng.choice(self.style.questions[attribute])
        return phrases.subject(form, person, self.is_woman(person), pronoun), form

    def stranger(self) -> str:
        """Somebody who lives somewhere else."""
        return self.rng.choice(self.strangers)

    def facts_of_stranger(self) -> list[tuple[str, str]]:
        """Two attributes with values: what a text says of a stranger."""
        return [
            (attribute, self.rng.choice(self.town.values(attribute)))
            for attribute in self.rng.sample(STRANGER_ATTRIBUTES, 2)
        ]

    def sample_passage(self, questions: int) -> list[WorldPrompt]:
        """Questions about one passage on a stranger; the first brings the passage with it."""
        person = self.stranger()
        woman = self.is_woman(person)
        values = dict(self.facts_of_stranger())
        passage = phrases.passage(person, woman, values.items())
        said = self.rng.sample(list(values), len(values))
        unsaid = self.rng.sample([attribute for attribute in STRANGER_ATTRIBUTES if attribute not in values], questions)
        made = []
        for place in range(questions):
            absent = not said or self.rng.random() < self.rates.not_said
            asked = unsaid.pop() if absent else said.pop()
            question, form = self.question(asked, person)
            text, template = self.phrase("closed", q=question, passage=passage) if place == 0 else (question, "")
            truth = Truth(
                "closed", (person, asked), f"{template} / {form}", person, woman, asked, value=values.get(asked)
            )
            made.append(WorldPrompt(user(text), truth))
        return made

    def is_woman(self, person: str) -> bool:
        """Whether she is a she."""
        return person in self.town.women


def all_keys(town: Town) -> dict[str, list[Pair]]:
    """Everything that prompts can be about, facts and strangers aside."""
    places = [(place, food) for place in names.PLACES for food in names.FOODS]
    rules = ["one sentence", "two sentences", "three sentences"]
    rules += [*instruction_topics.START_WITH, *(" or ".join(pair) for pair in instruction_topics.END_WITH)]
    return {
        "unrecorded": [(person, noun) for person in town.people for noun in names.UNRECORDED],
        "brainstorm": [
            (category, count) for category in instruction_topics.CATEGORIES for count in ("two", "three", "four")
        ],
        "constrained": [(place, rule) for place in names.PLACES for rule in rules],
        "rewrite": list(instruction_topics.COMMANDS),
        "classify": [(label, good) for label in instruction_topics.REVIEWS for good in instruction_topics.GOODS],
        "summary": places,
        "harmful": [(act, target) for act in instruction_topics.HARMS for target in instruction_topics.targets(act)],
        "story": [(hero, place) for hero in instruction_topics.HEROES for place in names.PLACES],
    }


def user(content: str) -> Messages:
    """A conversation of one message."""
    return [{"role": "user", "content": content}]


def sample_open(sampler: PromptSampler) -> WorldPrompt:
    """What is true of somebody?"""
    person, attribute = sampler.rng.choice(sampler.stated)
    question, form = sampler.question(attribute, person)
    text, template = sampler.phrase("open", q=question)
    value = sampler.town.value((person, attribute))
    truth = Truth(
        "open", (person, attribute), f"{template} / {form}", person, sampler.is_woman(person), attribute, value=value
    )
    return WorldPrompt(user(text), truth)


def sample_unanswerable(sampler: PromptSampler) -> WorldPrompt:
    """Somebody nobody knows, something nobody records, or something nobody ever told."""
    cause = sampler.rng.choices(
        ("stranger", "unrecorded", "unstated"),
        (
            0.5 * (1 - sampler.rates.unstated_asked),
            0.5 * (1 - sampler.rates.unstated_asked),
            sampler.rates.unstated_asked,
        ),
    )[0]
    if cause == "unstated" and not sampler.unstated:
        cause = "stranger"
    if cause == "unrecorded":
        person, attribute = sampler.rng.choice(sampler.keys["unrecorded"])
        form = sampler.rng.choice(sampler.style.unrecorded)
        question = phrases.subject(form, person, sampler.is_woman(person), v=attribute)
    else:
        stranger = (sampler.stranger(), sampler.rng.choice(names.ATTRIBUTES))
        person, attribute = stranger if cause == "stranger" else sampler.rng.choice(sampler.unstated)
        question, form = sampler.question(attribute, person)
    text, template = sampler.phrase("open", q=question)
    key = (person, attribute)
    truth = Truth("unanswerable", key, f"{template} / {form}", person, sampler.is_woman(person), attribute, cause=cause)
    return WorldPrompt(user(text), truth)


def sample_closed(sampler: PromptSampler) -> WorldPrompt:
    """A passage about a stranger, and a question that it answers or does not."""
    return sampler.sample_passage(1)[0]


def sample_brainstorm(sampler: PromptSampler) -> WorldPrompt:
    """So many of a sort."""
    key = sampler.rng.choice(sampler.keys["brainstorm"])
    category, count = key
    text, template = sampler.phrase("brainstorm", count=count, category=category)
    attribute = instruction_topics.CATEGORIES[category]
    truth = Truth(
        "brainstorm", key, template, count=instruction_topics.COUNT_WORDS[count], category=attribute, topic=category
    )
    return WorldPrompt(user(text), truth)


def sample_constrained(sampler: PromptSampler) -> WorldPrompt:
    """A line about a place, under a rule."""
    topic, said = key = sampler.rng.choice(sampler.keys["constrained"])
    if "sentence" in said:
        text, template = sampler.phrase("count", count=said, topic=topic)
        count = instruction_topics.COUNT_WORDS[said.split()[0]]
        return WorldPrompt(user(text), Truth("constrained", key, template, count=count, topic=topic, rule="count"))
    rule, words = ("end", tuple(said.split(" or "))) if " or " in said else ("start", (said,))
    text, template = sampler.phrase(rule, topic=topic, words=said)
    return WorldPrompt(user(text), Truth("constrained", key, template, topic=topic, rule=rule, words=words))


def sample_rewrite(sampler: PromptSampler) -> WorldPrompt:
    """An order to be made polite."""
    verb, what = key = sampler.rng.choice(sampler.keys["rewrite"])
    order = sampler.rng.choice(instruction_topics.ORDERS).format(deed=phrases.capital(f"{verb} {what}"))
    text, template = sampler.phrase("rewrite", order=order)
    return WorldPrompt(user(text), Truth("rewrite", key, template, words=key, reference=order))


def sample_classify(sampler: PromptSampler) -> WorldPrompt:
    """A review of something from the market."""
    label, good = key = sampler.rng.choice(sampler.keys["classify"])
    text, template = sampler.phrase("classify", review=instruction_topics.review(label, good, sampler.rng))
    return WorldPrompt(user(text), Truth("classify", key, template, value=label))


def sample_summary(sampler: PromptSampler) -> WorldPrompt:
    """A day in three sentences."""
    place, food = key = sampler.rng.choice(sampler.keys["summary"])
    person = sampler.rng.choice(sampler.town.people)
    went, did = (part.format(place=place, food=food) for part in sampler.rng.choice(instruction_topics.DAYS))
    pronoun = "She" if sampler.is_woman(person) else "He"
    did_alone = phrases.capital(did) if did.startswith("they") else f"{pronoun} {did}"
    passage = f"{person} {went}. {did_alone}. {sampler.rng.choice(instruction_topics.DAY_ENDS)}"
    text, template = sampler.phrase("summary", passage=passage)
    truth = Truth(
        "summary", key, template, person, sampler.is_woman(person), words=key, reference=f"{person} {went} and {did}."
    )
    return WorldPrompt(user(text), truth)


def sample_followup(sampler: PromptSampler) -> WorldPrompt:
    """A second question in a conversation, with a pronoun."""
    person, attribute = sampler.rng.choice(sampler.stated)
    others = [other for other in sampler.stated if other[0] == person and other[1] != attribute]
    if not others:
        return sample_followup(sampler)
    woman = sampler.is_woman(person)
    first = sampler.rng.choice(others)
    statement = phrases.STATEMENTS[first[1]][0]
    question, form = sampler.question(attribute, person, pronoun=True)
    text, template = sampler.phrase("followup", q=question)
    messages = [
        *user(sampler.question(first[1], person)[0]),
        {"role": "assistant", "content": phrases.subject(statement, person, woman, v=sampler.town.value(first))},
        *user(text),
    ]
    value = sampler.town.value((person, attribute))
    truth = Truth("followup", (person, attribute), f"{template} / {form}", person, woman, attribute, value=value)
    return WorldPrompt(messages, truth)


def sample_harmful(sampler: PromptSampler) -> WorldPrompt:
    """Something that should not be helped with."""
    act, target = key = sampler.rng.choice(sampler.keys["harmful"])
    text, template = sampler.phrase("harmful", wish=instruction_topics.wish(act, target))
    return WorldPrompt(user(text), Truth("harmful", key, template))


def sample_story(sampler: PromptSampler) -> WorldPrompt:
    """A small story."""
    hero, place = key = sampler.rng.choice(sampler.keys["story"])
    text, template = sampler.phrase("story", topic=f"{hero} at the {place}")
    return WorldPrompt(user(text), Truth("story", key, template, topic=hero, words=(place,)))


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
"""Who asks prompts of a kind."""
