import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.functional.logprobs import entropy, linear_logprobs, token_logprobs


def problem(rows=7, width=5, vocabulary=11, dtype=torch.float32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=draw, dtype=torch.float64).to(dtype)
    weight = torch.randn(vocabulary, width, generator=draw, dtype=torch.float64).to(dtype)
    tokens = torch.randint(vocabulary, (rows,), generator=draw)
    return hidden, weight, tokens


def test_temperature_by_hand():
    logits = torch.tensor([2.0, 1.0, 0.0]).expand(3, 3)
    tokens = torch.arange(3)
    assert token_logprobs(logits, tokens).tolist() == pytest.approx([-0.407606, -1.407606, -2.407606], abs=1e-6)
    cooled = [-0.260118, -1.688690, -3.117261]
    assert token_logprobs(logits, tokens, temperature=0.7).tolist() == pytest.approx(cooled, abs=1e-5)
    # the same three numbers from hidden states: the identity as hidden, a token's logits in its row of the weight
    fused, _ = linear_logprobs(torch.ones(3, 1), torch.tensor([[2.0], [1.0], [0.0]]), tokens, temperature=0.7)
    assert fused.tolist() == pytest.approx(cooled, abs=1e-5)


def test_logprobs_of_half_precision_logits_are_fp32():
    logits = torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16)
    logps = token_logprobs(logits, torch.tensor([1]))
    assert logps.dtype == torch.float32
    assert logps.item() == pytest.approx(-math.log1p(math.exp(-2)))


def test_entropy_by_hand():
    logits = torch.tensor([[0.7, 0.2, 0.1], [1.0, 1.0, 1.0]]).log()
    expected = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1))
    assert entropy(logits).tolist() == pytest.approx([expected, math.log(3)], abs=1e-6)


def test_entropy_is_finite_where_a_logit_is_minus_infinity():
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [5.0, -torch.inf, -torch.inf]], requires_grad=True)
    values = entropy(logits)
    values.sum().backward()
    assert values.tolist() == pytest.approx([math.log(2), 0.0])
    assert torch.isfinite(logits.grad).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(2, 12),
    st.floats(0.3, 3.0),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from([0, 10**6]),
)
def test_fused_equals_plain_in_value_and_gradient(rows, vocabulary, temperature, chunk, asked, keep):
    hidden, weight, tokens = problem(rows, 4, vocabulary)
    upstream = torch.linspace(-1, 2, rows)
    results = []
    for fused in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if fused:
            logps, entropies = linear_logprobs(h, w, tokens, temperature, chunk=chunk, entropy=asked, keep=keep)
            assert (entropies is not None) == asked
        else:
            logits = h @ w.T
            logps, entropies = token_logprobs(logits, tokens, temperature), entropy(logits / temperature)
        total = (upstream * logps).sum()
        if asked:
            total = total + (upstream.flip(0) * entropies).sum()
        total.backward()
        results.append((logps, entropies if asked else logps, h.grad, w.grad))
    for ours, plain in zip(*results):
        assert torch.allclose(ours, plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("keep", [0, 10**6])
@pytest.mark.parametrize("chunk", [11, 10**6])
def test_gradients_against_finite_differences(chunk, keep):
    hidden, weight, tokens = problem(4, 3, 5, torch.float64)
    hidden.requires_grad_()
    weight.requires_grad_()

    def both(h, w):
        return linear_logprobs(h, w, tokens, 0.8, chunk=chunk, entropy=True, keep=keep)

    assert torch.autograd.gradcheck(both, (hidden, weight))
    assert torch.autograd.gradcheck(lambda h, w: both(h, w)[0], (hidden, weight))
    assert torch.autograd.gradcheck(lambda h, w: both(h, w)[1], (hidden, weight))


def test_a_second_backward_over_a_retained_graph_gives_the_same_gradient():
    hidden, weight, tokens = problem()
    hidden.requires_grad_()
    loss = linear_logprobs(hidden, weight, tokens)[0].sum()
    first, second = (torch.autograd.grad(loss, hidden, retain_graph=True)[0] for _ in range(2))
    assert torch.allclose(first, second, atol=1e-6)


def test_a_frozen_weight_gets_no_gradient():
    hidden, weight, tokens = problem()
    hidden.requires_grad_()
    linear_logprobs(hidden, weight, tokens)[0].sum().backward()
    assert hidden.grad is not None and weight.grad is None


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_kept(off):
    hidden, weight, tokens = problem()
    weight.requires_grad_()
    with off():
        logps, entropies = linear_logprobs(hidden, weight, tokens, entropy=True)
    assert not logps.requires_grad and logps.grad_fn is None
    assert torch.allclose(logps, token_logprobs(hidden @ weight.T, tokens), atol=1e-5)
    assert torch.allclose(entropies, entropy(hidden @ weight.T), atol=1e-5)


def test_autocast_multiplies_in_bf16_and_sums_in_fp32():
    hidden, weight, tokens = problem(64, 32, 40)
    h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logps, entropies = linear_logprobs(h, w, tokens, chunk=160, entropy=True)
    (logps.mean() + entropies.mean()).backward()
    assert logps.dtype == entropies.dtype == h.grad.dtype == w.grad.dtype == torch.float32
    rounded = hidden.bfloat16() @ weight.bfloat16().T  # bf16 products: equal to these, not to fp32's
    assert torch.allclose(logps, token_logprobs(rounded, tokens), atol=1e-5)
    assert not torch.allclose(logps, token_logprobs(hidden @ weight.T, tokens), atol=1e-5)
    plain_h, plain_w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    logits = plain_h @ plain_w.T
    (token_logprobs(logits, tokens).mean() + entropy(logits).mean()).backward()
    assert (h.grad - plain_h.grad).norm() < 0.02 * plain_h.grad.norm()
    assert (w.grad - plain_w.grad).norm() < 0.02 * plain_w.grad.norm()


def test_never_holds_the_logits_of_the_whole_batch():
    hidden, weight, tokens = problem(256, 4, 64)
    hidden.requires_grad_()
    weight.requires_grad_()

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.numel())
            return out

    with Largest() as largest:
        logps, entropies = linear_logprobs(hidden, weight, tokens, chunk=1024, entropy=True, keep=0)
        (logps.sum() + entropies.sum()).backward()
    assert largest.size == 1024  # 256 * 64 = 16384 logits in all


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0]])
    logps, entropies = linear_logprobs(hidden, weight, torch.tensor([0, 0]), entropy=True)
    (logps + entropies).sum().backward()
    assert logps.tolist() == pytest.approx([0.0, -2e4]) and entropies.tolist() == pytest.approx([0.0, 0.0])
    assert torch.isfinite(hidden.grad).all()


def test_cooling_sharpens():
    hidden, weight, tokens = problem()
    means = [float(linear_logprobs(hidden, weight, tokens, t, entropy=True)[1].mean()) for t in (0.5, 1.0, 2.0)]
    assert all(low < high for low, high in pairwise(means))


def test_shapes_and_temperature_are_checked():
    hidden, weight, tokens = problem()
    with pytest.raises(ValueError, match=r"\[M, D\]"):
        linear_logprobs(hidden, weight[:, :-1], tokens)
    with pytest.raises(ValueError, match="temperature"):
        linear_logprobs(hidden, weight, tokens, temperature=0.0)
