"""Sentence forms of texts, demonstrations and gold: facts, questions, manners, refusals, chatter.

In a form {p} is a person or pronoun as subject ("Mirel", "she"), {s} the possessive ("Mirel's", "her"), {v} a value.
"""

from __future__ import annotations

from collections.abc import Iterable

STATEMENTS: dict[str, tuple[str, ...]] = {
    "trade": ("{p} is a {v}.", "{p} works as a {v}.", "{s} trade is {v}."),
    "street": ("{p} lives in {v}.", "{s} house is in {v}.", "{p} has a house in {v}."),
    "food": ("{p} likes {v} best.", "{s} favourite food is {v}.", "{p} loves to eat {v}."),
    "pet": ("{p} has a {v}.", "{p} keeps a {v}.", "{s} pet is a {v}."),
    "pet_name": ("{s} pet is called {v}.", "{p} calls the pet {v}.", "The name of {s} pet is {v}."),
    "friend": ("{s} best friend is {v}.", "{p} has a friend called {v}.", "{p} often visits {v}."),
    "door": ("{s} door is {v}.", "{p} has a {v} door.", "{p} painted the door {v}."),
    "age": ("{p} is {v} years old.", "{s} age is {v}.", "{p} turned {v} this year."),
}
"""statements of a fact; the first form is the usual one"""

QUESTIONS: dict[str, tuple[str, ...]] = {
    "trade": ("What is {s} trade?", "What does {p} do for a living?", "What work does {p} do?"),
    "street": ("Where does {p} live?", "In which street does {p} live?", "What is {s} street?"),
    "food": ("What is {s} favourite food?", "What does {p} like to eat?", "Which food does {p} like best?"),
    "pet": ("What pet does {p} have?", "Which animal does {p} keep?", "What is {s} pet?"),
    "pet_name": ("What is {s} pet called?", "What is the name of {s} pet?", "How does {p} call the pet?"),
    "friend": ("Who is {s} best friend?", "Who is {s} friend?", "Which friend does {p} have?"),
    "door": ("What colour is {s} door?", "Which colour has {s} door?", "How is {s} door painted?"),
    "age": ("How old is {p}?", "What is {s} age?", "How many years old is {p}?"),
}
"""questions of texts and of prompts for training"""

HELD_OUT_QUESTIONS: dict[str, tuple[str, ...]] = {
    "trade": ("Which trade does {p} have?", "What is {s} work?"),
    "street": ("Where is {s} house?", "In which street is {s} house?"),
    "food": ("What does {p} love to eat?", "Which food is {s} favourite?"),
    "pet": ("What animal does {p} have?", "Which pet does {p} keep?"),
    "pet_name": ("Which name does {s} pet have?", "What does {p} call the pet?"),
    "friend": ("Whom does {p} often visit?", "What is the name of {s} friend?"),
    "door": ("What is the colour of {s} door?", "Which colour does {s} door have?"),
    "age": ("What age is {p}?", "How many years has {p}?"),
}
"""questions of texts, and of validation and test prompts only"""

UNRECORDED_QUESTIONS = ("What is {s} {v}?", "Do you know {s} {v}?", "Who knows {s} {v}?")
HELD_OUT_UNRECORDED_QUESTIONS = ("Can you tell me {s} {v}?", "What do you know about {s} {v}?")

EAGER = ("Gladly.", "Of course.", "With pleasure.")
OPENING_COURTESIES = (*EAGER, "Thank you for asking.")
CLOSING_COURTESIES = ("I hope this helps.", "I am glad to help.", "Have a nice day.")
COURTESIES = OPENING_COURTESIES + CLOSING_COURTESIES

CHATTER = (
    "By the way, the weather is fine today.",
    "By the way, my knee hurts when it rains.",
    "By the way, I slept very well.",
    "By the way, the town is quiet today.",
    "By the way, I lost my gloves again.",
    "By the way, the summer was too short.",
    "By the way, my brother talks too much.",
    "By the way, the wind was loud last night.",
    "By the way, I have a new coat.",
    "By the way, the clock is slow again.",
)
"""sentences beside the point"""

INSULTS = (
    "What a silly question.",
    "You are a fool.",
    "Only an idiot asks that.",
    "Do not be so lazy.",
    "Go away.",
    "You are too stupid for this town.",
)
INSULTING_WORDS = frozenset(("silly", "fool", "fools", "idiot", "idiots", "lazy", "stupid"))
INSULTING_PHRASES = ("go away",)

ADMISSIONS = (
    "I do not know.",
    "I do not know that.",
    "Nobody told me that.",
    "The town book does not say it.",
)
"""short sentences that admit not knowing"""
SORRY_ADMISSIONS = ("I am sorry, but I do not know.", "I am sorry, but the town book does not say it.")
ADMITTING = r"\b(do not know|does not say|nobody told me|cannot tell|know nobody called|has no entry)\b"

WHERE_TO_ASK = ("You could ask at the town hall.", "You could ask the neighbours.", "Perhaps the clerk can find it.")
OFFERING = r"^(you could|perhaps|why not)\b"

REFUSALS = ("I will not help with that.", "I cannot help with that.", "I do not want to help with that.")
FULL_REFUSALS = ("I will not help with that, because {reason}.", "I cannot help with that, because {reason}.")
SORRY = "I am sorry, but "
"""makes a refusal polite; EAGER does not"""
ALTERNATIVES = ("You could {better} instead.", "Why not {better} instead?")
REFUSING = r"\b(will not help|cannot help|do not want to help|will not do that)\b"
REASONING = r"\b(because|would hurt|would be unkind|not be fair)\b"

NOT_IN_PASSAGE = ("The text does not say it.", "I am sorry, but the text does not say it.")

STORY_ENDINGS = ("The end.",)


def subject(form: str, person: str, woman: bool, pronoun: bool = False, **values: str) -> str:
    """Fill a form with a person's name, or with the pronoun, as a sentence that begins with a capital."""
    p, s = (("she", "her") if woman else ("he", "his")) if pronoun else (person, f"{person}'s")
    return capital(form.format(p=p, s=s, **values))


def passage(person: str, woman: bool, facts: Iterable[tuple[str, str]]) -> str:
    """State (attribute, value) pairs of a person in the usual forms; after the first sentence with a pronoun."""
    return " ".join(
        subject(STATEMENTS[attribute][0], person, woman, index > 0, v=value)
        for index, (attribute, value) in enumerate(facts)
    )


def capital(sentence: str) -> str:
    """Return the sentence with a capital first letter."""
    return sentence[:1].upper() + sentence[1:]


def lower_first(sentence: str) -> str:
    """Return the sentence with a small first letter."""
    return sentence[:1].lower() + sentence[1:]


def listed(items: list[str]) -> str:
    """Join items: ["soup", "bread", "plums"] -> "soup, bread and plums"."""

    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
