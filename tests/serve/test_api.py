"""The API as its clients see it: the official one of OpenAI, and plain HTTP."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from amenable.data.types import Message
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import hub
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer

ASKED: Any = [{"role": "user", "content": "Ann asks: name a red thing."}]


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def http(served):
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


def expected(folder: Path, seed: int, samples: int, **settings: Any) -> list[Any]:
    decoder, tokenizer = hub.load_decoder(folder), Tokenizer.load(folder)
    prompt = render_prompt(tokenizer, [Message("user", ASKED[0]["content"])])
    sampling = Sampling(max_new_tokens=24, **settings)
    made = generate(
        decoder, [prompt], sampling, eos_id=tokenizer.eos_id, seeds=[seed], samples=samples, decode=tokenizer.decode
    )
    return made[0]


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"tiny", "plain", "judge"}
    assert client.models.retrieve("tiny").owned_by == "amenable"


def test_a_chat_is_what_the_model_says(client: openai.OpenAI, assistant: Path) -> None:
    made = client.chat.completions.create(model="tiny", messages=ASKED, seed=5, n=3, temperature=0.9, top_p=0.8)
    apart = expected(assistant, 5, 3, temperature=0.9, top_p=0.8)
    assert [choice.message.content for choice in made.choices] == [one.text for one in apart]
    assert [choice.index for choice in made.choices] == [0, 1, 2]
    ends = ["length" if one.stopped_by == "length" else "stop" for one in apart]
    assert [choice.finish_reason for choice in made.choices] == ends
    assert made.usage is not None
    assert made.usage.completion_tokens == sum(len(one.ids) for one in apart)
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


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


def test_a_stop_string_ends_an_answer(client: openai.OpenAI) -> None:
    greedy: Any = {"model": "tiny", "messages": ASKED, "temperature": 0}
    full = client.chat.completions.create(**greedy).choices[0].message.content or ""
    stop = full[4:6]
    cut = client.chat.completions.create(**greedy, stop=[stop, "never said"]).choices[0]
    assert cut.message.content == full[: full.index(stop)] and cut.finish_reason == "stop"
    streamed = client.chat.completions.create(**greedy, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == cut.message.content


def test_logprobs_are_those_of_the_draw(client: openai.OpenAI, assistant: Path) -> None:
    made = client.chat.completions.create(
        model="tiny", messages=ASKED, temperature=0, logprobs=True, top_logprobs=2, max_completion_tokens=6
    )
    apart = expected(assistant, 0, 1, temperature=0)[0]
    assert made.choices[0].logprobs is not None
    rows = made.choices[0].logprobs.content or []
    assert [row.logprob for row in rows] == pytest.approx(apart.logps[: len(rows)], abs=1e-4)
    assert 3 < len(rows) <= 6
    assert all(len(row.top_logprobs) == 2 for row in rows)
    assert "".join(row.token for row in rows) == made.choices[0].message.content


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    made = client.completions.create(
        model="plain", prompt=["The rose", "The sea"], max_tokens=5, n=2, seed=1, logprobs=1
    )
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    alone = client.completions.create(model="plain", prompt="The rose", max_tokens=5, n=2, seed=1)
    assert [choice.text for choice in made.choices[:2]] == [choice.text for choice in alone.choices]
    logprobs = made.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    assert "".join(logprobs.tokens) == made.choices[0].text
    streamed = client.completions.create(model="plain", prompt="The rose", max_tokens=5, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == alone.choices[0].text


def test_a_base_model_chats_as_a_transcript(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="plain", messages=ASKED, seed=0).choices[0].message.content or ""
    assert said == said.strip() and "\n\n" not in said


def test_mistakes_are_errors_of_the_api(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="../../etc/passwd", messages=ASKED)
    with pytest.raises(openai.BadRequestError, match="temperature") as refused:
        client.chat.completions.create(model="tiny", messages=ASKED, temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 200}])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="not a user's"):
        client.chat.completions.create(model="tiny", messages=[*ASKED, {"role": "assistant", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="tools"):
        client.chat.completions.create(model="tiny", messages=ASKED, tools=[])
    with pytest.raises(openai.BadRequestError, match="unknown to the model"):
        client.completions.create(model="plain", prompt=[10**6])


def test_the_oldest_turns_are_dropped_where_that_is_asked_for(http: httpx.Client) -> None:
    long = [
        {"role": role, "content": "name a red thing, or a blue thing, or a green one"} for role in ("user", "assistant")
    ]
    body = {"model": "tiny", "messages": [*long * 3, *ASKED], "max_tokens": 8}
    assert http.post("/v1/chat/completions", json=body).status_code == 400
    answered = http.post("/v1/chat/completions", json={**body, "truncation": "auto"})
    assert answered.status_code == 200
    assert int(answered.headers["x-dropped-messages"]) in (2, 4, 6)


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
    asked = httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=0.3)
    with pytest.raises(httpx.ReadTimeout), asked as reply:
        for _ in reply.iter_lines():
            pass
    until(lambda: served.scheduler.pending == 0)
    gate.set()
    until(lambda: served.scheduler.counts.cancelled == before + 1)


def test_scores_are_the_reward_models(http: httpx.Client, judge: Path) -> None:
    answers = ["Gladly: a rose, it is red.", "Grimly: a rose, it is red."]
    body = {"model": "judge", "messages": ASKED, "completions": answers}
    scores = [row["score"] for row in http.post("/score", json=body).json()["data"]]
    assert scores[0] > scores[1]
    turned = http.post("/score", json={**body, "completions": answers[::-1]}).json()["data"]
    assert [row["score"] for row in turned] == pytest.approx(scores[::-1], abs=1e-5)
    assert http.post("/score", json={**body, "model": "tiny"}).status_code == 404
    assert http.post("/score", json={**body, "completions": ["word " * 300]}).status_code == 400


def test_health_and_metrics(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    text = http.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    before = float(values['amenable_answers_total{model="tiny"}'])
    http.post("/v1/chat/completions", json={"model": "tiny", "messages": ASKED, "n": 2}).raise_for_status()
    after = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if not line.startswith("#"))
    assert float(after['amenable_answers_total{model="tiny"}']) == before + 2
    assert "# TYPE amenable_answers_total counter" in text


def test_what_people_say_is_kept_once(served, http: httpx.Client) -> None:
    thumb = {"id": "t1", "model": "tiny", "messages": [*ASKED, {"role": "assistant", "content": "no"}], "up": False}
    first, second = (http.post("/feedback/thumb", json=thumb).json() for _ in range(2))
    assert first["new"] and not second["new"] and first["event"] == second["event"]
    [event] = [event for event in served.store.events("thumb") if event.payload["id"] == "t1"]
    assert event.payload["up"] is False and event.payload["annotator"] == "owner"
    ranking = {"id": "r1", "messages": ASKED, "completions": ["a", "b", "c"], "ranking": [2, 1, 2]}
    assert http.post("/feedback/ranking", json=ranking).json()["new"]
    [kept] = [kept for kept in served.store.rankings() if kept.id == "serve-r1"]
    assert kept.ranks == (2, 1, 2) and kept.completions == ("a", "b", "c")
    assert http.post("/feedback/ranking", json={**ranking, "id": "r2", "ranking": [1, 2]}).status_code == 400
    assert http.post("/feedback/thumb", json={**thumb, "messages": ASKED}).status_code == 400


def test_events_are_json_lines(http: httpx.Client) -> None:
    body = {"model": "tiny", "messages": ASKED, "stream": True}
    text = http.post("/v1/chat/completions", json=body).text
    events = [part.removeprefix("data: ") for part in text.strip().split("\n\n")]
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["object"] == "chat.completion.chunk" for event in events[:-1])
