"""The table beside a peer: medians, ratios, and ours measured in small."""

import pytest

from benchmarks import control


def test_a_row_by_hand() -> None:
    row = {"env": "x", "ours": {"clock": 3000, "processor": 2400}, "peer": {"clock": 1000, "processor": 1200}}
    assert control.line(row) == "| x | 3,000 | 1,000 | 3.00 | 2.00 | yes |"


def test_the_peers_better_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(command: list[str], work: dict) -> dict:
        ours = "--side" in command
        seconds = 1.0 + work["seed"] if ours else 2.0 * work["threads"]
        return {"steps": 120, "seconds": seconds, "processor": 2.0}

    monkeypatch.setattr(control, "measure", measured)
    row = control.compare("CartPole-v1", 100, 3)
    assert row["ours"]["clock"] == 60 and row["peer"] == {"clock": 60.0, "processor": 60.0}


def test_ours_is_measured() -> None:
    work = {**control.SETTINGS, "env": "CartPole-v1", "seed": 0, "steps": 4096, "threads": 1}
    result = control.ours(work)
    assert result["steps"] == 2048 and result["seconds"] > 0 and result["return"] > 10
