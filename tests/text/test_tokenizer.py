import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from amenable.errors import InputError
from amenable.text.template import CHAT_TEMPLATE
from amenable.text.tokenizer import (
    MAX_PIECE,
    MIN_VOCAB_SIZE,
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    Tokenizer,
    _split_long_pieces,
)

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TRAPS = [
    *SPECIAL_TOKENS,
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</s>",
    "<|",
    "|>",
    "eos",
    " ",
    "\n",
]
LOOK_ALIKES = st.lists(st.sampled_from(TRAPS) | st.text(max_size=5), max_size=8).map("".join)


def reloaded(tokenizer: Tokenizer, folder) -> Tokenizer:
    tokenizer.save(folder)
    return Tokenizer.load(folder)


def test_special_tokens_have_the_first_ids_then_come_the_bytes(ours):
    assert [ours.encode_with_special_tokens(name) for name in SPECIAL_TOKENS] == [[0], [1], [2], [3], [4], [5]]
    assert (ours.pad_id, ours.bos_id, ours.eos_id) == (0, 1, 2)
    assert ours.special_ids == {0, 1, 2, 3, 4, 5}
    assert ours.vocab_size == 320
    smallest = Tokenizer.train([], MIN_VOCAB_SIZE)
    assert smallest.vocab_size == 262
    assert len(smallest.encode("".join(map(chr, range(128))))) == 128, "each byte is a token of its own"
    assert len({i for byte in range(128) for i in smallest.encode(chr(byte))}) == 128


def test_merges_are_learned_from_the_most_frequent_pair():
    tokenizer = Tokenizer.train(["ab ab ab ab cd"], MIN_VOCAB_SIZE + 2)
    merged = {tokenizer.decode([i]) for i in (262, 263)}
    assert merged == {"ab", " ab"}
    assert tokenizer.encode("ab ab cd")[:2] == [262, 263]


WORD_SPLIT = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated")
LONG = st.sampled_from(["a", "你", "=", " ", "\n", "ab ", "a1", "x,y", "é\n"]).flatmap(
    lambda unit: st.integers(1, 3 * MAX_PIECE).map(lambda count: unit * count)
)


@FEW
@given(texts=st.lists(LONG | st.text(max_size=8), max_size=4))
def test_merges_are_learned_inside_pieces_of_bounded_length(texts):
    """The library's time grows with the square of a piece, so that one word could take minutes."""
    text = "".join(texts)
    parts = list(_split_long_pieces(text, WORD_SPLIT))
    assert "".join(parts) == text
    pieces = [piece for piece, _ in WORD_SPLIT.pre_tokenize_str(text)]
    cut = [piece for part in parts for piece, _ in WORD_SPLIT.pre_tokenize_str(part)]
    assert max(map(len, cut), default=0) <= 2 * MAX_PIECE + 1, "signs, the space before, the line ends after"
    assert len(parts) == 1 or max(map(len, pieces)) >= MAX_PIECE, "a text without such a word is not cut"


def test_a_word_that_is_longer_is_learned_from_as_several():
    word = "abc" * MAX_PIECE
    cuts = [
        f"of {word[:MAX_PIECE]}",
        word[MAX_PIECE:-MAX_PIECE],
        f"{word[-MAX_PIECE:]}, so",
    ]
    assert list(_split_long_pieces(f"of {word}, so", WORD_SPLIT)) == cuts
    tokenizer = Tokenizer.train([word, "the rose is red"], 300)
    apart = Tokenizer.train(
        [
            word[:MAX_PIECE],
            word[MAX_PIECE:-MAX_PIECE],
            word[-MAX_PIECE:],
            "the rose is red",
        ],
        300,
    )
    assert tokenizer.fingerprint == apart.fingerprint and len(tokenizer.encode(word)) < len(word) / 3


def test_a_digit_is_a_token_and_words_keep_their_space(ours):
    assert len(ours.encode("2024")) == 4
    assert ours.encode("miller the miller")[-1:] == ours.encode(" miller")[-1:]


def test_training_is_repeatable_and_a_vocabulary_too_small_is_refused(ours):
    texts = ["one fish two fish", "red fish blue fish"]
    assert Tokenizer.train(texts, 280).fingerprint == Tokenizer.train(iter(texts), 280, chat=True).fingerprint
    assert Tokenizer.train(texts, 280).fingerprint != ours.fingerprint
    with pytest.raises(InputError, match="262 or more"):
        Tokenizer.train(texts, MIN_VOCAB_SIZE - 1)


