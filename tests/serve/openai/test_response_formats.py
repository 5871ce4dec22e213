from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amenable.generation.requests import Completion
from amenable.generation.top_logprobs import PromptLogprobs
from amenable.serve.openai.response_formats import (
    ChatFormat,
    TextFormat,
    character_offsets,
    completion_tokens,
    token_entry,
    token_name,
    token_offsets,
)
from amenable.text.tokenizer import Tokenizer

BYTES = Tokenizer.train(["x"], 262)
"""a token for every byte, and the special tokens"""
FACE = "\N{SLIGHTLY SMILING FACE}"


def completion_of(words: Tokenizer, text: str) -> Completion:
    ids = [*words.encode(text), words.eos_id]
    logps = [-float(i) for i in range(len(ids))]
    return Completion(ids, logps, "eos", text, [[(token, logp)] for token, logp in zip(ids, logps)])


def test_each_token_has_its_place_and_the_end_is_no_text(words: Tokenizer) -> None:
    built = completion_of(words, "a rose is red")
    logprobs = TextFormat(True).logprobs(words, built)
    assert "".join(logprobs["tokens"][:-1]) == "a rose is red"
    for token, place in zip(logprobs["tokens"][:-1], logprobs["text_offset"]):
        assert "a rose is red"[place:].startswith(token)
    assert (logprobs["tokens"][-1], logprobs["text_offset"][-1]) == (words.eos, len("a rose is red"))
    assert logprobs["token_logprobs"] == built.logps
    assert logprobs["top_logprobs"][1] == {logprobs["tokens"][1]: -1.0}
    rows = ChatFormat(True).logprobs(words, built)["content"]
    assert [row["token"] for row in rows] == logprobs["tokens"][:-1]
    assert b"".join(bytes(row["bytes"]) for row in rows) == b"a rose is red"
    assert rows[2]["top_logprobs"] == [{"token": rows[2]["token"], "logprob": -2.0, "bytes": rows[2]["bytes"]}]


def test_parts_of_a_character_are_told_apart_by_their_bytes() -> None:
    ids = BYTES.encode(f"{FACE} a")
    rival = BYTES.encode("é")[0]
    top_logprobs = [[(ids[0], -0.1), (rival, -2.5)], *([(token, -0.1)] for token in ids[1:])]
    built = Completion(ids, [-0.1] * len(ids), "length", BYTES.decode(ids), top_logprobs)
    logprobs = TextFormat(True).logprobs(BYTES, built)
    assert logprobs["tokens"] == [r"bytes:\xf0", r"bytes:\x9f", r"bytes:\x99", r"bytes:\x82", " ", "a"]
    assert logprobs["text_offset"] == [0, 0, 0, 0, 1, 2]
    assert logprobs["top_logprobs"][0] == {r"bytes:\xf0": -0.1, r"bytes:\xc3": -2.5}
    rows = ChatFormat(True).logprobs(BYTES, built)["content"]
    assert b"".join(bytes(row["bytes"]) for row in rows).decode() == f"{FACE} a"
    assert rows[0]["top_logprobs"] == [token_entry(BYTES, ids[0], -0.1), token_entry(BYTES, rival, -2.5)]
    assert (rows[0]["token"], rows[0]["bytes"]) == (r"\xf0", [0xF0])


@given(st.data(), st.lists(st.integers(0, BYTES.vocab_size + 3), min_size=1, max_size=12))
def test_every_id_has_an_entry_and_its_own_log_probability(data: Any, ids: list[int]) -> None:
    """Of any bytes, special tokens, and ids of which the tokenizer knows nothing."""
    choices = st.lists(st.integers(0, BYTES.vocab_size + 3), unique=True, max_size=5)
    top_logprobs = [[(i, -float(place)) for place, i in enumerate(data.draw(choices))] for _ in ids]
    logps = [dict(near).get(token, -9.0) for token, near in zip(ids, top_logprobs)]
    text = BYTES.decode(ids)
    logprobs = TextFormat(True).logprobs(BYTES, Completion(ids, logps, "length", text, top_logprobs))
    for token, name, logp, near, named in zip(ids, logprobs["tokens"], logps, top_logprobs, logprobs["top_logprobs"]):
        assert named[name] == logp
        assert len(named) == len({*dict(near), token})
        assert sorted(named.values()) == sorted({**dict(near), token: logp}.values())
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"]) and logprobs["text_offset"][-1] <= len(text)


