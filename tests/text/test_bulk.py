"""Tokenizing of large text: the ids are those of `encode`, whatever the text and the tokenizer."""

from array import array
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from amenable.text import bulk
from amenable.text.bulk import BulkEncoder, divides_at_spaces, id_type
from amenable.text.chat import render_document
from amenable.text.tokenizer import EOS, Tokenizer

TEXTS = [
    "The rose is red.  It isn't blue, they'LL say\n\nin 1984 (or 2 001)",
    " begins and ends with a space ",
    "tabs\tand \t runs   of    them \r\n \n x",
    "naïve café ﬁne Å Å 東京 は 大きい  都市 😀 👩‍👩‍👧 ",
    "a 's 'Twas 'll a\u00a0b \u0085 \u2028x \u0301y",
    "\x1c \x1f a \x0b b",
    "",
    " ",
    "  ",
    "null \x00 byte  x",
    "it ends. It (really) ends, \"so\" it's 'over'! Yes?) no:",
]
ALPHABET = st.sampled_from(
    [*" \n\t\rab'sTé́1 2.,!東\u00a0\u2003\x1c\u0085", "  ", " a", "'ll", "the ", "a. ", 'b")', "'d ", "a?!) "]
)


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    backend = Backend(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXTS * 3, trainer)
    backend.add_special_tokens([EOS])
    return Tokenizer(backend, bos=None, eos=EOS, pad=None)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "ours": lambda: Tokenizer.train(TEXTS * 3, 400),
    "gpt2": lambda: trained(GPT2),
    "llama3": lambda: trained(split(sorted(bulk.SPLIT_PATTERNS)[-1])),
    "qwen2": lambda: trained(split(f"{bulk.CONTRACTIONS}\\p{{N}}{bulk.REST}"), normalizers.NFC()),
    "smollm2": lambda: trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2])),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


def ids_of(encoder: BulkEncoder, text: str) -> list[int]:
    return array(encoder.code, encoder.encode(text)).tolist()


def test_words_are_looked_up_and_have_the_ids_of_the_whole_text(tokenizer: Tokenizer) -> None:
    encoder = BulkEncoder(tokenizer)
    assert encoder.words is not None
    for text in [*TEXTS, " ".join(TEXTS), "\n".join(TEXTS)] * 2:
        assert ids_of(encoder, text) == tokenizer.encode(text)
    assert len(encoder.words) > 20
    ids = array(encoder.code, encoder.encode_document(TEXTS[0])).tolist()
    assert ids == render_document(tokenizer, TEXTS[0])


@settings(max_examples=300, deadline=None)
@given(st.lists(ALPHABET, max_size=30).map("".join))
@example(" a\n \na ")  # a line of a space alone
def test_any_text_has_the_ids_of_encode(tokenizer: Tokenizer, text: str) -> None:
    assert ids_of(BulkEncoder(tokenizer), text) == tokenizer.encode(text)


def test_other_tokenizers_go_through_the_library() -> None:
    added = trained(GPT2).content_backend
    added.add_tokens([AddedToken("rose is", special=False)])
    for backend in (
        trained(pre_tokenizers.ByteLevel(add_prefix_space=True)).content_backend,
        trained(split(r"[^\r\n]+")).content_backend,
        trained(GPT2, normalizers.Lowercase()).content_backend,
        trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), GPT2])).content_backend,
        added,
    ):
        assert not divides_at_spaces(backend)
    lines = trained(split(r"[^\r\n]+"))
    encoder = BulkEncoder(lines)
    assert encoder.words is None and ids_of(encoder, TEXTS[0]) == lines.encode(TEXTS[0])


def test_long_words_are_not_kept_and_a_full_table_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = BulkEncoder(TOKENIZERS["ours"]())
    assert encoder.words is not None
    monkeypatch.setattr(bulk, "MAX_WORDS", 2)
    text = f"a {'x' * 65} b c d"
    assert ids_of(encoder, text) == encoder.tokenizer.encode(text)
    assert list(encoder.words) == ["b", "c"]


def test_ids_have_the_smallest_type() -> None:
    assert id_type(1 << 16) == "uint16" and id_type((1 << 16) + 1) == "uint32"


def test_lines_are_divided_where_no_piece_goes_on(tokenizer: Tokenizer) -> None:
    encoder = BulkEncoder(tokenizer)
    lines = [
        f"{word}{end}{start}" for word in ("red", "it") for end in ("\n", ".\n\n", '!"\n', "\r\n") for start in "a'7東."
    ]
    text = " ".join(["It is", *lines, "so."])
    assert ids_of(encoder, text) == tokenizer.encode(text)
    assert encoder.starts.keys() >= {"a", "'", "7", "東", "."} and '!"\n' in encoder.marks
    assert not any("\n" in word for word in encoder.words if "\r" not in word)


@pytest.mark.parametrize("letters", ["a", "re"])
def test_a_word_of_four_hundred_thousand_letters(letters: str) -> None:
    """In quadratic time it would take hours (benchmarks/tokenizing.py has the ratio of times)."""
    tokenizer = TOKENIZERS["ours"]()
    encoder, text = BulkEncoder(tokenizer), f"It is {letters * (400_000 // len(letters))} so."
    ids = ids_of(encoder, text)
    assert tokenizer.decode(ids) == text and not any(len(word) > bulk.MAX_WORD for word in encoder.words or {})
