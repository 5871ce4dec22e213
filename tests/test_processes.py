"""Processes that divide work: shares are even and whole, and a process alone computes all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from amenable import processes
from amenable.errors import InputError


@given(st.lists(st.integers(1, 1000)), st.integers(1, 9))
def test_shares_have_everything_once_and_are_even(sizes: list[int], count: int) -> None:
    shares = processes.divide(sizes, count)
    assert len(shares) == count and sorted(i for share in shares for i in share) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_imbalance_is_the_largest_share_over_the_mean() -> None:
    assert processes.imbalance([2, 2, 2, 2], 2) == 1
    assert processes.imbalance([3, 1], 2) == 1.5
    assert processes.imbalance([5], 4) == 4


def test_a_process_alone_does_everything() -> None:
    processes.join()
    assert processes.size() == 1 and processes.own_share([3, 1]) == [0, 1]
    assert processes.from_first(lambda: object()) is not None
    assert processes.gather({"a": 1}) == [{"a": 1}] and processes.any_of(True) and not processes.any_of(False)
    vector = torch.arange(3.0)
    assert processes.summed(vector) is vector and processes.gather_vectors(vector) == [vector]
    assert processes.summed_numbers({"loss": 2.0}) == {"loss": 2.0}
    with processes.first_then_others():
        assert processes.size() == 1


def test_the_norm_of_a_gradient_in_one_process() -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    weights[0].grad = torch.tensor([3.0, 4.0])
    processes.sum_gradients(weights)
    assert processes.gradient_norm(weights) == 5 and weights[1].grad is None


def test_buckets_have_one_type_each_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "BUCKET", 5)
    parameters = [nn.Parameter(torch.zeros(size, dtype=kind)) for size, kind in SHAPES]
    sizes = [[parameter.numel() for parameter in bucket] for bucket in processes.buckets(parameters)]
    assert sizes == [[2, 3], [9], [1], [2]]


SHAPES = [(2, torch.float32), (3, torch.float32), (9, torch.float32), (1, torch.float32), (2, torch.bfloat16)]


def test_facts_that_differ_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.require_same({"code": "a"}, "use one version")
    monkeypatch.setattr(processes, "gather", lambda facts: [{"code": "b", "data": "c"}, facts])
    with pytest.raises(InputError, match=r"different code: b in process 0 and a in process 0; use one version"):
        processes.require_same({"code": "a", "data": "c"}, "use one version")


def test_a_group_that_cannot_meet_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "none"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="cannot reach each other"):
        processes.join()
