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
from amenable.world.prompt_templates import Wording
from amenable.world.settings import KINDS, Rates
from amenable.world.town import Pair, Town

Messages = list[dict[str, str]]
TRIES = 1000
"""after so many prompts that are kept for others there is nothing else to ask"""
STRANGE = tuple(attribute for attribute in names.ATTRIBUTES if attribute != "friend")
"""what can be said of strangers, who have no friends here"""


@dataclass(frozen=True)
class Asked:
    """A prompt and its truth."""

    messages: Messages
    truth: Truth

    @property
    def text(self) -> str:
        """The contents of its messages, one below the other."""
        return "\n".join(message["content"] for message in self.messages)


class Customers:
    """Ask about a town in a wording: with `late_keys` only about what is held out, otherwise only about what is not.

    They never ask what is `kept` for others, word for word.
    """

    def __init__(
        self,
        town: Town,
        rates: Rates,
        draw: random.Random,
        late_keys: bool = False,
        wording: Wording = prompt_templates.EARLY,
        kept: frozenset[str] = frozenset(),
    ):
        self.town, self.rates, self.draw = town, rates, draw
        self.late_keys, self.wording, self.kept = late_keys, wording, kept
        self.strangers = town.late_strangers if late_keys else town.strangers
        mine = [pair for pair in town.pairs if (pair in town.held_out) == late_keys]
        self.stated = [pair for pair in mine if pair not in town.unstated]
        self.unstated = [pair for pair in mine if pair in town.unstated]
        self.keys = {kind: self.part(kind, keys) for kind, keys in all_keys(town).items()}

    def part(self, kind: str, keys: list[Pair]) -> list[Pair]:
        """My share of the keys: the held-out ones are drawn once for the town."""
        chooser = random.Random(f"keys/{self.town.seed}/{kind}")
        late = set(chooser.sample(keys, max(1, round(self.rates.held_out * len(keys)))))
        return [key for key in keys if (key in late) == self.late_keys]

    def ask(self, kind: str) -> Asked:
        """One prompt of a kind."""
        for _ in range(TRIES):
            asked = ASKERS[kind](self)
            if asked.text not in self.kept:
                return asked
        raise InputError(
            f"every prompt of kind '{kind}' is kept for the suites", how="make --sizes.suite-prompts smaller"
        )

    def many(self, number: int, shares: Mapping[str, float] = KINDS) -> list[Asked]:
        """So many prompts, kinds in their shares, in random order; repeats are avoided where possible."""
        kinds = [kind for kind, share in shares.items() for _ in range(round(share * number))]
        self.draw.shuffle(kinds)
        kinds = (kinds + self.draw.choices(list(shares), list(shares.values()), k=number))[:number]
        seen: set[str] = set()
        prompts = []
        for kind in kinds:
            asked = self.ask(kind)
            for _ in range(20):
                if asked.text not in seen:
                    break
                asked = self.ask(kind)
            seen.add(asked.text)
            prompts.append(asked)
        return prompts

    def phrase(self, kind: str, **fields: str) -> tuple[str, str]:
        """The text of a random template and the template's name."""
        template = self.draw.choice(self.wording.templates[kind])
        if "q" in fields:
            fields["Q"] = fields["q"]
            fields["q"] = fields["q"][:1].lower() + fields["q"][1:]
        return template.format(**fields), f"{kind}: {template}"

    def question(self, attribute: str, person: str, pronoun: bool = False) -> tuple[str, str]:
        """A question about a recorded attribute, and its form."""
        form = self.draw.choice(self.wording.questions[attribute])
        return phrases.subject(form, person, self.is_woman(person), pronoun), form

    def stranger(self) -> str:
        """Somebody who lives somewhere else."""
        return self.draw.choice(self.strangers)

    def facts_of_stranger(self) -> list[tuple[str, str]]:
        """Two attributes with values: what a text says of a stranger."""
        return [
            (attribute, self.draw.choice(self.town.values(attribute))) for attribute in self.draw.sample(STRANGE, 2)
        ]

    def ask_passage(self, questions: int) -> list[Asked]:
        """Questions about one passage on a stranger; the first brings the passage with it."""
        person = self.stranger()
        woman = self.is_woman(person)
        values = dict(self.facts_of_stranger())
        passage = phrases.passage(person, woman, values.items())
        said = self.draw.sample(list(values), len(values))
        unsaid = self.draw.sample([attribute for attribute in STRANGE if attribute not in values], questions)
        made = []
        for place in range(questions):
            absent = not said or self.draw.random() < self.rates.not_said
            asked = unsaid.pop() if absent else said.pop()
            question, form = self.question(asked, person)
            text, template = self.phrase("closed", q=question, passage=passage) if place == 0 else (question, "")
            truth = Truth(
                "closed", (person, asked), f"{template} / {form}", person, woman, asked, value=values.get(asked)
            )
            made.append(Asked(user(text), truth))
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


def ask_open(by: Customers) -> Asked:
    """What is true of somebody?"""
    person, attribute = by.draw.choice(by.stated)
    question, form = by.question(attribute, person)
    text, template = by.phrase("open", q=question)
    value = by.town.value((person, attribute))
    truth = Truth(
        "open", (person, attribute), f"{template} / {form}", person, by.is_woman(person), attribute, value=value
    )
    return Asked(user(text), truth)


