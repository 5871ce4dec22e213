"""Word-level tokenizers."""

from pathlib import Path

import pytest

from amenable.text.tokenizer import Tokenizer
from amenable.text.words import uncovered_bytes, word_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return word_tokenizer(["the", "cat", "sat", "the"])


def test_words_are_tokens_and_others_unknown(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("the  cat\nbarked, the cat") == [3, 4, 0, 3, 4]
    assert tokenizer.decode([1, 3, 4, 0, 2]) == "the cat <unk>"
    assert tokenizer.vocab_size == 6


def test_a_text_cannot_spell_what_begins_and_ends_it(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<s> the </s>") == [0, 3, 0]
    assert tokenizer.opening_ids == [tokenizer.bos_id] == [1]
    assert tokenizer.stop_ids == (tokenizer.eos_id,) == (2,)


def test_a_folder_is_read_as_it_was_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    stored = Tokenizer.load(tmp_path)
    assert stored.fingerprint == tokenizer.fingerprint
    assert (stored.bos, stored.eos, stored.pad, stored.opening_ids) == ("<s>", "</s>", None, [1])


def test_bytes_that_ids_do_not_say(tokenizer: Tokenizer) -> None:
    """`the cat barked`: 14 bytes, of which `the ` and `cat ` are said and the six of `barked` are not."""
    text = "the cat barked"
    assert uncovered_bytes(tokenizer, [1, *tokenizer.encode(text), 2], len(text)) == 6
    assert uncovered_bytes(tokenizer, tokenizer.encode("the cat"), 7) == 0
    byte_level = Tokenizer.train(["the cat"], 262)
    assert uncovered_bytes(byte_level, byte_level.encode("x"), 100) == 0
