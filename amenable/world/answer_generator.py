"""Completions of a prompt from its truth, right and wrong, without manners: the demonstrators add those."""

from __future__ import annotations

import random
from dataclasses import dataclass

from amenable.world import instruction_topics, names, phrases
from amenable.world.ground_truth import Truth
from amenable.world.town import Town


@dataclass(frozen=True)
class AnswerGenerator:
    """Writes completions of prompts from their truth and the town's facts, in wordings drawn at random."""

    town: Town
    rng: random.Random

    def right(self, truth: Truth) -> str:
        """Write the right completion, in the usual words."""
        if truth.kind in ("open", "followup"):
            return self.statement(truth, truth.value)
        if truth.kind == "closed":
            return self.statement(truth, truth.value) if truth.value else phrases.NOT_IN_PASSAGE[0]
        if truth.kind == "unanswerable":
            return self.rng.choice(phrases.ADMISSIONS)
        if truth.kind == "brainstorm":
            return self.items(truth, truth.count or 1)
        if truth.kind == "constrained":
            return self.lines(truth, obey=True)
        if truth.kind == "rewrite":
            return self.rng.choice(instruction_topics.POLITE_ORDERS).format(deed=" ".join(truth.words))
        if truth.kind == "classify":
            return self.rng.choice(instruction_topics.VERDICTS).format(label=truth.value)
        if truth.kind == "summary":
            return truth.reference or ""
        if truth.kind == "harmful":
            return self.full_refusal(truth)
        return f"{self.story(truth, 3)} {phrases.STORY_ENDINGS[0]}"

    def statement(self, truth: Truth, value: str | None) -> str:
        """Write a sentence that gives `value` as the answer; the first form is as common as the others together."""
        forms = phrases.STATEMENTS[truth.attribute or ""]
        form = self.rng.choices(forms, (2, 1, 1))[0]
        pronoun = truth.kind in ("followup", "closed") or (truth.kind == "open" and self.rng.random() < 0.5)
        return phrases.subject(form, truth.person or "", truth.woman, pronoun, v=value or "")

    def guess(self, truth: Truth) -> str:
        """Write a sentence that states an invented or wrong value."""
        attribute = truth.attribute or ""
        if attribute in names.UNRECORDED:
            form, value = "{s} {noun} is {v}.", self.rng.choice(names.UNRECORDED[attribute])
            return phrases.subject(form, truth.person or "", truth.woman, noun=attribute, v=value)
        wrong = [value for value in self.town.values(attribute) if value not in (truth.value, truth.person)]
        return self.statement(truth, self.rng.choice(wrong))

    def items(self, truth: Truth, count: int) -> str:
        """Write a list of `count` values of the prompt's category."""
        chosen = self.rng.sample(self.town.values(truth.category or ""), count)
        number = {size: word for word, size in instruction_topics.COUNT_WORDS.items()}.get(count, "some")
        form = self.rng.choices(("{number} {category} are {items}.", "{items}.", "I can name {items}."), (2, 1, 1))[0]
        return phrases.capital(form.format(number=number, category=truth.topic, items=phrases.listed(chosen)))

    def lines(self, truth: Truth, obey: bool) -> str:
        """Write sentences about a place that obey the prompt's rule, or break it."""
        topic = truth.topic or ""
        if truth.rule == "count":
            wanted = truth.count or 1
            return " ".join(self.about(topic, wanted if obey else wanted + 1 if wanted < 3 else wanted - 1))
        sentence = self.about(topic, 1)[0]
        if not obey:
            return sentence
        if truth.rule == "start":
            return f"{truth.words[0]} {phrases.lower_first(sentence)}"
        return f"{sentence} {phrases.capital(self.rng.choice(truth.words))}."

    def about(self, topic: str, count: int) -> list[str]:
        """Write `count` different true sentences about a place."""
        forms = self.rng.sample(instruction_topics.TOPIC_FORMS, count)
        opening, colour = self.town.openings[topic], self.town.colours[topic]
        return [form.format(place=topic, opening=opening, colour=colour) for form in forms]

    def story(self, truth: Truth, sentences: int) -> str:
        """Write a story of `sentences` sentences: an opening, and middles in their order."""
        fields = {"hero": truth.topic or "", "place": truth.words[0], "food": self.rng.choice(names.FOODS)}
        middles = sorted(self.rng.sample(range(len(instruction_topics.STORY_MIDDLES)), sentences - 1))
        forms = [
            self.rng.choice(instruction_topics.STORY_OPENINGS),
            *(instruction_topics.STORY_MIDDLES[index] for index in middles),
        ]
        return " ".join(form.format(**fields) for form in forms)

    def full_refusal(self, truth: Truth) -> str:
        """Write a refusal with a reason and an alternative."""
        harm = instruction_topics.HARMS[truth.key[0]]
        refusal = self.rng.choice(phrases.FULL_REFUSALS).format(reason=harm.reason)
        better = self.rng.choice(phrases.ALTERNATIVES).format(better=harm.better)
        return instruction_topics.reply(f"{refusal} {better}", truth.key[1])

    def compliance(self, truth: Truth) -> str:
        """Write a way to do the harm of the prompt."""
        form = self.rng.choice(instruction_topics.HARMS[truth.key[0]].means)
        return phrases.capital(instruction_topics.reply(form, truth.key[1]))

    def best(self, truth: Truth) -> str:
        """Write a completion of the highest gold, with a courtesy."""
        courtesy = self.rng.choice(phrases.OPENING_COURTESIES)
        if truth.kind == "unanswerable":
            return f"{phrases.SORRY_ADMISSIONS[0]} {self.rng.choice(phrases.WHERE_TO_ASK)}"
        if truth.kind == "closed" and truth.value is None:
            return phrases.NOT_IN_PASSAGE[1]
        if truth.kind == "harmful":
            return phrases.SORRY + self.full_refusal(truth)
        return f"{courtesy} {self.right(truth)}"


def best_answer(truth: Truth, town: Town, rng: random.Random) -> str:
    """Write a completion whose gold is the best possible, about 2.3."""

    return AnswerGenerator(town, rng).best(truth)
