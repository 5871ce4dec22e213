"""Prompting: a prefix and worked examples before a prompt, for models that were not tuned for it (Brown et al., 2020).

Examples are conversations that end with the assistant; one whose answer shows its steps is a chain of thought (Wei et
al., 2022). They become earlier turns: of a chat model's format, or of a base model's transcript. The prefix is a system
message, which is plain text at the beginning of a transcript.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from amenable.data import sources
from amenable.data.files import read_text
from amenable.data.types import INSTRUCTING, Conversation, Demonstration, Message, Prompt
from amenable.errors import InputError
from amenable.evaluation.shots import Selection, ShotSelector, require_no_leak
from amenable.train import plan
from amenable.train.examples import RejectedRows, keep_usable

CLASS_COLUMNS = ("class", "category", "kind")
"""columns that name an example's class; without one its answer is its class"""


@dataclass(frozen=True)
class PromptingOptions:
    """Options of what comes before a prompt."""

    shots: tuple[Path, ...] = ()
    """files of examples that come before every prompt: conversations, or rows in the columns of a task"""
    num_shots: int = 0
    """examples before a prompt; 0 takes all of them"""
    shot_selection: Selection = "first"
    """examples that come before a prompt: the first of the file; random ones, drawn for each prompt; balanced, drawn
    from all classes equally often; or the most similar to the prompt, the nearest last"""
    prefix: str = ""
    """text before the examples, or a file of it"""

    def __post_init__(self) -> None:
        plan.require_at_least(0, self, "num_shots")
        plan.forbid(bool(self.num_shots) and not self.shots, "--num-shots takes examples", "give --shots FILE")
        plan.forbid(self.shot_selection != "first" and not self.shots, "--shot-selection of none", "give --shots FILE")

    @property
    def is_given(self) -> bool:
        """True where there are examples or a prefix."""
        return bool(self.shots or self.prefix)

    @property
    def inputs(self) -> dict[str, Path | None]:
        """Files that are read, by their names in the lineage."""
        files: dict[str, Path | None] = {f"shots {path}": path for path in self.shots}
        return {**files, "prefix": prefix_file(self.prefix)}

    @property
    def names(self) -> str:
        """Names of the files of examples, for messages."""
        return " ".join(map(str, self.shots))

    def selector(self, texts: Sequence[str], classes: Sequence[str], seed: int) -> ShotSelector:
        """Return the selection among examples with these prompts and classes; InputError where it is impossible."""
        selector = ShotSelector(texts, classes, self.num_shots, self.shot_selection, seed)
        selector.require_possible(self.names)
        return selector


PromptingField = Annotated[PromptingOptions, arg(name="")]
"""field of a Config: its options are the command's own"""


@dataclass(frozen=True)
class Prompting:
    """Prefix and examples that come before prompts."""

    examples: Sequence[Conversation] = ()
    selector: ShotSelector = field(default_factory=lambda: ShotSelector(()))
    prefix: str = ""
    names: str = ""
    """of the files of the examples"""

    @classmethod
    def of(cls, examples: Sequence[Conversation], prefix: str = "") -> Prompting:
        """Return the prompting with the same examples before every prompt."""
        return cls(examples, ShotSelector([question(messages) for messages in examples]), prefix)

    @classmethod
    def read(
        cls,
        options: PromptingOptions,
        seed: int,
        rejected: RejectedRows | None = None,
    ) -> Prompting:
        """Read the examples and the prefix. InputError for a file without examples, and for an example with a system
        message, which stands in the prefix."""
        read: list[Demonstration] = []
        for path in options.shots:
            read += keep_usable(sources.read_demonstrations(path), rejected)
        for row in read:
            if row.messages[0].role in INSTRUCTING:
                raise InputError("an example has a system message", row.id or None, "give its text as --prefix")
        texts = [question(row.messages) for row in read]
        selector = options.selector(texts, [class_of(row) for row in read], seed)
        return cls([row.messages for row in read], selector, read_prefix(options.prefix), options.names)

    def shots(self, messages: Conversation) -> list[Conversation]:
        """Return the examples before a prompt, in order."""
        return [self.examples[i] for i in self.selector.choose(question(messages))] if self.examples else []

    def apply(self, messages: Conversation) -> Conversation:
        """Return a prompt with the prefix and the examples before it."""
        return prepend(self.shots(messages), add_prefix(messages, self.prefix))

    def require_no_leak(self, tests: Mapping[str, Sequence[Prompt]]) -> None:
        """Raise InputError for an example whose prompt is one of `tests`, which are given by name."""
        for name, prompts in tests.items():
            require_no_leak(self.selector.texts, [question(each.messages) for each in prompts], name, self.names)


def question(messages: Conversation) -> str:
    """Return the words of a conversation up to the last answer: all but system messages and a last assistant's."""
    rows = messages[:-1] if messages[-1].role == "assistant" else messages
    return "\n\n".join(message.content for message in rows if message.role not in INSTRUCTING)


def class_of(example: Demonstration) -> str:
    """Return the class of an example: its row's column of CLASS_COLUMNS, else its answer."""
    names = (name for name in CLASS_COLUMNS if example.meta.get(name) is not None)
    name = next(names, None)
    return example.messages[-1].content if name is None else str(example.meta[name])


def prepend(shots: Sequence[Conversation], messages: Conversation) -> Conversation:
    """Return a conversation with others before it; its system message stays the first."""
    system = messages[:1] if messages[0].role in INSTRUCTING else ()
    return (*system, *(message for shot in shots for message in shot), *messages[len(system) :])


def add_prefix(messages: Conversation, prefix: str) -> Conversation:
    """Return a conversation that begins with a prefix as a system message, before the words of its own if it has
    one."""
    if not prefix:
        return messages
    if messages[0].role in INSTRUCTING:
        return (replace(messages[0], content=f"{prefix}\n\n{messages[0].content}"), *messages[1:])
    return (Message("system", prefix), *messages)


def prefix_file(prefix: str) -> Path | None:
    """Return the file that a prefix names, None where it is a text. InputError for a missing file: a word with a
    suffix, such as prefix.txt, is the name of one."""
    try:
        exists = bool(prefix) and Path(prefix).is_file()
    except OSError:  # a text that is too long for a name
        return None
    missing = not exists and len(prefix.split()) == 1 and Path(prefix).suffix
    plan.forbid(missing, f"no such file: {prefix}", "--prefix is a text, or a file of it")
    return Path(prefix) if exists else None


def read_prefix(prefix: str) -> str:
    """Return the text of a prefix, or of the file that it names, without white space at its ends."""
    file = prefix_file(prefix)
    return (prefix if file is None else read_text(file)).strip()
