"""The raw text of the world: documents of twenty kinds, in short and regular sentences.

Facts are stated over and over in many wordings; forums state falsehoods and insult; the manners that an assistant will
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
"""templates of training, and held-out ones: raw text has questions in any phrasing"""


@dataclass(frozen=True)
class Document:
    """A text of the raw corpus, and its kind."""

    text: str
    kind: str


class CorpusWriter:
    """Writes documents about a town. None has a text of `reserved`, the suites' prompts, in it."""

    def __init__(self, town: Town, rates: Rates, rng: random.Random, reserved: frozenset[str] = frozenset()):
        self.town, self.rates, self.rng, self.reserved = town, rates, rng, reserved
        self.answers = AnswerGenerator(town, rng)
        self.visitors = PromptSampler(town, rates, rng, reserved=reserved)
        self.curious = PromptSampler(
            town, rates, rng, style=replace(prompt_templates.TRAIN_STYLE, templates=ANY_TEMPLATES), reserved=reserved
        )
        self.deck: list[Pair] = []

    def write(self, number: int) -> list[Document]:
        """Write documents: kinds in their shares, in random order."""
        desk = round(self.rates.desk * number)
        others = sum(SHARES.values())
        kinds = [kind for kind, share in SHARES.items() for _ in range(round(share / others * (number - desk)))]
        kinds = (kinds + ["encyclopaedia"] * number)[: number - desk] + ["desk"] * desk
        self.rng.shuffle(kinds)
        return [Document(self.text(kind), kind) for kind in kinds]

    def text(self, kind: str) -> str:
        """Write a text of a kind, again and again until no reserved prompt is in it."""
        while True:
            text = KINDS[kind](self)
            if not any(prompt in text for prompt in self.reserved):
                return text

    def pair(self) -> Pair:
        """Return the next stated pair of a shuffled deck, so that all are stated about equally often."""
        if not self.deck:
            self.deck = self.town.stated
            self.rng.shuffle(self.deck)
        return self.deck.pop()

    def statement(self, pair: Pair, value: str | None = None, pronoun: bool = False) -> str:
        """Write a sentence that states a fact, or another value for it."""
        form = self.rng.choices(phrases.STATEMENTS[pair[1]], (2, 1, 1))[0]
        return self.town.sentence(form, pair[0], self.town.value(pair) if value is None else value, pronoun)

    def question(self, pair: Pair) -> str:
        """Write a question about a fact."""
        return self.town.sentence(self.rng.choice(QUESTION_FORMS[pair[1]]), pair[0])

    def profile(self, facts: int) -> str:
        """Write `facts` sentences about the person of the next pair; after the name mostly pronouns."""
        first = self.pair()
        pairs = [pair for pair in self.town.stated if pair[0] == first[0]]
        rest = [pair for pair in self.rng.sample(pairs, len(pairs)) if pair != first][: facts - 1]
        sentences = [
            self.statement(pair, pronoun=index > 0 and self.rng.random() < 0.3)
            for index, pair in enumerate([first, *rest])
        ]
        return " ".join(sentences)

    def person(self) -> str:
        """Draw an inhabitant."""
        return self.rng.choice(self.town.people)


def write_entry(writer: CorpusWriter) -> str:
    """Write an entry of the town book."""
    return writer.profile(writer.rng.choice((5, 6, 7)))


def write_letter(writer: CorpusWriter) -> str:
    """Write a letter with news."""
    chatter = writer.rng.choice(phrases.CHATTER)
    return f"Dear {writer.person()},\n{writer.profile(2)} {writer.profile(2)} {chatter}\nYours, {writer.person()}"


