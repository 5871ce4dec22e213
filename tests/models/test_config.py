import pytest

from amenable.errors import InputError
from amenable.models.config import DecoderConfig


def test_derived_sizes():
    classic = DecoderConfig(100, width=48, heads=4)
    assert (classic.kv_head_count, classic.head_size, classic.mlp_size, classic.has_qkv_bias) == (4, 12, 192, True)
    modern = DecoderConfig(100, width=192, heads=6, kv_heads=2, head_width=64, activation="swiglu", bias=False)
    # 8/3 of 192 is 512, a multiple of 64 already
    assert (modern.kv_head_count, modern.head_size, modern.mlp_size, modern.has_qkv_bias) == (2, 64, 512, False)
    assert DecoderConfig(100, width=256, heads=4, activation="swiglu").mlp_size == 704  # 682.67 rounded up
    assert DecoderConfig(100, bias=False, qkv_bias=True).has_qkv_bias


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"width": 10, "heads": 3}, "width 10 does not divide into 3 heads"),
        ({"heads": 12, "kv_heads": 5}, "12 heads do not divide into groups for 5"),
        ({"layers": 0}, "layers 0"),
        ({"mlp_width": 0}, "mlp_width 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"positions": "rope", "width": 6, "heads": 2}, "even head width, not 3"),
    ],
)
def test_a_bad_combination_is_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        DecoderConfig(100, **wrong)
