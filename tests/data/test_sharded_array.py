"""An array in several files is read like one array, with few files mapped at a time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amenable.data import sharded_array
from amenable.data.sharded_array import ShardedArray

SIZES = (5, 0, 1, 7, 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, start = tmp_path_factory.mktemp("arrays"), 0
    for number, size in enumerate(SIZES):
        np.arange(start, start + size, dtype=np.uint16).tofile(folder / f"{number}.bin")
        start += size
    return sorted(folder.iterdir())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds=st.tuples(st.integers(-15, 15), st.integers(-15, 15)), positions=st.lists(st.integers(0, 12), max_size=9))
def test_it_reads_like_one_array(files: list[Path], bounds: tuple[int, int], positions: list[int]) -> None:
    array, whole = ShardedArray(files, "uint16"), np.arange(13, dtype=np.uint16)
    assert len(array) == 13 and array[slice(*bounds)].tolist() == whole[slice(*bounds)].tolist()
    assert array[np.array(positions, np.int64)].tolist() == positions
    assert array[:].dtype == array[np.array([3])].dtype == np.uint16


def test_slices_of_one_file_are_not_copied(files: list[Path]) -> None:
    assert isinstance(ShardedArray(files, "uint16")[6:9], np.memmap)
    with pytest.raises(ValueError, match="a step of 2"):
        ShardedArray(files, "uint16")[::2]


def test_few_files_are_mapped_at_a_time(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_array, "MAX_MAPS", 1)
    array = ShardedArray(files, "uint16")
    assert [array[i : i + 1].item() for i in range(13)] == list(range(13))
    assert array.part.cache_info().currsize == 1 and array.part.cache_info().misses == 3
