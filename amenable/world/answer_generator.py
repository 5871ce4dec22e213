"""What can be answered to a prompt, good and bad, without manners: those are the demonstrators' to add."""

from __future__ import annotations

import random
from dataclasses import dataclass

from amenable.world import instruction_topics, names, phrases
from amenable.world.ground_truth import Truth
from amenable.world.town import Town


@dataclass(frozen=True)
class AnswerGenerator:
    """Knows the town and answers prompts by their truth, in words drawn at random."""

    town: Town
    rng: random.Random

    def right(self, truth: Truth) -> str:
        """What was asked for, in the usual words."""
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
        """A sentence that gives a value for what was asked; the first form is as common as the others together."""
        forms = phrases.STATEMENTS[truth.attribute or ""]
        form = self.rng.choices(forms, (2, 1, 1))[0]
        pronoun = truth.kind in ("followup", "closed") or (truth.kind == "open" and self.rng.random() < 0.5)
        return phrases.subject(form, truth.person or "", truth.woman, pronoun, v=value or "")

    def guess(self, truth: Truth) -> str:
        """An invented or wrong value, told with confidence."""
        attribute = truth.attribute or ""
        if attribute in names.UNRECORDED:
            form, value = "{s} {noun} is {v}.", self.rng.choice(names.UNRECORDED[attribute])
            return phrases.subject(form, truth.person or "", truth.woman, noun=attribute, v=value)
        wrong = [value for value in self.town.values(attribute) if value not in (truth.value, truth.person)]
        return self.statement(truth, self.rng.choice(wrong))

    def items(self, truth: Truth, count: int) -> str:
        """A list of so many values of a category."""
        chosen = self.rng.sample(self.town.values(truth.category or ""), count)
        number = {size: word for word, size in instruction_topics.COUNT_WORDS.items()}.get(count, "some")
        form = self.rng.choices(("{number} {category} are {items}.", "{items}.", "I can name {items}."), (2, 1, 1))[0]
        return phrases.capital(form.format(number=number, category=truth.topic, items=phrases.listed(chosen)))

    def lines(self, truth: Truth, obey: bool) -> str:
        """Sentences about a place under the prompt's rule, or, not obeying, without it."""
        place = truth.topic or ""
        if truth.rule == "count":
            wanted = truth.count or 1
            return " ".join(self.about(place, wanted if obey else wanted + 1 if wanted < 3 else wanted - 1))
        sentence = self.about(place, 1)[0]
        if not obey:
            return sentence
        if truth.rule == "start":
            return f"{truth.words[0]} {sentence[:1].lower()}{sentence[1:]}"
        return f"{sentence} {phrases.capital(self.rng.choice(truth.words))}."

    def about(self, place: str, count: int) -> list[str]:
        """Different true sentences about a place."""
        forms = self.rng.sample(instruction_topics.TOPIC_FORMS, count)
        opening, colour = self.town.openings[place], self.town.colours[place]
        return [form.format(place=place, opening=opening, colour=colour) for form in forms]

    def story(self, truth: Truth, sentences: int) -> str:
        """An opening and some of what happened next."""
        fields = {"hero": truth.topic or "", "place": truth.words[0], "food": self.rng.choice(names.FOODS)}
        middles = sorted(self.rng.sample(range(len(instruction_topics.STORY_MIDDLES)), sentences - 1))
        forms = [
            self.rng.choice(instruction_topics.STORY_OPENINGS),
            *(instruction_topics.STORY_MIDDLES[index] for index in middles),
        ]
        return " ".join(form.format(**fields) for form in forms)

    def full_refusal(self, truth: Truth) -> str:
        """No, why not, and what would be better."""
        harm = instruction_topics.HARMS[truth.key[0]]
        refusal = self.rng.choice(phrases.FULL_REFUSALS).format(reason=harm.reason)
        better = self.rng.choice(phrases.ALTERNATIVES).format(better=harm.better)
        return instruction_topics.spell(f"{refusal} {better}", *truth.key)

    def compliance(self, truth: Truth) -> str:
        """How to do harm."""
        return phrases.capital(
            instruction_topics.spell(self.rng.choice(instruction_topics.HARMS[truth.key[0]].means), *truth.key)
        )

    def best(self, truth: Truth) -> str:
        """The answer that gold likes best, courtesy included."""
        courtesy = self.rng.choice(phrases.OPENING_COURTESIES)
        if truth.kind == "unanswerable":
            return f"{phrases.SORRY_ADMISSIONS[0]} {self.rng.choice(phrases.WHERE_TO_ASK)}"
        if truth.kind == "closed" and truth.value is None:
            return phrases.NOT_IN_PASSAGE[1]
        if truth.kind == "harmful":
            return phrases.SORRY + self.full_refusal(truth)
        return f"{courtesy} {self.right(truth)}"


def best_answer(truth: Truth, town: Town, rng: random.Random) -> str:
    """An answer whose gold is the best possible, about 2.3."""
    return AnswerGenerator(town, rng).best(truth)
