"""Functions shared by the readers of others' label formats.

A reader takes a row and yields its labels: rankings, demonstrations, and an `InvalidRow` for each invalid label. It
raises `Unclear` where an export is ambiguous, such as about the preferred answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from amenable.data.record import InvalidRow, Record
from amenable.data.types import Conversation, Demonstration, Message, Ranking, conversation_error
from amenable.feedback.hints import Hints, Unclear

PROMPT_FIELDS = ("prompt", "instruction", "question")
"""fields that are the prompt, whatever other fields there are"""

Label: TypeAlias = Ranking | Demonstration | InvalidRow
Reader: TypeAlias = Callable[[Record, str, Hints], Iterator[Label]]
"""(row, its id where it names none, hints) -> its labels"""


def attempt(read: Callable[..., Ranking | Demonstration], *values: Any) -> Label:
    """Return read(*values), or the `InvalidRow` that it raises."""
    try:
        return read(*values)
    except InvalidRow as error:
        return error


def texts_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields with a text that is not blank."""
    return {name: value for name, value in fields.items() if isinstance(value, str) and value.strip()}


def prompt_field(texts: Mapping[str, str], answers: Collection[str], hints: Hints) -> str:
    """Return the prompt's field: that of the hint, or prompt, instruction or question, or the only other text."""
    if hints.prompt_field is not None:
        if hints.prompt_field not in texts:
            raise InvalidRow(f"no text in the field '{hints.prompt_field}'")
        return hints.prompt_field
    others = [name for name in texts if name not in answers]
    usual = [name for name in PROMPT_FIELDS if name in others]
    if usual or len(others) == 1:
        return (usual or others)[0]
    if not others:
        raise InvalidRow("no field with a text for the prompt")
    raise Unclear(f"which field is the prompt: {', '.join(others)}?", "answer with --prompt-field NAME")


def make_ranking(
    prompt: Conversation,
    answers: Sequence[Any],
    ranks: Sequence[float],
    id: str,
    annotator: str | None,
    meta: Mapping[str, Any],
) -> Ranking:
    """Return a ranking of two or more different texts. Raises `InvalidRow` for anything else."""
    if len(answers) < 2:
        raise InvalidRow(f"{len(answers)} ranked answers, and it takes two")
    if not all(isinstance(answer, str) for answer in answers):
        raise InvalidRow("an answer is not text")
    wrong = conversation_error(prompt)
    if wrong is not None:
        raise InvalidRow(wrong)
    if not any(answer.strip() for answer in answers):
        raise InvalidRow("all answers are empty")
    if len(set(answers)) == 1:
        raise InvalidRow("all answers are the same")
    return Ranking(prompt, tuple(answers), tuple(map(float, ranks)), id, annotator, without_empty(meta))


def make_demonstration(
    prompt: str, answer: str, id: str, annotator: str | None, meta: Mapping[str, Any]
) -> Demonstration:
    """Return a demonstration. Raises `InvalidRow` for an empty answer."""
    if not answer.strip():
        raise InvalidRow("the written answer is empty")
    about = without_empty({"annotator": annotator, **meta})
    return Demonstration((Message("user", prompt), Message("assistant", answer)), id, about)


def without_empty(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries whose value is not empty."""
    return {name: value for name, value in meta.items() if value not in (None, "", [], {})}


def name_of(value: Any) -> str | None:
    """Return a name or number as text, or the e-mail address, name or id in an object; None where there is none."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("email", "username", "id") if value.get(key) not in (None, "")), None)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)
