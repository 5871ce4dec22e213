r"""Rewards by rule: 1 for a completion that keeps it, else 0.

length:4-30           4 to 30 words; length:4- and length:-30 are open on one side
characters:1-500      so many characters, likewise
tokens:4-64           so many tokens of the model that answers; tokens:4-64:FOLDER counts those of a folder's tokenizer
ends                  it ended by itself, not by the length limit
regex:PATTERN         the pattern of Python's `re` occurs in it
match:COLUMN          its answer is the column's, both normalized (rewards/answers.py)
number:COLUMN         its number is the column's, to a relative 1e-6; number:COLUMN:0.01 to one per cent
format:<a>...</a>     it is these tags and texts, each once and in this order; ... is any text
json                  it is JSON and nothing else; json:SCHEMA.json also keeps that JSON schema
ended:RULE            the rule is kept, and it ended by itself, as in ended:length:4-30
not:RULE              the rule is not kept, as in not:regex:\bI think\b

A column that is a list holds several right answers.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amenable.data.files import read_text
from amenable.errors import InputError
from amenable.rewards.answers import matches, same_number
from amenable.text.tokenizer import Tokenizer

KINDS = ("ends", "length", "characters", "tokens", "regex", "match", "number", "format", "json", "ended", "not")
RANGE = re.compile(r"(\d*)-(\d*)")
SPELLINGS = (
    "rules are length:MIN-MAX, characters:MIN-MAX, tokens:MIN-MAX, ends, regex:PATTERN, match:COLUMN, number:COLUMN, "
    "format:<a>...</a>, json, json:SCHEMA.json, and not: or ended: before one"
)

TOKENIZER_HINT = "name a folder with a tokenizer behind the range, as in tokens:4-64:models/smollm2"


@dataclass(frozen=True)
class Rule:
    """Reward function of a rule."""

    keeps: Callable[[str, bool, Any, Tokenizer | None], bool]
    """(completion, True if it ended by itself, value of the column, tokenizer) -> True if the rule is kept"""
    column: str | None = None
    """column of the prompts' rows that the rule reads"""
    counts_tokens: bool = False
    """whether the rule needs the tokenizer of the model that answers"""
    tokenizer: Tokenizer | None = None

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Return 1 where a completion keeps the rule, else 0."""
        ended = columns.get("ended") or [True] * len(completions)
        if self.counts_tokens and self.tokenizer is None:
            raise InputError("no model's tokens are counted", how=TOKENIZER_HINT)
        if self.column is not None and self.column not in columns:
            raise InputError(f"needs the column '{self.column}'", how="the data has no such column")
        values = columns[self.column] if self.column is not None else [None] * len(completions)
        return [float(self.keeps(*row, self.tokenizer)) for row in zip(completions, ended, values, strict=True)]


def is_rule(spec: str) -> bool:
    """Return True for a SPEC of a rule."""
    kind, colon, _ = spec.partition(":")
    return kind in KINDS and (bool(colon) or kind in ("ends", "json"))


def nearest_rule(spec: str) -> str | None:
    """Return the rule that a misspelt `kind:value` is nearest to, None where none is near."""
    kind, colon, value = spec.partition(":")
    near = difflib.get_close_matches(kind, (*KINDS, "code", "judge"), n=1)
    return f"{near[0]}{colon}{value}" if near else None


def parse_rule(spec: str) -> Rule:
    """Parse a rule. InputError for an unknown kind, a range without numbers, a pattern that `re` refuses, a template
    without tags, and a schema that is none."""
    kind, _, value = spec.partition(":")
    if kind in ("not", "ended") and is_rule(value):
        inner = parse_rule(value)
        if kind == "not":
            return replace(inner, keeps=lambda *row: not inner.keeps(*row))
        return replace(inner, keeps=lambda text, ended, *others: ended and inner.keeps(text, ended, *others))
    if kind == "ends" and not value:
        return Rule(lambda text, ended, *_: ended)
    if kind == "length":
        return range_rule(value, spec, "words", lambda text, _: len(text.split()))
    if kind == "characters":
        return range_rule(value, spec, "characters", lambda text, _: len(text))
    if kind == "tokens":
        return token_rule(value, spec)
    if kind == "regex" and value:
        return regex_rule(value, spec)
    if kind == "match" and value:
        return Rule(lambda text, _, answer, *rest: any(matches(text, each) for each in listed(answer)), value)
    if kind == "number" and value:
        return number_rule(value, spec)
    if kind == "format" and value:
        return format_rule(value, spec)
    if kind == "json":
        return json_rule(Path(value) if value else None)
    wrong = value if kind == "not" else spec
    near = nearest_rule(wrong)
    hint = f"did you mean '{near}'? " if near is not None and near != wrong else ""
    raise InputError(f"'{wrong}' is no rule", how=hint + SPELLINGS)


def listed(value: Any) -> list[Any]:
    """Return the right answers of a column's value: those of a list, or the value alone."""
    return value if isinstance(value, list) else [value]


