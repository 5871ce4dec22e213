"""The API as its clients see it: the official one of OpenAI, and plain HTTP."""

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.hash_cache import model_hash
from amenable.models import pretrained
from amenable.rewards.model import ModelReward
from amenable.rewards.remote import remote_reward
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import to_row
from amenable.train.forward import compute_logprobs
from amenable.train.loading import load_policy
from amenable.train.runtime import Runtime
from tests.serve.conftest import Running

ASKED: Any = [{"role": "user", "content": "Ann asks: name a red thing."}]


def expected(folder: Path, seed: int, samples: int, **settings: Any) -> list[Any]:
    decoder, tokenizer = pretrained.load_decoder(folder), Tokenizer.load(folder)
    prompt = render_prompt(tokenizer, [Message("user", ASKED[0]["content"])])
    sampling = Sampling(max_new_tokens=24, **settings)
    built = generate(
        decoder, [prompt], sampling, eos_id=tokenizer.eos_id, seeds=[seed], samples=samples, decode=tokenizer.decode
    )
    return built[0]


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"tiny", "plain"}
    assert client.models.retrieve("tiny").owned_by == "amenable"
    for model in client.models.list():
        assert client.chat.completions.create(model=model.id, messages=ASKED, max_tokens=1).choices


def test_a_reward_model_is_listed_where_it_is_of_use(client: openai.OpenAI, http: httpx.Client) -> None:
    (judge,) = http.get("/score").json()["data"]
    assert (judge["id"], judge["kind"]) == ("judge", "reward")
    with pytest.raises(openai.NotFoundError, match="judge is a reward model: it scores answers"):
        client.chat.completions.create(model="judge", messages=ASKED)
    with pytest.raises(openai.NotFoundError, match="judge is a reward model"):
        client.models.retrieve("judge")
    score = {"model": "tiny", "messages": ASKED, "completions": ["a"]}
    assert "tiny gives answers" in http.post("/score", json=score).json()["error"]["message"]


def test_log_probabilities_of_ids_are_those_of_a_forward_pass(
    http: httpx.Client, assistant: Path, base: Path, runtime: Runtime
) -> None:
    """To the bit, of rows that have a beginning in common and of one that has not."""
    decoder, tokenizer = load_policy(assistant, runtime)
    rows = [to_row([1, 30, 40], [50, 60]), to_row([1, 30, 40], [50, 70, 80]), to_row([1], [90])]
    body = {"rows": [ids for ids, _ in rows], "first": [3, 3, 1], "temperature": 0.7}
    answers = http.post("/logprobs/tiny", json=body).json()["logprobs"]
    assert answers == [part.tolist() for part in compute_logprobs(decoder, rows, runtime, 8192, 0.7)]
    facts = http.get("/logprobs/tiny").json()
    assert facts["tokenizer"] == tokenizer.fingerprint and facts["precision"] == "fp32"
    assert (facts["num_tokens"], facts["context"]) == (tokenizer.vocab_size, 64)
    assert facts["model"] == model_hash(assistant) != http.get("/logprobs/plain").json()["model"]


@pytest.mark.parametrize(
    ("name", "body", "problem"),
    [
        ("tiny", {"rows": [[1, 2], [1, 5000]], "first": [1, 1]}, "row 1 has id 5000, which the model lacks"),
        ("tiny", {"rows": [[1] * 65], "first": [1]}, "row 0 has 65 ids, and the model reads 64"),
        ("tiny", {"rows": [[1, 2]], "first": [2]}, "a row has no id there"),
        ("tiny", {"rows": [[1, 2]], "first": [1, 1]}, "2 for 1 rows"),
        ("tiny", {"rows": [[1, 2]], "first": [0]}, "first.0"),
        ("tiny", {"rows": [[1, 2]], "first": [1], "temperature": 0}, "temperature"),
        ("judge", {"rows": [[1, 2]], "first": [1]}, "judge is a reward model"),
    ],
)
def test_rows_without_log_probabilities_are_refused(
    name: str, body: dict[str, Any], problem: str, http: httpx.Client
) -> None:
    reply = http.post(f"/logprobs/{name}", json=body)
    assert 400 <= reply.status_code < 500 and problem in reply.json()["error"]["message"]


def test_a_chat_is_what_the_model_says(client: openai.OpenAI, assistant: Path) -> None:
    built = client.chat.completions.create(model="tiny", messages=ASKED, seed=5, n=3, temperature=0.9, top_p=0.8)
    apart = expected(assistant, 5, 3, temperature=0.9, top_p=0.8)
    assert [choice.message.content for choice in built.choices] == [one.text for one in apart]
    assert [choice.index for choice in built.choices] == [0, 1, 2]
    ends = ["length" if one.finish_reason == "length" else "stop" for one in apart]
    assert [choice.finish_reason for choice in built.choices] == ends
    assert built.usage is not None
    assert built.usage.completion_tokens == sum(len(one.ids) for one in apart)
    assert built.usage.total_tokens == built.usage.prompt_tokens + built.usage.completion_tokens


