import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.models import attention
from amenable.models.attention import attend_rows, rotate
from amenable.models.cache import Cache
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.models.rope import rotary

ROPE = DecoderConfig(10, hidden_size=8, num_heads=2, num_layers=1, context_length=32, positions="rope")


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_loops(layout, q, k, v, window=None):
    """Softmax attention one query at a time, a second way."""
    groups = q.shape[1] // k.shape[1]
    out = torch.zeros(q.shape, dtype=q.dtype)
    for i in range(layout.tokens):
        first = int(layout.starts[layout.rows[i]])
        visible = slice(first if window is None else max(first, i + 1 - window), i + 1)
        for h in range(q.shape[1]):
            scores = k[visible, h // groups] @ q[i, h] / math.sqrt(q.shape[2])
            out[i, h] = scores.softmax(0) @ v[visible, h // groups]
    return out.flatten(1)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("lengths", [(5, 5, 5), (1, 9, 4, 2), (7,)])
@pytest.mark.parametrize("window", [None, 1, 3, 9])
def test_attention_and_its_gradients_stay_inside_rows(monkeypatch, kv_heads, lengths, window):
    monkeypatch.setattr(attention, "QUERY_BLOCK", 2)
    layout = Layout.of(lengths)
    inputs = [normal(layout.tokens, heads, 8, seed=i) for i, heads in enumerate((4, kv_heads, kv_heads))]
    above = normal(layout.tokens, 32, seed=9)
    results = []
    for attend in (partial(attend_rows, layout, 0, window=window), partial(by_loops, layout, window=window)):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = attend(*leaves)
        results.append([out, *torch.autograd.grad(out, leaves, above)])
    for ours, other in zip(*results):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)


def test_many_buckets_equal_a_single_bucket(monkeypatch):
    layout, again = Layout.of([3, 30, 31, 80]), Layout.of([3, 30, 31, 80])
    q, k, v = (normal(layout.tokens, 2, 8, seed=i) for i in range(3))
    monkeypatch.setattr("amenable.models.layout.BUCKET_COST", 0.0)
    assert len(layout.padding.buckets) == 4
    monkeypatch.setattr("amenable.models.layout.MAX_BUCKETS", 1)
    assert len(again.padding.buckets) == 1
    torch.testing.assert_close(attend_rows(layout, 0, q, k, v), attend_rows(again, 0, q, k, v))


def test_rotation_worked_by_hand():
    # head width 4: pairs (0, 2) and (1, 3) turn by position and by position / 100
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    turned = rotate(x, rotary(torch.tensor([2]), 4, 10000.0))[0, 0]
    c, s, c2, s2 = math.cos(2), math.sin(2), math.cos(0.02), math.sin(0.02)
    assert turned.tolist() == pytest.approx([c - 3 * s, 2 * c2 - 4 * s2, 3 * c + s, 4 * c2 + 2 * s2], abs=1e-6)


def test_rotation_depends_on_distance_only_and_keeps_length():
    q, k = normal(1, 1, 4, seed=0), normal(1, 1, 4, seed=1)

    def at(x, position):
        return rotate(x, rotary(torch.tensor([position]), 4, 10000.0))

    assert float((at(q, 7) * at(k, 3)).sum()) == pytest.approx(float((at(q, 20) * at(k, 16)).sum()), abs=1e-5)
    assert float(at(q, 25).norm()) == pytest.approx(float(q.norm()), abs=1e-5)


def test_gradient_of_a_rotation_is_its_slope():
    rotation = rotary(torch.arange(3), 4, 10000.0)
    x = normal(3, 2, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rotate(x, rotation), (x,))
    assert torch.autograd.gradgradcheck(lambda x: rotate(x, rotation), (x,))


def test_padded_tokens_are_finite_where_values_are_huge():
    layout = Layout.of([1, 40])
    q, k, v = (normal(41, 1, 8, seed=i) * 1e4 for i in range(3))
    assert attend_rows(layout, 0, q, k, v).isfinite().all()


def test_a_step_reads_only_what_its_row_holds():
    config = DecoderConfig(10, hidden_size=16, num_heads=2, num_layers=1, context_length=8)
    cache = Cache(config, 2, 8)
    cache.keys[0].fill_(1e6)  # what earlier users of the rows left
    cache.values[0].fill_(1e6)
    lengths = torch.tensor([0, 2])
    cache.keys[0][1, :2] = cache.values[0][1, :2] = 0.0
    q, k, v = (normal(2, 2, 8, seed=i) for i in range(3))
    out = attention.step_rows(cache, None, lengths)(0, q, k, v, None)
    torch.testing.assert_close(out[0], v[0].flatten())  # the first token of a row sees itself alone
    weight = torch.softmax(torch.stack([torch.zeros(2), torch.zeros(2), (q[1] * k[1]).sum(-1) / 8**0.5]), 0)[2]
    torch.testing.assert_close(out[1], (weight[:, None] * v[1]).flatten())


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("tile", [1, 2000, 1 << 20], ids=["row by row", "portions", "all rows"])
@pytest.mark.parametrize("chosen", [None, [3, 0, 6]])
@pytest.mark.parametrize("window", [None, 4])
def test_a_step_equals_attention_over_each_row(monkeypatch, kv_heads, tile, chosen, window):
    monkeypatch.setattr(attention, "TILE_BYTES", tile)
    held = torch.tensor([11, 11, 9, 0, 3, 15, 2])
    cache = Cache(
        DecoderConfig(10, hidden_size=32, num_heads=4, num_kv_heads=kv_heads, num_layers=2, context_length=16), 7, 16
    )
    for i, tensor in enumerate((*cache.keys, *cache.values)):
        tensor.copy_(normal(*tensor.shape, seed=i))
    rows = torch.arange(7) if chosen is None else torch.tensor(chosen)
    lengths = held[rows]
    q, k, v = (normal(len(rows), heads, 8, seed=9 + i) for i, heads in enumerate((4, kv_heads, kv_heads)))
    attend = attention.step_rows(cache, None if chosen is None else rows, lengths)
    for layer in (0, 1):
        out = attend(layer, q, k, v, window)
        for position, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist())):
            keys = torch.cat([cache.keys[layer][row, :length], k[position, None]])
            values = torch.cat([cache.values[layer][row, :length], v[position, None]])
            queries = q[position].expand(length + 1, -1, -1)
            expected = by_loops(Layout.of([length + 1]), queries, keys, values, window)[-1]
            torch.testing.assert_close(out[position], expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(0, 200))
