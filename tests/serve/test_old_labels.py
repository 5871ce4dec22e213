"""A database of labels, votes and thumbs written by an earlier version opens, goes on, and exports the same bytes."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.serve import label
from amenable.serve.battles.arena_state import Arena
from amenable.serve.openai.app_state import AppState

OLD = Path(__file__).parent / "old_labels"
"""labels.sql: tables of format 2 as dumped by sqlite3; *.jsonl: what the version that wrote them exported"""
TOKENS = {
    "Ann": "k8tu0sQBZNvlo6o4dm_UFiR9QZ-lgnKchlyvWnpvlF8",
    "Bo": "8GloqCa8gBSB4WajC1ISn81KcfgrvtcI7IHqmKR8YeE",
    "Boss": "mMQK_QL8a_5-aZlozzUUskIVgcFgjJBpApRBZuSzDm8",
}
OPEN = 26
"""Ann was shown this assignment and has not answered it"""


@pytest.fixture
def store(tmp_path: Path) -> Any:
    connection = sqlite3.connect(tmp_path / "labels.db")
    connection.executescript((OLD / "labels.sql").read_text("utf-8"))
    connection.close()
    with Store(tmp_path / "labels.db") as store:
        yield store


def client_of(store: Store, name: str) -> TestClient:
    config = label.Config(labels_db=store.path, require_tokens=True)
    label_app = label.make_label_app(config, store, [], None, None, None)
    headers = {"authorization": f"Bearer {TOKENS[name]}"}
    return TestClient(label.protect(config, label_app), base_url="http://127.0.0.1:8017", headers=headers)


def test_people_and_instructions(store: Store) -> None:
    ann = client_of(store, "Ann").get("/api/me").json()
    assert (ann["name"], ann["role"], ann["instructions"]) == ("Ann", "annotator", "# Be kind")
    assert client_of(store, "Boss").get("/api/me").json()["role"] == "owner"
    assert client_of(store, "Bo").get("/api/me").status_code == 401, "revoked"


@pytest.mark.parametrize("kind", ["rankings", "pairs", "demonstrations"])
def test_exports_are_the_same_bytes(store: Store, kind: str) -> None:
    reply = client_of(store, "Boss").get(f"/api/owner/export/{kind}")
    assert reply.content == (OLD / f"{kind}.jsonl").read_bytes()


def test_an_answer_is_taken_back_changed_and_kept_under_the_same_keys(store: Store) -> None:
    ann = client_of(store, "Ann")
    task = ann.post("/api/undo", json={}).json()["task"]
    assert task["assignment"] == 16 and task["former"]["reason"] == "unclear"
    assert task["completions"] and ann.post("/api/hold", json={"assignment": 16}).status_code == 200
    body = {"assignment": 16, "ranks": [1, 2], "strength": -2, "seconds": 3.0}
    identity = ann.post("/api/rank", json=body).json()["kept"]
    assert ann.post("/api/rank", json=body).json()["kept"] == identity, "sent twice"
    new, old = store.events("ranking")[-1].payload, store.events("ranking")[0].payload
    assert new["replaces"] == 17 and set(old) <= set(new)


def test_an_open_task_stays_its_persons(store: Store) -> None:
    body = {"assignment": OPEN, "ranks": [1, 2, 2], "seconds": 1.0}
    assert client_of(store, "Boss").post("/api/rank", json=body).status_code == 404
    assert "kept" in client_of(store, "Ann").post("/api/rank", json=body).json()


def test_the_owner_sees_who_said_what(store: Store) -> None:
    figures = client_of(store, "Boss").get("/api/owner/figures").json()
    assert figures["kinds"] == {"ranking": 5, "demonstration": 1, "conversation": 1}
    by_name = {person["name"]: person for person in figures["people"]}
    assert (
        by_name["Ann"]["known"]["share"] == 1.0 and by_name["Ann"]["known"]["n"] == 2 and by_name["Ann"]["skips"] == 1
    )
    assert figures["suggestions"] == {"edited": 1} and figures["agreement"]["tasks"] == 1


def test_votes_count_on_the_leaderboard(store: Store) -> None:
    origins = {name: {"folder": f"runs/{name}", "sha256": name * 8} for name in ("sft", "ppo")}
    state = AppState({}, {}, store, lambda token: "Ann")
    arena = Arena(state, store, origins, Sampling(), RatingConfig(), clock=lambda: 0.0)
    board = arena.board(length_controlled=False)
    assert board["battles"] == 1 and board["win_rates"]["ppo"]["sft"]["score"] == 1.0
    (event,) = store.events("vote")
    assert arena.vote("Ann", event.payload["battle"], "right", 1.0) == (event, False), "a vote stands"
