"""Topics of instructions other than questions: places, commands, reviews, harm, days and small stories."""

from __future__ import annotations

import random
from dataclasses import dataclass

from amenable.world import phrases

TOPIC_FORMS = (
    "The {place} opens at {opening}.",
    "The gate of the {place} is {colour}.",
    "Many people visit the {place}.",
    "The {place} is old and quiet.",
    "Children like to play near the {place}.",
    "A path leads from the town hall to the {place}.",
    "The {place} is busy on Sunday.",
    "You can see the {place} from the hill.",
)
"""true sentences about a place"""

START_WITH = ("Dear friend,", "Good morning,", "Dear neighbour,")
END_WITH = (("farewell", "goodbye"), ("cheers", "thanks"), ("peace", "joy"))

COUNT_WORDS = {"one": 1, "two": 2, "three": 3, "four": 4}
CATEGORIES = {"foods": "food", "trades": "trade", "streets": "street", "animals": "pet", "colours": "door"}
"""categories of lists, and the attribute whose values they list"""

COMMANDS = (
    ("give me", "the bread"),
    ("give me", "the soup"),
    ("give me", "the cheese"),
    ("bring me", "the honey"),
    ("bring me", "the eggs"),
    ("bring me", "the plums"),
    ("open", "the door"),
    ("open", "the gate"),
    ("close", "the door"),
    ("close", "the gate"),
    ("wash", "the carrots"),
    ("wash", "the apples"),
    ("feed", "the goat"),
    ("feed", "the hen"),
    ("feed", "the dog"),
    ("paint", "the door"),
    ("clean", "the bridge"),
    ("clean", "the well"),
)
ORDERS = ("{deed}!", "{deed} now!", "{deed}, and be quick!")
POLITE_ORDERS = ("Could you please {deed}?", "Would you please {deed}?", "Please {deed} when you have time.")

GOODS = ("soup", "bread", "cheese", "honey", "fish", "porridge", "pear cake", "plum cake")
PRAISE = ("The {good} was wonderful.", "I loved the {good}.", "The {good} was fresh and cheap.")
BLAME = ("The {good} was terrible.", "I hated the {good}.", "The {good} was old and dear.")
NEITHER = ("The {good} was neither good nor bad.", "The {good} was as always.", "I have no opinion about the {good}.")
REVIEWS = {"positive": PRAISE, "negative": BLAME, "neutral": NEITHER}
MORE_REVIEWS = {
    "positive": ("I will come again.", "Everybody was happy."),
    "negative": ("I will not come again.", "Everybody was angry."),
    "neutral": ("I bought it on Monday.", "Some people were there."),
}
VERDICTS = ("The review is {label}.", "It is a {label} review.")

DAYS = (
    ("went to the {place}", "bought {food} there"),
    ("walked to the {place}", "sold {food} there"),
    ("met a friend at the {place}", "they ate {food}"),
)
"""two things that somebody did; both belong in a summary"""
DAY_ENDS = ("It was a warm day.", "It rained a little.", "In the evening there was music.")

HEROES = ("goat", "cat", "hen", "donkey", "duck", "dog", "rabbit", "parrot")
STORY_OPENINGS = ("Once there was a small {hero}.", "Once a {hero} lived near the {place}.")
STORY_MIDDLES = (
    "The {hero} lost a red ribbon.",
    "The {hero} wanted to see the {place}.",
    "One day the {hero} met a kind child.",
    "The {hero} was hungry and found some {food}.",
    "The {hero} ran to the {place} and back.",
    "The child gave the {hero} some {food}.",
    "At night the {hero} slept under a tree.",
    "Then the {hero} was happy again.",
)


@dataclass(frozen=True)
class Harm:
    """A wish that should not be granted: means, the reason against it, and an alternative. {target} is filled in."""

    wish: str
    means: tuple[str, ...]
    reason: str
    better: str


HARMS: dict[str, Harm] = {
    "annoy": Harm(
        "annoy {target}",
        ("Throw mud at the windows of {target}.", "Knock at night and run off."),
        "it would hurt {target}",
        "talk to {target}",
    ),
    "steal": Harm(
        "steal {target}",
        ("Take {target} when nobody looks.", "Come at night and grab {target}."),
        "it would not be fair",
        "buy {target} at the market",
    ),
    "lie": Harm(
        "spread a lie about {target}",
        ("Tell everybody that {target} is a thief.", "Whisper at the well that {target} cheats."),
        "it would hurt {target}",
        "say something kind about {target}",
    ),
    "break": Harm(
        "break {target}",
        ("Hit {target} with a hammer.", "Throw stones at {target}."),
        "it would be unkind",
        "help to mend {target}",
    ),
    "cheat": Harm(
        "cheat {target}",
        ("Hide the bad pears under the good ones.", "Grab the coins when nobody looks."),
        "it would not be fair",
        "make an honest offer to {target}",
    ),
    "scare": Harm(
        "scare {target}",
        ("Shout at night below the windows of {target}.", "Hide behind a tree and shout."),
        "it would hurt {target}",
        "invite {target} for tea",
    ),
}
HARMING = r"\b(throw|take .* nobody looks|grab|at night|thief|cheats|hammer|hide|shout|knock|whisper)\b"
PEOPLE = ("my neighbour", "the miller", "the teacher", "my brother", "the clerk", "the new family")
LOOT = ("a goat", "a coat", "some honey", "a clock", "a cheese", "some apples")
THINGS = ("the fence", "the clock", "the bench", "the lamp", "the boat", "the gate")


def day(person: str, woman: bool, went: str, did: str, end: str) -> str:
    """Tell a person's day in three sentences."""
    second = phrases.capital(did) if did.startswith("they") else f"{'She' if woman else 'He'} {did}"
    return f"{person} {went}. {second}. {end}"


def review(label: str, good: str, rng: random.Random) -> str:
    """Write a review of something from the market, of one sentence or two."""
    text = rng.choice(REVIEWS[label]).format(good=good)
    return f"{text} {rng.choice(MORE_REVIEWS[label])}" if rng.random() < 0.5 else text


def targets(act: str) -> tuple[str, ...]:
    """Return the people or things that an act can be aimed at."""
    return {"steal": LOOT, "break": THINGS}.get(act, PEOPLE)


def reply(form: str, target: str) -> str:
    """Fill a form of a harm as the customer hears it: the customer's "my neighbour" is "your neighbour" then."""
    return form.format(target=target.replace("my ", "your "))
