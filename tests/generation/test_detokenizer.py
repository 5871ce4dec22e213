from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.generation.detokenizer import GrowingText


def letters(ids: list[int]) -> str:
    return "".join(chr(97 + i) for i in ids)


def utf8(ids: list[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_growing_text_never_shows_half_a_character(text):
    text = text.replace("\ufffd", "").encode("utf-8", "ignore").decode()
    growing = GrowingText(utf8)
    for byte in text.encode():
        growing.push(byte)
        assert text.startswith(growing.text)
    assert growing.text == text


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80))
def test_growing_text_of_broken_bytes_lags_by_at_most_the_open_character(data):
    growing = GrowingText(utf8)
    for i, byte in enumerate(data):
        growing.push(byte)
        whole = utf8(list(data[: i + 1]))
        assert whole.startswith(growing.text)
        assert len(whole) - len(growing.text) <= 3


def test_growing_text_decodes_a_window_and_not_everything():
    longest: list[int] = []

    def decode(ids: list[int]) -> str:
        longest.append(len(ids))
        return letters(ids)

    growing = GrowingText(decode)
    for _ in range(200):
        growing.push(5)
    assert growing.text == "f" * 200
    assert max(longest) < 25
