"""Strings that know the source of each of their characters, through the operations of chat templates.

A template is rendered with the strings of the conversation itself. In the result, characters with a source are a
message's, and all others are the template's own. An operation that is not followed here returns a plain string, so a
message that passed through it lacks characters in the result; `text.template` refuses such a template.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex


class Source(NamedTuple):
    """Field of a message: content, reasoning, call ..."""

    message: int
    """index in the conversation; -1 for the schemas of tools"""
    field: str


class Run(NamedTuple):
    """Consecutive characters of one source, or of the template."""

    length: int
    source: Source | None = None
    start: int = 0
    stop: int = 0
    """range of the characters in the source's text"""
    generated: bool = False
    """True inside {% generation %} ... {% endgeneration %}"""

    def part(self, start: int, stop: int) -> Run:
        """Return the run of some of the characters; of escaped characters with the range of all."""
        if self.source is None or self.length != self.stop - self.start:
            return self._replace(length=stop - start)
        return self._replace(length=stop - start, start=self.start + start, stop=self.start + stop)


class Piece(NamedTuple):
    """Text of a run, with its position in the whole text."""

    text: str
    position: int
    run: Run

    @property
    def end(self) -> int:
        return self.position + len(self.text)


class Traced(str):
    """Text of several runs. Texts of the template alone stay plain strings."""

    _runs: tuple[Run, ...]
    _pieces: tuple[Piece, ...] | None = None

    def __new__(cls, text: str, runs: Iterable[Run] | None = None) -> Traced:
        """Return a text with the runs of its characters, by default one of the template."""
        traced = super().__new__(cls, text)
        traced._runs = (Run(len(text)),) if runs is None else tuple(runs)
        return traced

    def pieces(self) -> Sequence[Piece]:
        """Return the runs with their texts, neighbours of the template's own text as one."""
        if self._pieces is None:
            text, position = str.__str__(self), 0
            pieces: list[Piece] = []
            for run in merged(self._runs):
                pieces.append(Piece(text[position : position + run.length], position, run))
                position += run.length
            self._pieces = tuple(pieces)
        return self._pieces

    def part(self, start: int, stop: int) -> Traced:
        """Return a substring. An empty one keeps the source of the characters beside it."""
        if start == 0 and stop == len(self):
            return self
        runs, neighbours, position = list[Run](), list[Run](), 0
        for run in self._runs:
            end = position + run.length
            if position > max(start, stop):
                break
            if start <= position and end <= stop:
                runs.append(run)
            elif (first := max(position, start)) < (last := min(end, stop)):
                runs.append(run.part(first - position, last - position))
            elif run.source is not None and position <= start <= end:
                neighbours.append(run.part(start - position, start - position))
            position = end
        return Traced(str.__getitem__(self, slice(start, max(start, stop))), runs or neighbours[:1])

    def generated(self) -> Traced:
        """Return the text with its runs marked as generated."""
        return Traced(str.__str__(self), [run._replace(generated=True) for run in self._runs])

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> str:
        return join((self, other))

    def __radd__(self, other: str) -> str:
        return join((other, self))

    def __iter__(self) -> Iterator[str]:
        return (self.part(i, i + 1) for i in range(len(self)))

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if not isinstance(key, slice):
            index = range(len(self))[key]
            return self.part(index, index + 1)
        start, stop, step = key.indices(len(self))
        return self.part(start, stop) if step == 1 else str.__getitem__(self, key)

    def lstrip(self, characters: str | None = None, /) -> str:
        return self.part(len(self) - len(str.lstrip(self, characters)), len(self))

    def rstrip(self, characters: str | None = None, /) -> str:
        return self.part(0, len(str.rstrip(self, characters)))

    def strip(self, characters: str | None = None, /) -> str:
        return self.lstrip(characters).rstrip(characters)

    def removeprefix(self, prefix: str, /) -> str:
        return self.part(len(prefix), len(self)) if self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> str:
        return self.part(0, len(self) - len(suffix)) if suffix and self.endswith(suffix) else self

    def split(self, separator: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.split(self, separator, maxsplit), separator or "")

    def rsplit(self, separator: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.rsplit(self, separator, maxsplit), separator or "")

    def partition(self, separator: str, /) -> tuple[str, str, str]:
        return self._three(str.partition(self, separator))

    def rpartition(self, separator: str, /) -> tuple[str, str, str]:
        return self._three(str.rpartition(self, separator))

    def splitlines(self, keepends: bool = False) -> list[str]:
        lines = self._located(str.splitlines(self, keepends=True))
        return lines if keepends else [line.rstrip("\r\n") for line in lines]

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        return join(self.split(old, count), new) if old else str.replace(self, old, new, count)

    def join(self, parts: Iterable[str], /) -> str:
        return join(parts, self)

    def upper(self) -> str:
        return self._recased(str.upper(self))

    def lower(self) -> str:
        return self._recased(str.lower(self))

    def title(self) -> str:
        return self._recased(str.title(self))

    def capitalize(self) -> str:
        return self._recased(str.capitalize(self))

    def _recased(self, text: str) -> str:
        return Traced(text, self._runs) if len(text) == len(self) else text

    def _located(self, parts: list[str], separator: str = "") -> list[str]:
        """Return parts that follow one another in the text as substrings."""
        located: list[str] = []
        end = 0
        for part in parts:
            start = self.find(part, end)
            located.append(self.part(start, start + len(part)))
            end = start + len(part) + len(separator)
        return located

    def _three(self, parts: tuple[str, str, str]) -> tuple[str, str, str]:
        first, second = len(parts[0]), len(parts[0]) + len(parts[1])
        return self.part(0, first), self.part(first, second), self.part(second, len(self))