def ask_unanswerable(by: Customers) -> Asked:
    """Somebody nobody knows, something nobody records, or something nobody ever told."""
    cause = by.draw.choices(
        ("stranger", "unrecorded", "unstated"),
        (0.5 * (1 - by.rates.unstated_asked), 0.5 * (1 - by.rates.unstated_asked), by.rates.unstated_asked),
    )[0]
    if cause == "unstated" and not by.unstated:
        cause = "stranger"
    if cause == "unrecorded":
        person, attribute = by.draw.choice(by.keys["unrecorded"])
        form = by.draw.choice(by.wording.unrecorded)
        question = phrases.subject(form, person, by.is_woman(person), v=attribute)
    else:
        stranger = (by.stranger(), by.draw.choice(names.ATTRIBUTES))
        person, attribute = stranger if cause == "stranger" else by.draw.choice(by.unstated)
        question, form = by.question(attribute, person)
    text, template = by.phrase("open", q=question)
    key = (person, attribute)
    truth = Truth("unanswerable", key, f"{template} / {form}", person, by.is_woman(person), attribute, cause=cause)
    return Asked(user(text), truth)


def ask_closed(by: Customers) -> Asked:
    """A passage about a stranger, and a question that it answers or does not."""
    return by.ask_passage(1)[0]


def ask_brainstorm(by: Customers) -> Asked:
    """So many of a sort."""
    key = by.draw.choice(by.keys["brainstorm"])
    category, count = key
    text, template = by.phrase("brainstorm", count=count, category=category)
    attribute = instruction_topics.CATEGORIES[category]
    truth = Truth(
        "brainstorm", key, template, count=instruction_topics.COUNT_WORDS[count], category=attribute, topic=category
    )
    return Asked(user(text), truth)


def ask_constrained(by: Customers) -> Asked:
    """A line about a place, under a rule."""
    topic, said = key = by.draw.choice(by.keys["constrained"])
    if "sentence" in said:
        text, template = by.phrase("count", count=said, topic=topic)
        count = instruction_topics.COUNT_WORDS[said.split()[0]]
        return Asked(user(text), Truth("constrained", key, template, count=count, topic=topic, rule="count"))
    rule, words = ("end", tuple(said.split(" or "))) if " or " in said else ("start", (said,))
    text, template = by.phrase(rule, topic=topic, words=said)
    return Asked(user(text), Truth("constrained", key, template, topic=topic, rule=rule, words=words))


def ask_rewrite(by: Customers) -> Asked:
    """An order to be made polite."""
    verb, what = key = by.draw.choice(by.keys["rewrite"])
    order = by.draw.choice(instruction_topics.ORDERS).format(deed=phrases.capital(f"{verb} {what}"))
    text, template = by.phrase("rewrite", order=order)
    return Asked(user(text), Truth("rewrite", key, template, words=key, reference=order))


def ask_classify(by: Customers) -> Asked:
    """A review of something from the market."""
    label, good = key = by.draw.choice(by.keys["classify"])
    text, template = by.phrase("classify", review=instruction_topics.review(label, good, by.draw))
    return Asked(user(text), Truth("classify", key, template, value=label))


def ask_summary(by: Customers) -> Asked:
    """A day in three sentences."""
    place, food = key = by.draw.choice(by.keys["summary"])
    person = by.draw.choice(by.town.people)
    went, did = (part.format(place=place, food=food) for part in by.draw.choice(instruction_topics.DAYS))
    pronoun = "She" if by.is_woman(person) else "He"
    did_alone = phrases.capital(did) if did.startswith("they") else f"{pronoun} {did}"
    passage = f"{person} {went}. {did_alone}. {by.draw.choice(instruction_topics.DAY_ENDS)}"
    text, template = by.phrase("summary", passage=passage)
    truth = Truth(
        "summary", key, template, person, by.is_woman(person), words=key, reference=f"{person} {went} and {did}."
    )
    return Asked(user(text), truth)


def ask_followup(by: Customers) -> Asked:
    """A second question in a conversation, with a pronoun."""
    person, attribute = by.draw.choice(by.stated)
    others = [other for other in by.stated if other[0] == person and other[1] != attribute]
    if not others:
        return ask_followup(by)
    woman = by.is_woman(person)
    first = by.draw.choice(others)
    statement = phrases.STATEMENTS[first[1]][0]
    question, form = by.question(attribute, person, pronoun=True)
    text, template = by.phrase("followup", q=question)
    messages = [
        *user(by.question(first[1], person)[0]),
        {"role": "assistant", "content": phrases.subject(statement, person, woman, v=by.town.value(first))},
        *user(text),
    ]
    value = by.town.value((person, attribute))
    truth = Truth("followup", (person, attribute), f"{template} / {form}", person, woman, attribute, value=value)
    return Asked(messages, truth)


def ask_harmful(by: Customers) -> Asked:
    """Something that should not be helped with."""
    act, target = key = by.draw.choice(by.keys["harmful"])
    text, template = by.phrase("harmful", wish=instruction_topics.wish(act, target))
    return Asked(user(text), Truth("harmful", key, template))


def ask_story(by: Customers) -> Asked:
    """A small story."""
    hero, place = key = by.draw.choice(by.keys["story"])
    text, template = by.phrase("story", topic=f"{hero} at the {place}")
    return Asked(user(text), Truth("story", key, template, topic=hero, words=(place,)))


ASKERS: dict[str, Callable[[Customers], Asked]] = {
    "open": ask_open,
    "unanswerable": ask_unanswerable,
    "closed": ask_closed,
    "brainstorm": ask_brainstorm,
    "constrained": ask_constrained,
    "rewrite": ask_rewrite,
    "classify": ask_classify,
    "summary": ask_summary,
    "followup": ask_followup,
    "harmful": ask_harmful,
    "story": ask_story,
}
"""Who asks prompts of a kind."""
