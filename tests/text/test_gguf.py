"""Tokenizers in GGUF metadata: the same ids after a round trip, the published splitting rules, and what is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer

from amenable.errors import InputError
from amenable.text import gguf
from amenable.text.tokenizer import Tokenizer

TEXTS = (
    "Hello, world! It's 12 345 o'clock, SHE'LL say.",
    "   7 = seven;\n\n\n\tdef f(x):\r\n    return x ** 2",
    "naïve café 猫が好き 🙂 ²½ Ⅷ e\u0301",
    "<|user|>hi<|assistant|> \u00a0x y  ",
    "",
)
PUBLISHED_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUBLISHED_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def a_tokenizer(chat: bool = True) -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, 320, chat=chat)


def write(folder: Path, metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a folder with the files that metadata give."""
    folder.mkdir(exist_ok=True)
    for name, content in gguf.tokenizer_files(metadata, Path("a.gguf")).items():
        (folder / name).write_bytes(content)
    return Tokenizer.load(folder)


@pytest.mark.parametrize("published", [True, False])
def test_a_tokenizer_comes_back(published: bool, tmp_path: Path) -> None:
    """With its tokenizer.json in the file, and from tokens and merges alone."""
    tokenizer = a_tokenizer()
    metadata = gguf.tokenizer_metadata(tokenizer, 330)
    if not published:
        del metadata[gguf.PUBLISHED]
    back = write(tmp_path / "folder", metadata)
    for text in TEXTS:
        if published or "e\u0301" not in text:
            assert back.encode(text) == tokenizer.encode(text)
            assert back.encode_with_special_tokens(text) == tokenizer.encode_with_special_tokens(text)
        assert back.decode(back.encode(text)) == (text if published else text.replace("e\u0301", "é"))
    for name in (
        "bos_id",
        "eos_id",
        "pad_id",
        "end_of_turn_id",
        "stop_ids",
        "special_ids",
        "vocab_size",
        "opening_ids",
    ):
        assert getattr(back, name) == getattr(tokenizer, name), name
    assert (back.fingerprint == tokenizer.fingerprint) == published  # else NFC, as Qwen's rule has it
    assert back.generation_config == tokenizer.generation_config


def test_transformers_opens_the_folder(tmp_path: Path) -> None:
    metadata = gguf.tokenizer_metadata(a_tokenizer(), 330)
    del metadata[gguf.PUBLISHED]
    back, theirs = write(tmp_path / "folder", metadata), AutoTokenizer.from_pretrained(tmp_path / "folder")
    for text in TEXTS:
        assert theirs(text).input_ids == [*back.opening_ids, *back.encode_with_special_tokens(text)]
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert theirs.apply_chat_template(chat, tokenize=False) == "<|bos|><|user|>hi<|assistant|>ho<|eos|>"
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (back.bos_id, back.eos_id, back.pad_id)


def test_metadata_by_hand() -> None:
    tokenizer = a_tokenizer()
    metadata = gguf.tokenizer_metadata(tokenizer, 330)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 330 == len(set(tokens))
    assert tokens[:3] == ["<|pad|>", "<|bos|>", "<|eos|>"] and types[:7] == [3] * 6 + [1]
    assert tokens[-1] == "[PAD329]" and types[-1] == 5
    assert metadata["tokenizer.ggml.pre"] == "qwen2" and metadata["tokenizer.ggml.add_bos_token"] is True
    assert metadata["tokenizer.ggml.eos_token_id"] == 2 and metadata["tokenizer.ggml.padding_token_id"] == 0
    assert "tokenizer.ggml.eot_token_id" not in metadata
    assert all(
        left and right for left, _, right in (merge.partition(" ") for merge in metadata["tokenizer.ggml.merges"])
    )


