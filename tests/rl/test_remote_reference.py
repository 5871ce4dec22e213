"""A reference on servers: the numbers of one in memory, servers that do not fit, and servers that are lost."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions
from amenable.rl.models import Models, load_models
from amenable.rl.options import OnlineOptions
from amenable.rl.remote_reference import RemoteReference, logprobs_in
from amenable.serve import serve
from amenable.stages import ppo, rloo
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import to_row
from amenable.train.loading import load_policy, save_model
from amenable.train.runtime import DeviceOptions, Runtime
from tests.serve.conftest import Running, running

FP32 = DeviceOptions("cpu", "fp32", 1)
ROWS = [to_row([1, 30, 40], [50, 60]), to_row([1, 30, 40], [50, 70, 80]), to_row([1], [90]), to_row([1, 2], [3] * 9)]


def config_of(folder: Path, tmp_path: Path, **options: Any) -> serve.Config:
    """Options of a server of a model named `reference`."""
    given: dict[str, Any] = {"rate_limit_per_minute": 10**6, "device": FP32, **options}
    return serve.Config(models=(f"reference={folder}",), labels_db=tmp_path / "served.db", **given)


@pytest.fixture
def server(assistant: Path, tmp_path: Path) -> Iterator[Running]:
    with running(config_of(assistant, tmp_path)) as server:
        yield server


def url_of(server: Running) -> str:
    return f"{server.url}/logprobs/reference"


@pytest.fixture
def options(online_options: OnlineOptions) -> OnlineOptions:
    return replace(
        online_options,
        max_steps=2,
        prompts_per_step=4,
        max_new_tokens=12,
        max_tokens_per_pass=100,
        kl_coef=0.3,
        num_traced_prompts=0,
        save_steps=0,
    )


def test_its_numbers_are_those_of_a_reference_in_memory(
    server: Running, assistant: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: a request is a pass. Long requests are halved, and then their passes are."""
    reference, done = RemoteReference([url_of(server)], assistant, runtime), list[tuple[int, int]]()
    reference.connect()
    theirs = reference.logprobs(ROWS, 12, 0.7, lambda *numbers: done.append(numbers))
    ours = forward.compute_logprobs(load_policy(assistant, runtime)[0], ROWS, runtime, 12, 0.7)
    assert all(map(torch.equal, ours, theirs)) and done == [(i, 3) for i in range(4)]
    monkeypatch.setattr("amenable.rl.remote_reference.MAX_BYTES", 80)
    halves = reference.logprobs(ROWS, 100)
    whole = forward.compute_logprobs(load_policy(assistant, runtime)[0], ROWS, runtime, 100)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(whole, halves))


@pytest.mark.parametrize(
    ("stage", "adapters"), [(ppo, LoraOptions()), (rloo, LoraOptions(rank=2))], ids=["weights", "adapters"]
)
def test_a_run_has_the_result_of_one_with_the_reference_in_memory(
    stage: Any, adapters: LoraOptions, server: Running, options: OnlineOptions, tmp_path: Path
) -> None:
    here = stage.Config(**{**vars(options), "lora": adapters, "out": tmp_path / "here"})
    there = replace(here, out=tmp_path / "there", reference_url=(url_of(server),))
    for config in (here, there):
        stage.run(config)
    for name in ("model.safetensors", "metrics.jsonl", "samples.jsonl"):
        assert (here.out / name).read_bytes() == (there.out / name).read_bytes()


def test_its_weights_are_not_loaded(server: Running, options: OnlineOptions, runtime: Runtime) -> None:
    models: Models = load_models(replace(options, reference_url=(url_of(server),)), runtime)
    assert len(models.frozen) == 1 and not isinstance(models.reference, Decoder)
    assert models.starts_at_reference


@pytest.fixture
def other(assistant: Path, words: Tokenizer, make_decoder: Callable[..., Decoder], tmp_path: Path) -> Path:
    """A model of the same tokenizer and shape with other weights."""
    save_model(tmp_path / "other", make_decoder(7, vocab_size=words.vocab_size), words)
    return tmp_path / "other"


