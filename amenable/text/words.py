"""Word-level tokenizers: a token is a word between white space, of a fixed vocabulary; every other word is <unk>.

For n-gram models of words, in whose vocabulary KenLM and ARPA files name <s>, </s> and <unk>. White space is not kept:
texts come back with single spaces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from amenable.text.tokenizer import Tokenizer

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Return a tokenizer whose tokens are <unk>, <s>, </s> and these words, in this order."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([UNKNOWN, BEGIN, END, *words]))}
    backend = Backend(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, vocabulary[BEGIN])]
    )
    return Tokenizer(backend, bos=BEGIN, eos=END, pad=None)


def uncovered_bytes(tokenizer: Tokenizer, ids: Iterable[int], byte_count: int) -> int:
    """Return the bytes of a text that its ids do not say: unknown words, and white space beyond a space between words.

    ids: of the text, of `byte_count` bytes. 0 for tokenizers from whose ids any text comes back.
    """
    if tokenizer.spec["model"]["type"] != "WordLevel":
        return 0
    unknown = tokenizer.spec["model"]["vocab"][UNKNOWN]
    covered = sum(
        count * len(tokenizer.token_bytes(token)) for token, count in Counter(ids).items() if token != unknown
    )
    return max(byte_count - covered, 0)
