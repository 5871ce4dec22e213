import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.text.traced import Run, Source, Traced, dumps, join, traced

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def message(text: str, number: int = 0) -> Traced:
    return traced(text, number, "content")


def sources(text: str) -> list[tuple[str, int | None]]:
    """Return the texts of a result with the numbers of their messages, None for the template's."""
    pieces = (text if isinstance(text, Traced) else Traced(text)).pieces()
    return [(piece.text, piece.run.source and piece.run.source.message) for piece in pieces]


def test_texts_are_joined_with_their_sources():
    assert sources("<" + message("a") + ">" + message("b", 1)) == [("<", None), ("a", 0), (">", None), ("b", 1)]
    assert sources(join([message("a"), "b", message("c", 2)], ", ")) == [("a", 0), (", b, ", None), ("c", 2)]
    assert type(join(["a", "b"])) is str
    assert sources("(" + message("") + ")") == [("(", None), ("", 0), (")", None)], "an empty text has a position"


@pytest.mark.parametrize(
    "operation",
    [
        lambda s: s.strip(),
        lambda s: s.lstrip("\n "),
        lambda s: s.rstrip(),
        lambda s: s[2:-2],
        lambda s: s[3],
        lambda s: s[::-1],
        lambda s: s.split("b")[-1],
        lambda s: s.split(),
        lambda s: s.split(None, 1),
        lambda s: s.rsplit("b", 1),
        lambda s: s.rsplit(None, 1),
        lambda s: s.splitlines(),
        lambda s: s.splitlines(True),
        lambda s: s.partition("b"),
        lambda s: s.rpartition("b"),
        lambda s: s.replace("b", "<>"),
        lambda s: s.replace("b", "<>", 1),
        lambda s: s.removeprefix(" a"),
        lambda s: s.removesuffix("a "),
        lambda s: s.upper(),
        lambda s: s.title(),
        lambda s: list(s),
        lambda s: str(s),
        lambda s: s.join(["x", "y"]),
    ],
)
@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.text(" ab\nü", max_size=4), min_size=1, max_size=4))
def test_operations_give_what_strings_give_and_keep_the_sources_of_characters(operation, parts):
    text = join([message(part, i) for i, part in enumerate(parts)])
    plain = "".join(parts)
    if len(plain) <= 3:
        return
    ours, theirs = operation(text), operation(plain)
    assert ours == theirs
    for each in [ours] if isinstance(ours, str) else ours:
        for piece in each.pieces() if isinstance(each, Traced) else ():
            if piece.run.source is not None and piece.text:
                original = parts[piece.run.source.message][piece.run.start : piece.run.stop]
                assert piece.text.casefold() == original.casefold()


def test_an_empty_part_keeps_its_source():
    assert sources(message("  ").strip()) == [("", 0)]
    assert sources(message("a").split("a")[-1]) == [("", 0)]


@settings(max_examples=100, deadline=None)
@given(value=VALUES, indent=st.sampled_from([None, 0, 2]), ascii=st.booleans(), ordered=st.booleans())
def test_json_is_that_of_the_standard_library(value, indent, ascii, ordered):
    expected = json.dumps(value, ensure_ascii=ascii, indent=indent, sort_keys=ordered)
    for each in (value, traced(value, 0, "call")):
        assert dumps(each, ensure_ascii=ascii, indent=indent, sort_keys=ordered) == expected
    assert dumps(value, separators=(",", ":")) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_strings_and_keys_of_json_have_sources_and_its_signs_have_none():
    text = dumps(traced({"a": ['x"'], "n": 1}, 3, "call"))
    assert sources(text) == [
        ('{"', None), ("a", 3), ('": ["', None), ('x\\"', 3), ('"], "', None), ("n", 3), ('": 1}', None)
    ]  # fmt: skip
    fields = [piece.run.source for piece in Traced("").pieces() + text.pieces() if piece.run.source]
    assert fields == [Source(3, "call key a"), Source(3, "call.a[0]"), Source(3, "call key n")]


def test_a_part_of_an_escaped_text_stands_for_all_of_it():
    escaped = Run(4, Source(0, "call"), 0, 3)
    assert escaped.part(1, 2) == Run(1, Source(0, "call"), 0, 3)
    assert Run(4, Source(0, "call"), 5, 9).part(1, 3) == Run(2, Source(0, "call"), 6, 8)


def test_generated_text_is_marked():
    text = "a" + Traced("b").generated()
    assert [(piece.text, piece.run.generated) for piece in text.pieces()] == [("a", False), ("b", True)]
