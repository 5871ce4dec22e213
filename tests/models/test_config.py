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


def test_a_window_is_of_all_layers_or_of_some():
    everywhere = DecoderConfig(100, num_layers=3, window=4)
    assert [everywhere.window_of(layer) for layer in range(3)] == [4, 4, 4]
    some = DecoderConfig(100, num_layers=3, window=4, local_layers=(0, 2))
    assert [some.window_of(layer) for layer in range(3)] == [4, None, 4]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 10, "num_heads": 3}, "hidden_size 10 does not divide into 3 heads"),
        ({"num_heads": 12, "num_kv_heads": 5}, "12 heads do not divide into groups for num_kv_heads 5"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"mlp_width": 0}, "mlp_width is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"window": 0}, "window is 0"),
        ({"window": 4, "local_layers": (1, 12)}, "local_layers has 12; there are layers 0 to 11"),
        ({"positions": "rope", "hidden_size": 6, "num_heads": 2}, "an even width up to the head's, not 3"),
        ({"positions": "rope", "rotary_width": 66}, "an even width up to the head's, not 66"),
        ({"interleave_qkv": True, "num_kv_heads": 4}, "interleave_qkv needs as many heads"),
        ({"parallel_residual": True, "norm_placement": "post"}, "goes with norm_placement pre, not post"),
        ({"nope_layers": (-1,)}, "nope_layers has -1"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
    ],
)
def test_a_bad_combination_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        DecoderConfig(100, **wrong)
