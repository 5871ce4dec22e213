"""Prompts of requests as token ids: conversations and texts are checked, rendered, and cut to the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from amenable.data.types import ANSWERED, INSTRUCTING, Message, conversation_error
from amenable.serve.conversation import fit_prompt, next_user
from amenable.serve.errors import APIError
from amenable.serve.openai.app_state import ServedModel
from amenable.serve.openai.schemas import ChatRequest, CompletionRequest, Turn
from amenable.text.chat import render_completion, render_prompt

ADVICE = "one system message may come first, then user and assistant speak in turns, and the user or a tool last"
NOT_CONTINUED = (
    "the last message is not a user's: end with one, or set continue_final_message to true to have the assistant's "
    "message continued"
)
NO_NEW_TURN = (
    "an answer is a new turn of the assistant, or goes on with its last message where continue_final_message is true: "
    "leave it out"
)


def prompt_messages(turns: Sequence[Turn], tools: str = "") -> list[Message]:
    """Return a conversation that ends with the user or a tool. Raises APIError 400 for any other.

    tools: JSON schemas of the tools that the model may call.
    """
    messages = [turn.message for turn in turns]
    error = conversation_error(messages) or (
        None if messages[-1].role in ANSWERED else "the last message is not a user's"
    )
    if error:
        raise APIError(400, f"{error}: {ADVICE}", "messages")
    return [replace(messages[0], tools=tools), *messages[1:]]


def split_prefix(body: ChatRequest) -> tuple[list[Message], str]:
    """Return a request's conversation up to the user's last message, and the prefix of its answer ("" for none)."""
    last, end = body.messages[-1], len(body.messages) - 1
    for i, turn in enumerate(body.messages):
        if turn.prefix and (i < end or turn.role != "assistant"):
            raise APIError(400, "only a last message of the assistant can be continued", f"messages.{i}.prefix")
    if not (body.continue_final_message or last.prefix):
        if body.add_generation_prompt is False:
            raise APIError(400, NO_NEW_TURN, "add_generation_prompt")
        if last.role == "assistant":
            raise APIError(400, NOT_CONTINUED, "messages")
        return prompt_messages(body.messages, body.tools), ""
    if last.role != "assistant":
        raise APIError(400, "the last message is not the assistant's: leave it out", "continue_final_message")
    if body.add_generation_prompt:
        message = "it begins a new turn, and continue_final_message goes on with the last: set one of them to false"
        raise APIError(400, message, "add_generation_prompt")
    if end == 0:
        raise APIError(400, f"the assistant speaks before any user: {ADVICE}", "messages")
    return prompt_messages(body.messages[:-1], body.tools), last.message.content


def chat_prompt_ids(
    served: ServedModel, messages: list[Message], limit: int, drop: bool, prefix: str = ""
) -> tuple[list[int], int]:
    """Return the ids of a conversation and of its answer's prefix, and the number of oldest messages dropped.

    With `drop` so many are dropped that an answer of `limit` tokens has room, or at least half the context.
    """
    prefix_ids = render_completion(served.tokenizer, prefix, ended=False) if prefix else []
    if drop:
        system = [message for message in messages[:-1] if message.role in INSTRUCTING]
        turns = [message for message in messages[:-1] if message.role not in INSTRUCTING]
        old = next_user(turns, min_dropped_turns(turns, served))
        message = (
            replace(messages[-1], tools=messages[0].tools) if messages[0].role not in INSTRUCTING else messages[-1]
        )
        ids, dropped = fit_prompt(served.model, system, turns[old:], message, limit, prefix_ids)
        return ids, old + dropped
    return require_fit(served, [*render_prompt(served.tokenizer, messages), *prefix_ids], "messages"), 0


def min_dropped_turns(turns: Sequence[Message], served: ServedModel) -> int:
    """Return a lower bound, an even number, on the oldest turns to drop: those before the last two contexts.

    Each turn is encoded once. The rest is then tried pair by pair, which would take minutes on a long conversation.
    """
    sizes = [1 + len(served.tokenizer.encode(turn.content)) for turn in turns]
    room = 2 * served.context
    for i in reversed(range(len(turns))):
        room -= sizes[i]
        if room < 0:
            return i + i % 2
    return 0


def completion_prompt_ids(served: ServedModel, body: CompletionRequest) -> tuple[list[list[int]], int]:
    """Return the ids of each prompt, given as text or as ids, and the number of ids added before it (BOS: 1)."""
    room = 0 if body.max_tokens == 0 else 1
    prompts = body.prompt if isinstance(body.prompt, list) and not isinstance(body.prompt[0], int) else [body.prompt]
    added = served.tokenizer.opening_ids if isinstance(prompts[0], str) else []
    ids = [served.tokenizer.encode(text) if isinstance(text, str) else cast(list[int], text) for text in prompts]
    return [require_fit(served, [*added, *row], "prompt", room) for row in ids], len(added)


def require_fit(served: ServedModel, ids: list[int], param: str, room: int = 1) -> list[int]:
    """Return the ids. Raises APIError 400 where they leave no `room` tokens of context or are unknown to the model."""
    if not ids:
        raise APIError(400, "the prompt is empty", param)
    if len(ids) + room > served.context:
        lack = "leave no room for an answer in" if room else "are more than"
        message = f"{len(ids)} tokens {lack} a context of {served.context}"
        raise APIError(400, message, param, "context_length_exceeded")
    if max(ids) >= served.model.decoder.num_tokens:
        raise APIError(400, f"token {max(ids)} is unknown to the model", param)
    return ids
