"""From what a request says to the ids that a model reads: conversations, texts, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from amenable.data.types import Message, conversation_error
from amenable.serve.chat import Speaker
from amenable.serve.openai.app_state import Served
from amenable.serve.openai.errors import Refused
from amenable.serve.openai.schemas import ChatBody, CompletionBody, Turn
from amenable.text.chat import render_completion, render_prompt

ADVICE = "one system message may come first, then the user and the assistant speak in turns, and the user last"
NOT_CONTINUED = (
    "the last message is not a user's: end with one, or set continue_final_message to true to have the assistant's "
    "message continued"
)
NO_NEW_TURN = (
    "an answer is a new turn of the assistant, or goes on with its last message where continue_final_message is true: "
    "leave it out"
)


def asking(turns: Sequence[Turn]) -> list[Message]:
    """A conversation that waits for the assistant."""
    messages = [turn.message for turn in turns]
    wrong = conversation_error(messages) or (
        None if messages[-1].role == "user" else "the last message is not a user's"
    )
    if wrong:
        raise Refused(400, f"{wrong}: {ADVICE}", "messages")
    return messages


def conversation_of(body: ChatBody) -> tuple[list[Message], str]:
    """A conversation that waits for the assistant, and the words with which its answer is to begin ("" for none)."""
    last, place = body.messages[-1], len(body.messages) - 1
    for i, turn in enumerate(body.messages):
        if turn.prefix and (i < place or turn.role != "assistant"):
            raise Refused(400, "only a last message of the assistant can be continued", f"messages.{i}.prefix")
    if not (body.continue_final_message or last.prefix):
        if body.add_generation_prompt is False:
            raise Refused(400, NO_NEW_TURN, "add_generation_prompt")
        if last.role == "assistant":
            raise Refused(400, NOT_CONTINUED, "messages")
        return asking(body.messages), ""
    if last.role != "assistant":
        raise Refused(400, "the last message is not the assistant's: leave it out", "continue_final_message")
    if body.add_generation_prompt:
        why = "it begins a new turn, and continue_final_message goes on with the last: set one of them to false"
        raise Refused(400, why, "add_generation_prompt")
    if place == 0:
        raise Refused(400, f"the assistant speaks before any user: {ADVICE}", "messages")
    return asking(body.messages[:-1]), last.message.content


def prompt_of(
    served: Served, messages: list[Message], limit: int, drop: bool, prefix: str = ""
) -> tuple[list[int], int]:
    """The ids of a conversation and of the prefix of its answer; how many of its oldest messages were dropped.

    With `drop` so many that an answer of `limit` tokens has room, or at least half the context.
    """
    words = render_completion(served.tokenizer, prefix, ended=False) if prefix else []
    if drop:
        system = [message for message in messages[:-1] if message.role == "system"]
        turns = [message for message in messages[:-1] if message.role != "system"]
        old = hopeless(turns, served)
        speaker = Speaker(served.name, served.speaker.decoder, served.tokenizer, turns[old:])
        ids, dropped = speaker.fit(system, messages[-1], limit, words)
        return ids, old + dropped
    return fitting(served, [*render_prompt(served.tokenizer, messages), *words], "messages"), 0


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


def prompts_of(served: Served, body: CompletionBody) -> tuple[list[list[int]], int]:
    """The ids of one text, of several, or of what are ids already; and how many were added before each (BOS: 1)."""
    room = 0 if body.max_tokens == 0 else 1
    several = body.prompt if isinstance(body.prompt, list) and not isinstance(body.prompt[0], int) else [body.prompt]
    added = served.tokenizer.opening_ids if isinstance(several[0], str) else []
    ids = [served.tokenizer.encode(text) if isinstance(text, str) else cast(list[int], text) for text in several]
    return [fitting(served, [*added, *own], "prompt", room) for own in ids], len(added)


def fitting(served: Served, ids: list[int], param: str, room: int = 1) -> list[int]:
    """Ids that the model knows, and no more of them than leave it `room` tokens of its context."""
    if not ids:
        raise Refused(400, "the prompt is empty", param)
    if len(ids) + room > served.context:
        lack = "leave no room for an answer in" if room else "are more than"
        why = f"{len(ids)} tokens {lack} a context of {served.context}"
        raise Refused(400, why, param, "context_length_exceeded")
    if max(ids) >= served.speaker.decoder.num_tokens:
        raise Refused(400, f"token {max(ids)} is unknown to the model", param)
    return ids
