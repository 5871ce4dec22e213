import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from amenable.functional import kl

LOGP = torch.tensor([-1.2, -0.7, -2.0, -0.1])
REF = torch.tensor([-1.0, -0.9, -2.5, -0.1])
PI, REFERENCE = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]], dtype=torch.float64)


def test_estimates_by_hand():
    assert kl.k1(LOGP, REF).tolist() == pytest.approx([-0.2, 0.2, 0.5, 0.0], abs=1e-6)
    assert kl.k2(LOGP, REF).tolist() == pytest.approx([0.02, 0.02, 0.125, 0.0], abs=1e-6)
    assert kl.k3(LOGP, REF).tolist() == pytest.approx([0.021403, 0.018731, 0.106531, 0.0], abs=1e-6)
    assert kl.k3(LOGP, REF).sum().item() == pytest.approx(0.146664, abs=1e-6)


@given(st.floats(-30, 0), st.floats(-30, 0))
def test_k2_and_k3_are_never_negative(logp, ref):
    a, b = torch.tensor(logp), torch.tensor(ref)
    assert kl.k2(a, b) >= 0 and kl.k3(a, b) >= 0


@pytest.mark.parametrize("mean", [0.1, 1.0])
def test_schulmans_table(mean):
    """Bias and deviation for q = N(0, 1), p = N(mean, 1), by integrating over a fine grid."""
    x = torch.linspace(-14, 14, 200_001, dtype=torch.float64)
    q = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    step = float(x[1] - x[0])
    logq, logp = -x.square() / 2, -(x - mean).square() / 2

    def moments(values):
        first = float((values * q).sum() * step)
        return first, math.sqrt(float((values.square() * q).sum() * step) - first**2)

    true = mean**2 / 2
    expected = {  # bias / true, deviation / true
        kl.k1: (0.0, 2 / mean),
        kl.k2: (mean**2 / 4, math.sqrt(2 + mean**2)),
        kl.k3: (0.0, math.sqrt(math.exp(mean**2) - 1 - mean**2) / (mean**2 / 2)),
    }
    for estimate, (bias, deviation) in expected.items():
        first, spread = moments(estimate(logq, logp))
        assert first / true - 1 == pytest.approx(bias, abs=1e-5)
        assert spread / true == pytest.approx(deviation, rel=1e-4)


def test_exact_kl_by_hand():
    logits, ref = torch.stack([PI, PI]).log() + 3.0, torch.stack([REFERENCE, PI]).log()
    by_hand = 0.7 * math.log(0.7 / 0.4) + 0.2 * math.log(0.5) + 0.1 * math.log(0.5)
    assert by_hand == pytest.approx(0.183787, abs=1e-6)
    assert kl.exact_kl(logits, ref).tolist() == pytest.approx([by_hand, 0.0], abs=1e-9)
    cooled, warmed = kl.exact_kl(logits / 0.7, ref / 2.0), kl.exact_kl(logits, ref, 0.7, 2.0)
    assert torch.equal(cooled, warmed) and not torch.allclose(warmed, kl.exact_kl(logits, ref))


def test_kl_from_hidden_states_is_that_of_the_logits():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(7, 4, generator=generator), torch.randn(7, 6, generator=generator)
    columns, ref_columns = torch.randn(11, 4, generator=generator), torch.randn(11, 6, generator=generator)
    expected = kl.exact_kl(ours @ columns.T, theirs @ ref_columns.T, 0.5, 2.0)
    for chunk in (1, 22, 1000):
        divergence = kl.linear_kl(ours, columns, theirs, ref_columns, 0.5, 2.0, chunk)
        assert torch.allclose(divergence, expected, atol=1e-5)


def test_kl_from_hidden_states_is_fp32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(32, 64, generator=generator), torch.randn(500, 64, generator=generator) / 5
    ref_hidden = hidden + 0.02 * torch.randn(32, 64, generator=generator)
    exact = kl.exact_kl(hidden.double() @ weight.double().T, ref_hidden.double() @ weight.double().T)
    assert 1e-4 < exact.mean() < 1e-3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(kl.linear_kl(hidden, weight, ref_hidden, weight).double(), exact, rtol=0.01, atol=0)


