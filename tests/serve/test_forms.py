from amenable.generation.engine import Completion
from amenable.serve.forms import ChatForm, TextForm, by_token, word
from amenable.text.tokenizer import Tokenizer


def completion_of(words: Tokenizer, text: str) -> Completion:
    ids = [*words.encode(text), words.eos_id]
    logps = [-float(i) for i in range(len(ids))]
    return Completion(ids, logps, "eos", text, [[(token, logp)] for token, logp in zip(ids, logps)])


def test_each_token_has_its_place_and_the_end_has_none(words: Tokenizer) -> None:
    made = completion_of(words, "a rose is red")
    assert len(by_token(words, made)) == len(made.ids) - 1
    told = TextForm(True).logprobs(words, made)
    assert "".join(told["tokens"]) == "a rose is red"
    for token, place in zip(told["tokens"], told["text_offset"]):
        assert "a rose is red"[place:].startswith(token)
    assert told["token_logprobs"] == made.logps[:-1]
    assert told["top_logprobs"][1] == {told["tokens"][1]: -1.0}
    rows = ChatForm(True).logprobs(words, made)["content"]
    assert [row["token"] for row in rows] == told["tokens"]
    assert b"".join(bytes(row["bytes"]) for row in rows) == b"a rose is red"
    assert rows[2]["top_logprobs"] == [{"token": rows[2]["token"], "logprob": -2.0, "bytes": rows[2]["bytes"]}]


def test_part_of_a_character_has_no_bytes(words: Tokenizer) -> None:
    parts = [word(words, token, 0.0) for token in words.encode("€")]
    assert len(parts) == 3 and all(part["bytes"] is None for part in parts)


def test_a_piece_without_text_says_nothing() -> None:
    assert ChatForm(False).piece("") == {"delta": {}} and ChatForm(False).piece("a") == {"delta": {"content": "a"}}
    assert TextForm(False).piece("") == {"text": ""} and TextForm(False).opening() is None


def test_the_tokens_of_a_stop_string_are_left_out(words: Tokenizer) -> None:
    ids = words.encode("a rose is red")
    for text in ("a rose is", "a ro", "a", ""):
        cut = Completion(ids, [0.0] * len(ids), "stop", text)
        told = "".join(TextForm(True).logprobs(words, cut)["tokens"])
        assert told.startswith(text) and len(told) - len(text) < 6
        assert (told == "") == (text == "")
