"""The guide "Your first backflip" of docs/control.md, gone through by a scripted person in headless Chromium.

    python -m benchmarks.first_backflip                       # 24 labels; pictures into docs/
    python -m benchmarks.first_backflip --labels 60 --timesteps 60000 --out runs/walk --pictures runs/walk

The commands are those of the guide, each a process of its own: training waits for labels, the page shows clips, the
person watches both (reads the frames that the page draws) and clicks on the one that turns further backwards, and at
the end the report is written. Pictures: clips.png, the page with two clips, and backflip.png, the report.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from amenable.errors import InputError
from benchmarks import pictures as page_pictures
from tests.serve.test_label_page import CHROMIUM, Browser

COMMAND = [sys.executable, "-m", "amenable"]
QUESTION = "Which one is closer to a backflip?"
PATIENCE = 600.0
"""seconds for one step of the page"""
REMEMBER_TASK = """
const request = window.fetch;
window.fetch = async (...sent) => {
  const reply = await request(...sent);
  reply.clone().json().then((data) => { if (data.task) window.shownTask = data.task; }, () => {});
  return reply;
};
"""
"""keeps the comparison that the page shows where the scripted person can read it"""


def main(
    labels: int = 24,
    timesteps: int = 8192,
    out: Path = Path("runs/backflip"),
    pictures: Path = Path("docs"),
    port: int = 8019,
) -> None:
    """Train, label and report, and print what came of it. InputError without a browser, or where a command fails."""
    if CHROMIUM is None:
        raise InputError("there is no Chromium")
    database = out.parent / "backflip.db"
    training = start(
        *("control", "--from", "comparisons", "--env", "amenable/Backflip-v0", "--judge", "people"),
        *("--max-labels", labels, "--label-lag", 0, "--total-timesteps", timesteps),
        *("--labels-db", database, "--out", out),
    )
    wait_for(lambda: (out / "clips.json").exists(), training)
    page = start("label-clips", "--run", out, "--labels-db", database, "--question", QUESTION, "--port", port)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            browser = Browser(Path(folder))
            try:
                clicks = label(browser, f"http://127.0.0.1:{port}", training, pictures)
            finally:
                browser.close()
    finally:
        page.terminate()
        page.wait()
    if training.wait() != 0:
        raise InputError("training failed", out)
    report = start("report", "--run", out)
    if report.wait() != 0:
        raise InputError("the report failed", out)
    page_pictures.main(str(out / "report.html"), pictures / "backflip.png", height=1100)
    done = json.loads((out / "finished.json").read_text("utf-8"))
    turns = done.get("eval/rotation", 0.0)
    print(f"{clicks} clicks, {done['labels']} labels, {done['timesteps']:,} steps, {turns:.2f} turns in an episode")


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Start one of our commands."""
    return subprocess.Popen([*COMMAND, *map(str, arguments)])


def wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    """Wait until a condition holds. InputError if the process ends before."""
    while not condition():
        if process.poll() is not None:
            raise InputError(f"'{process.args}' ended early")
        time.sleep(1)


def label(browser: Browser, address: str, training: subprocess.Popen[bytes], pictures: Path) -> int:
    """Click on the better of two clips until training ends; return the number of clicks."""
    browser.fresh(1280, 800)
    browser.ask("Page.addScriptToEvaluateOnNewDocument", source=REMEMBER_TASK)
    open_page(browser, address)
    browser.js("document.querySelector('dialog[open]')?.close()")
    clicks = 0
    while training.poll() is None:
        if not browser.js("document.querySelectorAll('canvas.clip[data-frame]').length === 2"):
            time.sleep(0.5)
            continue
        left, right = (turns(clip) for clip in browser.js("window.shownTask.completions"))
        if clicks == 3:
            pictures.mkdir(parents=True, exist_ok=True)
            browser.picture(pictures / "clips.png")
        click(browser, 0 if left >= right else 1)
        clicks += 1
        browser.until(f"document.getElementById('progress').textContent.startsWith('{clicks} by you')", PATIENCE)
    return clicks


def open_page(browser: Browser, address: str) -> None:
    """Open the page once its server answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        browser.ask("Page.navigate", url=address)
        try:
            browser.until("document.querySelector('dialog[open]') && window.shownTask", PATIENCE / 5)
            return
        except AssertionError:
            continue
    raise InputError("the page does not open", address)


def turns(clip: str) -> float:
    """Return the backward turns in a clip as the page draws it: of the first segment, the torso."""
    frames = np.array(json.loads(clip)["frames"])
    x, y = (frames[:, 2] - frames[:, 0]), (frames[:, 3] - frames[:, 1])
    angle = np.unwrap(np.arctan2(y, x))
    return float(angle[-1] - angle[0]) / (2 * np.pi)


def click(browser: Browser, number: int) -> None:
    """Click on the middle of a clip."""
    box = f"document.querySelectorAll('canvas.clip')[{number}].getBoundingClientRect()"
    point = browser.js(f"(() => {{ const b = {box}; return [b.x + b.width / 2, b.y + b.height / 2]; }})()")
    browser.mouse("mousePressed", tuple(point))
    browser.mouse("mouseReleased", tuple(point))


if __name__ == "__main__":
    tyro.cli(main)
