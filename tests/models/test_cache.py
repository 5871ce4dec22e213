import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.models.cache import Cache
from amenable.models.config import DecoderConfig

CONFIG = DecoderConfig(10, context_length=16, num_layers=2, hidden_size=12, num_heads=6, num_kv_heads=3)


def filled(lengths):
    """Row r holds the number r + 1 at each of its tokens."""
    cache = Cache(CONFIG, len(lengths), 16)
    for row, length in enumerate(lengths):
        for tensor in (*cache.keys, *cache.values):
            tensor[row, :length] = row + 1
    cache.lengths[:] = torch.tensor(lengths)
    return cache


def held(cache, row):
    """The number a row holds, checked to be the same at all its tokens in all layers."""
    length = int(cache.lengths[row])
    numbers = {float(x) for t in (*cache.keys, *cache.values) for x in t[row, :length].unique()}
    assert len(numbers) <= 1
    return (numbers.pop() if numbers else None), length


def test_shapes():
    cache = Cache(CONFIG, 5, 16, dtype=torch.bfloat16)
    assert len(cache.keys) == len(cache.values) == 2
    assert cache.keys[0].shape == cache.values[1].shape == (5, 16, 3, 2)
    assert cache.keys[0].dtype == torch.bfloat16
    assert cache.lengths.tolist() == [0] * 5


def test_write_stores_tokens_at_their_slots():
    cache = Cache(CONFIG, 2, 16)
    keys, values = torch.arange(12.0).view(2, 3, 2), -torch.arange(12.0).view(2, 3, 2)
    cache.write(1, cache.slots(torch.tensor([1, 0]), torch.tensor([4, 7])), keys, values)
    assert torch.equal(cache.keys[1][1, 4], keys[0]) and torch.equal(cache.values[1][0, 7], values[1])
    assert int((cache.keys[1] != 0).sum()) == 11 and not cache.keys[0].any()


def test_copy_of_a_prompt_to_its_samples():
    cache = filled([5, 3, 0, 9])
    cache.copy(torch.tensor([1, 1]), torch.tensor([2, 3]))
    assert [held(cache, row) for row in range(4)] == [(1, 5), (2, 3), (2, 3), (2, 3)]


def test_copy_of_nothing():
    cache = filled([5])
    cache.copy(torch.tensor([], dtype=torch.long), torch.tensor([], dtype=torch.long))
    assert held(cache, 0) == (1, 5)


def test_impossible_sizes_are_errors():
    with pytest.raises(ValueError, match="context 16"):
        Cache(CONFIG, 1, 17)
    with pytest.raises(ValueError, match="0 rows"):
        Cache(CONFIG, 0, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slots_take_memory_once_they_are_written(dtype):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    cache = Cache(replace(CONFIG, context_length=1 << 20, head_width=32), 2, 1 << 20, dtype=dtype)
    size = sum(pair.nbytes for pair in cache.pairs)
    assert size > 700 << 20 and resident() - before < size / 10
    assert cache.pairs[0].dtype == dtype and not cache.pairs[1][1, -5:].any()
