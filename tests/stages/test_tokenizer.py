"""`amenable tokenizer`: a vocabulary from files, the same every time."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.stages import tokenizer
from amenable.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from amenable.train.examples import RejectedRows


@pytest.fixture
def config(files: Any, tmp_path: Path) -> tokenizer.Config:
    return tokenizer.Config(files.text, out=tmp_path / "run", vocab_size=300)


def test_it_learns_the_texts_words_and_keeps_every_byte(config: tokenizer.Config) -> None:
    out = tokenizer.run(config)
    words = Tokenizer.load(out)
    assert words.vocab_size == 300 and words.chat_template is None
    text = "The rose is red."
    assert len(words.encode(text)) <= len(text) / 2
    for other in (text, "naïve 你好 🙂\r\n\t", "<|eos|> \x00"):
        assert words.decode(words.encode(other)) == other
        assert not set(words.encode(other)) & words.special_ids
    assert [words.encode_with_special_tokens(name) for name in SPECIAL_TOKENS] == [[i] for i in range(6)]


def test_what_it_tells_is_what_the_files_hold(config: tokenizer.Config) -> None:
    out = tokenizer.run(config)
    words = Tokenizer.load(out)
    texts = [json.loads(line)["text"] for line in config.data.read_text().splitlines()]
    report = json.loads((out / "finished.json").read_text())
    assert report["vocab_size"] == 300
    assert report["tokens"] == sum(len(words.encode(text)) for text in texts)
    assert report["bytes_per_token"] == pytest.approx(sum(map(len, texts)) / report["tokens"])


def test_texts_are_not_all_in_memory(config: tokenizer.Config, tmp_path: Path) -> None:
    """Ten megabytes of text, read and read again in less than two of memory."""
    data = tmp_path / "large.jsonl"
    data.write_text((json.dumps({"text": "The rose is red. " * 600}) + "\n") * 1000, "utf-8")
    with (tmp_path / "texts").open("w+", encoding="utf-8") as file:
        tracemalloc.start()
        tokenizer.read(replace(config, data=data), RejectedRows(), file)
        size = sum(map(len, tokenizer.texts_of(file)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert size > 10e6 > 5 * peak


def test_demonstrations_count_as_text(files: Any, config: tokenizer.Config, tmp_path: Path) -> None:
    alone = Tokenizer.load(tokenizer.run(config))
    both = Tokenizer.load(
        tokenizer.run(replace(config, demonstrations=files.demonstrations, vocab_size=320, out=tmp_path / "both"))
    )
    assert len(both.encode("asks: name")) < len(alone.encode("asks: name"))


def test_the_same_files_give_the_same_bytes_and_a_done_run_is_left_alone(
    config: tokenizer.Config, tmp_path: Path
) -> None:
    first, second = tokenizer.run(config), tokenizer.run(replace(config, out=tmp_path / "again"))
    written = first / "tokenizer.json"
    assert written.read_bytes() == (second / "tokenizer.json").read_bytes()
    before = written.stat().st_mtime_ns
    assert tokenizer.run(config) == first and written.stat().st_mtime_ns == before