def test_exact_kl_is_fp32_under_autocast():
    logits = torch.randn(8, 500, generator=torch.Generator().manual_seed(0))
    ref = logits + 0.02 * torch.randn(8, 500, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        divergence = kl.exact_kl(logits, ref)
    assert torch.equal(divergence, kl.exact_kl(logits, ref))


def test_exact_kl_of_the_closed_form_optimum():
    """pi* = ref exp(r / beta) / Z reaches beta log Z = E[r] - beta KL."""
    ref, reward, beta = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([1.0, 0.0, -1.0]), 0.5
    logits = ref.log() + reward / beta
    divergence = kl.exact_kl(logits, ref.log()).item()
    assert divergence == pytest.approx(0.721790, abs=1e-5)
    value = float((logits.softmax(0) * reward).sum()) - beta * divergence
    assert value == pytest.approx(beta * logits.logsumexp(0).item(), abs=1e-6)
    assert value == pytest.approx(0.351155, abs=1e-5)


def test_exact_kl_where_logits_are_minus_infinity():
    inf = torch.inf
    logits = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, -inf], [0.0, 0.0, 0.0]], requires_grad=True)
    ref = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, 0.0], [0.0, 0.0, -inf]])
    values = kl.exact_kl(logits, ref)
    assert values[:2].tolist() == pytest.approx([0.0, math.log(1.5)])
    assert values[2] == inf
    kl.exact_kl(logits[:2], ref[:2]).sum().backward()
    assert torch.isfinite(logits.grad).all()


def expected_gradient(loss_of):
    """Gradient in the logits of a per-token loss, its expectation taken over the policy's tokens exactly."""
    logits = PI.log().requires_grad_()
    total = torch.zeros(3, dtype=torch.float64)
    for token in range(3):
        logp = logits.log_softmax(0)[token]
        total += PI[token] * torch.autograd.grad(loss_of(logp, REFERENCE.log()[token]), logits)[0]
    return total.tolist()


def test_gradients_of_the_estimates_as_losses():
    logits = PI.log().requires_grad_()
    true = torch.autograd.grad(kl.exact_kl(logits, REFERENCE.log()), logits)[0].tolist()
    assert true == pytest.approx([0.263080, -0.175387, -0.087693], abs=1e-6)
    assert expected_gradient(kl.k1) == pytest.approx([0, 0, 0], abs=1e-12)
    assert expected_gradient(kl.k2) == pytest.approx(true, abs=1e-9)
    assert expected_gradient(kl.k3) == pytest.approx((PI - REFERENCE).tolist(), abs=1e-9)


@pytest.mark.parametrize(("seen", "after"), [(3, 0.148464), (6, 0.15), (7.2, 0.151536), (12, 0.151536)])
def test_adaptive_coefficient_by_hand(seen, after):
    assert kl.adapt_kl_coef(0.15, seen, target=6, horizon=10_000, n=512) == pytest.approx(after, abs=1e-9)


@pytest.mark.parametrize("n", [1, 40, 2000])
@pytest.mark.parametrize("seen", [-9.0, 0.0, 5.5, 6.0, 6.5, 1e9])
def test_up_to_one_horizon_of_samples_the_adaptive_coefficient_is_the_papers(seen, n):
    error = min(max(seen / 6 - 1, -0.2), 0.2)
    assert kl.adapt_kl_coef(0.15, seen, target=6, horizon=2000, n=n) == 0.15 * (1 + error * n / 2000)


@given(
    coef=st.floats(1e-9, 1e9),
    seen=st.floats(allow_nan=False),
    target=st.floats(1e-6, 1e9),
    horizon=st.floats(1e-6, 1e9),
    n=st.integers(1, 10**9),
)
@example(coef=0.3, seen=0.0, target=1.5, horizon=2.0, n=128)
@example(coef=0.3, seen=0.0, target=1.5, horizon=600.0, n=3000)
def test_the_adaptive_coefficient_stays_positive_and_moves_towards_the_target(coef, seen, target, horizon, n):
    after = kl.adapt_kl_coef(coef, seen, target, horizon, n)
    assert 0.8 * coef <= after <= 1.2 * coef
    assert after >= coef if seen > target else after <= coef


@pytest.mark.parametrize(("seen", "after"), [(0.0066, 0.5), (0.007, 1.0), (0.0149, 1.0), (0.0151, 2.0)])
def test_coefficient_halves_and_doubles_outside_its_band(seen, after):
    assert kl.adapt_kl_penalty(1.0, seen, target=0.01) == after


