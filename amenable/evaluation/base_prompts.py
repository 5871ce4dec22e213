"""Prompts to base models: a transcript in the format of their raw text, up to where the answer begins.

A base model has no chat template. Without a file of transcripts its prompts are `User: ...` and `Assistant:`; a file
names other labels, in a row for plain prompts and a row for few-shot prompts:

    {"name": "zero-shot", "user": "Post:", "assistant": "Reply:", "end": "\\n"}

`end` separates two turns, and ends the answer.
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
        """Return the conversation as text, ending where the answer begins. A system message has no label.

        InputError for calls and results of tools.
        """
        labels = {"user": f"{self.user} ", "assistant": f"{self.assistant} ", "system": "", "developer": ""}
        if any(message.role not in labels or message.tool_calls for message in messages):
            raise InputError("a base model's transcript has no tools", how="leave out the prompts with calls of tools")
        turns = [f"{labels[message.role]}{message.content}{self.end}" for message in messages]
        return "".join(turns) + self.assistant

    def answer(self, text: str) -> str:
        """Return the answer in a continuation: the text before the end of the turn."""
        return text.split(self.end, 1)[0].strip()


def read_transcripts(path: Path | None) -> dict[str, Transcript]:
    """Read the transcripts of a file by name, none without a file. Raises InputError for a row that is none."""
    transcripts: dict[str, Transcript] = {}
    if path is None:
        return transcripts
    if not path.is_file():
        raise InputError("no such file", path, "a world has transcripts.jsonl; leave --transcripts out otherwise")
    for number, row in read_json_rows(path):
        try:
            name, labels = row.pop("name"), Transcript(**row)
        except (ValueError, TypeError, KeyError, AttributeError):
            name, labels = None, None
        complete = labels is not None and all(isinstance(label, str) and label for label in vars(labels).values())
        if labels is None or name not in NAMES or not complete:
            form = f"a row has name ({' or '.join(NAMES)}), user, assistant and end, all of them texts"
            raise InputError("no transcript", f"{path}:{number}", form)
        transcripts[name] = labels
    if not transcripts:
        raise InputError("no transcript", path, "it is empty")
    return transcripts