def join(parts: Iterable[str], separator: str = "") -> str:
    """Return the parts as one text, with the runs of all; a plain string if no part is traced."""
    parts = list(parts)
    if separator and parts:
        parts = [each for part in parts for each in (separator, part)][1:]
    text = "".join(parts)
    runs: list[Run] = []
    is_traced = False
    for part in parts:
        if isinstance(part, Traced):
            is_traced = True
            runs += part._runs
        elif part:
            runs.append(Run(len(part)))
    return Traced(text, merged(run for run in runs if run.length or run.source is not None)) if is_traced else text


def merged(runs: Iterable[Run]) -> list[Run]:
    """Return the runs, neighbours of the template's own text as one."""
    result: list[Run] = []
    for run in runs:
        before = result[-1] if result else None
        if before and run.source is None is before.source and run.generated == before.generated:
            result[-1] = Run(before.length + run.length, generated=run.generated)
        else:
            result.append(run)
    return result


def traced(value: Any, message: int, field: str) -> Any:
    """Return a JSON value with its strings, and the keys of its objects, traced to a field of a message."""
    if isinstance(value, str):
        return Traced(value, [Run(len(value), Source(message, field), 0, len(value))])
    if isinstance(value, Mapping):
        return {
            traced(key, message, f"{field} key {key}"): traced(part, message, f"{field}.{key}")
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [traced(part, message, f"{field}[{i}]") for i, part in enumerate(value)]
    return value


def dumps(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON text, character by character that of `json.dumps`, with the sources of its strings."""
    unit = " " * indent if isinstance(indent, int) else indent
    comma, colon = separators or (", " if unit is None else ",", ": ")

    def string(text: str) -> str:
        if not isinstance(text, Traced):
            return json.dumps(text, ensure_ascii=ensure_ascii)
        escaped = [
            (json.dumps(piece.text, ensure_ascii=ensure_ascii)[1:-1], piece.run._replace(generated=False))
            for piece in text.pieces()
        ]
        return join(('"', *(Traced(part, [run._replace(length=len(part))]) for part, run in escaped), '"'))

    def container(brackets: str, parts: list[str], depth: int) -> str:
        if not parts:
            return brackets
        if unit is None:
            return join((brackets[0], join(parts, comma), brackets[1]))
        inner, outer = "\n" + unit * (depth + 1), "\n" + unit * depth
        return join((brackets[0], inner, join(parts, comma + inner), outer, brackets[1]))

    def encoded(value: Any, depth: int) -> str:
        if isinstance(value, str):
            return string(value)
        if isinstance(value, dict):
            items = sorted(value.items()) if sort_keys else value.items()
            parts = [
                join((string(key if isinstance(key, str) else encoded(key, 0)), colon, encoded(part, depth + 1)))
                for key, part in items
            ]
            return container("{}", parts, depth)
        if isinstance(value, list | tuple):
            return container("[]", [encoded(part, depth + 1) for part in value], depth)
        return json.dumps(value)

    return encoded(value, 0)
