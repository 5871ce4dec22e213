import random
from collections.abc import Callable

import pytest
import torch

from amenable.generation import continuous_batch
from amenable.generation.continuous_batch import ContinuousBatch
from amenable.generation.engine import generate
from amenable.generation.requests import Completion, make_requests
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder

EOS = 3
SAMPLING = Sampling(max_new_tokens=6)


@pytest.fixture(scope="module")
def decoder(make_decoder: Callable[..., Decoder]) -> Decoder:
    """A model that ends now and then, its vocabulary being small."""
    return make_decoder(vocab_size=17).eval()


def make_prompts(count: int) -> list[list[int]]:
    numbers = random.Random(0)
    return [[numbers.randrange(4, 17) for _ in range(numbers.randrange(1, 14))] for _ in range(count)]


def ids_of(results: list[list[Completion]]) -> list[list[list[int]]]:
    return [[completion.ids for completion in row] for row in results]


def prefilled(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which every later prefill adds its number of tokens."""
    sizes: list[int] = []
    forward = decoder.forward

    def counted(ids, *rest, **named):
        sizes.append(len(ids))
        return forward(ids, *rest, **named)

    monkeypatch.setattr(decoder, "forward", counted)
    return sizes


def test_each_prompt_is_prefilled_once_for_all_its_samples(decoder, monkeypatch):
    sizes = prefilled(decoder, monkeypatch)
    prompts = make_prompts(5)
    generate(decoder, prompts, SAMPLING, eos_id=None, samples=4, max_batch_size=20)
    assert sum(sizes) == sum(map(len, prompts))


def test_many_prompts_are_prefilled_in_chunks(decoder, monkeypatch):
    monkeypatch.setattr(continuous_batch, "PREFILL_TOKENS", 20)
    prompts = make_prompts(9)
    expected = generate(decoder, prompts, SAMPLING, eos_id=EOS, samples=2)
    sizes = prefilled(decoder, monkeypatch)
    again = generate(decoder, prompts, SAMPLING, eos_id=EOS, samples=2)
    assert max(sizes) <= 20 and len(sizes) > 2
    assert ids_of(again) == ids_of(expected)


@torch.inference_mode()
def test_requests_added_later_give_the_completions_of_generate(decoder):
    prompts = make_prompts(7)
    requests = make_requests(prompts, SAMPLING, 5, 2, 64)
    batch = ContinuousBatch(decoder, [], SAMPLING, EOS, max_batch_size=3, length=32)
    batch.add(requests[:5])
    finished = batch.step() + batch.step()
    batch.add(requests[5:])
    while len(finished) < len(requests):
        finished += batch.step()
    expected = generate(decoder, prompts, SAMPLING, eos_id=EOS, seeds=5, samples=2)
    assert {(request.prompt, request.sample): completion.ids for request, completion in finished} == {
        (i, k): completion.ids for i, row in enumerate(expected) for k, completion in enumerate(row)
    }
    assert not batch.running and not batch.waiting


@torch.inference_mode()
def test_cancelled_requests_leave_their_slots_and_the_queue(decoder):
    requests = make_requests([[5, 6], [7, 8]], SAMPLING, 5, 3, 64)
    batch = ContinuousBatch(decoder, requests, SAMPLING, None, max_batch_size=2)
    batch.step()
    batch.cancel(0)
    assert not batch.running and {request.prompt for request in batch.waiting} == {1}
    finished = []
    while len(finished) < 3:
        finished += batch.step()
    assert {(request.prompt, request.sample) for request, _ in finished} == {(1, 0), (1, 1), (1, 2)}


@torch.inference_mode()
def test_the_batch_is_compacted_once_nothing_waits(decoder):
    limits = [Sampling(max_new_tokens=count) for count in (2, 9, 2, 9)]
    requests = [make_requests([[5, 6]], limit, [i], 1, 64)[0] for i, limit in enumerate(limits)]
    batch = ContinuousBatch(decoder, requests, SAMPLING, None, max_batch_size=4)
    widths = []
    while batch.running or batch.waiting:
        batch.step()
        widths.append(batch.width)
    assert widths == [4, 4, *[2] * 7]


def test_a_cache_has_the_dtype_of_autocast(decoder):
    assert decoder.new_cache(2, 8).keys[0].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert decoder.new_cache(2, 8).keys[0].dtype == torch.bfloat16