def test_a_stop_string_ends_an_answer(client: openai.OpenAI) -> None:
    greedy: Any = {"model": "tiny", "messages": ASKED, "temperature": 0}
    full = client.chat.completions.create(**greedy).choices[0].message.content or ""
    stop = full[4:6]
    cut = client.chat.completions.create(**greedy, stop=[stop, "never said"]).choices[0]
    assert cut.message.content == full[: full.index(stop)] and cut.finish_reason == "stop"
    streamed = client.chat.completions.create(**greedy, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == cut.message.content


def test_logprobs_are_those_of_the_draw(client: openai.OpenAI, assistant: Path) -> None:
    built = client.chat.completions.create(
        model="tiny", messages=ASKED, temperature=0, logprobs=True, top_logprobs=2, max_completion_tokens=6
    )
    apart = expected(assistant, 0, 1, temperature=0)[0]
    assert built.choices[0].logprobs is not None
    rows = built.choices[0].logprobs.content or []
    assert [row.logprob for row in rows] == pytest.approx(apart.logps[: len(rows)], abs=1e-4)
    assert 3 < len(rows) <= 6
    assert all(len(row.top_logprobs) == 2 for row in rows)
    assert "".join(row.token for row in rows) == built.choices[0].message.content


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    built = client.completions.create(
        model="plain", prompt=["The rose", "The sea"], max_tokens=5, n=2, seed=1, logprobs=1
    )
    assert [choice.index for choice in built.choices] == [0, 1, 2, 3]
    alone = client.completions.create(model="plain", prompt="The rose", max_tokens=5, n=2, seed=1)
    assert [choice.text for choice in built.choices[:2]] == [choice.text for choice in alone.choices]
    logprobs = built.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    assert "".join(token for token in logprobs.tokens if token != "<|eos|>") == built.choices[0].text
    streamed = client.completions.create(model="plain", prompt="The rose", max_tokens=5, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == alone.choices[0].text


def test_a_stream_ends_with_the_log_probabilities(client: openai.OpenAI) -> None:
    settings: Any = {"model": "plain", "prompt": "The rose", "max_tokens": 6, "seed": 1, "logprobs": 2}
    whole = client.completions.create(**settings).choices[0]
    *_, last = client.completions.create(**settings, stream=True)
    assert last.choices[0].logprobs == whole.logprobs and last.choices[0].finish_reason == whole.finish_reason
    stop = whole.text[3:5]
    cut = client.completions.create(**settings, stop=["never said", stop]).choices[0]
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.finish_reason == "stop"
    assert cut.logprobs is not None and len(cut.logprobs.tokens or []) < len(whole.logprobs.tokens)  # type: ignore[union-attr, arg-type]


def test_the_seed_decides_what_is_said_and_its_absence_does_not(client: openai.OpenAI) -> None:
    def answer(**settings: Any) -> str | None:
        built = client.chat.completions.create(model="tiny", messages=ASKED, temperature=1.5, **settings)
        return built.choices[0].message.content

    assert answer(seed=1) == answer(seed=1)
    assert len({answer(seed=seed) for seed in range(4)}) > 1 and len({answer() for _ in range(4)}) > 1


def test_a_base_model_chats_as_a_transcript(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="plain", messages=ASKED, seed=0).choices[0].message.content or ""
    assert answer == answer.strip() and "\n\n" not in answer


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
    with pytest.raises(openai.BadRequestError, match="unknown to the model"):
        client.completions.create(model="plain", prompt=[10**6])


def test_a_run_gets_the_scores_of_a_served_reward_model(served: Running, judge: Path, runtime: Runtime) -> None:
    """Those of the model itself, of more answers than a request has, each with its prompt and end."""
    prompts = [(Message("user", f"Ann asks: name a {colour} thing."),) for colour in ("red", "blue", "green") * 90]
    answers = [f"{tone}: a rose, it is red." for tone in ("Gladly", "Grimly") * 135]
    columns = {"ended": [number % 5 > 0 for number in range(270)], "target": ["x"] * 270}
    scores = remote_reward(f"{served.url}/rewards/judge")(prompts, answers, **columns)
    assert scores == pytest.approx(ModelReward.load(judge, runtime)(prompts, answers, **columns), abs=1e-5)
    with pytest.raises(InputError, match="answered 404"):
        remote_reward(f"{served.url}/rewards/plain")(prompts[:1], answers[:1])
    with pytest.raises(InputError, match="answered 400"):
        remote_reward(f"{served.url}/rewards/judge")(prompts[:1], ["word " * 300])


def test_scores_are_the_reward_models(http: httpx.Client, judge: Path) -> None:
    answers = ["Gladly: a rose, it is red.", "Grimly: a rose, it is red."]
    body = {"model": "judge", "messages": ASKED, "completions": answers}
    scores = [row["score"] for row in http.post("/score", json=body).json()["data"]]
    assert scores[0] > scores[1]
    turned = http.post("/score", json={**body, "completions": answers[::-1]}).json()["data"]
    assert [row["score"] for row in turned] == pytest.approx(scores[::-1], abs=1e-5)
    assert http.post("/score", json={**body, "model": "tiny"}).status_code == 404
    assert http.post("/score", json={**body, "completions": ["word " * 300]}).status_code == 400


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"stop": 5}, "stop"),
        ({"stop": [5]}, "stop.0"),
        ({"n": 0}, "n"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "text": "x"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": 5}, "messages"),
    ],
)
def test_a_mistake_is_named_by_its_field(http: httpx.Client, wrong: dict[str, Any], param: str) -> None:
    reply = http.post("/v1/chat/completions", json={"model": "tiny", "messages": ASKED, **wrong})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert error["message"].startswith(f"{param}: ")
