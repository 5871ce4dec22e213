"""Tokenizers in GGUF metadata: llama.cpp's keys of what tokenizer.json and tokenizer_config.json hold.

    tokenizer.ggml.model, pre              "gpt2" for byte-level BPE, and the name of the rule that splits a text
    tokenizer.ggml.tokens, token_type      every id's text, and its type: normal, control, user-defined, unused
    tokenizer.ggml.merges                  pairs, in their order
    tokenizer.ggml.bos_token_id, eos_...   special tokens; eot ends a turn
    tokenizer.chat_template                Jinja
    tokenizer.huggingface.json             tokenizer.json itself, where a file has it

llama.cpp normalises no text. Qwen's tokenizers do (NFC), and do so again when read from a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.text.folder import CONFIG, GENERATION, TEMPLATE, TOKENIZER, to_json
from amenable.text.tokenizer import SPLIT_PATTERN, Tokenizer

LLAMA3_PATTERN = SPLIT_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""types of tokens; a control token is written by a template alone"""
KEY, PUBLISHED, CHAT = "tokenizer.ggml.", "tokenizer.huggingface.json", "tokenizer.chat_template"
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
"""llama.cpp's names of special tokens, by those of tokenizer_config.json"""
GENERATION_TAG = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


@dataclass(frozen=True)
class Rule:
    """A rule by which text is split into pieces, with the names that llama.cpp has for it."""

    names: tuple[str, ...]
    steps: tuple[Mapping[str, Any], ...]
    """pre-tokenizers, as in tokenizer.json"""
    normalizer: Mapping[str, Any] | None = None
    ignore_merges: bool = False
    """a piece that is a token is that token, whatever its merges"""
    add_bos: bool = False
    """where a file does not say it"""


def split(pattern: str) -> dict[str, Any]:
    """Return the pre-tokenizer that splits by a pattern."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex: bool) -> dict[str, Any]:
    """Return the pre-tokenizer that writes bytes as characters, after GPT-2's pattern or not."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


RULES = (
    Rule(("gpt-2", "phi-2", "mpt", "olmo"), (byte_level(True),)),
    Rule(("smollm", "starcoder", "refact"), ({"type": "Digits", "individual_digits": True}, byte_level(True))),
    Rule(("qwen2", "deepseek-r1-qwen"), (split(SPLIT_PATTERN), byte_level(False)), {"type": "NFC"}),
    Rule(
        ("llama-bpe", "llama3", "llama-v3"),
        (split(LLAMA3_PATTERN), byte_level(False)),
        ignore_merges=True,
        add_bos=True,
    ),
    Rule(("tekken",), (split(TEKKEN_PATTERN), byte_level(False)), ignore_merges=True, add_bos=True),
)