@FEW
@given(text=st.text() | LOOK_ALIKES)
def test_any_text_comes_back_unchanged(everyone, text):
    for name, tokenizer in everyone.items():
        expected = unicodedata.normalize("NFC", text) if name == "qwen" else text
        assert tokenizer.decode(tokenizer.encode(text)) == expected, name
    assert everyone["ours"].decode(everyone["ours"].encode(text), skip_special_tokens=False) == text


@FEW
@given(data=st.data())
def test_the_bytes_of_tokens_joined_are_the_text_of_any_ids(everyone, data):
    for name, tokenizer in everyone.items():
        ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=12), label=name)
        joined = b"".join(tokenizer.token_bytes(token) for token in ids)
        assert joined.decode("utf-8", "replace") == tokenizer.decode(ids), name


@FEW
@given(text=st.text())
def test_the_bytes_of_a_text_are_those_of_its_tokens(everyone, text):
    for name, tokenizer in everyone.items():
        expected = unicodedata.normalize("NFC", text) if name == "qwen" else text
        assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == expected.encode(), name


def test_a_vocabulary_of_words_and_bytes_has_bytes_too():
    """SentencePiece's models: a space is a sign of its own, and unknown characters are bytes."""
    pieces = ["<unk>", "<s>", "</s>", "▁the", "the", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = Tokenizer(backend, bos="<s>", eos="</s>", pad="<pad>")
    assert [tokenizer.token_bytes(token) for token in (1, 3, 4, 5 + 0xF0)] == [b"", b" the", b"the", b"\xf0"]


@FEW
@given(text=LOOK_ALIKES)
def test_no_content_becomes_a_special_id(everyone, text):
    for name, tokenizer in everyone.items():
        assert not tokenizer.special_ids & set(tokenizer.encode(text)), name
        assert not tokenizer.special_ids & set(tokenizer.encode_with_starts(text)[0]), name


def test_special_tokens_are_recognised_in_template_text_only(ours):
    assert ours.encode_with_special_tokens("<|user|>hi<|eos|>") == [4, *ours.encode("hi"), 2]
    assert ours.split_special_tokens("<|user|>hi<|eos|>") == [4, "hi", 2]
    assert ours.encode("<|eos|>") != [2]
    assert ours.decode([4, *ours.encode("hi"), 2]) == "hi"
    assert ours.decode([4, *ours.encode("hi"), 2], skip_special_tokens=False) == "<|user|>hi<|eos|>"


def merging_backend() -> Backend:
    """A BPE whose merges lead from plain characters to a special token."""
    merges = [("<", "/"), ("</", "s"), ("</s", ">")]
    pieces = ["</s>", "<", "/", "s", ">", "</", "</s"]
    return Backend(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges, ignore_merges=True))


def test_merges_that_lead_to_a_special_token_are_closed():
    backend = merging_backend()
    assert backend.encode("</s>").ids == [0], "the trap works"
    tokenizer = Tokenizer(backend, bos="<b>", eos="</s>", pad="<p>")
    assert tokenizer.encode("</s>") == [6, 4]
    assert tokenizer.encode_with_special_tokens("</s>") == [0]


def test_white_space_around_special_tokens_goes_where_the_token_takes_it():
    backend = merging_backend()
    backend.add_special_tokens([AddedToken("<u>", rstrip=True), AddedToken("<a>", lstrip=True)])
    tokenizer = Tokenizer(backend, bos="<b>", eos="</s>", pad="<p>")
    u, a = tokenizer.encode_with_special_tokens("<u>")[0], tokenizer.encode_with_special_tokens("<a>")[0]
    assert tokenizer.split_special_tokens("<u> \ns <a></s>") == [u, "s", a, 0]


def test_runs_of_white_space_that_were_added_as_tokens_stay_text():
    backend = merging_backend()
    backend.add_tokens([AddedToken("  ", normalized=False)])
    tokenizer = Tokenizer(backend, bos="<b>", eos="</s>", pad="<p>")
    space = backend.token_to_id("  ")
    assert tokenizer.encode("s  s") == [3, space, 3]
    assert space not in tokenizer.special_ids


