from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from amenable.feedback.store import Store
from amenable.serve.openai.api import make_app
from amenable.serve.openai.app_state import AppState

ASKED: Any = [{"role": "user", "content": "Ann asks: name a red thing."}]


def test_what_people_say_is_kept_once(served, http: httpx.Client) -> None:
    thumb = {"id": "t1", "model": "tiny", "messages": [*ASKED, {"role": "assistant", "content": "no"}], "up": False}
    first, second = (http.post("/feedback/thumb", json=thumb).json() for _ in range(2))
    assert first["new"] and not second["new"] and first["event"] == second["event"]
    [event] = [event for event in served.store.events("thumb") if event.payload["id"] == "t1"]
    assert event.payload["up"] is False and event.payload["annotator"] == "owner"
    ranking = {"id": "r1", "messages": ASKED, "completions": ["a", "b", "c"], "ranking": [2, 1, 2]}
    assert http.post("/feedback/ranking", json=ranking).json()["new"]
    [stored] = [stored for stored in served.store.rankings() if stored.id == "serve-r1"]
    assert stored.ranks == (2, 1, 2) and stored.completions == ("a", "b", "c")
    assert http.post("/feedback/ranking", json={**ranking, "id": "r2", "ranking": [1, 2]}).status_code == 400
    assert http.post("/feedback/thumb", json={**thumb, "messages": ASKED}).status_code == 400


ATTACKS = ("<script>alert(1)</script>", "'; DROP TABLE events; --", "../../etc/passwd", "\u0000 \u2028 %00")


@pytest.fixture
def state(tmp_path: Any) -> Any:
    """Without models: what people say, and a person for each token."""
    with Store(tmp_path / "labels.db") as store:
        yield AppState({}, {}, store, lambda token: token)


def of(state: AppState, person: str) -> TestClient:
    return TestClient(make_app(state), headers={"authorization": f"Bearer {person}"})


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_kept_as_text(state: AppState, attack: str) -> None:
    answer = [{"role": "user", "content": attack}]
    thumb = {"id": "t1", "model": attack, "messages": [*answer, {"role": "assistant", "content": attack}], "up": True}
    ranking = {"id": "r1", "messages": answer, "completions": [attack, "b"], "ranking": [1, 2], "models": [attack, "b"]}
    assert of(state, "ann").post("/feedback/thumb", json=thumb).json() == {"event": 1, "new": True}
    assert of(state, "ann").post("/feedback/ranking", json=ranking).json() == {"event": 2, "new": True}
    assert state.store is not None
    assert state.store.events("thumb")[0].payload["messages"][1]["content"] == attack
    (stored,) = state.store.rankings()
    assert stored.completions == (attack, "b") and stored.prompt[0].content == attack
    assert of(state, "ann").post("/feedback/thumb", json={**thumb, "id": attack}).status_code == 400


def test_one_persons_word_is_not_anothers(state: AppState) -> None:
    ranking = {"id": "r1", "messages": ASKED, "completions": ["a", "b"], "ranking": [1, 2]}
    first = of(state, "ann").post("/feedback/ranking", json=ranking).json()
    second = of(state, "bo").post("/feedback/ranking", json={**ranking, "ranking": [2, 1]}).json()
    assert first["new"] and second["new"] and first["event"] != second["event"]
    assert of(state, "ann").post("/feedback/ranking", json={**ranking, "ranking": [2, 1]}).json()["new"] is False
    assert state.store is not None
    assert [event.payload["annotator"] for event in state.store.events("ranking")] == ["ann", "bo"]
    assert state.store.events("ranking")[0].payload["ranking"] == [1.0, 2.0]


def test_without_a_store_nothing_is_kept_and_that_is_said(state: AppState) -> None:
    reply = of(replace(state, store=None), "ann").post(
        "/feedback/ranking", json={"id": "r1", "messages": ASKED, "completions": ["a", "b"], "ranking": [1, 2]}
    )
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "no_store"


def test_a_token_that_nobody_holds_is_no_way_in(state: AppState) -> None:
    nobody = replace(state, user_for_token=lambda token: None)
    refused = of(nobody, "x").post("/login", json={"token": "x"})
    assert refused.status_code == 401 and "set-cookie" not in refused.headers
    secure = of(replace(state, secure=True), "x").post("/login", json={"token": "x"})
    assert secure.status_code == 204 and secure.headers["set-cookie"].endswith("; Secure")
