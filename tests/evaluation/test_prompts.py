"""Prompts of an evaluation leave every model room for an answer."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from amenable.data.types import Message, Prompt
from amenable.errors import InputError
from amenable.evaluation.prompts import fitting_prompts, leaves_room, readers_of
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import load_reward
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import RejectedRows
from amenable.train.runtime import Runtime


def prompt(words: int) -> Prompt:
    return Prompt((Message("user", "rose " * words),), id=str(words))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "prompt": "rose " * n}) + "\n" for n in (1, 20, 4)))
    return path


def test_readers_are_the_models_and_the_reward_models(
    base: Path, judge: Path, words: Tokenizer, make_scalar_model: Callable, runtime: Runtime
) -> None:
    small = ModelReward(make_scalar_model(context_length=16, vocab_size=words.vocab_size), words, runtime)
    assert [context for _, context in readers_of([base], None)] == [64]
    readers = readers_of([base], load_reward([judge, small, "ends"], runtime))
    assert [context for _, context in readers] == [64, 64, 16]
    assert [tokenizer.fingerprint for tokenizer, _ in readers][1:] == [words.fingerprint] * 2


def test_the_smallest_context_decides(file: Path, words: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    size = len(render_prompt(words, prompt(20).messages))
    assert leaves_room(prompt(20), [(words, size + 8)], 8) and not leaves_room(prompt(20), [(words, size + 7)], 8)
    assert [row.id for row in fitting_prompts("test", file, [(words, size + 8)], 8)] == ["1", "20", "4"]
    rejected = RejectedRows()
    readers = [(words, size + 7), (words, 10**6)]
    assert [row.id for row in fitting_prompts("test", file, readers, 8, rejected)] == ["1", "4"]
    assert f"test: 1 of 3 prompts left out: longer than {size - 1} tokens" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of the 3 prompts is within 0 tokens; lower the number of new tokens"):
        fitting_prompts("test", file, [(words, 8)], 8)