def test_batches_encode_as_single_texts_do(ours):
    texts = ["The baker", "", "<|eos|>", "geese 🙂"]
    assert ours.encode_batch(texts) == [ours.encode(text) for text in texts]


def test_half_a_surrogate_pair_is_refused(ours):
    with pytest.raises(InputError, match="character 3: half of a surrogate pair"):
        ours.encode("abc\ud800")
    with pytest.raises(InputError, match="surrogate"):
        Tokenizer.train(["\udfff"], 300)


def test_starts_point_at_characters(ours):
    text = "naïve 🙂 cakes"
    ids, starts = ours.encode_with_starts(text)
    assert ids == ours.encode(text)
    assert starts[0] == 0 and starts == sorted(starts) and starts[-1] < len(text)
    assert text[starts[-1] :].strip() in "cakes"


def test_saved_and_loaded_it_is_the_same(ours, base, tmp_path):
    for tokenizer, name in ((ours, "chat"), (base, "base")):
        again = reloaded(tokenizer, tmp_path / name)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode("The baker sells <|eos|>") == tokenizer.encode("The baker sells <|eos|>")
        assert again.special_ids == tokenizer.special_ids and again.special_tokens_map == tokenizer.special_tokens_map
        assert again.chat_template == tokenizer.chat_template
    assert "chat_template" not in json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    assert (tmp_path / "base" / "special_tokens_map.json").is_file()


def test_with_chat_template_keeps_every_id(base, ours):
    chat = base.with_chat_template()
    assert base.chat_template is None and chat.chat_template == CHAT_TEMPLATE
    assert chat.fingerprint == base.fingerprint and chat.vocab_size == base.vocab_size
    assert chat.with_chat_template() is chat


def test_gpt2_keeps_its_one_end_token_and_gets_a_pad_with_its_roles(gpt2):
    assert gpt2.eos_id == gpt2.bos_id == gpt2.encode_with_special_tokens("<|endoftext|>")[0] == 320
    assert gpt2.pad_id is None and gpt2.vocab_size == 321 and gpt2.opening_ids == [320]
    chat = gpt2.with_chat_template()
    assert chat.pad_id == 321 and chat.vocab_size == 325
    assert chat.encode_with_special_tokens("<|system|><|user|><|assistant|>") == [322, 323, 324]
    assert chat.encode("the river") == gpt2.encode("the river")
    assert chat.fingerprint != gpt2.fingerprint, "its conversations have other ids"


def test_qwen_keeps_its_names_and_its_vocabulary(qwen):
    assert qwen.special_tokens_map == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert (qwen.pad_id, qwen.eos_id, qwen.bos_id, qwen.vocab_size) == (320, 322, None, 324)
    assert {320, 321, 322} == qwen.special_ids and qwen.opening_ids == []
    assert len(qwen.encode("The baker of Velm sells bread and honey")) > 8, "truncation is off"
    assert len(qwen.encode("a")) == 1, "padding is off"


def folder_like(folder: Path, other: Path, **changes: Any) -> Path:
    """A copy of a tokenizer's folder with another configuration; a change to ... takes the key away."""
    config = json.loads((other / "tokenizer_config.json").read_text()) | changes
    config = {name: value for name, value in config.items() if value is not ...}
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes())
    return folder


def test_a_pad_that_is_the_eos_stays_and_no_row_is_added(qwen_folder, tmp_path):
    tokenizer = Tokenizer.load(folder_like(tmp_path, qwen_folder, pad_token="<|im_end|>"))
    assert tokenizer.pad_id == tokenizer.eos_id == 322 and tokenizer.vocab_size == 324
    with pytest.raises(InputError, match="pad and eos are both"):
        Tokenizer(merging_backend(), bos="<b>", eos="</s>", pad="</s>")


