import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import InputError
from amenable.generation.sampling import (
    BLOCK,
    NUCLEUS_GUESS,
    Sampling,
    adjust,
    draw,
    greedy,
    min_p,
    penalize_repetition,
    sample,
    top_k,
    top_p,
)

PROBS = torch.tensor([0.5, 0.3, 0.15, 0.05])


def probs_after(sampling: Sampling) -> list[float]:
    return adjust(PROBS.log()[None], sampling).softmax(-1)[0].tolist()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(top_p=0.49), [1, 0, 0, 0]),
        (Sampling(top_p=0.79), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.81), [0.526316, 0.315789, 0.157895, 0]),
        (Sampling(top_p=0.94), [0.526316, 0.315789, 0.157895, 0]),
        (Sampling(min_p=0.2), [0.526316, 0.315789, 0.157895, 0]),
        (Sampling(temperature=0.5), [0.684932, 0.246575, 0.061644, 0.006849]),
        (Sampling(temperature=2.0), [0.378996, 0.293569, 0.207585, 0.119849]),
        (Sampling(top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(top_k=9), [0.5, 0.3, 0.15, 0.05]),
        # each filter sees what the one before left: of [.625, .375] the first alone holds .6, of the whole it doesn't
        (Sampling(top_k=2, top_p=0.6), [1, 0, 0, 0]),
        (Sampling(top_p=0.6), [0.625, 0.375, 0, 0]),
        # min-p after the temperature: .15/.5 = .3 squared is .09
        (Sampling(temperature=0.5, min_p=0.2), [0.735294, 0.264706, 0, 0]),
    ],
)
def test_filters_leave_the_distribution_worked_out_by_hand(sampling, expected):
    assert probs_after(sampling) == pytest.approx(expected, abs=1e-6)


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_once():
    logits = torch.tensor([[2.0, -1.0, 3.0, -4.0]])
    penalized = torch.tensor([[True, True, False, False]])
    assert penalize_repetition(logits, penalized, 2.0).tolist() == [[1.0, -2.0, 3.0, -4.0]]


def test_repetition_penalty_acts_before_the_temperature_and_also_on_greedy():
    logits, penalized = torch.tensor([[2.0, 1.9]]), torch.tensor([[True, False]])
    tempered = adjust(logits, Sampling(temperature=0.5, repetition_penalty=2.0), penalized)
    assert tempered.tolist()[0] == pytest.approx([2.0, 3.8])
    tokens, _ = sample(logits, torch.zeros(1), Sampling(temperature=0, repetition_penalty=2.0), penalized)
    assert tokens.item() == 1


def test_equal_logits_leave_a_nucleus_by_id_and_top_k_whole():
    level = torch.zeros(1, 4)
    assert top_p(level, 0.6).isfinite().tolist() == [[True, True, True, False]]
    assert top_k(level, 2).isfinite().all()
    above = torch.tensor([[0.1, 0.1, 0.6, 0.1, 0.1]]).log()
    assert top_p(above, 0.75).isfinite().tolist() == [[True, True, True, False, False]]


def test_rows_are_filtered_apart():
    rows = torch.stack([PROBS.log(), torch.zeros(4), PROBS.flip(0).log()])
    together = adjust(rows, Sampling(temperature=0.8, top_k=3, top_p=0.7, min_p=0.1))
    for row, alone in zip(together, rows):
        assert row.equal(adjust(alone[None], Sampling(temperature=0.8, top_k=3, top_p=0.7, min_p=0.1))[0])


def slow_nucleus(probs: list[float], p: float) -> set[int]:
    nucleus, mass = set(), 0.0
    for token in sorted(range(len(probs)), key=lambda i: (-probs[i], i)):
        nucleus.add(token)
        mass += probs[token]
        if mass >= p:
            break
    return nucleus


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(1, 40), min_size=1, max_size=12), p=st.integers(1, 999))
def test_nucleus_is_that_of_a_loop_over_the_sorted_tokens(weights, p):
    total = sum(weights)
    # (p + half) / 1000 of the total is never a sum of integer weights, so no rounding decides
    limit = (p + 0.5) / 1000
    if any(abs(limit * total - whole) < 1e-3 for whole in range(total + 1)):
        return
    probs = [weight / total for weight in weights]
    logits = torch.tensor(weights, dtype=torch.float32).log()[None]
    nucleus = top_p(logits, limit)[0].isfinite().nonzero()[:, 0].tolist()
    assert set(nucleus) == slow_nucleus(probs, limit)