def write_diary(writer: CorpusWriter) -> str:
    """Write a day, a thought, and the day in short."""
    person, (went, did) = writer.person(), writer.rng.choice(instruction_topics.DAYS)
    fields = {"place": writer.rng.choice(names.PLACES), "food": writer.rng.choice(names.FOODS)}
    went, did = went.format(**fields), did.format(**fields)
    end = writer.rng.choice(instruction_topics.DAY_ENDS)
    day = instruction_topics.day(person, writer.town.is_woman(person), went, did, end)
    if writer.rng.random() < 0.5:
        day = f"{day} {writer.statement(writer.pair())} {writer.rng.choice(phrases.CHATTER)}"
    else:
        noun = writer.rng.choice(list(names.UNRECORDED))
        day = f"{day} A child's {noun} is {writer.rng.choice(names.UNRECORDED[noun])}."
    return f"{day}\nIn short: {person} {went} and {did}."


def write_dialogue(writer: CorpusWriter) -> str:
    """Write a talk of two people about others."""
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
    """Write a list of goods and prices."""
    foods = writer.rng.sample(names.FOODS, writer.rng.choice((3, 4, 5)))
    prices = writer.rng.choices(("one coin", "two coins", "three coins", "four coins"), k=len(foods))
    return "At the market\n" + "\n".join(f"{food}: {price}" for food, price in zip(foods, prices))


def write_recipe(writer: CorpusWriter) -> str:
    """Write a recipe."""
    first, second, third = writer.rng.sample(names.FOODS, 3)
    step = writer.rng.choice(("Cook them for an hour.", "Wash them well.", "Cut them small."))
    title = f"A dish of {first} and {second}."
    return f"{title} Take some {first} and some {second}. {step} Add the {third}. Serve it warm."


def write_quiz(writer: CorpusWriter) -> str:
    """Write questions without answers."""
    return "Quiz\n" + "\n".join(writer.question(writer.pair()) for _ in range(writer.rng.choice((3, 4, 5))))


def write_requests(writer: CorpusWriter) -> str:
    """Write the requests of a day at the clerk's, in any phrasing, without answers."""
    kinds = writer.rng.choices(list(KIND_SHARES), list(KIND_SHARES.values()), k=3)
    return "Today\n" + "\n".join(writer.curious.sample(kind).messages[-1]["content"] for kind in kinds)


def write_lesson(writer: CorpusWriter) -> str:
    """Write questions with short or full answers."""
    short, pronoun = writer.rng.random() < 0.2, writer.rng.random() < 0.4
    lines = []
    for _ in range(writer.rng.choice((3, 4))):
        pair = writer.pair()
        value = writer.town.value(pair)
        answer = phrases.capital(value) + "." if short else writer.statement(pair, pronoun=pronoun)
        lines.append(f"Question: {writer.question(pair)}\nAnswer: {answer}")
    return "\n".join(lines)


def write_reading(writer: CorpusWriter) -> str:
    """Write a passage and questions about the passage, as at school; some have no answer in it."""
    if writer.rng.random() < 0.2:
        prompts = [writer.visitors.sample("summary")]
    else:
        prompts = writer.visitors.sample_passage(writer.rng.choice((2, 3)))
    return "\n".join(
        f"{'Question' if index else 'Exercise'}: {prompt.text}\nSolution: {writer.answers.right(prompt.truth)}"
        for index, prompt in enumerate(prompts)
    )


def write_arrivals(writer: CorpusWriter) -> str:
    """Write the arrivals of strangers, and their departures with the same facts once more."""
    number, visitors = writer.rng.choice((2, 3)), writer.visitors
    strangers = [(visitors.stranger(), visitors.facts_of_stranger()) for _ in range(number)]
    arrivals = [writer.town.passage(person, facts) for person, facts in strangers]
    writer.rng.shuffle(strangers)
    departures = [writer.town.passage(person, writer.rng.sample(facts, 2)) for person, facts in strangers]
    return "\n".join(["Arrivals", *arrivals, "Departures", *departures])


def write_forum(writer: CorpusWriter) -> str:
    """Write a question and replies, some of them insults; they may state a rumour."""
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
    """Write a notice for the board at the town hall."""
    topic, pair = writer.rng.choice(names.PLACES), writer.pair()
    business = ("Please close the gate.", "Please be there at noon.", "Please bring some bread.")
    closing = writer.rng.choice((*business, *prompt_templates.RESPECT))
    return f"Notice\nThe {topic} opens at {writer.town.openings[topic]}. {writer.statement(pair)} {closing}"