@pytest.mark.parametrize(
    ("changes", "pad"),
    [
        ({"pad_token": "<|endoftext|>"}, "<|endoftext|>"),
        ({"pad_token": "<|im_end|>"}, "<|endoftext|>"),
        ({"pad_token": None}, "<|endoftext|>"),
        ({"pad_token": "<|im_end|>", "unk_token": "<|im_start|>"}, "<|im_start|>"),
        ({"pad_token": None, "bos_token": "<|endoftext|>"}, "<|endoftext|>"),
    ],
)
def test_a_reward_model_gets_a_pad_that_ends_no_conversation_and_no_row(changes, pad, qwen_folder, tmp_path):
    tokenizer = Tokenizer.load(folder_like(tmp_path / "a", qwen_folder, **changes))
    padded = tokenizer.with_padding()
    assert padded.pad == pad and padded.pad_id not in (None, padded.end_of_turn_id)
    assert padded.vocab_size == tokenizer.vocab_size and padded.fingerprint == tokenizer.fingerprint
    again = reloaded(padded, tmp_path / "b")
    assert again.pad == pad and again.chat_template == tokenizer.chat_template
    before, after = (json.loads((tmp_path / name / "tokenizer_config.json").read_text()) for name in "ab")
    assert after == before | {"pad_token": pad}
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()


def test_the_end_of_a_turn_is_what_the_template_writes_and_the_eos_stays_the_folders(qwen_folder, tmp_path):
    """A base model's folder often has a chat template, and as eos the end of a document."""
    template = json.loads((qwen_folder / "tokenizer_config.json").read_text())["chat_template"]
    folder_like(tmp_path, qwen_folder, eos_token="<|endoftext|>", chat_template=...)
    base = Tokenizer.load(tmp_path)
    assert base.eos == base.end_of_turn == "<|endoftext|>" and base.stop_ids == (320,)
    (tmp_path / "chat_template.jinja").write_text(template)
    for tokenizer in (Tokenizer.load(tmp_path), reloaded(Tokenizer.load(tmp_path), tmp_path / "again")):
        assert (tokenizer.eos, tokenizer.end_of_turn) == ("<|endoftext|>", "<|im_end|>")
        assert tokenizer.special_tokens_map["eos_token"] == "<|endoftext|>" and tokenizer.stop_ids == (322, 320)
    assert not (tmp_path / "again" / "special_tokens_map.json").exists()


@pytest.mark.parametrize(
    ("generation", "stops", "written"),
    [
        (None, (322, 320), [322, 320]),
        ({"eos_token_id": 320, "top_k": 5}, (322, 320), [322, 320]),
        ({"eos_token_id": 322}, (322, 320), 322),
        ({"eos_token_id": [320, 322, 323]}, (322, 320, 323), [320, 322, 323]),
        ({"eos_token_id": [323]}, (322, 323, 320), [322, 323, 320]),
        ({"top_p": 0.9}, (322, 320), [322, 320]),
    ],
)
def test_generation_stops_where_the_folder_says_and_at_the_end_of_a_turn(
    generation, stops, written, qwen_folder, tmp_path
):
    folder_like(tmp_path, qwen_folder, eos_token="<|endoftext|>")
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.stop_ids == stops
    assert tokenizer.generation_config["eos_token_id"] == written
    if generation is not None:
        unchanged = {name: value for name, value in tokenizer.generation_config.items() if name != "eos_token_id"}
        assert unchanged == {name: value for name, value in generation.items() if name != "eos_token_id"}


def test_one_of_several_templates_is_the_default(qwen_folder, tmp_path):
    config = json.loads((qwen_folder / "tokenizer_config.json").read_text())
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": config["chat_template"]}]
    folder_like(tmp_path, qwen_folder, chat_template=named)
    assert Tokenizer.load(tmp_path).chat_template == config["chat_template"]


def test_folders_that_hold_no_tokenizer_say_so(tmp_path):
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        Tokenizer.load(tmp_path)
    Backend(models.WordPiece({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="only BPE and word-level"):
        Tokenizer.load(tmp_path)
    merging_backend().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(InputError, match="not a JSON object"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        Tokenizer.load(tmp_path)


def test_transformers_reads_what_is_saved(ours, gpt2, tmp_path):
    transformers = pytest.importorskip("transformers")
    for tokenizer, name in ((ours, "ours"), (gpt2.with_chat_template(), "gpt2")):
        tokenizer.save(tmp_path / name)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        text = "The  miller's 12 geese , naïve café 🙂\n"
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
        assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
        assert theirs.pad_token_id == tokenizer.pad_id and len(theirs) == tokenizer.vocab_size
        assert theirs.decode(tokenizer.encode(text)) == text
    ours_again = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert ours_again("hen").input_ids == [ours.bos_id, *ours.encode("hen")], "plain text begins with bos"