def test_servers_that_do_not_fit_are_refused_before_anything_is_loaded(
    server: Running,
    options: OnlineOptions,
    other: Path,
    make_decoder: Callable[..., Decoder],
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words, third = Tokenizer.train(["other words to read"], 290, chat=True), other.with_name("third")
    save_model(third, make_decoder(vocab_size=words.vocab_size), words)
    monkeypatch.setattr("amenable.rl.models.loading.load_policy", None)

    def require(problem: str, url: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=problem) as caught:
            load_models(replace(options, reference_url=(url,), **changes), runtime)
        assert "\n" not in str(caught.value)

    require(r"/logprobs/reference: has another model than .*other; serve .*other", url_of(server), model=other)
    require(r"/logprobs/reference: has another tokenizer than the policy; serve", url_of(server), reference_model=third)
    require(r"/logprobs/judge: answered 404: .*no such model.*; check the address", f"{server.url}/logprobs/judge")
    require(r"/health: says nothing of a model; start one with: amenable serve", f"{server.url}/health")
    require(r"/metrics: says nothing of a model", f"{server.url}/metrics")
    require(r"^http://127\.0\.0\.1:9/x: cannot be reached: .*; start the server", "http://127.0.0.1:9/x")
    with pytest.raises(InputError, match="computes in another precision; start it with --precision bf16"):
        load_models(replace(options, reference_url=(url_of(server),)), replace(runtime, bf16=True))


def test_options_that_need_its_weights_are_refused(options: OnlineOptions) -> None:
    urls = ("http://127.0.0.1:9",)
    with pytest.raises(InputError, match=r"kl_estimator full with --reference-url.*leave one out"):
        replace(options, reference_url=urls, kl_in="loss", kl_estimator="full")
    with pytest.raises(InputError, match=r"lora\.bits with --reference-url"):
        replace(options, reference_url=urls, lora=LoraOptions(rank=2, bits=8))


def test_a_server_that_is_lost_is_replaced_by_the_new_one_of_its_file(
    assistant: Path, other: Path, runtime: Runtime, tmp_path: Path
) -> None:
    """A new server has to have the same model; without a file of addresses the loss is an error."""
    file, passes = tmp_path / "references", 12
    own = forward.compute_logprobs(load_policy(assistant, runtime)[0], ROWS, runtime, passes)
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        lost = first.enter_context(running(config_of(assistant, tmp_path)))
        file.write_text(url_of(lost), "utf-8")
        references = [RemoteReference([entry], assistant, runtime, 5.0, ()) for entry in (str(file), url_of(lost))]
        for each in references:
            each.connect()
        first.close()
        wrong = stack.enter_context(running(config_of(other, tmp_path)))
        file.write_text(url_of(wrong), "utf-8")
        with pytest.raises(InputError, match="has another model than"):
            references[0].logprobs(ROWS, passes)
        new = stack.enter_context(running(config_of(assistant, tmp_path)))
        file.write_text(url_of(new), "utf-8")
        assert all(map(torch.equal, own, references[0].logprobs(ROWS, passes)))
        with pytest.raises(InputError, match="gave no answer"):
            references[1].logprobs(ROWS, passes)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>", r"answered '<html>', not \{\"logprobs\""),
        (b'{"logprobs": [[-1.0]]}', "another number of log-probabilities"),
        (b'{"logprobs": [[-1.0, null], [-1.0]]}', "not"),
        (b'{"logprobs": [[-1.0, NaN], [-1.0]]}', "are no numbers"),
    ],
)
def test_other_answers_are_refused(body: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        logprobs_in(body, [to_row([1], [2, 3]), to_row([1], [2])], "http://127.0.0.1:1")
    assert logprobs_in(b'{"logprobs": [[-1, -2.5]]}', [to_row([1], [2, 3])], "url") == [[-1.0, -2.5]]
