"""Time of collective operations among GPUs, by the ring algorithm.

    all-gather, reduce-scatter    V (n - 1) / (n B) + (n - 1) l          V bytes in all, n GPUs, l seconds a hop
    all-reduce                    twice that                             (Patarasuk and Yuan, 2009)

B is what a GPU sends in a second: its link within a node; between nodes the ring leaves a node once on each network
card, so that a node's GPUs share the sum of their cards (NCCL's multi-ring).
"""

from __future__ import annotations

from amenable.recipes.planning.gpus import Cluster

BUSY = 0.8
"""share of a link's rate that NCCL reaches with large messages: nccl-tests report 360 of 450 GB/s on H100 nodes"""
START = 8.4e-6
"""seconds before a ring begins (NCCL's src/graph/tuning.cc, ring, simple protocol)"""
NETWORK_HOP = 14e-6
"""seconds of a ring's step to another node (the same table)"""


def all_gather_seconds(size: float, ranks: int, in_node: int, cluster: Cluster) -> float:
    """Return the time of gathering `size` bytes in all on every one of `ranks` GPUs; also of a reduce-scatter.

    in_node: GPUs of a node that are in the ring; other rings use the rest of the node.
    """
    if ranks == 1 or not size:
        return 0.0
    in_node = max(1, min(in_node, ranks))
    nodes = -(-ranks // in_node)
    rates = ([cluster.gpu.link] if in_node > 1 else []) + ([cluster.gpu.network * in_node] if nodes > 1 else [])
    hops = (ranks - 1 if nodes == 1 else ranks - nodes) * cluster.gpu.hop + (nodes > 1) * nodes * NETWORK_HOP
    return size * (ranks - 1) / ranks / (BUSY * min(rates)) + START + hops


def all_reduce_seconds(size: float, ranks: int, in_node: int, cluster: Cluster) -> float:
    """Return the time of adding `size` bytes of each GPU on all of them: a reduce-scatter and an all-gather."""
    return 2 * all_gather_seconds(size, ranks, in_node, cluster)


def exposed_seconds(communication: float, compute: float, overlap: float) -> float:
    """Return the communication that computing does not hide: all but the share `overlap` of the computing's time, and
    at least the share of it at the ends, where nothing computes."""
    return max((1 - overlap) * communication, communication - overlap * compute)
