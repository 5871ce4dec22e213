"""The scripted person of the guide: which clip turns further backwards, and all of it in a browser."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest

from benchmarks import first_backflip


def clip(turns: float) -> str:
    """A clip whose first segment turns counterclockwise, as one does that faces right and goes over backwards."""
    angles = np.pi / 2 + np.linspace(0, 2 * np.pi * turns, 40)
    frames = np.stack([np.zeros(40), np.zeros(40), np.cos(angles), np.sin(angles)], axis=1)
    return json.dumps({"scene": {}, "frames": frames.tolist()})


def test_turns_in_a_clip() -> None:
    assert first_backflip.turns(clip(1.25)) == pytest.approx(1.25) and first_backflip.turns(
        clip(-0.5)
    ) == pytest.approx(-0.5)


@pytest.mark.slow
def test_the_guide_works_in_a_browser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if first_backflip.CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    first_backflip.main(labels=8, timesteps=4096, out=tmp_path / "run", pictures=tmp_path / "pictures", port=port)
    assert "8 labels" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"clips.png", "backflip.png"}
