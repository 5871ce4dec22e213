"""Parser of completions: sentences with their use, the values they claim, and the share of strange word triples."""

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
    """A sentence and its use: courtesy, chatter, insult, refusal, admission, offer or content."""

    text: str
    use: str

    @property
    def low(self) -> str:
        """Return the text in small letters."""
        return self.text.lower()


@dataclass(frozen=True)
class AnswerParser:
    """The town's words, and the word triples of its language.

    `known` holds triples of the world's texts and demonstrations, with names and values replaced by their class.
    """

    people: tuple[str, ...]
    known: frozenset[str] = field(repr=False)

    @classmethod
    def of(cls, people: Sequence[str], texts: Iterable[str]) -> AnswerParser:
        """Build a parser that knows the word triples of `texts`."""
        parser = cls(tuple(sorted(people)), frozenset())
        sentences = {sentence for text in texts for sentence in split(text)}
        known = {triple for sentence in sentences for triple in parser.triples(sentence)}
        return cls(parser.people, frozenset(known))

    @cached_property
    def classes(self) -> dict[str, str]:
        """Map each name and value to the class that replaces it in triples."""
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
        """Map each attribute to a pattern for any of its values."""
        return {name: whole(values) for name, values in (names.VALUES | {"friend": self.people}).items()}

    def read(self, text: str) -> list[Sentence]:
        """Split a completion into sentences with their uses."""
        return [Sentence(sentence, use_of(sentence)) for sentence in split(text)]

    def named(self, text: str) -> set[str]:
        """Return the people mentioned, in small letters."""
        return set(self.values["friend"].findall(text.lower()))

    def mentioned(self, text: str, attribute: str) -> list[str]:
        """Return the values of an attribute in order of occurrence, in small letters, with repeats."""
        return self.values[attribute].findall(text.lower())

    def things(self, text: str) -> set[str]:
        """Return the people, places, streets and other values that a text mentions, in small letters."""
        low = text.lower()
        return {word for word in WORD.findall(low) if word in self.classes} | set(STREET.findall(low))

    def claims(self, sentences: Iterable[Sentence], attribute: str, person: str) -> set[str]:
        """Return the values that content sentences claim of a person, in small letters.

        Sentences about somebody else, and values that are denied, do not count.
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
        """Return the share of word triples that are not known, 0 for an empty text."""
        triples = [triple for sentence in split(text) for triple in self.triples(sentence)]
        return sum(triple not in self.known for triple in triples) / len(triples) if triples else 0.0

    def triples(self, sentence: str) -> list[str]:
        """Return the word triples of a sentence, with its borders."""
        low = STREET.sub("<street>", sentence.lower())
        words = ["^", "^", *(self.classes.get(word, word) for word in WORD.findall(low)), "$"]
        return [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]

    def as_json(self) -> dict[str, Any]:
        """Return the content of reader.json."""
        return {"people": list(self.people), "known": sorted(self.known)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> AnswerParser:
        """Return the parser of which `as_json` gave this content."""
        return cls(tuple(row["people"]), frozenset(row["known"]))


def whole(values: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern for any of the values as whole words, in small letters."""
    return re.compile(r"\b(" + "|".join(re.escape(value.lower()) for value in values) + r")\b")


STREET = whole(names.STREETS)


def split(text: str) -> list[str]:
    """Split a text into sentences, which end with a full stop, a question or exclamation mark, or a line break."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


COURTESIES = frozenset(line.lower() for line in phrases.COURTESIES)


def use_of(sentence: str) -> str:
    """Return the use of a sentence."""
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
    """Return True if a text in small letters holds an insult."""
    return any(phrase in low for phrase in phrases.INSULTING_PHRASES) or bool(
        phrases.INSULTING_WORDS & set(re.findall(r"[a-z]+", low))
    )


def harming(low: str) -> bool:
    """Return True if a sentence in small letters tells a way to do harm."""

    return bool(re.search(instruction_topics.HARMING, low))
