"""Nodes as a run sees them: a lost process has the exit code of one that was killed."""

from amenable.cluster.placement import KILLED, Node
from amenable.launcher import is_killed
from tests.cluster.test_supervisor import LocalMember


def test_a_lost_process_counts_as_killed() -> None:
    member = LocalMember("a")
    member.returncode = KILLED
    assert is_killed(member) and member.node() == Node("a", "127.0.0.1")
