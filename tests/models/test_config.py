import pytest

from amenable.errors import InputError
from amenable.models.config import DecoderConfig


def test_derived_sizes():
    classic = DecoderConfig(100, hidden_size=48, num_heads=4)
    assert (classic.kv_head_count, classic.head_size, classic.mlp_size, classic.has_qkv_bias) == (4, 12, 192, True)
    modern = DecoderConfig(
        100, hidden_size=192, num_heads=6, num_kv_heads=2, head_width=64, activation="swiglu", bias=False
    )
    # 8/3 of 192 is 512, a multiple of 64 already
    assert (modern.kv_head_count, modern.head_size, modern.mlp_size, modern.has_qkv_bias) == (2, 64, 512, False)
    assert DecoderConfig(100, hidden_size=256, num_heads=4, activation="swiglu").mlp_size == 704  # 682.67 rounded up
    assert DecoderConfig(100, bias=False, qkv_bias=True).has_qkv_bias


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 10, "num_heads": 3}, "hidden_size 10 does not divide into 3 heads"),
        ({"num_heads": 12, "num_kv_heads": 5}, "12 heads do not divide into groups for num_kv_heads 5"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"mlp_width": 0}, "mlp_width is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"positions": "rope", "hidden_size": 6, "num_heads": 2}, "even head width, not 3"),
    ],
)
def test_a_bad_combination_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        DecoderConfig(100, **wrong)
