import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.functional import logprobs
from amenable.functional.logprobs import add_product, chunk_size, entropy, linear_logprobs, linear_nll, token_logprobs


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
    assert torch.equal(entropy(logits, 0.7), entropy(logits / 0.7)) and entropy(logits, 0.7)[0] < expected


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
def test_fused_equals_plain_in_value_and_gradient(rows, vocabulary, temperature, chunk, request, keep):
    hidden, weight, tokens = problem(rows, 4, vocabulary)
    upstream = torch.linspace(-1, 2, rows)
    results = []
    for fused in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if fused:
            logps, entropies = linear_logprobs(h, w, tokens, temperature, chunk=chunk, entropy=request, keep=keep)
            assert (entropies is not None) == request
        else:
            logits = h @ w.T
            logps, entropies = token_logprobs(logits, tokens, temperature), entropy(logits, temperature)
        total = (upstream * logps).sum()
        if request:
            total = total + (upstream.flip(0) * entropies).sum()
        total.backward()
        results.append((logps, entropies if request else logps, h.grad, w.grad))
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


@pytest.mark.parametrize("of", [lambda *given: linear_logprobs(*given)[0].sum(), lambda *given: linear_nll(*given)[0]])
def test_a_second_backward_over_a_retained_graph_gives_the_same_gradient(of):
    hidden, weight, tokens = problem()
    hidden.requires_grad_()
    loss = of(hidden, weight, tokens)
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
        logps, entropies = linear_logprobs(hidden, weight, tokens, chunk=2048, entropy=True, keep=0)
        (logps.sum() + entropies.sum()).backward()
    assert largest.size == 2048  # 256 * 64 = 16384 logits in all
    with Largest() as largest:
        linear_nll(hidden, weight, tokens, chunk=2048)[0].backward()
    assert largest.size == 2048


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


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(2, 12), st.floats(-2.0, 3.0), st.floats(-1.0, 2.0), st.integers(1, 60))
def test_nll_equals_plain_in_value_and_gradient(rows, vocabulary, scale, upstream, chunk):
    hidden, weight, tokens = problem(rows, 4, vocabulary)
    results = []
    for fused in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if fused:
            loss = linear_nll(h, w, tokens, scale, chunk)[0]
        else:
            loss = -scale * token_logprobs(h @ w.T, tokens).sum()
        (upstream * loss).backward()
        results.append((loss, h.grad, w.grad))
    for ours, plain in zip(*results):
        assert ours.shape == plain.shape and torch.allclose(ours, plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [5, 11, 10**6])
def test_nll_gradients_against_finite_differences(chunk):
    hidden, weight, tokens = problem(5, 3, 5, torch.float64)
    hidden.requires_grad_()
    weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda h, w: linear_nll(h, w, tokens, 0.3, chunk)[0], (hidden, weight))


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_nll_of_something_frozen(frozen):
    hidden, weight, tokens = problem()
    request, still = (weight, hidden) if frozen == "hidden" else (hidden, weight)
    request.requires_grad_()
    plain = torch.autograd.grad(-token_logprobs(hidden @ weight.T, tokens).sum(), request)[0]
    linear_nll(hidden, weight, tokens, chunk=22)[0].backward()
    assert torch.allclose(request.grad, plain, atol=1e-5) and still.grad is None


def test_nll_without_gradients_is_the_value_alone():
    hidden, weight, tokens = problem()
    weight.requires_grad_()
    with torch.no_grad():
        loss = linear_nll(hidden, weight, tokens, 0.5)[0]
    assert loss.grad_fn is None and loss.item() == pytest.approx(linear_nll(hidden, weight, tokens, 0.5)[0].item())
    assert linear_nll(hidden, weight.detach(), tokens)[0].grad_fn is None