@given(st.binary(max_size=24))
def test_a_byte_lies_in_the_character_that_it_is_decoded_to(data: bytes) -> None:
    places = character_offsets(data)
    text = data.decode("utf-8", "replace")
    assert len(places) == len(data) + 1 and places[-1] == len(text) and places == sorted(places)
    for place, character in enumerate(text):
        own = bytes(byte for byte, at in zip(data, places) if at == place)
        assert own.decode("utf-8", "replace") == character
    ids = [next(i for i in range(BYTES.vocab_size) if BYTES.token_bytes(i) == bytes([byte])) for byte in data]
    assert BYTES.decode(ids) == text and token_offsets(BYTES, ids) == places[:-1]


def test_two_ids_of_one_name_both_keep_their_entry() -> None:
    unknown = BYTES.vocab_size + 1
    assert token_name(BYTES, unknown) == f"token_id:{unknown}"
    twin = Completion([BYTES.eos_id], [-3.0], "length", "", [[(unknown, -1.0), (unknown + 1, -2.0)]])
    (named,) = TextFormat(True).logprobs(BYTES, twin)["top_logprobs"]
    assert named == {f"token_id:{unknown}": -1.0, f"token_id:{unknown + 1}": -2.0, BYTES.eos: -3.0}


def test_a_prompt_is_given_back_with_its_tokens_before_the_answers(words: Tokenizer) -> None:
    prompt, built = words.encode("a rose"), completion_of(words, " is red")
    logps = [-0.5] * (len(prompt) - 1)
    scored = Completion(**{**vars(built), "prompt_logprobs": PromptLogprobs(logps, [[(7, -0.25)] for _ in logps])})
    form = TextFormat(True, echo=True)
    logprobs = form.logprobs(words, scored, prompt)
    assert form.echoed_text(words, prompt) == "a rose" and form.opening(words, prompt) == {"text": "a rose"}
    assert "".join(logprobs["tokens"][:-1]) == "a rose is red"
    assert logprobs["token_logprobs"] == [None, *logps, *built.logps]
    assert logprobs["top_logprobs"][0] is None and logprobs["top_logprobs"][1][token_name(words, 7)] == -0.25
    assert logprobs["text_offset"][len(prompt) :] == [
        len("a rose") + place for place in TextFormat(True).logprobs(words, built)["text_offset"]
    ]
    with_bos = Completion(
        **{**vars(built), "prompt_logprobs": PromptLogprobs([-0.75, *logps], [[], *([] for _ in logps)])}
    )
    logprobs = TextFormat(True, echo=True, added=1).logprobs(words, with_bos, [words.bos_id, *prompt])
    assert logprobs["tokens"][: len(prompt)] == [words.decode([token]) for token in prompt]
    assert logprobs["token_logprobs"][: len(prompt)] == [-0.75, *logps] and None not in logprobs["top_logprobs"]


def test_a_piece_without_text_says_nothing() -> None:
    assert ChatFormat(False).chunk("") == {"delta": {}} and ChatFormat(False).chunk("a") == {"delta": {"content": "a"}}
    assert TextFormat(False).chunk("") == {"text": ""} and TextFormat(False).opening(BYTES, [7]) is None


def test_the_tokens_of_a_stop_string_are_left_out(words: Tokenizer) -> None:
    ids = words.encode("a rose is red")
    for text in ("a rose is", "a ro", "a", ""):
        cut = Completion(ids, [0.0] * len(ids), "stop", text)
        logprobs = "".join(TextFormat(True).logprobs(words, cut)["tokens"])
        assert logprobs.startswith(text) and len(logprobs) - len(text) < 6
        assert (logprobs == "") == (text == "")
    face = BYTES.encode(f"a{FACE}!")
    cut = Completion(face, [0.0] * len(face), "stop", f"a{FACE}")
    assert [row.id for row in completion_tokens(BYTES, cut)] == face[:-1]