@pytest.mark.parametrize(("name", "estimate"), [("k1", kl.k1), ("k2", kl.k2), ("k3", kl.k3), ("abs", kl.abs_k1)])
def test_an_estimate_by_its_name(name, estimate):
    assert torch.equal(kl.estimate(name, LOGP, REF), estimate(LOGP, REF))
    assert kl.abs_k1(LOGP, REF).tolist() == pytest.approx([0.2, 0.2, 0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("k1", [0.0, 0.0, 0.0]), ("k2", [0.263080, -0.175387, -0.087693]), ("k3", [0.3, -0.2, -0.1])],
)
def test_which_gradient_each_estimate_has_as_a_loss(name, expected):
    """In expectation over the policy's own tokens (Tang and Munos, 2025): k2's is that of KL, k3's is pi - ref."""
    logits = PI.log().requires_grad_()
    terms = kl.estimate(name, logits.log_softmax(0), REFERENCE.log())
    (gradient,) = torch.autograd.grad((PI * terms).sum(), logits)
    assert gradient.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_the_kl_from_hidden_states_has_the_policys_gradient(chunk):
    draw = torch.Generator().manual_seed(2)
    hidden, weight, ref_hidden, ref_weight = (torch.randn(5, 4, generator=draw).double() for _ in range(4))
    ours, columns = hidden.requires_grad_(), weight.requires_grad_()
    result = torch.autograd.grad(
        kl.linear_kl(ours, columns, ref_hidden, ref_weight, 0.5, 2.0, chunk).sum(), (ours, columns)
    )
    exact = kl.exact_kl(ours @ columns.t(), ref_hidden @ ref_weight.t(), 0.5, 2.0).sum()
    expected = torch.autograd.grad(exact, (ours, columns))
    assert all(torch.allclose(*pair) for pair in zip(result, expected))


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_the_kl_from_hidden_states_has_the_references_gradient_too(chunk):
    """As context distillation learns: of KL(teacher || student) the student is the reference. d/dz = ref - pi."""
    draw = torch.Generator().manual_seed(3)
    hidden, weight, ref_hidden, ref_weight = (torch.randn(5, 4, generator=draw).double() for _ in range(4))
    theirs = ref_hidden.requires_grad_()
    (gradient,) = torch.autograd.grad(kl.linear_kl(hidden, weight, theirs, ref_weight, chunk=chunk).sum(), theirs)
    by_hand = ((theirs @ ref_weight.t()).softmax(-1) - (hidden @ weight.t()).softmax(-1)) @ ref_weight
    assert torch.allclose(gradient, by_hand)


def test_top_k_kl_by_hand():
    """Of PI the likeliest token is .7: (.7, .3) against (.4, .6)."""
    divergence = kl.top_k_kl(PI.log(), REFERENCE.log(), 1)
    assert divergence.item() == pytest.approx(0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6), abs=1e-6)
    assert divergence.item() == pytest.approx(0.183787, abs=1e-6)  # .2 / .4 and .1 / .2 are alike, so nothing is lost


def test_top_k_kl_is_a_lower_bound_that_reaches_the_exact_one():
    draw = torch.Generator().manual_seed(4)
    logits, ref = torch.randn(6, 9, generator=draw).double(), torch.randn(6, 9, generator=draw).double()
    exact = kl.exact_kl(logits, ref)
    bounds = [kl.top_k_kl(logits.log_softmax(-1), ref.log_softmax(-1), k) for k in range(1, 12)]
    assert all((low <= high + 1e-12).all() for low, high in zip(bounds, [*bounds[1:], exact]))
    assert (bounds[0] < exact - 1e-3).any() and torch.allclose(bounds[7], exact) and torch.allclose(bounds[-1], exact)


@pytest.mark.parametrize("k", [2, 50])
def test_top_k_kl_from_hidden_states_is_that_of_the_logits(k):
    draw = torch.Generator().manual_seed(5)
    hidden, weight, ref_hidden, ref_weight = (torch.randn(5, 4, generator=draw).double() for _ in range(4))
    theirs = ref_hidden.requires_grad_()
    logps, ref_logps = (hidden @ weight.t()).log_softmax(-1), (theirs @ ref_weight.t()).log_softmax(-1)
    whole, parts = kl.top_k_kl(logps, ref_logps, k), kl.linear_kl(hidden, weight, theirs, ref_weight, chunk=7, top_k=k)
    assert torch.allclose(whole, parts)
    gradients = [torch.autograd.grad(each.sum(), theirs)[0] for each in (whole, parts)]
    assert torch.allclose(*gradients) and gradients[0].norm() > 0.1