def test_nll_multiplies_in_bf16_and_sums_in_fp32():
    hidden, weight, tokens = problem(64, 32, 40)
    h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_nll(h, w, tokens, 1 / 64, chunk=160)[0]
    loss.backward()
    assert loss.dtype == h.grad.dtype == w.grad.dtype == torch.float32
    plain_h, plain_w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    plain = -token_logprobs(plain_h @ plain_w.T, tokens).mean()
    plain.backward()
    rounded = hidden.bfloat16() @ weight.bfloat16().T
    assert loss.item() == pytest.approx(-token_logprobs(rounded, tokens).mean().item(), rel=1e-6)
    assert loss.item() == pytest.approx(plain.item(), rel=0.01)
    assert (h.grad - plain_h.grad).norm() < 0.01 * plain_h.grad.norm()
    assert (w.grad - plain_w.grad).norm() < 0.01 * plain_w.grad.norm()


def test_nll_of_an_impossible_token_is_finite():
    """A probability that fp32 rounds to 0 has a logarithm that it can hold; the gradient is that of one step up."""
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0]], requires_grad=True)
    loss = linear_nll(hidden, weight, torch.tensor([0, 0]))[0]
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert hidden.grad.tolist() == [[0.0], [-2.0]] and weight.grad.tolist() == [[1e4], [0.0], [-1e4]]


def test_pieces_change_nothing(monkeypatch):
    """A processor takes the softmax of few rows at once, and adds to few rows of the weight's gradient."""
    hidden, weight, tokens = problem(23, 5, 11)
    results = []
    for cached in (10**6, 30):
        monkeypatch.setattr(logprobs, "CACHE_LOGITS", cached)
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logps, entropies = linear_logprobs(h, w, tokens, 0.9, chunk=110, entropy=True)
            ((logps * logps).sum() + entropies.sum() + linear_nll(h, w, tokens, chunk=110)[0]).backward()
        results.append((logps, entropies, h.grad, w.grad))
    for whole, divided in zip(*results):
        assert torch.allclose(whole, divided, atol=1e-6, rtol=1e-5)


def test_a_chunk_has_many_rows_of_a_large_vocabulary_and_few_logits_of_a_small_one():
    assert chunk_size(1000, "cpu") == logprobs.CHUNK_CPU < chunk_size(1000, "cuda") == logprobs.CHUNK_ACCELERATOR
    assert chunk_size(50257, "cpu") == 50257 * logprobs.CHUNK_ROWS


def test_a_product_is_added_in_fp32():
    total = torch.full((3, 2), 1000.0)
    for _ in range(100):
        add_product(total, torch.ones(3, 1, dtype=torch.bfloat16), torch.ones(1, 2, dtype=torch.bfloat16), 0.5)
    assert (total == 1050).all()  # in bf16 1000.5 is 1000 again


def test_shapes_and_temperature_are_checked():
    hidden, weight, tokens = problem()
    with pytest.raises(ValueError, match=r"\[M, D\]"):
        linear_logprobs(hidden, weight[:, :-1], tokens)
    with pytest.raises(ValueError, match=r"\[M, D\]"):
        linear_nll(hidden, weight, tokens[:-1])[0]
    with pytest.raises(ValueError, match="temperature"):
        linear_logprobs(hidden, weight, tokens, temperature=0.0)


def test_the_next_token_loss_by_hand():
    """Two tokens, the first with these probabilities: the mean over all rows, and over the answer's."""
    p = torch.tensor([0.01, 0.05, 0.02, 0.30, 0.90], dtype=torch.float64)
    hidden, weight = (p / (1 - p)).log()[:, None], torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    tokens = torch.zeros(5, dtype=torch.long)
    assert linear_nll(hidden, weight, tokens, 1 / 5)[0].item() == pytest.approx(2.5645, abs=1e-4)
    assert linear_nll(hidden[3:], weight, tokens[3:], 1 / 2)[0].item() == pytest.approx(0.6547, abs=1e-4)


@pytest.mark.parametrize("chunk", [3, None])
def test_log_collisions_by_hand(chunk):
    """Two draws of (.5, .25, .25) are alike with probability .375."""
    hidden = torch.tensor([[1.0], [0.0]], requires_grad=True)
    weight = torch.tensor([[0.5], [0.25], [0.25]]).log()
    collisions = logprobs.linear_log_collisions(hidden, weight, chunk)
    assert collisions.tolist() == pytest.approx([math.log(0.375), math.log(1 / 3)]) and not collisions.requires_grad