def test_blocks_hold_every_row_once_and_as_many_as_fit(counts, room):
    parts = list(attention.block_slices(counts, room))
    assert [position for part in parts for position in range(part.start, part.stop)] == list(range(len(counts)))
    for part in parts:
        assert part.stop == part.start + 1 or (part.stop - part.start) * max(counts[part]) <= room
    for part in parts[:-1]:
        assert (part.stop + 1 - part.start) * max(counts[part.start : part.stop + 1]) > room


def test_blocks_are_as_long_as_their_longest_row():
    cache = Cache(DecoderConfig(10, hidden_size=8, num_heads=2, num_layers=1, context_length=64), 6, 64)
    lengths = torch.tensor([50, 50, 6, 5, 9, 9])
    everything = attention.row_blocks(cache, None, lengths)
    assert [block.longest for block in everything] == [51]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "TILE_BYTES", 130 * 64 // torch.get_num_threads())  # 130 tokens
        blocks = attention.row_blocks(cache, None, lengths)
    assert [(block.steps.start, block.steps.stop, block.longest) for block in blocks] == [(0, 2, 51), (2, 6, 10)]
    assert blocks[0].mask is None
    assert blocks[1].mask is not None and (blocks[1].mask == 0).sum(-1).flatten().tolist() == [7, 6, 10, 10]


def test_rows_within_the_window_have_no_mask():
    cache = Cache(DecoderConfig(10, hidden_size=8, num_heads=2, num_layers=1, context_length=64), 3, 64)
    (block,) = attention.row_blocks(cache, None, torch.tensor([50, 50, 50]), window=20)
    assert (block.first, block.longest, block.mask) == (31, 51, None)
    (block,) = attention.row_blocks(cache, None, torch.tensor([50, 40, 9]), window=20)
    assert (block.first, block.longest) == (0, 51) and (block.mask == 0).sum(-1).flatten().tolist() == [20, 20, 10]
    mask = attention.band(3, 2, torch.float32, torch.device("cpu"))
    assert (mask == 0).int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]


def test_a_half_precision_cache_holds_exactly_what_training_attends_to():
    config = DecoderConfig(61, context_length=48, num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2)
    decoder, ids, layout = Decoder(config), torch.arange(20), Layout.of([20])
    cache, attended = Cache(config, 1, 20, dtype=torch.bfloat16), []

    def attend(layer, q, k, v, window):
        attended.append((k, v))
        return attend_rows(layout, layer, q, k, v)

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        decoder(ids, layout, cache)
        decoder.apply_layers(decoder.embed(ids), layout.positions, attend)
    for layer, (keys, values) in enumerate(attended):
        assert keys.dtype == torch.float32 and torch.equal(cache.keys[layer][0].float(), keys)
        assert torch.equal(cache.values[layer][0].float(), values)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 8])
def test_ragged_kernel_equals_the_padded_way(kv_heads, window):
    layout = Layout.of([1, 9, 40, 7], device="cuda")
    inputs = [normal(57, heads, 64, seed=i).cuda() for i, heads in enumerate((4, kv_heads, kv_heads))]
    padded = attend_rows(layout, 0, *inputs, window)
    ragged = attend_rows(layout, 0, *(x.bfloat16() for x in inputs), window)
    torch.testing.assert_close(ragged.float(), padded, rtol=0.03, atol=0.03)
