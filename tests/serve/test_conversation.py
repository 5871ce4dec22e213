from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.generation.sampling import Sampling
from amenable.serve.conversation import fit_prompt, load_model, next_user, stop_strings, stream_answer
from amenable.text.chat import PLAIN_STOP, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.runtime import Runtime

SYSTEM, MESSAGE = [Message("system", "be red")], Message("user", "a rose")


@pytest.fixture
def model(words: Tokenizer) -> Any:
    """A model of 96 tokens context that never computes anything."""
    decoder = SimpleNamespace(num_tokens=words.vocab_size, config=SimpleNamespace(context_length=96))
    return SimpleNamespace(decoder=decoder, tokenizer=words, entry=SimpleNamespace(name="m"), is_chat_model=True)


def test_a_tools_result_is_dropped_with_its_call() -> None:
    turns = [Message(role, "") for role in ("user", "assistant", "tool", "assistant", "user", "assistant")]
    assert [next_user(turns, i) for i in (0, 1, 2, 4, 5, 9)] == [0, 4, 4, 4, 6, 6]


def test_tools_stay_where_turns_are_dropped(model: Any, words: Tokenizer) -> None:
    template = "{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}" + "{{ m.content }}".join(
        ("{% for m in messages[1:] %}", "{% endfor %}")
    )
    model.tokenizer = Tokenizer(words._backend, bos=words.bos, eos=words.eos, pad=words.pad, chat_template=template)
    tools = '[{"type": "function", "function": {"name": "look"}}]'
    turns = [Message("user", "the sea " * 30, tools=tools), Message("assistant", "blue")]
    for message in (MESSAGE, Message("user", "a rose", tools=tools)):
        ids, dropped = fit_prompt(model, [], turns, message, 8)
        assert dropped == 2 and words.decode(ids) == f"{tools}a rose"


def test_whole_turns_are_dropped_and_the_system_message_stays(model: Any, words: Tokenizer) -> None:
    turns = [
        message
        for i in range(6)
        for message in (Message("user", "the sea"), Message("assistant", "the sea is blue " * (i + 1)))
    ]
    ids, dropped = fit_prompt(model, SYSTEM, turns, MESSAGE, 10)
    assert dropped % 2 == 0 and 0 < dropped < 12
    assert ids == render_prompt(words, (*SYSTEM, *turns[dropped:], MESSAGE))
    assert len(ids) + 10 <= 96
    assert len(render_prompt(words, (*SYSTEM, *turns[dropped - 2 :], MESSAGE))) + 10 > 96
    assert fit_prompt(model, SYSTEM, [], MESSAGE, 10, [7, 8])[0][-2:] == [7, 8]


def test_a_prompt_that_can_never_fit_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match="the message is too long"):
        fit_prompt(model, SYSTEM, [], Message("user", "a rose " * 96), 10)
    model.decoder.num_tokens = 5
    with pytest.raises(InputError, match="unknown to the model"):
        fit_prompt(model, SYSTEM, [], MESSAGE, 10)


def test_a_loaded_model_answers_as_often_as_it_is_asked(assistant: Path, base: Path, runtime: Runtime) -> None:
    model = load_model(assistant, runtime, "tiny")
    assert model.entry.name == "tiny" and load_model(base, runtime).entry.name == str(base)
    assert stop_strings(model) == () and stop_strings(load_model(base, runtime)) == PLAIN_STOP
    ids, _ = fit_prompt(model, [], [], Message("user", "Ann asks: name a red thing."), 8)
    with torch.no_grad():
        first, again = ("".join(stream_answer(model, ids, Sampling(max_new_tokens=8), 3)) for _ in range(2))
    assert first == again


def test_a_folder_without_a_model_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=r"no such model folder|holds no model"):
            load_model(folder, runtime)
