"""The `tokenizers` library's own description of a tokenizer (the JSON of tokenizer.json), and changes made to it.

Contents are encoded by copies of the tokenizer that lack its control tokens, so that no text can spell one, and that
know what comes before the text: SentencePiece's tokenizers begin a text with a space that a continuation does not have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

After = Literal["nothing", "control", "text"]
"""what a text follows: it begins the input, or it stands after a control token, or after other text"""


def control_tokens(spec: Mapping[str, Any], names: Collection[str | None]) -> dict[str, dict[str, Any]]:
    """The added tokens that only a template may write, by name: special ones, and those in `names`.

    Runs of white space are ordinary text. The unknown token is neither: contents cannot spell it, and may contain it.
    """
    unknown = spec["model"].get("unk_token")
    return {
        token["content"]: token
        for token in spec["added_tokens"]
        if token["content"].strip()
        and (token["content"] in names or (token["special"] and token["content"] != unknown))
    }


def for_contents(spec: Mapping[str, Any], control: Collection[str]) -> dict[str, Any]:
    """The same BPE without control tokens to recognise, and without merges that lead to one."""
    control = set(control)
    model = dict(spec["model"])
    unknown = model.get("unk_token")
    if unknown in control:
        model["unk_token"] = None
    model["vocab"] = {piece: i for piece, i in model["vocab"].items() if piece not in control}
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    model["merges"] = [list(pair) for pair in merges if not control & {*pair, "".join(pair)}]
    kept = [token for token in spec["added_tokens"] if token["content"] not in control]
    # an added token that the vocabulary lacks would be given the next free id, which may be another one
    model["vocab"] |= {token["content"]: token["id"] for token in kept}
    typed = [token for token in kept if token["content"] != unknown]
    return {**spec, "model": model, "added_tokens": typed, "post_processor": None}


def following(spec: Mapping[str, Any], after: After) -> dict[str, Any]:
    """The same tokenizer for a text that follows something: with the space before it that it would have there."""
    if after == "nothing":
        return dict(spec)
    normalizer, pre_tokenizer = spec.get("normalizer"), spec.get("pre_tokenizer")
    return {
        **spec,
        "normalizer": _unprefixed(normalizer, after),
        "pre_tokenizer": _unprefixed(pre_tokenizer, after),
    }


def _unprefixed(part: Any, after: After) -> Any:
    """A normalizer or pre-tokenizer that adds no space where the library adds none."""
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        inner = [_unprefixed(one, after) for one in part[key]]
        inner = [one for one in inner if one is not None]
        return {**part, key: inner} if inner else None
    if kind == "Metaspace" and (after == "text" or part.get("prepend_scheme") == "first"):
        return {**part, "prepend_scheme": "never"} | ({"add_prefix_space": False} if "add_prefix_space" in part else {})
    if kind == "Prepend" and after == "text":
        return None
    if kind == "ByteLevel" and after == "text":
        return {**part, "add_prefix_space": False}
    return part


def turn_tokens(texts: Iterable[str], added: Collection[str]) -> set[str]:
    """The added tokens with which a template's texts mark turns.

    A token with a partner that closes it (`<think>` and `</think>`) is a block inside a turn, and belongs to contents.
    """
    if not added:
        return set()
    pattern = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))))
    texts = list(texts)
    written = {name for text in texts for name in pattern.findall(text)}
    return {name for name in written if not any(_partner(name) in other for other in (*added, *texts))}


def _partner(name: str) -> str:
    """</x> of <x>, and the other way round."""
    return "<" + name[2:] if name.startswith("</") else "</" + name[1:]
