"""KL on a policy's own answers: that of all answers, worked out one by one, and what it costs."""

from collections.abc import Callable
from itertools import product

import pytest
import torch

from amenable.evaluation.divergence import answers_with_kl, make_kl_monitor, peaks
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.text.tokenizer import Tokenizer
from amenable.train.runtime import Runtime

EOS = 2
PROMPTS = [[1, 5, 7], [1, 9, 4, 4, 8]]


@pytest.fixture
def policy(make_decoder: Callable[..., Decoder]) -> Decoder:
    return make_decoder(seed=1, vocab_size=10)


@pytest.fixture
def reference(make_decoder: Callable[..., Decoder]) -> Decoder:
    return make_decoder(seed=2, vocab_size=10)


def measure(
    policy: Decoder, reference: Decoder, runtime: Runtime, copies: int, length: int, temperature: float = 1.0
) -> torch.Tensor:
    """KL of `copies` answers to each prompt, [prompts, copies]."""
    prompts = [prompt for prompt in PROMPTS for _ in range(copies)]
    _, kls = answers_with_kl(
        policy,
        reference,
        prompts,
        max_new_tokens=length,
        eos_id=EOS,
        seeds=range(len(prompts)),
        runtime=runtime,
        max_tokens=500,
        temperature=temperature,
    )
    return kls.view(len(PROMPTS), copies)


def logprobs(decoder: Decoder, ids: list[int], temperature: float) -> torch.Tensor:
    """Of the token after each of these, [len(ids), V]."""
    with torch.no_grad():
        hidden = decoder(torch.tensor(ids), Layout.of([len(ids)]))
        return (hidden @ decoder.unembedding.T / temperature).log_softmax(-1).double()


def exact(policy: Decoder, reference: Decoder, prompt: list[int], temperature: float) -> float:
    """E log(pi / ref) over all answers of at most two tokens."""
    total = 0.0
    for first, second in product(range(10), repeat=2):
        ours, theirs = (logprobs(model, [*prompt, first], temperature) for model in (policy, reference))
        path, ratio = ours[-2, first], ours[-2, first] - theirs[-2, first]
        if first != EOS:
            path, ratio = path + ours[-1, second], ratio + ours[-1, second] - theirs[-1, second]
            total += float(path.exp() * ratio)
        elif second == 0:  # an answer that is EOS alone, once
            total += float(path.exp() * ratio)
    return total


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_its_mean_is_the_divergence_of_all_answers(
    policy: Decoder, reference: Decoder, runtime: Runtime, temperature: float
) -> None:
    kls = measure(policy, reference, runtime, 300, 2, temperature)
    for prompt, result in zip(PROMPTS, kls):
        error = float(result.std()) / 300**0.5
        assert abs(float(result.mean()) - exact(policy, reference, prompt, temperature)) < 4 * error + 1e-4
        assert float(result.mean()) > 10 * error, "far from zero, so that the test says something"


def test_of_a_policy_from_itself_it_is_zero_and_else_above(
    policy: Decoder, reference: Decoder, runtime: Runtime
) -> None:
    assert measure(policy, policy, runtime, copies=4, length=8).abs().max() < 1e-4
    kls = measure(policy, reference, runtime, copies=4, length=8)
    assert (kls > 0).all()
    assert torch.equal(kls, measure(policy, reference, runtime, copies=4, length=8)), "the same random numbers"


def test_what_it_needs_grows_with_what_is_asked(policy: Decoder, runtime: Runtime) -> None:
    assert peaks(policy, [], 8, 500, runtime) == []
    few, many = peaks(policy, PROMPTS, 8, 500, runtime), peaks(policy, PROMPTS * 4, 32, 500, runtime)
    assert all(0 < small < large for small, large in zip(few, many, strict=True))


def test_few_prompts_are_answered_several_times(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime
) -> None:
    policy, reference = (make_decoder(seed=seed, vocab_size=words.vocab_size) for seed in (1, 2))
    rows = [([*prompt, 3], [False] * len(prompt) + [True]) for prompt in [*PROMPTS, PROMPTS[0]]]
    monitors = {
        count: make_kl_monitor(policy, reference, rows, words, runtime, count, 8, 500, 0, pytest.fail)
        for count in (1, 2, 5)
    }
    assert [len(each.prompts) * each.samples for each in monitors.values()] == [1, 2, 6], "at least as many answers"
    assert monitors[5].peaks()[0] > monitors[2].peaks()[0]
    metrics, samples = monitors[5].measure()
    assert [row["prompt"] for row in samples] == [words.decode(prompt) for prompt in PROMPTS], "one of each prompt"
    single = monitors[2].measure()[0]["objective/kl"]
    assert metrics["objective/kl"] == monitors[5].measure()[0]["objective/kl"] != single
    colder = make_kl_monitor(policy, reference, rows, words, runtime, 2, 8, 500, 0, pytest.fail, 0.5)
    assert colder.measure()[0]["objective/kl"] > single
