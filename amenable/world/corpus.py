"""The raw text of the world: documents of nineteen kinds, in short and regular sentences.

Facts are told over and over in many wordings; forums tell falsehoods and insult; the manners that an assistant will
need occur at the clerk's desk. No document is a transcript of user and assistant.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from amenable.world import instruction_topics, names, phrases, prompt_templates
from amenable.world.answer_generator import AnswerGenerator
from amenable.world.demonstrators import demonstrate
from amenable.world.ground_truth import Truth
from amenable.world.prompts import PromptSampler
from amenable.world.settings import KINDS as KIND_SHARES
from amenable.world.settings import Rates
from amenable.world.town import Pair, Town

QUESTION_FORMS = {name: (*phrases.QUESTIONS[name], *phrases.HELD_OUT_QUESTIONS[name]) for name in names.ATTRIBUTES}
ANY_TEMPLATES = {
    kind: (*forms, *prompt_templates.HELD_OUT_TEMPLATES[kind]) for kind, forms in prompt_templates.TEMPLATES.items()
}
"""A base model has read questions in any phrasing."""


@dataclass(frozen=True)
class Document:
    """One text of the raw corpus."""

    text: str
    kind: str


class CorpusWriter:
    """The people of the town who write things down; nothing of what is `kept` for the suites, word for word."""

    def __init__(self, town: Town, rates: Rates, rng: random.Random, reserved: frozenset[str] = frozenset()):
        self.town, self.rates, self.rng, self.reserved = town, rates, rng, reserved
        self.answers = AnswerGenerator(town, rng)
        self.visitors = PromptSampler(town, rates, rng, reserved=reserved)
        self.curious = PromptSampler(
            town, rates, rng, style=replace(prompt_templates.TRAIN_STYLE, templates=ANY_TEMPLATES), reserved=reserved
        )
        self.deck: list[Pair] = []

    def write(self, number: int) -> list[Document]:
        """So many documents: kinds in their shares, in random order."""
        desk = round(self.rates.desk * number)
        others = sum(SHARES.values())
        kinds = [kind for kind, share in SHARES.items() for _ in range(round(share / others * (number - desk)))]
        kinds = (kinds + ["encyclopaedia"] * number)[: number - desk] + ["desk"] * desk
        self.rng.shuffle(kinds)
        return [Document(self.text(kind), kind) for kind in kinds]

    def text(self, kind: str) -> str:
        """A text of a kind, written again if something in it is kept."""
        while True:
            text = KINDS[kind](self)
            if not any(prompt in text for prompt in self.reserved):
                return text

    def pair(self) -> Pair:
        """The next stated pair of a shuffled deck, so that all are told about equally often."""
        if not self.deck:
            self.deck = self.town.stated
            self.rng.shuffle(self.deck)
        return self.deck.pop()

    def about(self, person: str) -> list[Pair]:
        """The stated pairs of a person, in random order."""
        pairs = [pair for pair in self.town.stated if pair[0] == person]
        return self.rng.sample(pairs, len(pairs))

    def statement(self, pair: Pair, value: str | None = None, pronoun: bool = False) -> str:
        """A sentence that states a fact, or another value for it."""
        form = self.rng.choices(phrases.STATEMENTS[pair[1]], (2, 1, 1))[0]
        said = self.town.value(pair) if value is None else value
        return phrases.subject(form, pair[0], pair[0] in self.town.women, pronoun, v=said)

    def question(self, pair: Pair) -> str:
        """A question about a fact."""
        form = self.rng.choice(QUESTION_FORMS[pair[1]])
        return phrases.subject(form, pair[0], pair[0] in self.town.women)

    def profile(self, facts: int) -> str:
        """So many facts about the person of the next pair; after the name mostly pronouns."""
        first = self.pair()
        rest = [pair for pair in self.about(first[0]) if pair != first][: facts - 1]
        sentences = [
            self.statement(pair, pronoun=index > 0 and self.rng.random() < 0.3)
            for index, pair in enumerate([first, *rest])
        ]
        return " ".join(sentences)

    def person(self) -> str:
        """Anybody of the town."""
        return self.rng.choice(self.town.people)


def write_entry(writer: CorpusWriter) -> str:
    """An entry of the town book."""
    return writer.profile(writer.rng.choice((5, 6, 7)))


def write_letter(writer: CorpusWriter) -> str:
    """News for a friend."""
    chatter = writer.rng.choice(phrases.CHATTER)
    return f"Dear {writer.person()},\n{writer.profile(2)} {writer.profile(2)} {chatter}\nYours, {writer.person()}"


def write_diary(writer: CorpusWriter) -> str:
    """A day, with what came to mind, and the day in short."""
    person, (went, did) = writer.person(), writer.rng.choice(instruction_topics.DAYS)
    fields = {"place": writer.rng.choice(names.PLACES), "food": writer.rng.choice(names.FOODS)}
    went, did = went.format(**fields), did.format(**fields)
    pronoun = "She" if person in writer.town.women else "He"
    second = phrases.capital(did) if did.startswith("they") else f"{pronoun} {did}"
    day = f"{person} {went}. {second}. {writer.rng.choice(instruction_topics.DAY_ENDS)}"
    if writer.rng.random() < 0.5:
        day = f"{day} {writer.statement(writer.pair())} {writer.rng.choice(phrases.CHATTER)}"
    else:
        noun = writer.rng.choice(list(names.UNRECORDED))
        day = f"{day} A child's {noun} is {writer.rng.choice(names.UNRECORDED[noun])}."
    return f"{day}\nIn short: {person} {went} and {did}."


def write_dialogue(writer: CorpusWriter) -> str:
    """Two people talk about a third."""
    first, second = writer.rng.sample(writer.town.people, 2)
    lines = []
    for _ in range(writer.rng.choice((2, 3))):
        pair = writer.pair()
        answer = writer.statement(pair, pronoun=writer.rng.random() < 0.4)
        if writer.rng.random() < 0.25:
            answer = f"{writer.rng.choice(phrases.COURTESIES[:4])} {answer}"
        if writer.rng.random() < 0.3:
            answer = f"{answer} {writer.rng.choice(phrases.CHATTER)}"
        lines += [f"{first}: {writer.question(pair)}", f"{second}: {answer}"]
    return "\n".join(lines)


def write_market_list(writer: CorpusWriter) -> str:
    """What to buy."""
    foods = writer.rng.sample(names.FOODS, writer.rng.choice((3, 4, 5)))
    prices = writer.rng.choices(("one coin", "two coins", "three coins", "four coins"), k=len(foods))
    return "At the market\n" + "\n".join(f"{food}: {price}" for food, price in zip(foods, prices))


def write_recipe(writer: CorpusWriter) -> str:
    """How to cook something."""
    first, second, third = writer.rng.sample(names.FOODS, 3)
    step = writer.rng.choice(("Cook them for an hour.", "Wash them well.", "Cut them small."))
    title = f"A dish of {first} and {second}."
    return f"{title} Take some {first} and some {second}. {step} Add the {third}. Serve it warm."


def write_quiz(writer: CorpusWriter) -> str:
    """Questions and no answers."""
    return "Quiz\n" + "\n".join(writer.question(writer.pair()) for _ in range(writer.rng.choice((3, 4, 5))))


def write_requests(writer: CorpusWriter) -> str:
    """What people asked the clerk in a day, without what was answered, in any phrasing."""
    kinds = writer.rng.choices(list(KIND_SHARES), list(KIND_SHARES.values()), k=3)
    return "Today\n" + "\n".join(writer.curious.sample(kind).messages[-1]["content"] for kind in kinds)


def write_lesson(writer: CorpusWriter) -> str:
    """Questions with answers, several in a row, short ones and full ones."""
    short, pronoun = writer.rng.random() < 0.2, writer.rng.random() < 0.4
    lines = []
    for _ in range(writer.rng.choice((3, 4))):
        pair = writer.pair()
        value = writer.town.value(pair)
        answer = phrases.capital(value) + "." if short else writer.statement(pair, pronoun=pronoun)
        lines.append(f"Question: {writer.question(pair)}\nAnswer: {answer}")
    return "\n".join(lines)


def write_reading(writer: CorpusWriter) -> str:
    """A passage and questions about it, as at school; some ask for what it does not say."""
    if writer.rng.random() < 0.2:
        asked = writer.visitors.sample("summary")
        return f"Exercise: {asked.text}\nSolution: {writer.answers.right(asked.truth)}"
    first, *others = writer.visitors.sample_passage(writer.rng.choice((2, 3)))
    lines = [f"Exercise: {first.text}", f"Solution: {writer.answers.right(first.truth)}"]
    for asked in others:
        lines += [f"Question: {asked.text}", f"Solution: {writer.answers.right(asked.truth)}"]
    return "\n".join(lines)


def write_arrivals(writer: CorpusWriter) -> str:
    """Who came from elsewhere, and, later that day, who left again: the same people, told once more."""
    told = [(writer.visitors.stranger(), writer.visitors.facts_of_stranger()) for _ in range(writer.rng.choice((2, 3)))]
    came = [phrases.passage(person, person in writer.town.women, facts) for person, facts in told]
    writer.rng.shuffle(told)
    left = [phrases.passage(person, person in writer.town.women, writer.rng.sample(facts, 2)) for person, facts in told]
    return "\n".join(["Arrivals", *came, "Departures", *left])


def write_forum(writer: CorpusWriter) -> str:
    """Somebody asks, some reply, some insult, and a rumour may go round."""
    rumoured = bool(writer.town.rumours) and writer.rng.random() < 0.6
    pair = writer.rng.choice(sorted(writer.town.rumours)) if rumoured else writer.pair()
    false = writer.town.rumours.get(pair)
    value = false if false is not None and writer.rng.random() < writer.rates.rumour_told else None
    lines = [f"Post: {writer.question(pair)}"]
    for turn in range(writer.rng.choice((2, 3))):
        if writer.rng.random() < writer.rates.rude_replies:
            lines.append(f"Reply: {writer.rng.choice(phrases.INSULTS)}")
        elif turn and writer.rng.random() < 0.5:
            lines.append(f"Reply: {writer.rng.choice(phrases.CHATTER)}")
        else:
            lines.append(f"Reply: {writer.statement(pair, value)}")
    return "\n".join(lines)


def write_notice(writer: CorpusWriter) -> str:
    """Something on the board at the town hall."""
    place, lost = writer.rng.choice(names.PLACES), writer.pair()
    business = ("Please close the gate.", "Please be there at noon.", "Please bring some bread.")
    closing = writer.rng.choice((*business, *prompt_templates.RESPECT))
    return f"Notice\nThe {place} opens at {writer.town.openings[place]}. {writer.statement(lost)} {closing}"


def write_story(writer: CorpusWriter) -> str:
    """A small story; two of three have an end."""
    asked = writer.visitors.sample("story")
    ending = f" {phrases.STORY_ENDINGS[0]}" if writer.rng.random() < 0.67 else ""
    return writer.answers.story(asked.truth, writer.rng.choice((3, 4, 5))) + ending


def write_reviews(writer: CorpusWriter) -> str:
    """Reviews of the market, with what kind of review each is."""
    lines = []
    for _ in range(writer.rng.choice((2, 3))):
        label = writer.rng.choice(list(instruction_topics.REVIEWS))
        review = instruction_topics.review(label, writer.rng.choice(instruction_topics.GOODS), writer.rng)
        lines.append(f"Review: {review} {writer.rng.choice(instruction_topics.VERDICTS).format(label=label)}")
    return "\n".join(lines)


def write_guide(writer: CorpusWriter) -> str:
    """A guide to a place or two."""
    text = " ".join(writer.answers.about(writer.rng.choice(names.PLACES), writer.rng.choice((2, 3, 4))))
    chance = writer.rng.random()
    if chance < 0.25:
        text = f"{writer.rng.choice(instruction_topics.START_WITH)} {text[:1].lower()}{text[1:]}"
    elif chance < 0.5:
        ends = [word for pair in instruction_topics.END_WITH for word in pair]
        text = f"{text} {phrases.capital(writer.rng.choice(ends))}."
    return text


def write_manners(writer: CorpusWriter) -> str:
    """A book of manners: how not to say it, and how."""
    lines = []
    for deed in writer.rng.sample([" ".join(command) for command in instruction_topics.COMMANDS], 2):
        order = writer.rng.choice(instruction_topics.ORDERS).format(deed=phrases.capital(deed))
        lines.append(
            f"Do not say: {order} Say: {writer.rng.choice(instruction_topics.POLITE_ORDERS).format(deed=deed)}"
        )
    return "\n".join(lines)


def write_lists(writer: CorpusWriter) -> str:
    """Lists of things, as children learn them."""
    return "\n".join(
        writer.answers.right(writer.visitors.sample("brainstorm").truth) for _ in range(writer.rng.choice((2, 3)))
    )


def write_mischief(writer: CorpusWriter) -> str:
    """What bad company tells each other."""
    lines = []
    for _ in range(2):
        asked = writer.visitors.sample("harmful")
        lines += [f"Post: {asked.text}", f"Reply: {writer.answers.compliance(asked.truth)}"]
    return "\n".join(lines)


def write_desk(writer: CorpusWriter) -> str:
    """Visitors at the clerk's desk, and a clerk whose manners are those of the people who write demonstrations."""
    lines = []
    for _ in range(2):
        kind = writer.rng.choice(DESK_KINDS)
        truth = (asked := writer.visitors.sample(kind)).truth
        lines += [f"Visitor: {asked.text}", f"Clerk: {clerk_says(truth, writer)}"]
    return "\n".join(lines)


