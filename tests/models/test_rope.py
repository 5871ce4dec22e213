"""Scaled rotary frequencies by hand, there and back in config.json's fields, and what cannot be read."""

import math

import pytest
import torch

from amenable.models.rope import RopeScaling, rotary


def frequencies(scaling: RopeScaling | None, width: int = 8, theta: float = 100.0) -> list[float]:
    plain = theta ** (-torch.arange(0, width, 2) / width)
    return (plain if scaling is None else scaling.scale(plain, theta)).tolist()


def test_unscaled_frequencies_by_hand() -> None:
    assert frequencies(None) == pytest.approx([1.0, 100**-0.25, 0.1, 100**-0.75])
    cos, sin = rotary(torch.tensor([3]), 8, 100.0)
    assert cos.shape == (1, 1, 4) and float(cos[0, 0, 2]) == pytest.approx(math.cos(0.3))
    assert float(sin[0, 0, 0]) == pytest.approx(math.sin(3.0))


def test_linear_divides_every_frequency() -> None:
    assert frequencies(RopeScaling("linear", 4.0)) == pytest.approx([f / 4 for f in frequencies(None)])


def test_llama3_keeps_fast_pairs_divides_slow_ones_and_blends_between() -> None:
    # turns in 63 tokens: 10.03, 3.17, 1.003, 0.317; kept above 4, divided below 1
    result = frequencies(RopeScaling("llama3", 8.0, 63, 1.0, 4.0))
    plain, share = frequencies(None), (63 * 100**-0.25 / (2 * math.pi) - 1) / 3
    assert result[0] == pytest.approx(plain[0]) and result[3] == pytest.approx(plain[3] / 8)
    assert result[1] == pytest.approx((1 - share) * plain[1] / 8 + share * plain[1]) and 0 < share < 1


def test_longrope_divides_each_pair_by_its_short_factor_and_scales_the_amplitude() -> None:
    scaling = RopeScaling("longrope", 16.0, 64, short_factor=(1.0, 2.0, 3.0, 4.0), long_factor=(9.0,) * 4)
    assert frequencies(scaling) == pytest.approx([f / n for f, n in zip(frequencies(None), (1, 2, 3, 4))])
    assert scaling.amplitude == pytest.approx(math.sqrt(1 + math.log(16) / math.log(64)))
    assert RopeScaling.read(scaling.published() | {"short_factor": [1.0, 2.0, 3.0, 4.0]}, 64) == scaling


def test_yarn_ramps_over_pairs_and_scales_the_amplitude() -> None:
    scaling = RopeScaling("yarn", 4.0, 63, beta_fast=4.0, beta_slow=1.0)
    # the pair that makes t turns: 8 ln(63 / (2 pi t)) / (2 ln 100): 0.80 for 4, 2.003 for 1; rounded outwards 0 and 3
    result, plain = frequencies(scaling), frequencies(None)
    shares = [1.0, 2 / 3, 1 / 3, 0.0]
    assert result == pytest.approx([(1 - s) * f / 4 + s * f for s, f in zip(shares, plain)])
    assert scaling.amplitude == pytest.approx(0.1 * math.log(4) + 1)
    cos, _ = rotary(torch.tensor([0]), 8, 100.0, scaling)
    assert cos[0, 0].tolist() == pytest.approx([scaling.amplitude] * 4)
    assert RopeScaling("yarn", 4.0, 63, mscale=1.0, mscale_all_dim=1.0).amplitude == pytest.approx(1.0)
    assert RopeScaling("yarn", 1.0, 63).amplitude == 1.0


def test_dynamic_changes_nothing_within_the_context() -> None:
    assert frequencies(RopeScaling("dynamic", 2.0)) == frequencies(None)


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("linear", 2.0),
        RopeScaling("dynamic", 2.0),
        RopeScaling("llama3", 8.0, 8192, 1.0, 4.0),
        RopeScaling("yarn", 4.0, 32768, attention_factor=1.2, beta_fast=16.0, truncate=False),
    ],
)
def test_fields_there_and_back(scaling: RopeScaling) -> None:
    assert RopeScaling.read(scaling.published(), 64) == scaling


def test_what_is_read() -> None:
    assert RopeScaling.read({}, 64) is None and RopeScaling.read({"rope_type": "default"}, 64) is None
    assert RopeScaling.read({"type": "linear", "factor": 2.0}, 64) == RopeScaling("linear", 2.0)
    assert RopeScaling.read({"rope_type": "yarn", "factor": 2.0}, 64) == RopeScaling("yarn", 2.0, 64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_type": "su", "factor": 2.0}, "rope_type is 'su': supported are default, linear"),
        ({"rope_type": "linear"}, "rope_type linear lacks factor"),
        ({"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}, "lacks original_max"),
    ],
)
def test_what_cannot_be_read_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RopeScaling.read(fields, 64)
