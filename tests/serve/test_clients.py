"""What people's programs ask of the API: the official client's conversations, and lm_eval's requests as they are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pydantic
import pytest
import torch

from amenable.data.types import Message
from amenable.models import pretrained
from amenable.stages import sample
from amenable.text.chat import render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.runtime import DeviceOptions, Runtime

ASKED: Any = [{"role": "user", "content": "Ann asks: name a red thing."}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


class Thing(pydantic.BaseModel):
    name: str


def test_three_turns_as_every_tutorial_has_them(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "developer", "content": "Be kind.", "name": "owner"}]
    for question in ("a red thing?", "and a blue one?", "a green one?"):
        messages.append({"role": "user", "content": question, "name": "ann"})
        reply = client.chat.completions.create(model="tiny", messages=messages, max_tokens=4, store=True, tools=[])
        messages.append(reply.choices[0].message)
    dumped = [turn if isinstance(turn, dict) else turn.model_dump() for turn in messages[:-1]]
    assert [turn["role"] for turn in dumped[1:]] == [*["user", "assistant"] * 2, "user"]
    again: Any = {"model": "tiny", "max_tokens": 4, "temperature": 0}
    twice = [client.chat.completions.create(messages=turns, **again) for turns in (messages[:-1], dumped)]
    assert twice[0].choices[0].message.content == twice[1].choices[0].message.content


def test_what_is_not_here_is_refused_by_name(client: openai.OpenAI) -> None:
    usual: Any = {"model": "tiny", "messages": ASKED}
    for wrong, param in (
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 100}}, "logit_bias"),
    ):
        with pytest.raises(openai.BadRequestError, match="leave it out") as refused:
            client.chat.completions.create(**usual, **wrong)
        assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
    with pytest.raises(openai.BadRequestError, match="ask for JSON in a message"):
        client.chat.completions.parse(**usual, response_format=Thing)
    with pytest.raises(openai.BadRequestError, match=r"top_kk: there is no such field \(did you mean top_k\?\)"):
        client.chat.completions.create(**usual, extra_body={"top_kk": 3})


def test_what_had_no_part_in_an_answer_is_named(client: openai.OpenAI) -> None:
    usual: Any = {"model": "tiny", "messages": ASKED, "max_tokens": 1}
    raw = client.chat.completions.with_raw_response.create(**usual, metadata={"run": "a"}, user="ann")
    assert raw.headers["x-ignored-fields"] == "user,metadata"
    assert "x-ignored-fields" not in client.chat.completions.with_raw_response.create(**usual, n=1).headers
    text = client.completions.with_raw_response.create(model="plain", prompt="The", max_tokens=1, user="ann")
    assert text.headers["x-ignored-fields"] == "user"


def test_a_stream_tells_its_usage(client: openai.OpenAI) -> None:
    usual: Any = {"model": "tiny", "messages": ASKED, "seed": 1, "max_tokens": 6}
    options: Any = {"include_usage": True, "include_obfuscation": False}
    *pieces, last = client.chat.completions.create(**usual, stream=True, stream_options=options)
    assert last.usage == client.chat.completions.create(**usual).usage and not last.choices
    assert all(piece.usage is None for piece in pieces)


@pytest.mark.parametrize("model", ["tiny", "plain"])
@pytest.mark.parametrize("switch", ["continue_final_message", "prefix"])
def test_an_answer_is_continued(client: openai.OpenAI, model: str, switch: str) -> None:
    usual: Any = {"model": model, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(messages=ASKED, **usual).choices[0].message.content or ""
    begun: Any = {"role": "assistant", "content": whole[: whole.index(" ", 3)]}
    if switch == "prefix":
        begun["prefix"] = True
    else:
        usual["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
    rest = client.chat.completions.create(messages=[*ASKED, begun], **usual).choices[0].message.content or ""
    streamed = client.chat.completions.create(messages=[*ASKED, begun], stream=True, **usual)
    pieces = "".join(piece.choices[0].delta.content or "" for piece in streamed)
    assert pieces.rstrip() == rest.rstrip()
    assert rest.startswith(" ") and (begun["content"] + rest).startswith(whole)


def logprobs_of(folder: Path, rows: list[list[int]], runtime: Runtime) -> list[list[float]]:
    """log p of every token but the first."""
    marked = [(ids, [False] + [True] * (len(ids) - 1)) for ids in rows]
    return [part.tolist() for part in forward.compute_logprobs(pretrained.load_decoder(folder), marked, runtime, 4096)]


def test_prompts_are_scored_as_lm_eval_asks_for_it(http: httpx.Client, base: Path, runtime: Runtime) -> None:
    """The request of lm_eval's local-completions for log-likelihoods, and its reading of the answer."""
    tokenizer = Tokenizer.load(base)
    contexts = [tokenizer.encode(text) for text in ("The rose is", "A leaf is green; Gladly", "The")]
    endings = [tokenizer.encode(text) for text in (" red.", " it is.", " sea")]
    rows = [context + ending for context, ending in zip(contexts, endings)]
    body = {"model": "plain", "prompt": rows, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1, "echo": True}
    choices = http.post("/v1/completions", json=body).raise_for_status().json()["choices"]
    expected = logprobs_of(base, rows, runtime)
    for choice, context, row, logps in zip(choices, contexts, rows, expected):
        logprobs = choice["logprobs"]
        assert [len(column) for column in logprobs.values()] == [len(row) + 1] * 4
        assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
        assert logprobs["token_logprobs"][1:-1] == pytest.approx(logps, abs=1e-4)
        best = [max(near.values()) for near in logprobs["top_logprobs"][len(context) : -1]]
        greedy = logprobs["token_logprobs"][len(context) : -1] == best
        alone = http.post("/v1/completions", json={**body, "prompt": context, "max_tokens": 9, "echo": False})
        drawn = alone.json()["choices"][0]["logprobs"]["tokens"]
        names = logprobs["tokens"][len(context) : -1]
        assert greedy == (drawn[: len(names)] == names)
        assert choice["text"].startswith(tokenizer.decode(row))


