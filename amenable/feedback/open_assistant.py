"""Reader of rankings in Open-Assistant's data (Köpf et al., 2023): message trees, and a flat table of messages.

    trees       {message_tree_id, tree_state, prompt: {message_id, text, role, replies: [{..., rank, replies}]}}
    messages    {message_id, parent_id, text, role, rank, ...}: parent_id is the message that it replies to

Two or more of the assistant's replies with a rank (0 the best) are a ranking of answers to the conversation before.
Ranks of prompters' replies are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amenable.data.record import InvalidRow, Record, is_number, kind
from amenable.data.types import Message, Ranking
from amenable.feedback.formats import Label, attempt, make_ranking, name_of
from amenable.feedback.hints import Hints

ROLES = {"prompter": "user", "assistant": "assistant"}
READ = {"text", "role", "rank", "replies", "parent_id", "message_tree_id"}
Node = Mapping[str, Any]


def is_tree(row: Mapping[str, Any]) -> bool:
    """True for a tree."""
    return "message_tree_id" in row and "prompt" in row


def is_message(row: Mapping[str, Any]) -> bool:
    """True for a message of the flat table."""
    return {"message_id", "message_tree_id", "role", "text"} <= set(row) and not is_tree(row)


def trees_of(rows: Sequence[tuple[int, Node]]) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]]:
    """Join numbered messages of a flat table to trees, each with the number of its first message.

    Returns trees, and numbered reasons for rows that are no message. A reply to a message outside the table is a root.
    """
    nodes: dict[str, tuple[int, dict[str, Any]]] = {}
    rejected = []
    for number, row in rows:
        name = name_of(row["message_id"])
        if name is None or name in nodes:
            rejected.append((number, f"the message_id {row['message_id']!s:.40} is not a name, or that of another row"))
        else:
            nodes[name] = (number, {**row, "replies": []})
    roots: list[str] = []
    above: dict[str, str] = {}
    for name, (_, node) in nodes.items():
        parent = name_of(node.get("parent_id"))
        # two that reply to each other would be in no tree: the reply that closes the circle is a root
        if parent in nodes and parent is not None and not leads_to(parent, name, above):
            above[name] = parent
            nodes[parent][1]["replies"].append(node)
        else:
            roots.append(name)
    trees = [
        (nodes[name][0], {"message_tree_id": nodes[name][1]["message_tree_id"], "prompt": nodes[name][1]})
        for name in roots
    ]
    return trees, rejected


def leads_to(name: str, other: str, above: Mapping[str, str]) -> bool:
    """True where a message is the other message, or replies to it, directly or through others."""
    while name != other and name in above:
        name = above[name]
    return name == other


def tree_labels(row: Record, id: str, hints: Hints) -> Iterator[Label]:
    """Yield the rankings of a tree, from its root on."""
    root = row.get("prompt")
    about = {name: row[name] for name in ("message_tree_id", "tree_state") if name in row}
    waiting: list[tuple[Any, tuple[Message, ...]]] = [(root, ())]
    is_ranked = False
    while waiting:
        node, before = waiting.pop()
        try:
            turn, replies = message_of(node)
        except InvalidRow as error:
            yield error
            continue
        conversation = (*before, turn)
        waiting += [(reply, conversation) for reply in reversed(replies)]
        ranked = [reply for reply in replies if isinstance(reply, Mapping) and is_number(reply.get("rank"))]
        if turn.role == "user" and len(ranked) > 1:
            is_ranked = True
            yield attempt(ranking_of, conversation, ranked, str(node.get("message_id", id)), about)
    if not is_ranked:
        yield InvalidRow("no message in it has two ranked replies")


def message_of(node: Any) -> tuple[Message, list[Any]]:
    """Return a message and its replies. Raises `InvalidRow` where it is none."""
    if not isinstance(node, Mapping):
        raise InvalidRow(f"a message is {kind(node)}, not an object")
    role, text, replies = node.get("role"), node.get("text"), node.get("replies", [])
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRow(f"unknown role {role!r:.40} (known: {', '.join(ROLES)})")
    if not isinstance(text, str):
        raise InvalidRow(f"the text of a message is {kind(text)}, not text")
    if not isinstance(replies, list):
        raise InvalidRow(f"the replies to a message are {kind(replies)}, not a list")
    return Message(ROLES[role], text), replies


def ranking_of(prompt: tuple[Message, ...], replies: Sequence[Node], id: str, about: Mapping[str, Any]) -> Ranking:
    """Return the ranked replies to a conversation; meta has lists of their other columns."""
    turns = [message_of(reply)[0] for reply in replies]
    if any(turn.role != "assistant" for turn in turns):
        raise InvalidRow("a prompter replies to a prompter")
    columns = dict.fromkeys(name for reply in replies for name in reply if name not in READ)
    other = {name: [reply.get(name) for reply in replies] for name in columns}
    ranks = [1.0 + float(reply["rank"]) for reply in replies]
    return make_ranking(prompt, [turn.content for turn in turns], ranks, id, None, {**about, "replies": other})
