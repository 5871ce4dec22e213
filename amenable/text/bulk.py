"""Tokenizing of large text: the ids of `Tokenizer.encode` as bytes, several times as fast.

Most words of a text have been there before. Where a tokenizer begins a piece at every single space between two other
characters, as GPT-2's, Llama 3's and Qwen's do, the text between two such spaces has the same ids wherever it stands,
and these are looked up. Every other tokenizer, and a text that holds the mark below, goes through the library.
"""

from __future__ import annotations

import json
import re
from array import array
from typing import Any, Literal

from tokenizers import Tokenizer as Backend

from amenable.text.tokenizer import SPLIT_PATTERN, Tokenizer

IdType = Literal["uint16", "uint32"]
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLIT_PATTERNS = frozenset({SPLIT_PATTERN, f"{CONTRACTIONS}\\p{{N}}{REST}", f"{CONTRACTIONS}\\p{{N}}{{1,3}}{REST}"})
"""patterns of pieces (Qwen 2, Llama 3) in which a space is the first character of a piece or white space alone"""
RUN = re.compile(r"\s{2,}")
MARK = "\x00"
"""stands for a space beside other white space, where texts are not divided"""
ENDED = re.compile(r"""([A-Za-z]+)([.,;:!?"')\]]{1,3})""")
"""a word, and punctuation, which is a piece of its own in all these tokenizers"""
LINES = re.compile(r"""([A-Za-z]+)([.,;:!?"')\]]{0,3}\n+)([^\s\0].*)""", re.DOTALL)
"""a word, what ends its line, and the next line's beginning: no piece goes on over a line feed to what can be seen"""
MAX_WORD, MAX_WORDS = 64, 500_000
"""characters of a word that is kept, and number of words: at most about 100 MB"""


def id_type(vocab_size: int) -> IdType:
    """Return the smallest type that holds the ids of a vocabulary."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class BulkEncoder:
    """Encodes many texts with one tokenizer, into the bytes of unsigned ids in the machine's order."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.dtype = tokenizer, id_type(tokenizer.vocab_size)
        self.code, self.item_size = ("H", 2) if self.dtype == "uint16" else ("I", 4)
        self.words = Words(self, " ") if divides_at_spaces(tokenizer.content_backend) else None
        self.starts = Words(self, "")
        self.marks: dict[str, bytes] = {}

    def encode(self, text: str) -> bytes:
        """Return the ids of a text, as `Tokenizer.encode` gives them."""
        if self.words is None or MARK in text:
            return self.to_bytes(self.tokenizer.encode(text))
        try:
            return self.encode_words(text.split(" "), self.words)
        except CrowdedSpace:
            return self.encode_words(RUN.sub(mark_spaces, text).split(" "), self.words)

    def encode_words(self, parts: list[str], words: Words) -> bytes:
        """Return the ids of a text that is divided at single spaces. CrowdedSpace if a space is beside white space."""
        if len(parts) == 1:
            return self.encode_whole(parts[0])
        first, last = parts[0], parts.pop()
        if first[-1:].isspace() or last[:1].isspace():
            raise CrowdedSpace
        middle = b"".join(map(words.__getitem__, parts[1:]))
        return self.encode_whole(first) + middle + self.encode_whole(" " + last)

    def encode_whole(self, text: str) -> bytes:
        """Return the ids of a text that is not divided, with spaces for MARK."""
        return self.to_bytes(self.tokenizer.encode(text.replace(MARK, " ")))

    def encode_mark(self, text: str) -> bytes:
        """Return the ids of the punctuation or line feeds that words end in; before the next line, if there is one."""
        if text not in self.marks:
            follows = "a" if text.endswith("\n") else ""
            ids = self.tokenizer.encode(text + follows)
            self.marks[text] = self.to_bytes(ids[: len(ids) - len(self.tokenizer.encode(follows))])
        return self.marks[text]

    def encode_document(self, text: str) -> bytes:
        """Return the ids of a pretraining text, as `render_document` gives them: with what begins it, and eos."""
        opening = self.to_bytes(self.tokenizer.opening_ids)
        return opening + self.encode(text) + self.to_bytes([self.tokenizer.eos_id])

    def to_bytes(self, ids: list[int]) -> bytes:
        """Return ids as bytes."""
        return array(self.code, ids).tobytes()


class CrowdedSpace(Exception):
    """A space beside other white space, where a text cannot be divided."""


class Words(dict[str, bytes]):
    """The ids of words after a space, or at the start of a line, looked up by the word.

    A new word is encoded, and kept if there is room. CrowdedSpace for one with white space at an end.
    """

    def __init__(self, encoder: BulkEncoder, lead: str):
        """lead: the space, or nothing."""
        super().__init__()
        self.encoder, self.lead = encoder, lead

    def __missing__(self, word: str) -> bytes:
        if not word or word[0].isspace() or word[-1].isspace():
            raise CrowdedSpace
        if ended := ENDED.fullmatch(word):
            ids = self[ended[1]] + self.encoder.encode_mark(ended[2])
        elif lines := LINES.fullmatch(word):
            return self[lines[1]] + self.encoder.encode_mark(lines[2]) + self.encoder.starts[lines[3]]
        else:
            ids = self.encoder.encode_whole(self.lead + word)
        if len(word) <= MAX_WORD and len(self) < MAX_WORDS:
            self[word] = ids
        return ids


def mark_spaces(run: re.Match[str]) -> str:
    """Return a run of white space with its spaces marked."""
    return run[0].replace(" ", MARK)


def divides_at_spaces(backend: Backend) -> bool:
    """Return True if a tokenizer is known to begin a piece at each single space between two other characters.

    A normalizer other than NFC, an added token that texts can spell, or BPE dropout may couple what stands on both
    sides.
    """
    spec = json.loads(backend.to_str())
    steps = spec["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    normal = spec["normalizer"] is None or spec["normalizer"] == {"type": "NFC"}
    byte_level = steps[-1].get("type") == "ByteLevel" and not steps[-1]["add_prefix_space"]
    by_regex = byte_level and steps[-1]["use_regex"] and all(is_digits(step) for step in steps[:-1])
    by_split = byte_level and not steps[-1]["use_regex"] and len(steps) == 2 and is_known_split(steps[0])
    return normal and not spec["added_tokens"] and not spec["model"].get("dropout") and (by_regex or by_split)


def is_digits(step: dict[str, Any]) -> bool:
    """Return True for the step that makes a piece of every digit."""
    return step["type"] == "Digits" and step["individual_digits"]


def is_known_split(step: dict[str, Any]) -> bool:
    """Return True for a split by one of SPLIT_PATTERNS."""
    known = step["type"] == "Split" and step["pattern"].get("Regex") in SPLIT_PATTERNS
    return known and step["behavior"] == "Isolated" and not step["invert"]
