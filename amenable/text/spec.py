"""Changes to a tokenizer's spec: the JSON of tokenizer.json, as the `tokenizers` library writes it.

Contents are encoded by copies of the tokenizer without its special tokens, so that no text can spell a special token.
Each copy is for one kind of text before: SentencePiece begins a text with a space that a continuation lacks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

After = Literal["nothing", "special", "text"]
"""kind of text before a text: nothing (it begins the input), a special token, or other text"""


def special_tokens(spec: Mapping[str, Any], names: Collection[str | None]) -> dict[str, dict[str, Any]]:
    """Return the added tokens that only a template may write, by content: tokens marked special, and those in `names`.

    Runs of white space are ordinary text. The unknown token is not returned: contents cannot spell it, and may have it.
    """
    unknown = spec["model"].get("unk_token")
    return {
        token["content"]: token
        for token in spec["added_tokens"]
        if token["content"].strip()
        and (token["content"] in names or (token["special"] and token["content"] != unknown))
    }


def without_special_tokens(spec: Mapping[str, Any], special: Collection[str]) -> dict[str, Any]:
    """Return the spec of the BPE without these special tokens, and without merges that lead to a special token."""
    special = set(special)
    model = dict(spec["model"])
    unknown = model.get("unk_token")
    if unknown in special:
        model["unk_token"] = None
    model["vocab"] = {piece: i for piece, i in model["vocab"].items() if piece not in special}
    if "merges" in model:
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in merges if special.isdisjoint(pair) and "".join(pair) not in special]
    added = [token for token in spec["added_tokens"] if token["content"] not in special]
    # the library gives an added token that the vocabulary lacks the next free id, which may differ from the token's id
    model["vocab"] |= {token["content"]: token["id"] for token in added}
    added = [token for token in added if token["content"] != unknown]
    return {**spec, "model": model, "added_tokens": added, "post_processor": None}


def continuation_spec(spec: Mapping[str, Any], after: After) -> dict[str, Any]:
    """Return the spec that encodes a text after `after`, with the leading space that it has in the whole text."""
    if after == "nothing":
        return dict(spec)
    return {**spec, **{part: _without_prefix_space(spec.get(part), after) for part in ("normalizer", "pre_tokenizer")}}


def _without_prefix_space(part: Any, after: After) -> Any:
    """Return a normalizer or pre-tokenizer that adds a leading space only where the library adds it after `after`."""
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        inner = [new for step in part[key] if (new := _without_prefix_space(step, after)) is not None]
        return {**part, key: inner} if inner else None
    if kind == "Metaspace" and (after == "text" or part.get("prepend_scheme") == "first"):
        return {**part, "prepend_scheme": "never"} | ({"add_prefix_space": False} if "add_prefix_space" in part else {})
    if kind == "Prepend" and after == "text":
        return None
    if kind == "ByteLevel" and after == "text":
        return {**part, "add_prefix_space": False}
    return part


def turn_tokens(texts: Iterable[str], added: Collection[str]) -> set[str]:
    """Return the added tokens with which a template's texts mark turns.

    A token with a matching tag (`<think>` and `</think>`) marks a block inside a turn, and belongs to contents.
    """
    if not added:
        return set()
    pattern = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))))
    texts = list(texts)
    names = {name for text in texts for name in pattern.findall(text)}
    return {name for name in names if not any(_matching_tag(name) in other for other in (*added, *texts))}


def _matching_tag(name: str) -> str:
    """Return </x> for <x>, and <x> for </x>."""
    return "<" + name[2:] if name.startswith("</") else "</" + name[1:]