@pytest.mark.parametrize("spread", [0.3, 6.0])
def test_nucleus_of_a_large_vocabulary_whether_or_not_the_first_guess_holds_it(spread):
    vocabulary = 4 * NUCLEUS_GUESS
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(0)) * spread
    nucleus = top_p(logits, 0.9).isfinite()
    for row, row_nucleus in zip(logits.double().softmax(-1), nucleus):
        assert set(row_nucleus.nonzero()[:, 0].tolist()) == slow_nucleus(row.tolist(), 0.9)
    assert bool((nucleus.sum(-1) > NUCLEUS_GUESS).all()) == (spread < 1)


def test_min_p_1_leaves_the_most_probable_alone():
    assert min_p(PROBS.log()[None], 1.0).isfinite().tolist() == [[True, False, False, False]]


def test_draw_inverts_the_cumulative_distribution():
    uniforms = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 0.94, 0.96, 0.999999])
    tokens, logps = draw(PROBS.log().expand(len(uniforms), 4), uniforms)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert logps.tolist() == pytest.approx([math.log(PROBS[token]) for token in tokens.tolist()], abs=1e-6)


def test_draw_has_the_frequencies_of_the_distribution():
    uniforms = (torch.arange(1000) + 0.5) / 1000
    tokens, _ = draw(PROBS.log().expand(1000, 4), uniforms)
    assert tokens.bincount(minlength=4).tolist() == [500, 300, 150, 50]


@pytest.mark.parametrize("vocabulary", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
def test_each_token_is_drawn_as_often_as_it_weighs(vocabulary):
    weights = torch.randint(0, 4, (vocabulary,), generator=torch.Generator().manual_seed(vocabulary))
    weights[vocabulary // 2] += 1  # at least one that can be drawn
    uniforms = (torch.arange(int(weights.sum())) + 0.5) / weights.sum()
    tokens, logps = draw(weights.log().expand(len(uniforms), vocabulary), uniforms)
    assert torch.equal(tokens, torch.arange(vocabulary).repeat_interleave(weights))
    torch.testing.assert_close(logps, (weights / weights.sum()).log()[tokens], rtol=1e-5, atol=1e-5)


def test_a_row_is_drawn_as_if_it_were_alone():
    generator = torch.Generator().manual_seed(0)
    logits, uniforms = 3 * torch.randn(9, 1000, generator=generator), torch.rand(9, generator=generator)
    tokens, logps = draw(logits, uniforms)
    for row in range(9):
        alone = draw(logits[row : row + 1], uniforms[row : row + 1])
        assert tokens[row] == alone[0] and logps[row] == alone[1]


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.integers(0, 3), min_size=2, max_size=200).filter(any),
    uniform=st.floats(0, 1, width=32),
)
def test_a_token_of_probability_zero_is_never_drawn(weights, uniform):
    logits = torch.tensor(weights, dtype=torch.float32).log()[None]
    tokens, logps = draw(logits, torch.tensor([uniform]))
    assert weights[tokens.item()] > 0
    assert logps.item() == pytest.approx(math.log(weights[tokens.item()] / sum(weights)), abs=1e-5)


def test_log_probabilities_are_those_of_the_filtered_distribution():
    sampling = Sampling(temperature=0.7, top_k=3)
    tokens, logps = sample(PROBS.log()[None], torch.tensor([0.8]), sampling)
    sharpened = [p ** (1 / 0.7) for p in (0.5, 0.3, 0.15)]
    assert tokens.item() == 1
    assert logps.item() == pytest.approx(math.log(sharpened[1] / sum(sharpened)), abs=1e-6)


def test_temperature_zero_takes_the_first_largest_and_reports_the_model_s_own_log_probability():
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0]])
    tokens, logps = sample(logits, torch.tensor([0.99]), Sampling(temperature=0, top_k=1, top_p=0.1, min_p=0.9))
    assert tokens.item() == 1
    assert logps.item() == pytest.approx(2 - math.log(1 + 2 * math.e**2 + math.e), abs=1e-6)
    assert greedy(logits)[0].item() == 1


def test_half_precision_logits_are_drawn_from_in_full_precision():
    _, logps = sample(PROBS.log().bfloat16()[None], torch.tensor([0.2]), Sampling())
    assert logps.dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": 0},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)
