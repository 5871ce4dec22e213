import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from amenable.errors import InputError
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.serve.openai.scheduler import (
    ActiveRequest,
    Chunk,
    Failed,
    Finished,
    GenerationRequest,
    QueueFull,
    Scheduler,
    StreamEvent,
)
from amenable.text.tokenizer import Tokenizer
from amenable.train.runtime import Runtime
from tests.generation.test_vllm_batch import Core, batch_of, core

__all__ = ["core"]  # a fixture

WARM = Sampling(temperature=1.0, max_new_tokens=20)


@pytest.fixture(scope="module")
def decoder(make_decoder: Callable[..., Decoder], words: Tokenizer) -> Decoder:
    decoder = make_decoder(3, vocab_size=words.vocab_size)
    decoder.unembedding.data.mul_(20)
    return decoder


@pytest.fixture
def scheduler(decoder: Decoder, words: Tokenizer, runtime: Runtime) -> Iterator[Scheduler]:
    scheduler = Scheduler(decoder, words.decode, words.eos_id, runtime, max_batch_size=4, max_queue=4)
    yield scheduler
    scheduler.close()


class Listener:
    """What was told of a request."""

    def __init__(self, scheduler: Scheduler, requested: GenerationRequest):
        self.news: queue.Queue[StreamEvent] = queue.Queue()
        self.request: ActiveRequest = scheduler.submit(requested, self.news.put)
        self.samples = requested.samples

    def answers(self) -> dict[int, tuple[str, Finished]]:
        """By sample: the pieces joined, and how it ended."""
        texts, ended = dict.fromkeys(range(self.samples), ""), {}
        while len(ended) < self.samples:
            news = self.news.get(timeout=20)
            assert not isinstance(news, Failed), news
            texts[news.sample] += news.text if isinstance(news, Chunk) else news.tail
            if isinstance(news, Finished):
                ended[news.sample] = news
        return {sample: (texts[sample], ended[sample]) for sample in ended}


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "never true"
        time.sleep(0.002)


def test_another_engine_decodes_in_place_of_ours(
    decoder: Decoder, words: Tokenizer, runtime: Runtime, core: Core
) -> None:
    """vLLM's, on a decoder of ours: the same texts, piece by piece; what fails is dropped there."""
    batch, ids = batch_of(core, words), words.encode("name a red thing")
    scheduler = Scheduler(decoder, words.decode, words.stop_ids, runtime, 4, 4, batch.emptied)
    try:
        settings = {"eos_id": words.stop_ids, "seeds": [5], "samples": 2, "decode": words.decode}
        (apart,) = generate(decoder, [ids], WARM, **settings)
        answers = Listener(scheduler, GenerationRequest(ids, WARM, 5, samples=2)).answers()
        assert [answers[k][0] for k in range(2)] == [one.text for one in apart]
        with pytest.raises(InputError, match="no room"):
            scheduler.submit(GenerationRequest([1] * 64, WARM, 0, prompt_only=True), print)
        listener = Listener(scheduler, GenerationRequest(ids, WARM, 5))
        core.step = lambda: 1 / 0  # type: ignore[assignment, return-value]
        with pytest.raises(AssertionError, match="the model failed"):
            listener.answers()
        until(lambda: not core.requests)
    finally:
        scheduler.close()


def test_answers_are_those_of_the_engine_whoever_else_asks(
    scheduler: Scheduler, decoder: Decoder, words: Tokenizer
) -> None:
    texts = ["name a red thing", "a leaf is", "the sea, the sky", "milk", "a long one about snow and swans"]
    settings = [WARM, Sampling(temperature=0, max_new_tokens=9), Sampling(1.3, top_k=5, max_new_tokens=12)]
    requested = [
        GenerationRequest(
            words.encode(text), settings[i % 3], seed=i, samples=1 + i % 2, stop=("e ",) if i == 2 else ()
        )
        for i, text in enumerate(texts)
    ]
    listeners = [Listener(scheduler, one) for one in requested]
    for one, listener in zip(requested, listeners):
        apart = generate(
            decoder, [one.ids], one.sampling, eos_id=words.eos_id, seeds=[one.seed], samples=one.samples,
            stop=one.stop, decode=words.decode,
        )[0]  # fmt: skip
        for sample, (text, ended) in listener.answers().items():
            assert ended.completion.ids == apart[sample].ids
            assert text == ended.completion.text == apart[sample].text
            assert ended.completion.finish_reason == apart[sample].finish_reason
    until(lambda: scheduler.pending == 0)
    assert scheduler.counts.answers == sum(one.samples for one in requested)


def test_the_likeliest_tokens_hold_the_greedy_one(scheduler: Scheduler, words: Tokenizer) -> None:
    greedy = GenerationRequest(words.encode("a rose is"), Sampling(temperature=0, max_new_tokens=5), 0, top_logprobs=3)
    beside = Listener(scheduler, GenerationRequest(words.encode("a rose is"), WARM, 0))
    [(_, ended)] = Listener(scheduler, greedy).answers().values()
    assert beside.answers()[0][1].completion.top_logprobs is None
    result = ended.completion.top_logprobs
    assert result is not None and len(result) == len(ended.completion.ids)
    for token, logp, best in zip(ended.completion.ids, ended.completion.logps, result):
        assert len(best) == 3 and best[0][0] == token
        assert best[0][1] == pytest.approx(logp, abs=1e-5)
        assert best[0][1] >= best[1][1] >= best[2][1]


