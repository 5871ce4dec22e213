"""Ours beside imitation: a row of the table, and each run once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import control_imitation
from benchmarks.control_imitation import COMMON, SETTINGS, line, ours, result


def test_a_row() -> None:
    runs = [{"return": value, "labels": 250, "steps": 49152, "processor": 20.0} for value in (-200.0, -180.0)]
    assert line("pendulum", "ours", runs) == (
        "| pendulum | ours | -190.00 (-317.06 to -62.94) | -200, -180 | 250 | 49,152 | 20.00 (20.00 to 20.00) |"
    )


def test_a_side_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[list[str], dict[str, Any]]] = []

    def measured(command: list[str], work: dict[str, Any]) -> dict[str, Any]:
        sent.append((command, work))
        return {"return": 1.0}

    monkeypatch.setattr(control_imitation, "measure", measured)
    arguments = argparse.Namespace(out=tmp_path, steps=4096, labels=10)
    for side in ("ours", "imitation", "ours"):
        assert result(side, "pendulum", 3, arguments) == {"return": 1.0}
    (own, first), (peer, second) = sent
    assert "--side" in own and peer[1] == "benchmarks/peer_imitation.py"
    assert {**second, "out": first["out"]} == first, "both get the same work"


def test_ours_takes_its_labels_and_steps(tmp_path: Path) -> None:
    sizes = {"num_envs": 2, "num_steps": 64, "episode_steps": 40, "episodes": 2, "steps": 2048, "labels": 8}
    work = {**COMMON, **SETTINGS["cartpole"], **sizes, "task": "cartpole", "seed": 0, "out": str(tmp_path / "run")}
    figures = ours(work)
    assert figures["labels"] == 8 and figures["steps"] == 2048 and 5 < figures["return"] <= 40