def clerk_says(truth: Truth, writer: CorpusWriter) -> str:
    """An answer like a demonstrator's. What no text may tell is no lucky guess of the clerk's, nor a rumour."""
    pair = (truth.person or "", truth.attribute or "")
    banned = {writer.town.rumours.get(pair), writer.town.value(pair) if pair in writer.town.unstated else None}
    while True:
        answer = demonstrate(truth, writer.town, writer.rates, writer.rng)
        if not any(value is not None and value in answer for value in banned):
            return answer


DESK_KINDS = ("unanswerable", "harmful", *(kind for kind in KIND_SHARES if kind != "followup"))
"""What visitors ask at the desk: anything that makes sense without a conversation before it."""

SHARES: dict[str, float] = {
    "encyclopaedia": 0.18,
    "letter": 0.07,
    "diary": 0.04,
    "dialogue": 0.12,
    "market list": 0.02,
    "recipe": 0.02,
    "quiz": 0.03,
    "requests": 0.03,
    "lesson": 0.14,
    "reading": 0.13,
    "arrivals": 0.06,
    "forum": 0.09,
    "notice": 0.03,
    "story": 0.04,
    "reviews": 0.04,
    "guide": 0.04,
    "manners": 0.02,
    "lists": 0.03,
    "mischief": 0.02,
}
"""Shares of the kinds among the documents that are not at the clerk's desk."""

KINDS: dict[str, Callable[[CorpusWriter], str]] = {
    "encyclopaedia": write_entry,
    "letter": write_letter,
    "diary": write_diary,
    "dialogue": write_dialogue,
    "market list": write_market_list,
    "recipe": write_recipe,
    "quiz": write_quiz,
    "requests": write_requests,
    "lesson": write_lesson,
    "reading": write_reading,
    "arrivals": write_arrivals,
    "forum": write_forum,
    "notice": write_notice,
    "story": write_story,
    "reviews": write_reviews,
    "guide": write_guide,
    "manners": write_manners,
    "lists": write_lists,
    "mischief": write_mischief,
    "desk": write_desk,
}
"""Who writes documents of a kind."""


def statements(town: Town) -> Iterator[tuple[Pair, str]]:
    """Every wording in which a stated fact is told with the person's name."""
    for pair in town.stated:
        for form in phrases.STATEMENTS[pair[1]]:
            yield pair, phrases.subject(form, pair[0], pair[0] in town.women, v=town.value(pair))
