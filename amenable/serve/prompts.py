"""From what a request says to the ids that a model reads: conversations, texts, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence

from amenable.data.types import Message, fault
from amenable.serve.bodies import Turn
from amenable.serve.chat import Speaker
from amenable.serve.house import Served
from amenable.serve.refusals import Refused
from amenable.text.chat import render_prompt


def asking(turns: Sequence[Turn]) -> list[Message]:
    """A conversation that waits for the assistant."""
    messages = [turn.message for turn in turns]
    wrong = fault(messages) or (None if messages[-1].role == "user" else "the last message is not a user's")
    if wrong:
        raise Refused(400, wrong, "messages")
    return messages


def prompt_of(served: Served, messages: list[Message], limit: int, drop: bool) -> tuple[list[int], int]:
    """A conversation's ids, and how many of its oldest messages were dropped so that an answer has room."""
    if drop:
        system = [message for message in messages[:-1] if message.role == "system"]
        turns = [message for message in messages[:-1] if message.role != "system"]
        old = hopeless(turns, served)
        speaker = Speaker(served.name, served.speaker.decoder, served.tokenizer, turns[old:])
        ids, dropped = speaker.fit(system, messages[-1], limit)
        return ids, old + dropped
    return fitting(served, render_prompt(served.tokenizer, messages), "messages"), 0


def hopeless(turns: Sequence[Message], served: Served) -> int:
    """How many of the oldest turns lie so far back that they can't be read, an even number.

    Each is counted once; which of the rest fit is tried one by one, and of a long conversation that would take minutes.
    """
    sizes = [1 + len(served.tokenizer.encode(turn.content)) for turn in turns]
    room = 2 * served.context
    for place in reversed(range(len(turns))):
        room -= sizes[place]
        if room < 0:
            return place + place % 2
    return 0


def prompts_of(served: Served, prompt: str | list[int] | list[str]) -> list[list[int]]:
    """The ids of one text, of several, or of what are ids already."""
    if isinstance(prompt, list) and isinstance(prompt[0], int):
        return [fitting(served, [int(token) for token in prompt], "prompt")]
    texts = [prompt] if isinstance(prompt, str) else [str(text) for text in prompt]
    tokenizer = served.tokenizer
    return [fitting(served, [tokenizer.bos_id, *tokenizer.encode(text)], "prompt") for text in texts]


def fitting(served: Served, ids: list[int], param: str) -> list[int]:
    """Ids that the model knows, and no more of them than it reads."""
    if len(ids) >= served.context:
        why = f"{len(ids)} tokens leave no room for an answer in a context of {served.context}"
        raise Refused(400, why, param, "context_length_exceeded")
    if max(ids) >= served.speaker.decoder.config.vocab_size:
        raise Refused(400, f"token {max(ids)} is unknown to the model", param)
    return ids
