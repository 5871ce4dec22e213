"""Answers on their way to a client: in pieces or whole, and taken back where nobody waits for them."""

import json
import threading
import time
from typing import Any

import httpx
import openai
import pytest

ASKED: Any = [{"role": "user", "content": "Ann asks: name a red thing."}]


def slow_down(served: Any, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """From now on the model takes no step before this is set."""
    gate, step = threading.Event(), served.scheduler.decoder.step

    def wait(*values: Any) -> Any:
        gate.wait(15)
        return step(*values)

    monkeypatch.setattr(served.scheduler.decoder, "step", wait)
    return gate


def until(true: Any) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "never true"
        time.sleep(0.005)


def test_a_stream_is_the_whole_in_pieces(client: openai.OpenAI) -> None:
    settings: Any = {"model": "tiny", "messages": ASKED, "seed": 3, "n": 2, "temperature": 1.2}
    whole = client.chat.completions.create(**settings)
    pieces, ends, usage = {0: [], 1: []}, {}, None
    for chunk in client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces[choice.index].append(choice.delta.content or "")
            ends[choice.index] = choice.finish_reason or ends.get(choice.index)
    for choice in whole.choices:
        assert "".join(pieces[choice.index]) == choice.message.content
        assert ends[choice.index] == choice.finish_reason
        assert len(pieces[choice.index]) > 3
    assert usage == whole.usage


def test_events_are_json_lines(http: httpx.Client) -> None:
    body = {"model": "tiny", "messages": ASKED, "stream": True}
    text = http.post("/v1/chat/completions", json=body).text
    events = [part.removeprefix("data: ") for part in text.strip().split("\n\n")]
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["object"] == "chat.completion.chunk" for event in events[:-1])


def test_overload_is_told_with_when_to_come_back(served, client, monkeypatch) -> None:
    gate = slow_down(served, monkeypatch)
    threads = [
        threading.Thread(target=client.chat.completions.create, kwargs={"model": "tiny", "messages": ASKED, "n": 8})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    until(lambda: served.scheduler.pending == 16)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="tiny", messages=ASKED)
    assert int(refused.value.response.headers["retry-after"]) >= 1
    gate.set()
    for thread in threads:
        thread.join(20)
    until(lambda: served.scheduler.pending == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_rows(served, http: httpx.Client, monkeypatch, stream: bool) -> None:
    gate, before = slow_down(served, monkeypatch), served.scheduler.counts.cancelled
    body = {"model": "tiny", "messages": ASKED, "n": 8, "stream": stream}
    request = httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=0.3)
    with pytest.raises(httpx.ReadTimeout), request as reply:
        for _ in reply.iter_lines():
            pass
    until(lambda: served.scheduler.pending == 0)
    gate.set()
    until(lambda: served.scheduler.counts.cancelled == before + 1)


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_while_waiting_frees_the_place(served, client: openai.OpenAI, monkeypatch, stream: bool) -> None:
    gate, request = slow_down(served, monkeypatch), {"model": "tiny", "messages": ASKED, "n": 8}
    first = threading.Thread(target=client.chat.completions.create, kwargs=request)
    first.start()
    until(lambda: served.scheduler.pending == 8)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/v1/chat/completions", json={**request, "stream": stream}, timeout=0.3)
    until(lambda: served.scheduler.pending == 8)
    assert first.is_alive()
    gate.set()
    first.join(20)
    until(lambda: served.scheduler.pending == 0)


def test_more_than_ever_fits_is_a_mistake_and_no_overload(http: httpx.Client) -> None:
    body = {"model": "plain", "prompt": ["The rose"] * 5, "n": 4, "max_tokens": 2}
    refused = http.post("/v1/completions", json=body)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "n"
    assert http.post("/v1/completions", json={**body, "n": 3}).status_code == 200


def test_a_model_that_fails_is_told_and_the_next_request_is_answered(served, http: httpx.Client, monkeypatch) -> None:
    body = {"model": "tiny", "messages": ASKED, "max_tokens": 4}
    with monkeypatch.context() as broken:

        def fail(*_: Any) -> None:
            raise RuntimeError("secret of the machine")

        broken.setattr(served.scheduler.decoder, "forward", fail)
        reply = http.post("/v1/chat/completions", json=body)
        assert reply.status_code == 500 and reply.json()["error"]["type"] == "server_error"
        text = http.post("/v1/chat/completions", json={**body, "stream": True}).text
        *_, last = text.strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"] == reply.json()["error"]
        assert "secret" not in text + reply.text
    assert http.post("/v1/chat/completions", json=body).status_code == 200