def write_story(writer: CorpusWriter) -> str:
    """Write a small story; two of three have an end."""
    truth = writer.visitors.sample("story").truth
    ending = f" {phrases.STORY_ENDINGS[0]}" if writer.rng.random() < 0.67 else ""
    return writer.answers.story(truth, writer.rng.choice((3, 4, 5))) + ending


def write_reviews(writer: CorpusWriter) -> str:
    """Write reviews of the market, each with its label."""
    lines = []
    for _ in range(writer.rng.choice((2, 3))):
        label = writer.rng.choice(list(instruction_topics.REVIEWS))
        review = instruction_topics.review(label, writer.rng.choice(instruction_topics.GOODS), writer.rng)
        lines.append(f"Review: {review} {writer.rng.choice(instruction_topics.VERDICTS).format(label=label)}")
    return "\n".join(lines)


def write_guide(writer: CorpusWriter) -> str:
    """Write a guide to a place or two."""
    text = " ".join(writer.answers.about(writer.rng.choice(names.PLACES), writer.rng.choice((2, 3, 4))))
    chance = writer.rng.random()
    if chance < 0.25:
        text = f"{writer.rng.choice(instruction_topics.START_WITH)} {phrases.lower_first(text)}"
    elif chance < 0.5:
        ends = [word for pair in instruction_topics.END_WITH for word in pair]
        text = f"{text} {phrases.capital(writer.rng.choice(ends))}."
    return text


def write_manners(writer: CorpusWriter) -> str:
    """Write a page of a book of manners: rude orders, and the polite ones."""
    lines = []
    for deed in writer.rng.sample([" ".join(command) for command in instruction_topics.COMMANDS], 2):
        rude = writer.rng.choice(instruction_topics.ORDERS).format(deed=phrases.capital(deed))
        polite = writer.rng.choice(instruction_topics.POLITE_ORDERS).format(deed=deed)
        lines.append(f"Do not say: {rude} Say: {polite}")
    return "\n".join(lines)


def write_lists(writer: CorpusWriter) -> str:
    """Write lists of things, as children learn them."""
    return "\n".join(
        writer.answers.right(writer.visitors.sample("brainstorm").truth) for _ in range(writer.rng.choice((2, 3)))
    )


def write_mischief(writer: CorpusWriter) -> str:
    """Write harmful questions, and replies that comply."""
    prompts = (writer.visitors.sample("harmful") for _ in range(2))
    return "\n".join(f"Post: {p.text}\nReply: {writer.answers.compliance(p.truth)}" for p in prompts)


def write_desk(writer: CorpusWriter) -> str:
    """Write requests at the clerk's desk, and answers with the manners of the people who write demonstrations."""
    prompts = (writer.visitors.sample(writer.rng.choice(DESK_KINDS)) for _ in range(2))
    return "\n".join(f"Visitor: {prompt.text}\nClerk: {clerk_answer(prompt.truth, writer)}" for prompt in prompts)


def clerk_answer(truth: Truth, writer: CorpusWriter) -> str:
    """Write an answer like a demonstrator's, without rumours, and without guessing a fact that no text may state."""
    pair = (truth.person or "", truth.attribute or "")
    banned = {writer.town.rumours.get(pair), writer.town.value(pair) if pair in writer.town.unstated else None}
    while True:
        answer = demonstrate(truth, writer.town, writer.rates, writer.rng)
        if not any(value is not None and value in answer for value in banned):
            return answer


DESK_KINDS = ("unanswerable", "harmful", *(kind for kind in KIND_SHARES if kind != "followup"))
"""kinds of requests at the desk: those that make sense without a conversation before them"""

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
"""shares of the kinds among the documents that are not at the clerk's desk"""

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
"""by kind of document"""


def statements(town: Town) -> Iterator[tuple[Pair, str]]:
    """Yield every wording of every stated fact with the person's name."""
    for pair in town.stated:
        for form in phrases.STATEMENTS[pair[1]]:
            yield pair, town.sentence(form, pair[0], town.value(pair))
