"""Rollouts: ragged completions as rows and as [B, T], with the log-probabilities of their sampling distribution."""

from collections.abc import Callable

import pytest
import torch

from amenable.functional.logprobs import token_logprobs
from amenable.generation.rollout import Rollout, collect, length_mask, pad_to_mask
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout

PROMPTS = [[1, 5, 9], [1, 7], [1, 5, 9, 20, 33]]
EOS = 2
SAMPLING = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def decoder(make_decoder: Callable[..., Decoder]) -> Decoder:
    """A model that ends now and then, its vocabulary being small."""
    model = make_decoder(seed=1, vocab_size=40)
    with torch.no_grad():
        model.token_embedding.weight *= 4
    return model


@pytest.fixture(scope="module")
def rollout(decoder: Decoder) -> Rollout:
    return collect(
        decoder, PROMPTS, Sampling(max_new_tokens=12), eos_id=EOS, seeds=[4, 5, 6], samples=4, max_batch_size=5
    )


def test_a_prompts_samples_are_neighbours_and_differ(rollout: Rollout) -> None:
    assert rollout.prompts == [prompt for prompt in PROMPTS for _ in range(4)]
    assert all(len({str(answer) for answer in rollout.completions[i : i + 4]}) > 1 for i in (0, 4, 8))


def test_mask_lengths_and_ended_describe_the_completions(rollout: Rollout) -> None:
    lengths = [len(answer) for answer in rollout.completions]
    assert rollout.lengths.tolist() == lengths and len(set(lengths)) > 1
    assert rollout.mask.shape == rollout.logps.shape == (12, max(lengths))
    assert rollout.mask.tolist() == [[t < n for t in range(max(lengths))] for n in lengths]
    ended = [answer[-1] == EOS for answer in rollout.completions]
    assert rollout.ended.tolist() == ended and True in ended and False in ended
    for answer, end in zip(rollout.completions, ended):
        assert EOS not in answer[:-1] and (end or len(answer) == 12)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_the_trainers(decoder: Decoder, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, max_new_tokens=12)
    rollout = collect(decoder, PROMPTS, sampling, eos_id=EOS, seeds=[4, 5, 6], samples=2)
    for i, (ids, loss_mask) in enumerate(rollout.rows()):
        with torch.no_grad():
            logits = decoder.logits(decoder(torch.tensor(ids), Layout.of([len(ids)])))
        logps = token_logprobs(logits[:-1], torch.tensor(ids[1:]), temperature)[torch.tensor(loss_mask[1:])]
        assert torch.allclose(rollout.logps[i][rollout.mask[i]], logps, atol=1e-4)
    assert (rollout.logps[~rollout.mask] == 0).all()


def test_the_loss_mask_of_rows_is_the_completion(rollout: Rollout) -> None:
    for i, (ids, loss_mask) in enumerate(rollout.rows()):
        assert ids == rollout.prompts[i] + rollout.completions[i]
        assert loss_mask == [False] * len(rollout.prompts[i]) + [True] * len(rollout.completions[i])
    assert rollout.rows([7, 2]) == [rollout.rows()[7], rollout.rows()[2]]


def test_a_completion_depends_on_its_prompts_seed_alone(decoder: Decoder, rollout: Rollout) -> None:
    alone = collect(
        decoder, PROMPTS[1:2], Sampling(max_new_tokens=12), eos_id=EOS, seeds=[5], samples=4, max_batch_size=2
    )
    assert alone.completions == rollout.completions[4:8]


def test_pad_to_mask_fills_the_mask_row_by_row() -> None:
    mask = length_mask([2, 0, 3])
    assert mask.tolist() == [[True, True, False], [False, False, False], [True, True, True]]
    out = pad_to_mask(
        [torch.tensor([1.0, 2.0]), torch.tensor([]), torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64)], mask
    )
    assert out.tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5]] and out.dtype == torch.float32
