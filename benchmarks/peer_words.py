"""Token ids written out, for a trainer that takes nothing but text: it reads back exactly the ids that were meant."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

EOS_WORD, PAD_WORD = "<eos>", "<pad>"
"""no numbers: a special token is found inside other words too, so that with "0" as EOS 102 would be three tokens"""


def words(vocab_size: int, eos: int, pad: int) -> PreTrainedTokenizerFast:
    """A tokenizer in which an id, written as a number, is a token; EOS and PAD have words of their own."""
    named = {eos: EOS_WORD, pad: PAD_WORD}
    vocabulary = {named.get(i, str(i)): i for i in range(vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD_WORD, eos_token=EOS_WORD, unk_token=PAD_WORD
    )


def text(ids: list[int]) -> str:
    """Ids that are neither EOS nor PAD."""
    return " ".join(map(str, ids))
