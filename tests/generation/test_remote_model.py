"""Models behind an API: requests, replies that are kept, and every way in which an API can fail."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.generation.remote_model import RemoteModel, Reply, api_options, parse_address, read_cache
from amenable.generation.sampling import Sampling
from amenable.stages.sample import SamplingOptions
from tests.conftest import ChatAPI

HI = (Message("system", "Be brief."), Message("user", "Say hi"))


def test_requests_have_what_was_given_and_replies_what_was_answered(
    chat_api: ChatAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    model = RemoteModel(chat_api.url, "wise", {"temperature": 0.5})
    assert model.complete([HI, HI], [3, 2**40 + 4]) == [Reply("hi 3", True, 2), Reply("hi 4", True, 2)]
    headers, body = chat_api.requests[0]
    assert headers["authorization"] == "Bearer sk-secret"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hi"}]
    assert body == {"model": "wise", "messages": messages, "seed": body["seed"], "temperature": 0.5}
    assert "sk-secret" not in model.cache_file.read_text() and "sk-secret" not in repr(model)
    cut = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    chat_api.reply = lambda body: (200, {}, cut)
    assert model.complete([HI], [5]) == [Reply("", False, 0)]


def test_nothing_is_asked_for_twice(chat_api: ChatAPI) -> None:
    first = RemoteModel(chat_api.url, "wise")
    replies = first.complete([HI, HI], [1, 2])
    with first.cache_file.open("a") as file:
        file.write('{"request": "cut sho')
    again = RemoteModel(chat_api.url, "wise")
    assert again.complete([HI, HI, HI], [2, 1, 3])[:2] == replies[::-1]
    assert again.requests == 1 and len(chat_api.requests) == 3
    assert len(read_cache(first.cache_file)) == 3
    for other in (RemoteModel(chat_api.url, "other"), RemoteModel(chat_api.url, "wise", {"temperature": 0.1})):
        other.complete([HI], [1])
        assert other.requests == 1


def test_replies_before_a_failure_are_kept(chat_api: ChatAPI) -> None:
    entered = threading.Event()

    def reply(body: Any) -> tuple[int, dict[str, str], Any]:
        if body["seed"] != 2:
            entered.set()
            return chat_api.answer(body)
        entered.wait(5)
        return 401, {}, b"no key"

    chat_api.reply = reply
    model = RemoteModel(chat_api.url, "wise", workers=1)
    with pytest.raises(InputError, match="answered 401: no key; set OPENAI_API_KEY"):
        model.complete([HI] * 3, [1, 2, 3])
    assert any(reply.text == "hi 1" for reply in read_cache(model.cache_file).values())


@pytest.mark.parametrize("reply", [b"<html>", {"choices": []}, {"choices": [{"text": "a"}]}, [1]])
def test_what_is_no_chat_completion_is_named(chat_api: ChatAPI, reply: Any) -> None:
    chat_api.reply = lambda body: (200, {}, reply)
    with pytest.raises(InputError, match=r"chat/completions: answered .*, which is no chat completion"):
        RemoteModel(chat_api.url, "wise").complete([HI], [1])


def test_a_model_that_is_not_there_is_missed_at_once(chat_api: ChatAPI) -> None:
    RemoteModel(chat_api.url, "wise").require_model()
    chat_api.models = [f"m{i}" for i in range(9)]
    with pytest.raises(InputError, match=r"has no model 'wise'; its models are: m0, .*m7 \.\.\.$"):
        RemoteModel(chat_api.url, "wise").require_model()
    chat_api.models = None  # an API without a list
    RemoteModel(chat_api.url, "wise").require_model()
    with pytest.raises(InputError, match="cannot be reached"):
        RemoteModel("http://127.0.0.1:9/v1", "wise").require_model()


def test_the_cache_folder_must_be_writable(chat_api: ChatAPI, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cannot be written .*AMENABLE_CACHE"):
        RemoteModel(chat_api.url, "wise").complete([HI], [1])


def test_addresses_and_options() -> None:
    assert parse_address("https://h/v1/:a/b:7b") == ("https://h/v1", "a/b:7b")
    for wrong in ("http://h:80", "file:///etc/passwd:m", "gpt"):
        with pytest.raises(InputError, match=r"names no model of an API; write http://127.0.0.1"):
            parse_address(wrong)
    assert api_options(SamplingOptions()) == {}
    given = SamplingOptions(temperature=1.0, max_new_tokens=9, top_p=0.9, min_p=0.1)
    assert api_options(given) == {"temperature": 1.0, "max_tokens": 9, "top_p": 0.9, "min_p": 0.1}
    assert json.dumps(api_options(Sampling())) == '{"temperature": 1.0, "max_tokens": 128}'
