"""Updates by hand are those of the algorithms, and every algorithm has its line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.errors import InputError
from amenable.train.runtime import Runtime
from benchmarks import update_cost
from benchmarks.workloads import SIZES


@pytest.mark.parametrize("name", update_cost.STAGES)
def test_an_update_by_hand_is_the_algorithms(name: str) -> None:
    size = replace(SIZES["smoke"], length=64, prompts=16)  # enough that answers have other rewards
    side = update_cost.build(name, size, Runtime(torch.device("cpu"), bf16=False, threads=1))
    start = [p.detach().clone() for p in side.models["policy"].parameters()]
    side.ours(1.0)
    side.by_hand(1.0)
    for key, model in side.models.items():
        pairs = list(zip(model.parameters(), side.copies[key].parameters()))
        assert all(torch.allclose(ours, hand, atol=1e-7) for ours, hand in pairs), key
    assert any(not torch.equal(p, q) for p, q in zip(start, side.models["policy"].parameters()))


def test_every_algorithm_has_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    assert update_cost.main(["--size", "smoke", "--repeats", "1", "--precision", "fp32", "--out", str(out)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split()[1] for line in lines[2:]] == list(update_cost.STAGES) and out.exists()
    with pytest.raises(InputError, match="there is no algorithm 'rlo'"):
        update_cost.Config(only="rlo")
