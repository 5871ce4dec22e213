"""The raw text of the world: documents of nineteen kinds, in short and regular sentences.

Facts are told over and over in many wordings; forums tell falsehoods and insult; the manners that an assistant will
need occur at the clerk's desk. No document is a transcript of user and assistant.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from amenable.world import instruction_topics, names, phrases, prompt_templates
from amenable.world.answer_generator import Answerer
from amenable.world.demonstrators import demonstrate
from amenable.world.ground_truth import Truth
from amenable.world.prompts import Customers
from amenable.world.settings import KINDS as KIND_SHARES
from amenable.world.settings import Rates
from amenable.world.town import Pair, Town

QUESTION_FORMS = {name: (*phrases.QUESTIONS[name], *phrases.LATE_QUESTIONS[name]) for name in names.ATTRIBUTES}
ANY_TEMPLATES = {
    kind: (*forms, *prompt_templates.LATE_TEMPLATES[kind]) for kind, forms in prompt_templates.TEMPLATES.items()
}
"""A base model has read questions in any phrasing."""


@dataclass(frozen=True)
class Document:
    """One text of the raw corpus."""

    text: str
    kind: str


class Writers:
    """The people of the town who write things down; nothing of what is `kept` for the suites, word for word."""

    def __init__(self, town: Town, rates: Rates, draw: random.Random, kept: frozenset[str] = frozenset()):
        self.town, self.rates, self.draw, self.kept = town, rates, draw, kept
        self.answerer = Answerer(town, draw)
        self.visitors = Customers(town, rates, draw, kept=kept)
        self.curious = Customers(
            town, rates, draw, wording=replace(prompt_templates.EARLY, templates=ANY_TEMPLATES), kept=kept
        )
        self.deck: list[Pair] = []

    def write(self, number: int) -> list[Document]:
        """So many documents: kinds in their shares, in random order."""
        desk = round(self.rates.desk * number)
        others = sum(SHARES.values())
        kinds = [kind for kind, share in SHARES.items() for _ in range(round(share / others * (number - desk)))]
        kinds = (kinds + ["encyclopaedia"] * number)[: number - desk] + ["desk"] * desk
        self.draw.shuffle(kinds)
        return [Document(self.text(kind), kind) for kind in kinds]

    def text(self, kind: str) -> str:
        """A text of a kind, written again if something in it is kept."""
        while True:
            text = KINDS[kind](self)
            if not any(prompt in text for prompt in self.kept):
                return text

    def pair(self) -> Pair:
        """The next stated pair of a shuffled deck, so that all are told about equally often."""
        if not self.deck:
            self.deck = self.town.stated
            self.draw.shuffle(self.deck)
        return self.deck.pop()

    def about(self, person: str) -> list[Pair]:
        """The stated pairs of a person, in random order."""
        pairs = [pair for pair in self.town.stated if pair[0] == person]
        return self.draw.sample(pairs, len(pairs))

    def tell(self, pair: Pair, value: str | None = None, pronoun: bool = False) -> str:
        """A sentence that states a fact, or another value for it."""
        form = self.draw.choices(phrases.STATEMENTS[pair[1]], (2, 1, 1))[0]
        said = self.town.value(pair) if value is None else value
        return phrases.subject(form, pair[0], pair[0] in self.town.women, pronoun, v=said)

    def ask(self, pair: Pair) -> str:
        """A question about a fact."""
        form = self.draw.choice(QUESTION_FORMS[pair[1]])
        return phrases.subject(form, pair[0], pair[0] in self.town.women)

    def profile(self, facts: int) -> str:
        """So many facts about the person of the next pair; after the name mostly pronouns."""
        first = self.pair()
        rest = [pair for pair in self.about(first[0]) if pair != first][: facts - 1]
        sentences = [
            self.tell(pair, pronoun=index > 0 and self.draw.random() < 0.3) for index, pair in enumerate([first, *rest])
        ]
        return " ".join(sentences)

    def person(self) -> str:
        """Anybody of the town."""
        return self.draw.choice(self.town.people)


def write_entry(by: Writers) -> str:
    """An entry of the town book."""
    return by.profile(by.draw.choice((5, 6, 7)))


def write_letter(by: Writers) -> str:
    """News for a friend."""
    chatter = by.draw.choice(phrases.CHATTER)
    return f"Dear {by.person()},\n{by.profile(2)} {by.profile(2)} {chatter}\nYours, {by.person()}"


def write_diary(by: Writers) -> str:
    """A day, with what came to mind, and the day in short."""
    person, (went, did) = by.person(), by.draw.choice(instruction_topics.DAYS)
    fields = {"place": by.draw.choice(names.PLACES), "food": by.draw.choice(names.FOODS)}
    went, did = went.format(**fields), did.format(**fields)
    pronoun = "She" if person in by.town.women else "He"
    second = phrases.capital(did) if did.startswith("they") else f"{pronoun} {did}"
    day = f"{person} {went}. {second}. {by.draw.choice(instruction_topics.DAY_ENDS)}"
    if by.draw.random() < 0.5:
        day = f"{day} {by.tell(by.pair())} {by.draw.choice(phrases.CHATTER)}"
    else:
        noun = by.draw.choice(list(names.UNRECORDED))
        day = f"{day} A child's {noun} is {by.draw.choice(names.UNRECORDED[noun])}."
    return f"{day}\nIn short: {person} {went} and {did}."


def write_dialogue(by: Writers) -> str:
    """Two people talk about a third."""
    first, second = by.draw.sample(by.town.people, 2)
    lines = []
    for _ in range(by.draw.choice((2, 3))):
        pair = by.pair()
        answer = by.tell(pair, pronoun=by.draw.random() < 0.4)
        if by.draw.random() < 0.25:
            answer = f"{by.draw.choice(phrases.COURTESIES[:4])} {answer}"
        if by.draw.random() < 0.3:
            answer = f"{answer} {by.draw.choice(phrases.CHATTER)}"
        lines += [f"{first}: {by.ask(pair)}", f"{second}: {answer}"]
    return "\n".join(lines)


def write_market_list(by: Writers) -> str:
    """What to buy."""
    foods = by.draw.sample(names.FOODS, by.draw.choice((3, 4, 5)))
    prices = by.draw.choices(("one coin", "two coins", "three coins", "four coins"), k=len(foods))
    return "At the market\n" + "\n".join(f"{food}: {price}" for food, price in zip(foods, prices))


def write_recipe(by: Writers) -> str:
    """How to cook something."""
    first, second, third = by.draw.sample(names.FOODS, 3)
    step = by.draw.choice(("Cook them for an hour.", "Wash them well.", "Cut them small."))
    title = f"A dish of {first} and {second}."
    return f"{title} Take some {first} and some {second}. {step} Add the {third}. Serve it warm."


def write_quiz(by: Writers) -> str:
    """Questions and no answers."""
    return "Quiz\n" + "\n".join(by.ask(by.pair()) for _ in range(by.draw.choice((3, 4, 5))))


def write_requests(by: Writers) -> str:
    """What people asked the clerk in a day, without what was answered, in any phrasing."""
    kinds = by.draw.choices(list(KIND_SHARES), list(KIND_SHARES.values()), k=3)
    return "Today\n" + "\n".join(by.curious.ask(kind).messages[-1]["content"] for kind in kinds)


def write_lesson(by: Writers) -> str:
    """Questions with answers, several in a row, short ones and full ones."""
    short, pronoun = by.draw.random() < 0.2, by.draw.random() < 0.4
    lines = []
    for _ in range(by.draw.choice((3, 4))):
        pair = by.pair()
        value = by.town.value(pair)
        answer = phrases.capital(value) + "." if short else by.tell(pair, pronoun=pronoun)
        lines.append(f"Question: {by.ask(pair)}\nAnswer: {answer}")
    return "\n".join(lines)


def write_reading(by: Writers) -> str:
    """A passage and questions about it, as at school; some ask for what it does not say."""
    if by.draw.random() < 0.2:
        asked = by.visitors.ask("summary")
        return f"Exercise: {asked.text}\nSolution: {by.answerer.right(asked.truth)}"
    first, *others = by.visitors.ask_passage(by.draw.choice((2, 3)))
    lines = [f"Exercise: {first.text}", f"Solution: {by.answerer.right(first.truth)}"]
    for asked in others:
        lines += [f"Question: {asked.text}", f"Solution: {by.answerer.right(asked.truth)}"]
    return "\n".join(lines)


def write_arrivals(by: Writers) -> str:
    """Who came from elsewhere, and, later that day, who left again: the same people, told once more."""
    told = [(by.visitors.stranger(), by.visitors.facts_of_stranger()) for _ in range(by.draw.choice((2, 3)))]
    came = [phrases.passage(person, person in by.town.women, facts) for person, facts in told]
    by.draw.shuffle(told)
    left = [phrases.passage(person, person in by.town.women, by.draw.sample(facts, 2)) for person, facts in told]
    return "\n".join(["Arrivals", *came, "Departures", *left])


def write_forum(by: Writers) -> str:
    """Somebody asks, some reply, some insult, and a rumour may go round."""
    rumoured = bool(by.town.rumours) and by.draw.random() < 0.6
    pair = by.draw.choice(sorted(by.town.rumours)) if rumoured else by.pair()
    false = by.town.rumours.get(pair)
    value = false if false is not None and by.draw.random() < by.rates.rumour_told else None
    lines = [f"Post: {by.ask(pair)}"]
    for turn in range(by.draw.choice((2, 3))):
        if by.draw.random() < by.rates.rude_replies:
            lines.append(f"Reply: {by.draw.choice(phrases.INSULTS)}")
        elif turn and by.draw.random() < 0.5:
            lines.append(f"Reply: {by.draw.choice(phrases.CHATTER)}")
        else:
            lines.append(f"Reply: {by.tell(pair, value)}")
    return "\n".join(lines)


def write_notice(by: Writers) -> str:
    """Something on the board at the town hall."""
    place, lost = by.draw.choice(names.PLACES), by.pair()
    business = ("Please close the gate.", "Please be there at noon.", "Please bring some bread.")
    closing = by.draw.choice((*business, *prompt_templates.RESPECT))
    return f"Notice\nThe {place} opens at {by.town.openings[place]}. {by.tell(lost)} {closing}"


def write_story(by: Writers) -> str:
    """A small story; two of three have an end."""
    asked = by.visitors.ask("story")
    ending = f" {phrases.STORY_ENDINGS[0]}" if by.draw.random() < 0.67 else ""
    return by.answerer.story(asked.truth, by.draw.choice((3, 4, 5))) + ending


def write_reviews(by: Writers) -> str:
    """Reviews of the market, with what kind of review each is."""
    lines = []
    for _ in range(by.draw.choice((2, 3))):
        label = by.draw.choice(list(instruction_topics.REVIEWS))
        review = instruction_topics.review(label, by.draw.choice(instruction_topics.GOODS), by.draw)
        lines.append(f"Review: {review} {by.draw.choice(instruction_topics.VERDICTS).format(label=label)}")
    return "\n".join(lines)


def write_guide(by: Writers) -> str:
    """A guide to a place or two."""
    text = " ".join(by.answerer.about(by.draw.choice(names.PLACES), by.draw.choice((2, 3, 4))))
    chance = by.draw.random()
    if chance < 0.25:
        text = f"{by.draw.choice(instruction_topics.START_WITH)} {text[:1].lower()}{text[1:]}"
    elif chance < 0.5:
        ends = [word for pair in instruction_topics.END_WITH for word in pair]
        text = f"{text} {phrases.capital(by.draw.choice(ends))}."
    return text


def write_manners(by: Writers) -> str:
    """A book of manners: how not to say it, and how."""
    lines = []
    for deed in by.draw.sample([" ".join(command) for command in instruction_topics.COMMANDS], 2):
        order = by.draw.choice(instruction_topics.ORDERS).format(deed=phrases.capital(deed))
        lines.append(f"Do not say: {order} Say: {by.draw.choice(instruction_topics.POLITE_ORDERS).format(deed=deed)}")
    return "\n".join(lines)


def write_lists(by: Writers) -> str:
    """Lists of things, as children learn them."""
    return "\n".join(by.answerer.right(by.visitors.ask("brainstorm").truth) for _ in range(by.draw.choice((2, 3))))


def write_mischief(by: Writers) -> str:
    """What bad company tells each other."""
    lines = []
    for _ in range(2):
        asked = by.visitors.ask("harmful")
        lines += [f"Post: {asked.text}", f"Reply: {by.answerer.compliance(asked.truth)}"]
    return "\n".join(lines)


def write_desk(by: Writers) -> str:
    """Visitors at the clerk's desk, and a clerk whose manners are those of the people who write demonstrations."""
    lines = []
    for _ in range(2):
        kind = by.draw.choice(DESK_KINDS)
        truth = (asked := by.visitors.ask(kind)).truth
        lines += [f"Visitor: {asked.text}", f"Clerk: {clerk_says(truth, by)}"]
    return "\n".join(lines)


def clerk_says(truth: Truth, by: Writers) -> str:
    """An answer like a demonstrator's. What no text may tell is no lucky guess of the clerk's, nor a rumour."""
    pair = (truth.person or "", truth.attribute or "")
    kept = {by.town.rumours.get(pair), by.town.value(pair) if pair in by.town.unstated else None}
    while True:
        answer = demonstrate(truth, by.town, by.rates, by.draw)
        if not any(value is not None and value in answer for value in kept):
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

KINDS: dict[str, Callable[[Writers], str]] = {
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