def test_a_prompt_that_ends_with_the_models_end_keeps_its_place(http: httpx.Client, assistant: Path) -> None:
    """A reader cuts off the one token that was drawn: there is one, also where the model ends at once."""
    tokenizer = Tokenizer.load(assistant)
    prompt = render_prompt(tokenizer, [Message("user", ASKED[0]["content"])])
    settings = {"model": "tiny", "temperature": 0, "logprobs": 0}
    answer = http.post("/v1/completions", json={**settings, "prompt": prompt, "max_tokens": 30}).json()["choices"][0]
    ids = [*prompt, *render_completion(tokenizer, answer["text"], ended=False)]
    body = {**settings, "prompt": ids, "max_tokens": 1, "echo": True}
    tokens = http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]["tokens"]
    assert tokens[-1] == tokenizer.eos and len(tokens) == len(ids) + 1


@pytest.mark.parametrize("stream", [False, True])
def test_echo_gives_the_prompt_back(client: openai.OpenAI, stream: bool) -> None:
    usual: Any = {"model": "plain", "prompt": ["The rose", "The sea is"], "seed": 2, "n": 2, "logprobs": 2}
    whole = client.completions.create(**usual, max_tokens=5)
    if stream:
        texts, logprobs = [""] * 4, {}
        for chunk in client.completions.create(**usual, max_tokens=5, echo=True, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
            logprobs[chunk.choices[0].index] = chunk.choices[0].logprobs
    else:
        built = client.completions.create(**usual, max_tokens=5, echo=True)
        texts = [choice.text for choice in built.choices]
        logprobs = {choice.index: choice.logprobs for choice in built.choices}
    for choice in whole.choices:
        prompt = usual["prompt"][choice.index // 2]
        assert texts[choice.index] == prompt + choice.text
        rows = logprobs[choice.index]
        assert rows is not None and rows.tokens and rows.text_offset and choice.logprobs is not None
        for token, place in zip(rows.tokens, rows.text_offset):
            assert texts[choice.index][place:].startswith(token) or token == "<|eos|>"
        later = len(choice.logprobs.tokens or [])
        assert rows.token_logprobs is not None
        assert rows.token_logprobs[-later:] == pytest.approx(choice.logprobs.token_logprobs, abs=1e-5)


def test_a_prompt_alone_may_fill_the_context(http: httpx.Client, base: Path, runtime: Runtime) -> None:
    draws = torch.Generator().manual_seed(3)
    ids = torch.randint(6, 300, (64,), generator=draws).tolist()
    body = {"model": "plain", "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 5}
    built = http.post("/v1/completions", json=body).raise_for_status().json()
    logprobs = built["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"][1:] == pytest.approx(logprobs_of(base, [ids], runtime)[0], abs=1e-4)
    for token, logp, near in list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]))[1:]:
        fifth = sorted(near.values())[-5]
        assert near[token] == logp and len(near) == (5 if logp >= fifth else 6)
    assert built["usage"] == {"prompt_tokens": 64, "completion_tokens": 0, "total_tokens": 64}
    assert built["choices"][0]["finish_reason"] == "length"
    assert http.post("/v1/completions", json={**body, "max_tokens": 1}).status_code == 400


def test_a_served_model_is_a_teacher(
    served: Any, assistant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Ann asks: name a red thing."}\n')
    config = sample.Config(
        model=f"{served.url}/v1:tiny",
        data=tmp_path / "prompts.jsonl",
        out=tmp_path / "run",
        num_generations=2,
        sampling=sample.SamplingOptions(temperature=0.0, max_new_tokens=24),
    )
    (row,) = (json.loads(line) for line in (sample.run(config) / "samples.jsonl").read_text().splitlines())
    local = sample.run(replace(config, model=assistant, out=tmp_path / "local", device=DeviceOptions("cpu", "fp32", 1)))
    (own,) = (json.loads(line) for line in (local / "samples.jsonl").read_text().splitlines())
    assert row["completions"] == own["completions"] and row["ended"] == own["ended"]
