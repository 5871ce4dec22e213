"""How a base model is asked: as a text of the kind it has read, up to where an answer would stand.

A base model knows no turns. Without a file of transcripts it sees `User: ...` and `Assistant:`; a file says what its
raw text would have there instead, in a row for plain prompts and one for few-shot ones:

    {"name": "zero-shot", "user": "Post:", "assistant": "Reply:", "end": "\\n"}

`end` stands between two turns, and ends the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amenable.data.files import read_json_rows
from amenable.data.types import Conversation
from amenable.errors import InputError

NAMES = ("zero-shot", "few-shot")


@dataclass(frozen=True)
class Transcript:
    """The labels of a conversation in raw text."""

    user: str
    assistant: str
    end: str

    def render(self, messages: Conversation) -> str:
        """The conversation as text, ending where the assistant is to speak. A system message stands at the top."""
        labels = {"user": f"{self.user} ", "assistant": f"{self.assistant} ", "system": ""}
        turns = [f"{labels[message.role]}{message.content}{self.end}" for message in messages]
        return "".join(turns) + self.assistant

    def answer(self, text: str) -> str:
        """What the assistant says in a continuation: all before the turn ends."""
        return text.split(self.end, 1)[0].strip()


def read_transcripts(path: Path) -> dict[str, Transcript]:
    """The transcripts of a file by name; InputError for a row that is none."""
    found: dict[str, Transcript] = {}
    if not path.is_file():
        raise InputError("no such file", path, "a world has transcripts.jsonl; leave --transcripts out otherwise")
    for number, row in read_json_rows(path):
        try:
            name, labels = row.pop("name"), Transcript(**row)
        except (ValueError, TypeError, KeyError, AttributeError):
            name, labels = None, None
        told = labels is not None and all(isinstance(label, str) and label for label in vars(labels).values())
        if labels is None or name not in NAMES or not told:
            how = f"a row has name ({' or '.join(NAMES)}), user, assistant and end, all of them texts"
            raise InputError("no transcript", f"{path}:{number}", how)
        found[name] = labels
    if not found:
        raise InputError("no transcript", path, "it is empty")
    return found
