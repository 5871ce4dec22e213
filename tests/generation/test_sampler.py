"""Samplers outside the trainer: the requests that they get, and the completions that they may give."""

import math
from collections.abc import Callable

import pytest

from amenable.errors import InputError
from amenable.generation.requests import SampleRequest
from amenable.generation.sampler import completion_of, generate_by, vllm_parameters
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from tests.conftest import RequestByRequest

PROMPTS = [[1, 5], [1, 5, 9, 20, 33], [1, 7, 8]]
EOS = (2, 3)


def test_completions_are_in_the_order_of_the_prompts_with_their_limits(make_decoder: Callable[..., Decoder]) -> None:
    """Requests come with the longest prompt first; a prompt near the end of the context has less room."""
    decoder = make_decoder(seed=1, vocab_size=40, context_length=8)
    sampler, sampling = RequestByRequest(decoder), Sampling(max_new_tokens=5)
    groups = generate_by(
        sampler,
        PROMPTS,
        sampling,
        eos_id=None,
        seeds=[4, 5, 6],
        samples=2,
        context_length=decoder.config.context_length,
    )
    assert [[len(each.ids) for each in group] for group in groups] == [[5, 5], [3, 3], [5, 5]]
    alone = generate_by(
        sampler, PROMPTS[2:], sampling, eos_id=None, seeds=[6], samples=2, context_length=decoder.config.context_length
    )
    assert groups[2] == alone[0] and groups[2][0].ids != groups[2][1].ids


def test_parameters_are_those_of_the_request() -> None:
    sampling = Sampling(temperature=0.7, top_k=4, top_p=0.9, min_p=0.1, repetition_penalty=1.2, max_new_tokens=50)
    settings = vllm_parameters(SampleRequest(0, 1, [1, 5], 30, 77), sampling, EOS, never=[41, 42])
    assert settings == {
        "max_tokens": 30,
        "seed": 77,
        "temperature": 0.7,
        "top_k": 4,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "stop_token_ids": [2, 3],
        "ignore_eos": True,
        "logprobs": 0,
        "logit_bias": {41: -100.0, 42: -100.0},
    }
    assert "logit_bias" not in vllm_parameters(SampleRequest(0, 1, [1, 5], 30, 77), sampling, EOS)


def test_a_completion_has_ended_at_any_of_the_ids() -> None:
    assert completion_of([5, 3], [-1.0, -2.0], EOS, "x").finish_reason == "eos"
    cut = completion_of([5, 9], [-1.0, -2.0], EOS, "x")
    assert (cut.ids, cut.logps, cut.finish_reason, cut.text) == ([5, 9], [-1.0, -2.0], "length", None)


@pytest.mark.parametrize(
    ("ids", "logps", "problem"),
    [
        ([], [], "gave 0 tokens"),
        ([5, 9], [-1.0], "gave 2 tokens with 1 log-probabilities"),
        ([5], [math.nan], "no numbers"),
        ([5], [None], "no numbers"),
    ],
)
def test_what_is_no_completion_is_named_with_its_source(ids: list[int], logps: list[float], problem: str) -> None:
    with pytest.raises(InputError, match=f"http://there: .*{problem}"):
        completion_of(ids, logps, EOS, "http://there")
