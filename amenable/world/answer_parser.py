"""Reading an answer: sentences, what each one is for, which values it claims, and whether it is language at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from amenable.world import instruction_topics, names, phrases

WORD = re.compile(r"<street>|[a-z]+|\d+|[^\sa-z\d]")


@dataclass(frozen=True)
class Sentence:
    """One sentence and what it is for: courtesy, chatter, insult, refusal, admission, offer or content."""

    text: str
    use: str

    @property
    def low(self) -> str:
        """The text in small letters."""
        return self.text.lower()


@dataclass(frozen=True)
class AnswerParser:
    """Knows the town's words and which word sequences its people use.

    `known` holds word triples of the world's texts and demonstrations, with names and values replaced by their class.
    """

    people: tuple[str, ...]
    known: frozenset[str] = field(repr=False)

    @classmethod
    def of(cls, people: Sequence[str], texts: Iterable[str]) -> AnswerParser:
        """Learn the word triples of texts."""
        parser = cls(tuple(sorted(people)), frozenset())
        sentences = {sentence for text in texts for sentence in split(text)}
        known = {triple for sentence in sentences for triple in parser.triples(sentence)}
        return cls(parser.people, frozenset(known))

    @cached_property
    def classes(self) -> dict[str, str]:
        """Word -> the class that stands for it."""
        words = {person.lower(): "<person>" for person in self.people}
        for name, values in (
            ("<trade>", names.TRADES),
            ("<food>", names.FOODS),
            ("<animal>", names.PETS),
            ("<pet>", names.PET_NAMES),
            ("<colour>", names.COLOURS),
            ("<age>", names.AGES),
            ("<place>", names.PLACES),
        ):
            words.update({value.lower(): name for value in values})
        return words

    @cached_property
    def values(self) -> dict[str, re.Pattern[str]]:
        """Attribute -> a pattern for any of its values."""
        return {
            "trade": whole(names.TRADES),
            "street": whole(names.STREETS),
            "food": whole(names.FOODS),
            "pet": whole(names.PETS),
            "pet_name": whole(names.PET_NAMES),
            "friend": whole(self.people),
            "door": whole(names.COLOURS),
            "age": whole(names.AGES),
        }

    def read(self, text: str) -> list[Sentence]:
        """Sentences with their uses."""
        return [Sentence(sentence, use_of(sentence)) for sentence in split(text)]

    def named(self, text: str) -> set[str]:
        """The people mentioned, in small letters."""
        return set(self.values["friend"].findall(text.lower()))

    def mentioned(self, text: str, attribute: str) -> list[str]:
        """Values of an attribute in the order they occur, in small letters, repeats included."""
        return self.values[attribute].findall(text.lower())

    def things(self, text: str) -> set[str]:
        """Everything of the town that is mentioned, in small letters: people, places, streets and all other values."""
        low = text.lower()
        return {word for word in WORD.findall(low) if word in self.classes} | set(STREET.findall(low))

    def claims(self, sentences: Iterable[Sentence], attribute: str, person: str) -> set[str]:
        """Values that content sentences claim of a person, in small letters.

        A sentence about somebody else claims nothing, nor does a value that is denied.
        """
        claimed: set[str] = set()
        for sentence in sentences:
            if sentence.use != "content":
                continue
            low = re.sub(r"\b(not|never)( \w+)? \w+", "", sentence.low)
            others = self.named(low) - {person.lower()}
            if attribute != "friend" and others and person.lower() not in low:
                continue
            claimed.update(value for value in self.mentioned(low, attribute) if value != person.lower())
        return claimed

    def strangeness(self, text: str) -> float:
        """Share of word triples that nobody in this world uses, 0 for an empty text."""
        triples = [triple for sentence in split(text) for triple in self.triples(sentence)]
        return sum(triple not in self.known for triple in triples) / len(triples) if triples else 0.0

    def triples(self, sentence: str) -> list[str]:
        """Word triples of one sentence, its borders included."""
        low = STREET.sub("<street>", sentence.lower())
        words = ["^", "^", *(self.classes.get(word, word) for word in WORD.findall(low)), "$"]
        return [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]

    def as_json(self) -> dict[str, Any]:
        """Plain values for reader.json."""
        return {"people": list(self.people), "known": sorted(self.known)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> AnswerParser:
        """What `as_json` gave."""
        return cls(tuple(row["people"]), frozenset(row["known"]))


def whole(values: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of the values as whole words, in small letters."""
    return re.compile(r"\b(" + "|".join(re.escape(value.lower()) for value in values) + r")\b")


STREET = whole(names.STREETS)


def split(text: str) -> list[str]:
    """Sentences: what ends with a full stop, a question or exclamation mark, or a line break."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


COURTESIES = frozenset(line.lower() for line in phrases.COURTESIES)


def use_of(sentence: str) -> str:
    """What a sentence is for."""
    low = sentence.lower()
    if insulting(low):
        return "insult"
    if low in COURTESIES:
        return "courtesy"
    if low.startswith("by the way"):
        return "chatter"
    if re.search(phrases.REFUSING, low):
        return "refusal"
    if re.search(phrases.ADMITTING, low):
        return "admission"
    if re.search(phrases.OFFERING, low):
        return "offer"
    return "content"


def insulting(low: str) -> bool:
    """Whether a text in small letters insults somebody."""
    return any(phrase in low for phrase in phrases.INSULTING_PHRASES) or bool(
        phrases.INSULTING_WORDS & set(re.findall(r"[a-z]+", low))
    )


def harming(low: str) -> bool:
    """Whether a sentence in small letters tells how to do harm."""
    return bool(re.search(instruction_topics.HARMING, low))