def test_a_prompt_is_scored_on_request_and_its_neighbours_are_not(
    scheduler: Scheduler, decoder: Decoder, words: Tokenizer
) -> None:
    rows = [words.encode(text) for text in ("a rose is red", "milk and snow, and a swan", "the sea")]
    settings = Sampling(temperature=0, max_new_tokens=6)
    scored = [GenerationRequest(ids, settings, 0, samples=1 + i, prompt_logprobs=i != 1) for i, ids in enumerate(rows)]
    for requested, listener in zip(scored, [Listener(scheduler, one) for one in scored]):
        answers = listener.answers()
        apart = Listener(scheduler, replace(requested, prompt_logprobs=False)).answers()
        for sample, (text, ended) in answers.items():
            assert text == apart[sample][0] and apart[sample][1].completion.prompt_logprobs is None
            prompt = ended.completion.prompt_logprobs
            assert (prompt is not None) == requested.prompt_logprobs
            if prompt is not None:
                expected = logprobs_of(decoder, list(requested.ids))
                assert prompt.logps == pytest.approx(expected, abs=1e-4)
                assert prompt.top_logprobs == [[] for _ in expected]


def logprobs_of(decoder: Decoder, ids: list[int]) -> list[float]:
    """log p of every token but the first."""
    with torch.no_grad():
        hidden = decoder(torch.tensor(ids), Layout.of([len(ids)], torch.device("cpu")))
        logps = decoder.logits(hidden).log_softmax(-1)
    return [float(logps[place, token]) for place, token in enumerate(ids[1:])]


def test_a_prompt_alone_may_fill_the_context_and_nothing_is_drawn(
    scheduler: Scheduler, decoder: Decoder, words: Tokenizer
) -> None:
    ids = [6 + i for i in range(decoder.config.context_length)]
    requested = GenerationRequest(ids, WARM, 0, samples=2, top_logprobs=1, prompt_logprobs=True, prompt_only=True)
    before = scheduler.counts.completion_tokens
    for text, ended in Listener(scheduler, requested).answers().values():
        assert text == "" and ended.completion.ids == [] and ended.completion.finish_reason == "length"
        assert ended.completion.prompt_logprobs is not None
        assert ended.completion.prompt_logprobs.logps == pytest.approx(logprobs_of(decoder, ids), abs=1e-4)
        assert len(ended.completion.prompt_logprobs.top_logprobs) == len(ids) - 1
    assert scheduler.counts.completion_tokens == before
    with pytest.raises(InputError, match="leaves no room"):
        Listener(scheduler, replace(requested, ids=[*ids, 6]))
    assert Listener(scheduler, GenerationRequest(words.encode("snow"), WARM, 0)).answers()


def slowly(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The model takes a step only once this is set."""
    gate, step = threading.Event(), scheduler.decoder.step

    def wait(*values: object) -> object:
        gate.wait(10)
        return step(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(scheduler.decoder, "step", wait)
    return gate


def test_beyond_the_queue_requests_are_refused_at_once(
    scheduler: Scheduler, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = slowly(scheduler, monkeypatch)
    requested = GenerationRequest(words.encode("snow"), WARM, 0, samples=2)
    accepted = [Listener(scheduler, requested) for _ in range(4)]
    with pytest.raises(QueueFull) as busy:
        Listener(scheduler, requested)
    assert 1 <= busy.value.retry_after <= 60
    assert scheduler.counts.refused == 1
    gate.set()
    for listener in accepted:
        assert len(listener.answers()) == 2
    Listener(scheduler, requested).answers()


def test_a_cancelled_request_frees_its_rows(
    scheduler: Scheduler, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = slowly(scheduler, monkeypatch)
    requested = GenerationRequest(words.encode("snow"), WARM, 0, samples=4)
    first, waiting = Listener(scheduler, requested), Listener(scheduler, requested)
    scheduler.cancel(first.request)
    scheduler.cancel(waiting.request)
    third = Listener(scheduler, requested)
    gate.set()
    assert len(third.answers()) == 4
    until(lambda: scheduler.pending == 0)
    assert scheduler.counts.cancelled == 2
    assert all(not isinstance(news, Finished) for news in list(first.news.queue) + list(waiting.news.queue))


def test_a_failing_model_fails_what_runs_and_goes_on(
    scheduler: Scheduler, words: Tokenizer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    requested = GenerationRequest(words.encode("snow"), WARM, 0)
    with monkeypatch.context() as broken:

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("out of memory")

        broken.setattr(scheduler.decoder, "forward", fail)
        listener = Listener(scheduler, requested)
        assert listener.news.get(timeout=10) == Failed("the model failed; the server's log says why")
    assert "RuntimeError: out of memory" in capfd.readouterr().err
    assert Listener(scheduler, requested).answers()


def test_what_can_never_be_answered_is_refused(scheduler: Scheduler, words: Tokenizer) -> None:
    with pytest.raises(InputError, match="leaves no room"):
        Listener(scheduler, GenerationRequest([5] * 64, WARM, 0))
    with pytest.raises(InputError, match="5 answers"):
        Listener(scheduler, GenerationRequest(words.encode("snow"), WARM, 0, samples=5))


def test_closing_fails_what_is_under_way(decoder: Decoder, words: Tokenizer, runtime: Runtime) -> None:
    scheduler = Scheduler(decoder, words.decode, words.eos_id, runtime, max_batch_size=2)
    scheduler.close()
    with pytest.raises(QueueFull):
        Listener(scheduler, GenerationRequest(words.encode("snow"), WARM, 0))
    assert not scheduler.thread.is_alive()
