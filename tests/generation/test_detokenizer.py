from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.generation.detokenizer import IncrementalDetokenizer


def letters(ids: list[int]) -> str:
    return "".join(chr(97 + i) for i in ids)


def utf8(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_text_never_ends_inside_a_character(text):
    text = text.replace("\ufffd", "").encode("utf-8", "ignore").decode()
    detokenizer = IncrementalDetokenizer(utf8)
    for byte in text.encode():
        detokenizer.push(byte)
        assert text.startswith(detokenizer.text)
    assert detokenizer.text == text


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80))
def test_text_of_broken_bytes_lags_by_at_most_the_open_character(data):
    detokenizer = IncrementalDetokenizer(utf8)
    for i, byte in enumerate(data):
        detokenizer.push(byte)
        whole = utf8(list(data[: i + 1]))
        assert whole.startswith(detokenizer.text)
        assert len(whole) - len(detokenizer.text) <= 3


def test_only_a_window_is_decoded():
    longest: list[int] = []

    def decode(ids: list[int]) -> str:
        longest.append(len(ids))
        return letters(ids)

    detokenizer = IncrementalDetokenizer(decode)
    for _ in range(200):
        detokenizer.push(5)
    assert detokenizer.text == "f" * 200
    assert max(longest) < 25
