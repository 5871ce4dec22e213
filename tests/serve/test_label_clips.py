"""The clip page: two clips play side by side; a key answers; training gets the answer."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from amenable.control.clip_pictures import RecordedEnvironments
from amenable.control.clips import Clips
from amenable.control.people_labels import PeopleLabels
from amenable.errors import InputError
from amenable.feedback.store import Store
from amenable.serve import label, label_clips, security

DRAWN = """[...document.querySelectorAll('.clip')].map(canvas =>
    canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter(value => value).length)"""
"""numbers of the two canvases that are not 0"""


@pytest.fixture
def training(tmp_path: Path) -> PeopleLabels:
    """A run that waits for five comparisons of 20 steps of Hopper."""
    copies = RecordedEnvironments("Hopper-v5", 10, 0, True)
    draw = np.random.default_rng(0)
    steps = [copies.observations]
    for _ in range(20):
        copies.step(draw.uniform(-1, 1, (10, 3)).astype(np.float32), np.ones(10, bool))
    pictures = copies.take_pictures().swapaxes(0, 1)
    clips = Clips(np.repeat(np.stack(steps, 1), 20, 1), np.zeros((10, 20, 3)), np.zeros((10, 20)), pictures)
    labels = PeopleLabels(tmp_path / "clips.db", tmp_path, copies.painter.scene)
    labels.submit(range(5), clips[:5], clips[5:])
    return labels


@pytest.fixture
def config(tmp_path: Path) -> label_clips.Config:
    return label_clips.Config(labels_db=tmp_path / "clips.db", run=tmp_path, question="Which hops better?", overlap=0.0)


def test_answers_reach_the_training(training: PeopleLabels, config: label_clips.Config, tmp_path: Path) -> None:
    with Store(config.labels_db) as store:
        app = label_clips.make_clip_app(config, store, label_clips.run_clips(config)[0])
        client = TestClient(label.protect(config, app), base_url="http://127.0.0.1:8017")
        me = client.get("/api/me").json()
        assert me["clips"] and me["one_key"] and me["kinds"] == ["compare"]
        expected = {}
        for number, ranks in enumerate(([1, 2], [2, 1], [1, 1])):
            task = client.post("/api/next", json={"kind": "compare"}).json()["task"]
            assert (
                "run" not in json.dumps(task["completions"]) and len(json.loads(task["completions"][0])["frames"]) == 20
            )
            assert client.post("/api/rank", json={"assignment": task["assignment"], "ranks": ranks}).status_code == 200
            order = app.queue.assignments[task["assignment"]].order
            expected[number] = 0.5 if ranks == [1, 1] else float((ranks == [1, 2]) == (order == (0, 1)))
        task = client.post("/api/next", json={"kind": "compare"}).json()["task"]
        client.post("/api/skip", json={"assignment": task["assignment"], "reason": "cannot tell"})
        assert training.answers(1) == {**expected, 3: None}
        taken_back = client.post("/api/undo", json={}).json()["task"]
        client.post("/api/rank", json={"assignment": taken_back["assignment"], "ranks": [1, 1]})
        assert training.answers(2) == {**expected, 3: 0.5}
        client.post("/api/next", json={"kind": "compare"})
        assert client.get("/api/owner/figures").status_code == 200
        assert client.get("/clip.js").status_code == 200


def test_clips_are_those_of_the_run_in_its_own_database(
    training: PeopleLabels, config: label_clips.Config, tmp_path: Path
) -> None:
    expected = (training.name, (tmp_path / "clips.db").resolve())
    assert label_clips.run_clips(config) == label_clips.run_clips(label_clips.Config(run=tmp_path)) == expected
    assert label_clips.run_clips(label_clips.Config()) == (None, Path("runs/clips.db"))
    with pytest.raises(InputError, match=r"labels_db: the clips of .* are in .*clips\.db; leave --labels-db out"):
        label_clips.run_clips(replace(config, labels_db=tmp_path / "others.db"))


def test_a_run_that_was_moved_has_its_clips_where_the_command_says(
    training: PeopleLabels, config: label_clips.Config, tmp_path: Path
) -> None:
    training.store.close()
    moved = (tmp_path / "clips.db").rename(tmp_path / "moved.db")
    assert label_clips.run_clips(replace(config, labels_db=moved)) == (training.name, moved)
    again = PeopleLabels(moved, tmp_path, training.scene)
    assert again.name == training.name, "training that goes on writes where it reads now"
    assert label_clips.run_clips(label_clips.Config(run=tmp_path)) == (training.name, moved.resolve())


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no clips for people"):
        label_clips.run_clips(label_clips.Config(run=tmp_path))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("driven_browser", Path(__file__).parent / "test_label_page.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    driven = module.Browser(tmp_path / "profile")
    yield driven
    driven.close()


@pytest.fixture
def page(training: PeopleLabels, config: label_clips.Config) -> Iterator[str]:
    door = security.listen(config.host, 0)
    with Store(config.labels_db) as store:
        app = label_clips.make_clip_app(config, store, training.name)
        server: Any = security.make_server(label.protect(config, app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


def test_in_a_browser_clips_move_and_keys_answer(browser: Any, page: str, training: PeopleLabels) -> None:
    for width in (1280, 390):
        browser.fresh(width)
        browser.go(page)
        browser.until("document.querySelectorAll('canvas.clip[data-frame]').length === 2")
        browser.js("document.querySelector('dialog[open]')?.close()")
        frame = browser.js("document.querySelector('.clip').dataset.frame")
        browser.until(f"document.querySelector('.clip').dataset.frame !== '{frame}'")
        assert min(browser.js(DRAWN)) > 500, "something is drawn in both"
        assert browser.js("document.documentElement.scrollWidth") <= width
        assert browser.js("document.querySelector('#asked').innerText.trim()") == "Which hops better?"
        before = training.count()
        browser.press("ArrowLeft")
        browser.until(f"document.getElementById('progress').textContent.startsWith('{before + 1} by you')")
        assert training.count() == before + 1
    browser.press("u")
    browser.until("document.getElementById('say').textContent.startsWith('Your last answer is taken back')")
    browser.press("=")
    browser.until("document.getElementById('progress').textContent.startsWith('2 by you')")
    assert 0.5 in training.answers(1).values()
    browser.press("x")
    browser.until("document.querySelectorAll('canvas.clip').length === 2")
