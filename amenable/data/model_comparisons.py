"""Published comparisons of the answers of two models.

    Chatbot Arena    model_a, model_b, conversation_a, conversation_b, judge,
                     winner (model_a, model_b, tie, tie (bothbad) or both_bad)
    LMSYS, Kaggle    model_a, model_b, prompt, response_a, response_b (the last three JSON lists as text),
                     winner_model_a, winner_model_b, winner_tie (one of them 1)
    AlpacaEval       instruction[, input], output_1, generator_1, output_2, generator_2, annotator,
                     preference (1 the first, 2 the second, or between; 1.5 a tie)

The winner may also be the name of a model. A row whose winner is ambiguous (a model named "model_b" is `model_a`) is
rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amenable.data.files import has_lone_surrogate, parse_json
from amenable.data.record import InvalidRow, is_number, text_of, words_of
from amenable.data.turns import turns
from amenable.data.types import Conversation, Message

SIDES = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "both_bad": 0.5, "bothbad": 0.5, "tie (bothbad)": 0.5}
LETTERS = {"a": 1.0, "b": 0.0}
"""sides by one letter, where no model has that name"""
FLAGS = {"winner_model_a": 1.0, "winner_model_b": 0.0, "winner_tie": 0.5}
TEXTS = (
    ("conversation_a", "conversation_b"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("output_1", "output_2"),
)
ANNOTATOR_COLUMNS = ("annotator", "judge")


@dataclass(frozen=True)
class Verdict:
    """The outcome for two models: `score` is 1 for the first, 0 for the second, one half for a tie."""

    models: tuple[str, str]
    score: float
    both_bad: bool = False
    annotator: str | None = None


def is_comparison(row: Mapping[str, Any]) -> bool:
    """True for a row with the columns of one of the formats."""
    return {"model_a", "model_b"} <= set(row) or {"generator_1", "generator_2", "preference"} <= set(row)


def verdict_of(row: Mapping[str, Any]) -> Verdict:
    """Return the verdict in a row. Raises `InvalidRow` where it does not name two models and a winner."""
    by = next(
        (str(row[name]) for name in ANNOTATOR_COLUMNS if isinstance(row.get(name), str | int) and row[name] != ""), None
    )
    if "generator_1" in row:
        models = (model_of(row, "generator_1"), model_of(row, "generator_2"))
        return Verdict(models, preferred(row.get("preference")), annotator=by)
    models = (model_of(row, "model_a"), model_of(row, "model_b"))
    if row.get("winner") is None and any(row.get(flag) is not None for flag in FLAGS):
        return Verdict(models, flagged(row), annotator=by)
    if "winner" not in row:
        raise InvalidRow("no column 'winner', or winner_model_a, winner_model_b and winner_tie")
    winner = text_of(row["winner"], "the winner")
    return Verdict(models, winning(winner, models), "bad" in winner.lower() and winner not in models, by)


def model_of(row: Mapping[str, Any], column: str) -> str:
    """Return the name of a model. Raises `InvalidRow` where there is none."""
    if row.get(column) is None:
        raise InvalidRow(f"{column} is missing, or null: it names no model")
    if isinstance(row[column], int) and not isinstance(row[column], bool):
        return str(row[column])
    return words_of(row[column], column)


def winning(winner: str, models: tuple[str, str]) -> float:
    """Return the score of the first of two models; the winner is a side, or the name of a model."""
    word = winner.strip().lower()
    named = {1.0 if winner == models[0] else 0.0} if winner in models and models[0] != models[1] else set()
    sides = {SIDES[word]} if word in SIDES else set()
    letters = {LETTERS[word]} if word in LETTERS else set()
    alike = {score for name, score in zip(models, (1.0, 0.0)) if name.lower() == word}
    # a letter is a side only where it cannot be a name
    meanings = named | sides or letters | alike
    if len(meanings) > 1:
        raise InvalidRow(f"the winner '{winner:.40}' is a side and also the name of a model on the other")
    if not meanings:
        names = " or ".join(f"'{name:.40}'" for name in models)
        raise InvalidRow(f"the winner is '{winner:.40}', not model_a, model_b, tie, tie (bothbad), nor {names}")
    return meanings.pop()


def flagged(row: Mapping[str, Any]) -> float:
    """Return the score of model_a, by the column of the winner that is 1."""
    values = {flag: digit(row.get(flag)) for flag in FLAGS}
    if any(value not in (0, 1, None) for value in values.values()) or list(values.values()).count(1) != 1:
        listed = ", ".join(f"{flag} {value}" for flag, value in values.items())
        raise InvalidRow(f"one of the columns of the winner must be 1 and the others 0: {listed}")
    return next(FLAGS[flag] for flag, value in values.items() if value == 1)


def digit(value: Any) -> Any:
    """Return 0 or 1 for "0" or "1", as in a .csv file; other values unchanged."""
    return {"0": 0, "1": 1}.get(value, value) if isinstance(value, str) else value


def preferred(preference: Any) -> float:
    """Return the score of generator_1, 2 - preference: 1 for 1, 0 for 2, and a tie for 1.5, or 0 in old files."""
    if not is_number(preference) or not (preference == 0 or 1 <= preference <= 2):
        raise InvalidRow(f"preference is {preference!r:.40}, not from 1 to 2")
    return 2.0 - (preference or 1.5)


def dialogues(row: Mapping[str, Any]) -> tuple[Conversation, Conversation] | None:
    """Return both conversations, last answers included; None where the row has not both."""
    for columns in TEXTS:
        if row.get(columns[0]) is not None and row.get(columns[1]) is not None:
            first, second = (dialogue(row, column) for column in columns)
            return first, second
    return None


def dialogue(row: Mapping[str, Any], column: str) -> Conversation:
    """Return the conversation of one side, from a column of messages, or from answers and prompts."""
    value = row[column]
    if column.startswith("conversation"):
        return turns(value, column)
    prompt = row.get("instruction", row.get("prompt"))
    if row.get("input"):
        prompt = f"{text_of(prompt, 'instruction')}\n\n{text_of(row['input'], 'input')}"
    is_encoded = any(flag in row for flag in FLAGS)
    prompts = texts_in(prompt, "the prompt", is_encoded) if prompt is not None else []
    answers = texts_in(value, column, is_encoded)
    if prompts and len(prompts) != len(answers):
        raise InvalidRow(f"{len(prompts)} prompts and {len(answers)} answers in {column}")
    replies = [Message("assistant", answer) for answer in answers]
    if not prompts:
        return tuple(replies)
    users = [Message("user", prompt) for prompt in prompts]
    return tuple(message for pair in zip(users, replies) for message in pair)


def texts_in(value: Any, name: str, is_encoded: bool) -> list[str]:
    """Return the texts of a column: a text, a list, or (is_encoded) a list as JSON; null in a list is an empty text."""
    if isinstance(value, str) and is_encoded and value.lstrip().startswith("["):
        decoded = parse_json(value.encode("utf-8", "surrogatepass"))
        value = decoded if isinstance(decoded, list) else value
    values = value if isinstance(value, list) else [value]
    texts = ["" if text is None else text_of(text, name) for text in values]
    if has_lone_surrogate(texts):
        raise InvalidRow(f"{name} holds half of a character")
    return texts


def compared(row: Mapping[str, Any]) -> tuple[Conversation, list[str], Verdict]:
    """Return (prompt, both answers, verdict). Raises `InvalidRow` where the conversations before the answers differ."""
    verdict, both = verdict_of(row), dialogues(row)
    if both is None:
        raise InvalidRow("no texts of the two answers; 'amenable ratings --data FILE' rates the models")
    for conversation, column in zip(both, ("first", "second")):
        if not conversation or conversation[-1].role != "assistant":
            raise InvalidRow(f"the {column} conversation does not end with an answer")
    prompt = both[0][:-1]
    if prompt != both[1][:-1]:
        mend = "'amenable ratings --data FILE' rates the models all the same"
        raise InvalidRow(f"the two conversations differ before the last answers; {mend}")
    if not prompt or prompt[-1].role != "user":
        raise InvalidRow("no prompt, or one that does not end with the user")
    return prompt, [conversation[-1].content for conversation in both], verdict
