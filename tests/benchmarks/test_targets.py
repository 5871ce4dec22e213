"""The lines of the comparison with a peer: what is reached is said from the numbers measured, not those shown."""

import pytest

from benchmarks import targets
from benchmarks.peers import ONLY_135M, ROWS, SMALL_CHANGES
from benchmarks.targets import TARGETS, Measured, Target, failed_line, measured_line, table_head


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").replace("\\|", "/").split("|")]


def test_every_row_has_targets_at_both_sizes() -> None:
    """All but two of the small model: too small for a share of the ceiling to say much, and for vLLM."""
    without = {("5M", "pretrain"), ("5M", "vllm-32")}
    small = {("135M", row) for row in SMALL_CHANGES}
    both = {(size, row) for size in ("5M", "124M") for row in ROWS if row not in ONLY_135M}
    assert set(TARGETS) == (both - without) | small
    assert all(0 < target.reach < target.aim for target in TARGETS.values())
    assert TARGETS["5M", "sft-packed"] == Target(3.5, 5) and TARGETS["124M", "ppo"] == Target(3, 6)


def test_a_line_beside_its_target() -> None:
    line = measured_line("5M", "sft", Measured(6379.4, 6.0, default=900.0, tuned=1063.2, memory=0.6))
    assert cells(line) == ["5M", "sft", "6,379", "900", "1,063", "6.00", "6 / 8", "yes", "0.60"]
    missed = measured_line("5M", "sft-packed", Measured(10.0, 3.499, tuned=3.0, memory=1.071))
    assert cells(missed) == ["5M", "sft-packed", "10", "", "3", "3.50", "3.5 / 5", "no", "1.07, above 0.6"]


def test_pretraining_tells_its_share_of_the_ceiling() -> None:
    line = measured_line("124M", "pretrain", Measured(420.0, 0.4123))
    assert cells(line) == ["124M", "pretrain", "420", "", "", "41.2%", "40% / 55%", "yes", ""]
    assert cells(measured_line("5M", "pretrain", Measured(420.0, 0.5)))[6:] == ["", "", ""]


def test_smoke_has_no_targets() -> None:
    assert cells(measured_line("smoke", "dpo", Measured(1.0, 99.0, tuned=1.0, memory=0.1)))[6:8] == ["", ""]


@pytest.mark.parametrize("line", [*table_head(), failed_line("124M", "reward-k9", "the peer: a | b")])
def test_all_lines_have_the_tables_columns(line: str) -> None:
    assert len(cells(line)) == len(cells(targets.table_head()[0])) == 9


def test_a_failed_row_says_why() -> None:
    line = cells(failed_line("5M", "ppo", "ours: killed by signal 9"))
    assert line[:3] == ["5M", "ppo", "failed"] and line[-1] == "ours: killed by signal 9" and not any(line[3:-1])