def small(pre: str, **changes: Any) -> dict[str, Any]:
    """Metadata of a tokenizer of bytes, a merge of two digits, and a few special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    extra = ["12", "Ġa", "<|eos|>", "<|eot|>", "\t\t", "unused"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [*letters, *extra],
        "tokenizer.ggml.token_type": [1] * len(letters) + [1, 1, 3, 3, 4, 5],
        "tokenizer.ggml.merges": ["1 2", "Ġ a"],
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.eot_token_id": 259,
    } | {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in metadata.items() if value is not None}


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["It", "'s", "ĠSHE", "'", "LL", "ĠĠ", "Ġ1234", "Ċ", "Ċ", "xiP"]),
        ("smollm", ["It", "'s", "ĠSHE", "'", "LL", "ĠĠĠ", "1", "2", "3", "4", "Ċ", "Ċ", "xiP"]),
        ("llama-bpe", ["It", "'s", "ĠSHE", "'LL", "ĠĠ", "Ġ", "123", "4", "ĊĊ", "xiP"]),
        ("qwen2", ["It", "'s", "ĠSHE", "'LL", "ĠĠ", "Ġ", "1", "2", "3", "4", "ĊĊ", "xiP"]),
        ("tekken", ["It", "'s", "ĠSHE", "'LL", "ĠĠ", "Ġ", "1", "2", "3", "4", "ĊĊ", "xi", "P"]),
    ],
)
def test_each_rule_splits_as_published(pre: str, pieces: list[str], tmp_path: Path) -> None:
    """White space before digits is what the rules differ in most, and where it is easily got wrong."""
    write(tmp_path / "folder", small(pre))
    splitter = Backend.from_file(str(tmp_path / "folder" / "tokenizer.json")).pre_tokenizer
    assert splitter is not None
    assert [piece for piece, _ in splitter.pre_tokenize_str("It's SHE'LL   1234\n\nxiP")] == pieces


def test_patterns_are_the_published_ones() -> None:
    assert gguf.LLAMA3_PATTERN == PUBLISHED_LLAMA3 and gguf.TEKKEN_PATTERN == PUBLISHED_TEKKEN


@pytest.mark.parametrize("rule", gguf.RULES, ids=lambda rule: rule.names[0])
def test_each_rule_is_found_again(rule: gguf.Rule, tmp_path: Path) -> None:
    for name in rule.names:
        back = write(tmp_path / name, small(name))
        again = gguf.tokenizer_metadata(back, 262)
        assert again["tokenizer.ggml.pre"] == rule.names[0]
        assert again["tokenizer.ggml.tokens"] == [*small(name)["tokenizer.ggml.tokens"][:-1], "[PAD261]"]
        assert again["tokenizer.ggml.token_type"] == small(name)["tokenizer.ggml.token_type"]
        assert again["tokenizer.ggml.merges"] == ["1 2", "Ġ a"]
        assert back.stop_ids == (258, 259) and back.opening_ids == []


def test_a_whole_piece_is_a_token_where_merges_are_ignored(tmp_path: Path) -> None:
    for pre, tokens in (("llama-bpe", 1), ("gpt-2", 2)):
        metadata = small(pre, **{"tokenizer__ggml__merges": ["Ġ a"]})
        assert len(write(tmp_path / pre, metadata).encode("12")) == tokens


def test_bos_begins_a_text_where_the_file_or_the_rule_says_so(tmp_path: Path) -> None:
    bos = {"tokenizer__ggml__bos_token_id": 258}
    cases = (("gpt-2", {}, False), ("gpt-2", {"tokenizer__ggml__add_bos_token": True}, True), ("llama-bpe", {}, True))
    cases += (("llama-bpe", {"tokenizer__ggml__add_bos_token": False}, False),)
    for number, (pre, changes, begins) in enumerate(cases):
        metadata = small(pre, **bos, **changes, **{"tokenizer__ggml__eos_token_id": 259})
        back = write(tmp_path / str(number), metadata)
        assert back.opening_ids == ([258] if begins else [])
        theirs = AutoTokenizer.from_pretrained(tmp_path / str(number))
        assert theirs("a").input_ids == [*back.opening_ids, *back.encode("a")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer__ggml__model": "llama"}, "its tokenizer is of the kind 'llama'; byte-level BPE ('gpt2') is read"),
        ({"tokenizer__ggml__model": None}, "its tokenizer is of the kind 'None'"),
        ({"tokenizer__ggml__pre": "falcon"}, "by the rule 'falcon'; these are read: gpt-2, phi-2"),
        ({"tokenizer__ggml__pre": None}, "by the rule 'default'"),
        ({"tokenizer__ggml__tokens": None}, "lacks tokenizer.ggml.tokens; models without a tokenizer are not read"),
        ({"tokenizer__ggml__merges": None}, "lacks tokenizer.ggml.merges"),
        ({"tokenizer__ggml__merges": [1, 2]}, "lacks tokenizer.ggml.merges"),
        ({"tokenizer__ggml__token_type": [1, 1]}, "token_type has not an entry for each of 262 tokens"),
        ({"tokenizer__ggml__eos_token_id": 4000}, "tokenizer.ggml.eos_token_id is 4000, and there are 262 tokens"),
        ({"tokenizer__ggml__bos_token_id": "x"}, "tokenizer.ggml.bos_token_id is x"),
    ],
)
def test_what_is_not_read_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        gguf.tokenizer_files(small("gpt-2", **changes), Path("a.gguf"))
    assert message in str(error.value) and str(error.value).startswith("a.gguf: ") and "\n" not in str(error.value)


def test_a_tokenizer_json_of_other_tokens_is_not_taken(tmp_path: Path) -> None:
    other = gguf.tokenizer_metadata(a_tokenizer(), 320)[gguf.PUBLISHED]
    for published in (other, "no json", "[]"):
        files = gguf.tokenizer_files({**small("gpt-2"), gguf.PUBLISHED: published}, Path("a.gguf"))
        assert len(json.loads(files["tokenizer.json"])["model"]["vocab"]) == 261


def altered(change: Callable[[dict[str, Any]], None]) -> Tokenizer:
    """Our tokenizer with a change in its tokenizer.json."""
    spec = a_tokenizer().spec
    change(spec)
    return Tokenizer(Backend.from_str(json.dumps(spec)), bos="<|bos|>", eos="<|eos|>", pad="<|pad|>")


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}),
        lambda spec: spec.update(normalizer={"type": "Lowercase"}),
        lambda spec: spec["model"].update(ignore_merges=True),
        lambda spec: spec["model"].update(byte_fallback=True),
        lambda spec: spec.update(pre_tokenizer=gguf.byte_level(True) | {"add_prefix_space": True}),
        lambda spec: spec.update(pre_tokenizer=gguf.split(r"\w+")),
    ],
)
def test_a_rule_that_llama_cpp_lacks_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(InputError, match=r"splits text by a rule that llama.cpp does not have; those of GPT-2"):
        gguf.tokenizer_metadata(altered(change), 320)


def test_a_tokenizer_without_merges_is_refused() -> None:
    backend = Backend(models.BPE({letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(InputError, match="has no merges"):
        gguf.tokenizer_metadata(Tokenizer(backend, bos=None, eos="<|eos|>", pad=None), 257)


def test_generation_tags_are_left_out() -> None:
    tokenizer = a_tokenizer()
    template = gguf.tokenizer_metadata(tokenizer, 320)["tokenizer.chat_template"]
    assert tokenizer.chat_template is not None and "generation %}" in tokenizer.chat_template
    assert "generation %}" not in template and "{##}" not in template.replace("{# #}", "")
    assert gguf.without_generation_tags("a {%- generation -%} b {% endgeneration %}") == "a {#- -#} b {# #}"
