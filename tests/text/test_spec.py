import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from amenable.text.spec import continuation_spec, special_tokens, turn_tokens, without_special_tokens
from amenable.text.tokenizer import Tokenizer

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = ("<think>", "</think>", "<ORDER_ID>", "  ", "order", "Ä")
SPECIAL = ("<|bos|>", "<|eos|>", "<|pad|>")
flags = st.fixed_dictionaries(dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), st.booleans()))
around = st.lists(
    st.sampled_from([*NAMES, "<thin", "k>", " ", "\n", "the", "ordered", "_", "ä", "Ä"]) | st.text(max_size=4)
)


def sentence_piece(pre_tokenizer=None, normalizer=None) -> Backend:
    """A byte-fallback BPE of few pieces, as Llama's: spaces are a sign, and a text begins with one."""
    signs = list("▁abcdefghijklmnopqrstuvwxyz[]/INST.!\n")
    merges = [("▁", "t"), ("▁t", "he"), ("h", "e"), ("▁", "▁"), ("▁", "a"), ("t", "he")]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *signs, *("".join(pair) for pair in merges)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    order = sorted(merges, key=lambda pair: len("".join(pair)))
    backend = Backend(models.BPE(vocabulary, order, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


LEGACY = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
PIECES = {
    "a space before every piece": sentence_piece(normalizer=LEGACY),
    "a space before every word": sentence_piece(pre_tokenizers.Metaspace("▁", "always", split=False)),
    "a space at the front": sentence_piece(pre_tokenizers.Metaspace("▁", "first", split=False)),
}


def with_added(base: Tokenizer, tokens: dict[str, dict]) -> Tokenizer:
    backend = Backend.from_str(base._backend.to_str())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.add_tokens([AddedToken(name, special=False, **options) for name, options in tokens.items()])
    return Tokenizer(backend, bos=base.bos, eos=base.eos, pad=base.pad)


@FEW
@given(tokens=st.dictionaries(st.sampled_from(NAMES), flags, min_size=1), text=around.map("".join))
def test_added_tokens_that_are_not_special_are_in_contents_those_of_transformers(base, tokens, text):
    transformers = pytest.importorskip("transformers")
    tokenizer = with_added(base, tokens)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(tokenizer._backend.to_str()))
    ids = theirs(text, add_special_tokens=False).input_ids
    assert tokenizer.encode(text) == tokenizer.encode_batch([text])[0] == ids
    assert tokenizer.encode_with_starts(text)[0] == ids
    assert not {tokenizer._backend.token_to_id(name) for name in tokens} & tokenizer.special_ids


@FEW
@given(text=(around.map("".join) | st.sampled_from(SPECIAL) | st.just("<|bos|><think><|eos|>")))
def test_special_ones_still_cannot_be_typed(base, text):
    tokenizer = with_added(base, {"<think>": {"normalized": False}})
    assert not tokenizer.special_ids & set(tokenizer.encode(text))
    think = tokenizer._backend.token_to_id("<think>")
    assert tokenizer.encode(text).count(think) == text.count("<think>")


def test_the_unknown_token_cannot_be_typed_and_is_no_special_token():
    tokenizer = Tokenizer(sentence_piece(normalizer=LEGACY), bos="<s>", eos="</s>", pad="<unk>")
    assert tokenizer.pad_id == 0 and tokenizer.special_ids == {tokenizer.bos_id, tokenizer.eos_id}
    assert 0 not in tokenizer.encode("the <unk> a")


def test_a_token_that_is_unknown_and_eos_at_once_is_a_special_token(gpt2_folder):
    spec = json.loads((gpt2_folder / "tokenizer.json").read_text())
    spec["model"]["unk_token"] = "<|endoftext|>"
    tokenizer = Tokenizer(Backend.from_str(json.dumps(spec)), bos="<|endoftext|>", eos="<|endoftext|>", pad=None)
    assert tokenizer.special_ids == {320}
    assert tokenizer.decode(tokenizer.encode("a <|endoftext|>")) == "a <|endoftext|>"
    assert 320 not in tokenizer.encode("a <|endoftext|> 世")


def test_tokens_that_mark_turns_and_blocks_inside_turns():
    texts = ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"]
    added = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool>", "user"]
    assert turn_tokens(texts, added) == {"<|im_start|>", "<|im_end|>", "user"}
    assert turn_tokens(texts, ["<think>"]) == turn_tokens(texts, []) == set()


def test_a_turn_token_that_is_not_special_cannot_be_typed_either(base):
    """Some ChatML tokenizers mark `<|im_start|>` as not special."""
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    backend = Backend.from_str(base._backend.to_str())
    backend.add_tokens([AddedToken(name, special=False) for name in ("<|im_start|>", "<|im_end|>", "<think>")])
    tokenizer = Tokenizer(backend, bos=base.bos, eos="<|im_end|>", pad=base.pad, chat_template=template)
    start, end, think = (backend.token_to_id(name) for name in ("<|im_start|>", "<|im_end|>", "<think>"))
    assert {start, end} < tokenizer.special_ids and tokenizer.end_of_turn_id == end
    ids = tokenizer.encode("<|im_start|>assistant\n<think><|im_end|>")
    assert think in ids and not {start, end} & set(ids)
    assert tokenizer.decode([start, think, end]) == "<think>"


def test_contents_lose_the_special_tokens_and_the_merges_that_lead_there():
    model = {"type": "BPE", "vocab": {"<s>": 0, "<": 1, "s>": 2}, "merges": [["<", "s>"]], "unk_token": None}
    added = [{"id": 0, "content": "<s>", "special": True}, {"id": 3, "content": "<x>", "special": False}]
    spec = {"model": model, "added_tokens": added, "post_processor": {}}
    control = special_tokens(spec, ["other"])
    assert list(control) == ["<s>"] and list(special_tokens(spec, ["<x>"])) == ["<s>", "<x>"]
    changed = without_special_tokens(spec, control)
    assert changed["model"]["merges"] == [] and changed["model"]["vocab"] == {"<": 1, "s>": 2, "<x>": 3}
    assert changed["added_tokens"] == added[1:] and model["vocab"]["<s>"] == 0


@pytest.mark.parametrize("name", PIECES)
def test_what_follows_begins_as_it_would_inside_the_whole(name):
    """The pieces of a text, encoded apart, are those that the library gives for the whole of it."""
    tokenizer = Tokenizer(Backend.from_str(PIECES[name].to_str()), bos="<s>", eos="</s>", pad="<unk>")
    whole = PIECES[name].encode("the a<s>the</s>[INST] the", add_special_tokens=False).ids
    parts = [
        *tokenizer.encode("the"),
        *tokenizer.encode(" a", "text"),
        tokenizer.bos_id,
        *tokenizer.encode("the", "special"),
        tokenizer.eos_id,
        *tokenizer.encode("[INST]", "special"),
        *tokenizer.encode_with_starts(" the", "text")[0],
    ]
    assert parts == whole
    assert tokenizer.decode(tokenizer.encode("the a.")) == "the a."


def test_a_byte_level_tokenizer_is_the_same_everywhere(ours):
    assert ours._encoder("text") is ours._encoder("special") is ours._encoder("nothing")
    spec = json.loads(ours._backend.to_str())
    assert continuation_spec(spec, "text") == continuation_spec(spec, "special") == spec
