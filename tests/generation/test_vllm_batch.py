"""vLLM's engine behind a scheduler: what it gives, token by token, becomes our completions."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from amenable.generation.continuous_batch import ContinuousBatch
from amenable.generation.requests import Completion, SampleRequest
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_batch import VllmBatch
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer

WARM = Sampling(temperature=0.9, max_new_tokens=20)


class Core:
    """vLLM's engine of single steps, with its names, on a decoder of ours: two requests run at once."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self.requests: dict[str, tuple[Completion, list[int], dict[str, Any], int]] = {}
        self.aborted: list[str] = []

    def add_request(self, number: str, prompt: Any, settings: dict[str, Any]) -> None:
        ids, top = prompt["prompt_token_ids"], settings["logprobs"]
        sampling = Sampling(settings["temperature"], settings["top_k"], settings["top_p"])
        wants = settings.get("prompt_logprobs") is not None
        request = SampleRequest(0, 0, ids, settings["max_tokens"], settings["seed"], None, None, top or 1, wants)
        with torch.inference_mode():
            batch = ContinuousBatch(self.decoder, [request], sampling, settings["stop_token_ids"], max_batch_size=1)
            while not (finished := batch.step()):
                pass
        self.requests[number] = finished[0][1], ids, settings, 0

    def abort_request(self, numbers: list[str]) -> None:
        self.aborted += numbers
        for number in numbers:
            del self.requests[number]

    def step(self) -> list[Any]:
        outputs = []
        for number, (done, ids, settings, count) in list(self.requests.items())[:2]:
            count += 1
            self.requests[number] = done, ids, settings, count
            answer = SimpleNamespace(
                token_ids=done.ids[:count], logprobs=[self.given(done, i, settings["logprobs"]) for i in range(count)]
            )
            prompt = None
            if done.prompt_logprobs is not None:
                logps = done.prompt_logprobs.logps
                prompt = [None, *({token: SimpleNamespace(logprob=logp)} for token, logp in zip(ids[1:], logps))]
            ended = count == len(done.ids)
            outputs.append(SimpleNamespace(request_id=number, outputs=[answer], finished=ended, prompt_logprobs=prompt))
            if ended:
                del self.requests[number]
        return outputs

    def given(self, done: Completion, i: int, count: int) -> dict[int, Any]:
        """vLLM's log-probabilities at a position: of the token, and of the most probable ones."""
        assert done.top_logprobs is not None
        pairs = [(done.ids[i], done.logps[i]), *done.top_logprobs[i][:count]]
        return {token: SimpleNamespace(logprob=logp) for token, logp in pairs}


@pytest.fixture(scope="module")
def decoder(make_decoder: Callable[..., Decoder], words: Tokenizer) -> Decoder:
    decoder = make_decoder(3, vocab_size=words.vocab_size)
    decoder.unembedding.data.mul_(4)
    return decoder


@pytest.fixture
def core(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> Core:
    package = ModuleType("vllm")
    package.SamplingParams = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    return Core(decoder)


def batch_of(core: Core, words: Tokenizer) -> VllmBatch:
    engine: Any = SimpleNamespace(engine=SimpleNamespace(llm_engine=core), device=torch.device("cpu"), never=[])
    engine.wake = lambda: None
    return VllmBatch(engine, words.decode, words.stop_ids)


def requests_of(words: Tokenizer, stop: str = "zz") -> list[SampleRequest]:
    """Requests with all that a client may want, of three prompts."""
    ids = [words.encode(text) for text in ("name a red thing", "the sea, the sky", "milk")]
    request = SampleRequest(0, 0, ids[0], 20, 5, WARM, ())
    return [
        request,
        replace(request, sample=1, seed=6),
        replace(request, prompt=1, ids=ids[1], stop=(stop, "zz"), top_logprobs=3),
        replace(request, prompt=2, ids=ids[2], limit=1, prompt_logprobs=True),
    ]


def completed(batch: Any) -> dict[tuple[int, int], Completion]:
    done = {}
    with torch.inference_mode():
        while batch.running or getattr(batch, "waiting", ()):
            for request, completion in batch.step():
                assert (request.prompt, request.sample) not in done
                done[request.prompt, request.sample] = completion
    return done


def test_completions_are_those_of_our_engine(core: Core, decoder: Decoder, words: Tokenizer) -> None:
    """With text, stop strings, the most probable tokens, and the prompt's log-probabilities."""
    theirs, decode = batch_of(core, words), words.decode
    theirs.add(requests_of(words))
    whole = completed(theirs)[1, 0].text or ""
    ours = ContinuousBatch(decoder, [], WARM, words.stop_ids, decode=decode, follow=True, length=64)
    for batch in (ours, theirs):
        batch.add(requests_of(words, whole[4:6]))
    first, second = completed(ours), completed(theirs)
    assert first.keys() == second.keys() and len(first) == 4 and not core.requests
    for key, own in first.items():
        other = second[key]
        assert (other.ids, other.text, other.finish_reason) == (own.ids, own.text, own.finish_reason)
        assert other.logps == pytest.approx(own.logps, abs=1e-5)
    assert first[1, 0].finish_reason == "stop" and whole.startswith(second[1, 0].text or "-")
    assert second[1, 0].top_logprobs is not None
    tops = zip(first[1, 0].top_logprobs or [], second[1, 0].top_logprobs or [], strict=True)
    assert all([token for token, _ in one] == [token for token, _ in other] for one, other in tops)
    assert first[2, 0].prompt_logprobs is not None and second[2, 0].prompt_logprobs is not None
    assert second[2, 0].prompt_logprobs.logps == pytest.approx(first[2, 0].prompt_logprobs.logps, abs=1e-5)


def test_what_is_cancelled_or_emptied_is_no_longer_decoded(core: Core, words: Tokenizer) -> None:
    batch = batch_of(core, words)
    batch.add(requests_of(words))
    batch.step()
    batch.cancel(0)
    assert core.aborted == ["0", "1"] and [row.request.prompt for row in batch.running.values()] == [1, 2]
    assert batch.emptied() is batch and not batch.running and not core.requests
    batch.add(requests_of(words)[3:])
    assert completed(batch).keys() == {(2, 0)}
