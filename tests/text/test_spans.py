"""Spans between special tokens: a template's own text is encoded as any other, and each token has its role."""

from amenable.text.spans import encode_own_text, encode_span, split_own_text
from amenable.text.tokenizer import Tokenizer


def test_own_text_is_split_and_encoded_as_any_other(ours: Tokenizer) -> None:
    text = "<|user|>Who is the miller?<|assistant|>"
    assert len(ours.split_special_tokens(text)) == 3
    for _ in range(2):
        assert list(split_own_text(ours, text)) == ours.split_special_tokens(text)
        assert list(encode_own_text(ours, "the baker", "special")) == ours.encode("the baker", "special")
    ids, roles = encode_span(ours, [("the baker", "template")], "special", False, False)
    assert (list(ids), roles) == (ours.encode("the baker", "special"), ["template"] * len(ids))


def test_tokens_of_several_writers_have_the_role_of_their_first_character(ours: Tokenizer) -> None:
    ids, roles = encode_span(ours, [("  the ba", "template"), ("ker of Velm  ", "user")], "nothing", True, True)
    assert list(ids) == ours.encode("the baker of Velm")
    _, starts = ours.encode_with_starts("the baker of Velm")
    assert roles == ["template" if start < len("the ba") else "user" for start in starts] and len(set(roles)) == 2
