"""Rings, by hand."""

import pytest

from amenable.recipes.planning.communication import all_gather_seconds, all_reduce_seconds, exposed_seconds
from amenable.recipes.planning.gpus import parse_gpus


def test_a_ring_within_a_node() -> None:
    """8 GB on eight GPUs: seven eighths at 0.8 x 450 GB/s, and seven hops."""
    cluster = parse_gpus("8xH100")
    expected = 7e9 / (0.8 * 450e9) + 8.4e-6 + 7 * 3.4e-6
    assert all_gather_seconds(8e9, 8, 8, cluster) == pytest.approx(expected)
    assert all_reduce_seconds(8e9, 8, 8, cluster) == pytest.approx(2 * expected)
    assert all_gather_seconds(8e9, 1, 8, cluster) == all_gather_seconds(0, 8, 8, cluster) == 0


def test_a_ring_over_two_nodes() -> None:
    """Sixteen GPUs, eight network cards a node: 0.8 x 400 GB/s, less than the links; 14 hops inside, two between."""
    cluster = parse_gpus("16xH100")
    expected = 16e9 * 15 / 16 / (0.8 * 400e9) + 8.4e-6 + 14 * 3.4e-6 + 2 * 14e-6
    assert all_gather_seconds(16e9, 16, 8, cluster) == pytest.approx(expected)


def test_replicas_of_nodes_have_a_card_each() -> None:
    """A ring of one GPU of each of four nodes sends over one card."""
    cluster = parse_gpus("32xH100")
    assert all_gather_seconds(4e9, 4, 1, cluster) == pytest.approx(3e9 / (0.8 * 50e9) + 8.4e-6 + 4 * 14e-6)


def test_computing_hides_communication_but_for_its_ends() -> None:
    assert exposed_seconds(1.0, 10.0, 0.9) == pytest.approx(0.1)
    assert exposed_seconds(10.0, 5.0, 0.8) == pytest.approx(6.0)
    assert exposed_seconds(3.0, 5.0, 0.0) == 3.0