def tokenizer_files(metadata: Mapping[str, Any], where: Path) -> dict[str, bytes]:
    """Return the files of a published tokenizer folder, by name, from a GGUF file's metadata.

    InputError, naming `where`, for another kind of tokenizer than byte-level BPE, and for metadata that do not fit.
    """
    model, pre = metadata.get(f"{KEY}model"), metadata.get(f"{KEY}pre", "default")
    if model != "gpt2":
        raise InputError(f"its tokenizer is of the kind '{model}'", where, "byte-level BPE ('gpt2') is read")
    rule = next((rule for rule in RULES if pre in rule.names), None)
    if rule is None:
        known = ", ".join(name for rule in RULES for name in rule.names)
        raise InputError(f"its tokenizer splits text by the rule '{pre}'", where, f"these are read: {known}")
    tokens = strings(metadata, "tokens", where)
    types = metadata.get(f"{KEY}token_type") or [NORMAL] * len(tokens)
    if not isinstance(types, list) or len(types) != len(tokens):
        raise InputError(f"{KEY}token_type has not an entry for each of {len(tokens)} tokens", where)
    special = special_texts(metadata, tokens, where)
    add_bos = bool(metadata.get(f"{KEY}add_bos_token", rule.add_bos))
    published = metadata.get(PUBLISHED)
    if not isinstance(published, str) or not same_tokens(published, tokens, types):
        merges = strings(metadata, "merges", where)
        bos = special.get("bos_token") if add_bos else None
        published = json.dumps(tokenizer_spec(tokens, types, merges, rule, bos), ensure_ascii=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    if f"{KEY}add_bos_token" in metadata:
        config["add_bos_token"] = add_bos
    ids = {name: metadata.get(f"{KEY}{theirs}_token_id") for name, theirs in SPECIAL.items()}
    ends = [ids["eos_token"], *(metadata.get(f"{KEY}{name}_token_id") for name in ("eot", "eom"))]
    stop_ids = list(dict.fromkeys(end for end in ends if end is not None))
    generation = {
        "bos_token_id": ids["bos_token"],
        "eos_token_id": stop_ids[0] if len(stop_ids) == 1 else stop_ids or None,
        "pad_token_id": ids["pad_token"],
    }
    files = {TOKENIZER: published.encode(), CONFIG: to_json(config), GENERATION: to_json(generation)}
    template = metadata.get(CHAT)
    return files | ({TEMPLATE: template.encode()} if isinstance(template, str) else {})


def tokenizer_spec(
    tokens: Sequence[str], types: Sequence[int], merges: Sequence[str], rule: Rule, bos: str | None
) -> dict[str, Any]:
    """Return the contents of tokenizer.json. bos: the token that begins each text, if any."""
    vocabulary = {text: i for i, text in enumerate(tokens) if types[i] != UNUSED}
    added = [
        {"id": i, "content": text, "special": types[i] == CONTROL}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, text in enumerate(tokens)
        if types[i] in (CONTROL, USER_DEFINED)
    ]
    begin, text, second = ({"SpecialToken": {"id": bos, "type_id": 0}}, sequence("A", 0), sequence("B", 1))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": rule.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(rule.steps)},
        "post_processor": bos
        and {
            "type": "TemplateProcessing",
            "single": [begin, text],
            "pair": [begin, text, second],
            "special_tokens": {bos: {"id": bos, "ids": [vocabulary[bos]], "tokens": [bos]}},
        },
        "decoder": byte_level(True),
        "model": {
            "type": "BPE",
            "ignore_merges": rule.ignore_merges,
            "vocab": vocabulary,
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }


def sequence(name: str, kind: int) -> dict[str, Any]:
    """Return the piece of a post-processor that stands for a text."""
    return {"Sequence": {"id": name, "type_id": kind}}


def same_tokens(published: str, tokens: Sequence[str], types: Sequence[int]) -> bool:
    """Return True if a tokenizer.json has the tokens of the metadata, each with its id."""
    try:
        spec = json.loads(published)
        ids = spec["model"]["vocab"] | {token["content"]: token["id"] for token in spec["added_tokens"]}
    except (ValueError, KeyError, TypeError):
        return False
    return ids == {text: i for i, text in enumerate(tokens) if types[i] != UNUSED}


def special_texts(metadata: Mapping[str, Any], tokens: Sequence[str], where: Path) -> dict[str, str]:
    """Return the texts of the special tokens that the metadata name, by their names in tokenizer_config.json."""
    texts = dict[str, str]()
    for name, theirs in SPECIAL.items():
        i = metadata.get(f"{KEY}{theirs}_token_id")
        if i is None:
            continue
        if not isinstance(i, int) or not 0 <= i < len(tokens):
            raise InputError(f"{KEY}{theirs}_token_id is {i}, and there are {len(tokens)} tokens", where)
        texts[name] = tokens[i]
    return texts


def strings(metadata: Mapping[str, Any], name: str, where: Path) -> list[str]:
    """Return a list of strings of the metadata. InputError where there is none."""
    values = metadata.get(KEY + name)
    if not isinstance(values, list) or not values or not isinstance(values[0], str):
        raise InputError(f"lacks {KEY}{name}", where, "models without a tokenizer are not read")
    return values


def tokenizer_metadata(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """Return the metadata of a tokenizer, for a model with so many rows in its vocabulary; further rows are unused.

    InputError for a tokenizer that llama.cpp cannot have.
    """
    spec = tokenizer.spec
    tokens, types = [f"[PAD{i}]" for i in range(rows)], [UNUSED] * rows
    for text, i in spec["model"]["vocab"].items():
        tokens[i], types[i] = text, NORMAL
    for token in spec["added_tokens"]:
        i = token["id"]
        control = token["special"] or i in tokenizer.special_ids
        tokens[i], types[i] = token["content"], CONTROL if control else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
    if not merges:
        raise InputError("its tokenizer has no merges, and llama.cpp reads none without", how="train a larger one")
    values: dict[str, Any] = {
        "model": "gpt2",
        "pre": rule_of(spec).names[0],
        "tokens": tokens,
        "token_type": types,
        "merges": merges,
        "add_bos_token": bool(tokenizer.opening_ids),
        "eos_token_id": tokenizer.eos_id,
    }
    ids = {text: i for i, text in enumerate(tokens)}
    for name, text in tokenizer.special_tokens_map.items():
        if name in SPECIAL and text in ids:
            values[f"{SPECIAL[name]}_token_id"] = ids[text]
    if tokenizer.end_of_turn_id != tokenizer.eos_id:
        values["eot_token_id"] = tokenizer.end_of_turn_id
    metadata = {KEY + name: value for name, value in values.items()}
    if tokenizer.chat_template is not None:
        metadata[CHAT] = without_generation_tags(tokenizer.chat_template)
    return metadata | {PUBLISHED: json.dumps(spec, ensure_ascii=False)}


def rule_of(spec: Mapping[str, Any]) -> Rule:
    """Return the rule by which a tokenizer.json splits text. InputError for a rule that llama.cpp does not have."""
    steps, ignore_merges = essence(spec["pre_tokenizer"]), bool(spec["model"].get("ignore_merges"))
    normalizer = spec.get("normalizer")
    if spec["model"].get("type", "BPE") == "BPE" and not spec["model"].get("byte_fallback"):
        for rule in RULES:
            same_text = normalizer is None or normalizer == rule.normalizer
            if same_text and ignore_merges == rule.ignore_merges and steps == essence(*rule.steps):
                return rule
    raise InputError(
        "its tokenizer splits text by a rule that llama.cpp does not have",
        how="those of GPT-2, SmolLM, Llama 3, Qwen, Mistral's Tekken and 'amenable tokenizer' can be exported",
    )


def essence(*steps: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
    """Return what decides the pieces in pre-tokenizers, those in sequences one by one."""
    parts = list[tuple[Any, ...]]()
    for step in steps:
        if step is None:
            continue
        if step["type"] == "Sequence":
            parts += essence(*step["pretokenizers"])
        elif step["type"] == "Split":
            parts.append(("Split", str(step["pattern"]), step["behavior"], step.get("invert", False)))
        elif step["type"] == "ByteLevel":
            parts.append(("ByteLevel", step.get("add_prefix_space", True), step.get("use_regex", True)))
        else:
            parts.append(tuple(sorted((key, str(value)) for key, value in step.items())))
    return parts


def without_generation_tags(template: str) -> str:
    """Return a template without {% generation %}, which marks an assistant's text for transformers alone."""
    return GENERATION_TAG.sub(r"{#\1 \2#}", template)