def range_rule(value: str, spec: str, unit: str, size: Callable[[str, Any], int]) -> Rule:
    """Parse MIN-MAX, a range of words, characters or tokens that is open on the side without a number. size(completion,
    tokenizer): the length of a completion."""
    bounds = RANGE.fullmatch(value)
    name = spec.split(":")[0]
    if bounds is None or not any(bounds.groups()):
        hint = f"write {name}:4-30, {name}:4- or {name}:-30"
        raise InputError(f"'{value}' is no range of {unit}", spec, hint)
    least, most = int(bounds[1] or 0), int(bounds[2]) if bounds[2] else None
    if most is not None and most < least:
        raise InputError(f"no text has {least} to {most} {unit}", spec, "write the smaller number first")
    return Rule(lambda text, *row: least <= size(text, row[-1]) <= (math.inf if most is None else most))


def token_rule(value: str, spec: str) -> Rule:
    """Parse MIN-MAX or MIN-MAX:FOLDER, a range of tokens of a completion's text, without the token that ends it."""
    bounds, _, folder = value.partition(":")
    rule = range_rule(bounds, spec, "tokens", lambda text, tokenizer: len(tokenizer.encode(text)))
    if not folder:
        return replace(rule, counts_tokens=True)
    return replace(rule, tokenizer=Tokenizer.load(Path(folder)))


def regex_rule(pattern: str, spec: str) -> Rule:
    """Parse a regular expression that occurs anywhere in a completion."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"is no regular expression: {error}", spec) from None
    return Rule(lambda text, *_: compiled.search(text) is not None)


def number_rule(value: str, spec: str) -> Rule:
    """Parse COLUMN or COLUMN:TOLERANCE, where the tolerance is relative to the column's number."""
    column, colon, tolerance = value.rpartition(":")
    if not colon:
        column, tolerance = value, "1e-6"
    try:
        relative = float(tolerance)
    except ValueError:
        column, relative = value, 1e-6
    if not 0 <= relative < 1 or not column:
        raise InputError(f"the tolerance is {tolerance}", spec, "write number:COLUMN:0.01 for one per cent")
    return Rule(
        lambda text, _, answer, *rest: any(same_number(text, each, relative) for each in listed(answer)), column
    )


def format_rule(template: str, spec: str) -> Rule:
    """Parse a template of tags and `...`: a completion has each tag once, in this order, and nothing outside of them.

    White space is free around the whole and between two tags.
    """
    literals = [part for part in template.split("...") if part.strip()]
    tags = [tag for part in literals for tag in re.split(r"(?<=>)\s*(?=<)", part.strip())]
    if not tags or len(set(tags)) < len(tags):
        raise InputError("a format is tags, each once, and ... for text", spec, "format:<think>...</think>...")
    pieces = [r"\s*".join(re.escape(tag) for tag in re.split(r"(?<=>)\s*(?=<)", p)) for p in template.split("...")]
    pattern = re.compile(r"\s*" + "(?s:.*)".join(pieces) + r"\s*")
    return Rule(lambda text, *_: all(text.count(tag) == 1 for tag in tags) and pattern.fullmatch(text) is not None)


def json_rule(schema: Path | None) -> Rule:
    """Return the rule that a completion is JSON, and keeps a JSON schema if one is given."""
    is_valid = schema_of(schema) if schema is not None else lambda value: True

    def keeps(text: str, *_: Any) -> bool:
        try:
            return is_valid(json.loads(text))
        except (ValueError, RecursionError):
            return False

    return Rule(keeps)


def schema_of(file: Path) -> Callable[[Any], bool]:
    """Load a JSON schema. InputError where the file is none, or the library is not installed."""
    try:
        import jsonschema_rs
    except ImportError:
        raise InputError("json:SCHEMA needs jsonschema-rs", how="pip install jsonschema-rs") from None
    if not file.is_file():
        raise InputError("no such file", file, "json:SCHEMA.json names a JSON schema")
    try:
        return jsonschema_rs.validator_for(json.loads(read_text(file))).is_valid
    except ValueError as error:
        raise InputError(f"is no JSON schema: {' '.join(str(error).split())[:200]}", file) from None
