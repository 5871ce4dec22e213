"""Battles of hidden models: how pairs are drawn, what is kept, and what a forged or repeated request gets."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch
from starlette.testclient import TestClient

from amenable.errors import InputError
from amenable.feedback import annotators
from amenable.feedback.store import Store
from amenable.serve import arena as command
from amenable.serve import serve
from amenable.serve.battles.arena_state import Arena, Battle
from amenable.serve.battles.routes import SideBySideReply
from amenable.serve.openai.scheduler import Failed, QueueFull
from amenable.serve.tokens import TokenCache

ATTACKS = ("<script>alert(1)</script>", "'; DROP TABLE events; --", "../../etc/passwd", "\u0000 \u2028 %00")


@pytest.fixture
def client(arena):
    return client_of(arena)


def client_of(arena: Arena, token: str | None = None, **settings: Any) -> TestClient:
    config = command.Config(rate_limit_per_minute=10**6, **settings)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    guard = command.protect(config, arena, serve.open_tokens(config, arena.store))
    return TestClient(guard, base_url="http://127.0.0.1:8019", headers=headers)


def begin(client: TestClient) -> str:
    return client.post("/api/battle", json={}).json()["battle"]


def say(client: TestClient, battle: str, text: str = "Ann asks: name a red thing.") -> list[dict[str, Any]]:
    reply = client.post("/api/say", json={"battle": battle, "text": text})
    assert reply.status_code == 200, reply.text
    return [json.loads(part[6:]) for part in reply.text.split("\n\n") if part]


def vote(client: TestClient, battle: str, choice: str = "left") -> httpx.Response:
    return client.post("/api/vote", json={"battle": battle, "vote": choice, "seconds": 4.5})


def side_of(arena: Arena, battle: str, model: str) -> str:
    return next(side for side, name in arena.battles[battle].models.items() if name == model)


def test_both_are_asked_the_same_and_go_on_with_their_own_words(arena, client) -> None:
    battle = begin(client)
    arena.state.models["tiny"].scheduler.output = ["  rose", " red"]
    events = say(client, battle)
    tiny, plain = side_of(arena, battle, "tiny"), side_of(arena, battle, "plain")
    assert "".join(event["text"] for event in events if event.get("side") == tiny and "text" in event) == "rose red"
    assert {"side": plain, "ended": True} in events and events[-1] == {"done": True}
    say(client, battle, "And a blue one?")
    requested = [arena.state.models[name].scheduler.requests for name in ("tiny", "plain")]
    tokenizer = arena.state.models["tiny"].tokenizer
    second = tokenizer.decode(list(requested[0][1].ids))
    assert "rose red" in second and "blue one" in second and "one two" not in second
    assert len({one.seed for both in requested for one in both}) == 4
    assert client.get(f"/api/battle/{battle}").json()["turns"][0][tiny] == "rose red"


def test_real_models_answer_through_their_schedulers(served, arena) -> None:
    arena.state.models = {name: served.state.models[name] for name in ("tiny", "plain")}
    client = client_of(arena)
    battle = begin(client)
    say(client, battle)
    answer = arena.battles[battle].turns[0]
    assert answer["left"] or answer["right"]
    assert vote(client, battle, "tie").json()["new"] is True


def test_a_vote_is_kept_with_all_that_was_said_and_only_then_are_names_told(arena, client) -> None:
    battle = begin(client)
    report = json.dumps(say(client, battle)) + client.get(f"/api/battle/{battle}").text
    assert "tiny" not in report and "plain" not in report
    models = dict(arena.battles[battle].models)
    reply = vote(client, battle, "both_bad").json()
    assert (reply["new"], reply["vote"], reply["models"]) == (True, "both_bad", models)
    (event,) = arena.store.events("vote")
    assert event.id == reply["event"] and event.time == 5.0
    payload = event.payload
    assert (payload["annotator"], payload["vote"], payload["seconds"]) == ("owner", "both_bad", 4.5)
    assert payload["models"] == models
    assert payload["origins"]["left"] == {"folder": f"runs/{models['left']}", "sha256": models["left"] * 4}
    assert payload["turns"][0]["user"].startswith("Ann asks") and payload["turns"][0]["left"] == "one two"
    assert payload["sampling"]["max_new_tokens"] == 8


def test_a_vote_that_comes_again_is_counted_once_and_the_first_stands(arena, client) -> None:
    battle = begin(client)
    say(client, battle)
    first = vote(client, battle, "left").json()
    for choice in ("left", "right", "tie"):
        again = vote(client, battle, choice).json()
        assert (again["new"], again["vote"], again["event"]) == (False, "left", first["event"])
    assert len(arena.store.events("vote")) == 1
    # a server that was started anew knows it from the store
    arena.battles.clear()
    arena.votes.clear()
    arena.last_event_id = 0
    assert vote(client, battle, "right").json()["vote"] == "left"
    assert client.get(f"/api/battle/{battle}").json()["judged"]["models"] == first["models"]
    assert len(arena.store.events("vote")) == 1
    assert client.post("/api/say", json={"battle": battle, "text": "more"}).status_code == 404


def test_a_vote_sent_many_times_at_once_is_counted_once(arena, client) -> None:
    battle = begin(client)
    say(client, battle)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda n: vote(client, battle, ("left", "right")[n % 2]), range(16)))
    assert [reply.status_code for reply in replies] == [200] * 16
    assert sum(reply.json()["new"] for reply in replies) == 1 == len(arena.store.events("vote"))
    assert len({reply.json()["vote"] for reply in replies}) == 1


def test_a_vote_is_acknowledged_only_where_it_is_on_disk(arena, client, monkeypatch, tmp_path) -> None:
    battle = begin(client)
    say(client, battle)

    def full(*_: Any) -> Any:
        raise InputError("the 'vote' could not be kept: database or disk is full", arena.store.path)

    with monkeypatch.context() as broken:
        broken.setattr(arena.store, "append_once", full)
        reply = vote(client, battle, "left")
        assert reply.status_code == 503 and "tiny" not in reply.text and str(tmp_path) not in reply.text
    assert client.get(f"/api/battle/{battle}").json()["judged"] is None
    assert vote(client, battle, "right").json()["new"]
    with Store(arena.store.path) as another:
        assert [event.payload["vote"] for event in another.events("vote")] == ["right"]


def test_a_judged_battle_is_over(arena, client) -> None:
    battle = begin(client)
    say(client, battle)
    vote(client, battle)
    assert client.post("/api/say", json={"battle": battle, "text": "more"}).status_code == 409


def test_what_was_not_said_cannot_be_judged(arena, client) -> None:
    battle = begin(client)
    assert vote(client, battle).status_code == 409
    assert vote(client, "f" * 24).status_code == 404
    for wrong in ({"vote": "middle"}, {"vote": "left", "turns": []}, {"vote": "left", "seconds": -1}, {}):
        assert client.post("/api/vote", json={"battle": battle, **wrong}).status_code == 400
    assert arena.store.events() == []
    arena.battles[battle].busy = True
    arena.battles[battle].turns.append({"user": "x", "left": "a", "right": "b"})
    assert vote(client, battle).status_code == 409
    assert client.post("/api/say", json={"battle": battle, "text": "x"}).status_code == 409


def test_a_busy_model_refuses_and_the_message_was_never_said(arena, client) -> None:
    battle = begin(client)
    # the left one is asked first
    names = arena.battles[battle].models
    first, second = (arena.state.models[names[side]].scheduler for side in ("left", "right"))
    second.output = [QueueFull(7)]
    reply = client.post("/api/say", json={"battle": battle, "text": "x"})
    assert reply.status_code == 429 and reply.headers["retry-after"] == "7"
    assert first.cancelled == 1 and arena.battles[battle].turns == [] and not arena.battles[battle].busy
    second.output = ["there"]
    say(client, battle)
    assert len(arena.battles[battle].turns) == 1


def test_a_model_that_fails_leaves_no_turn_and_no_name(arena, client) -> None:
    battle = begin(client)
    arena.state.models["plain"].scheduler.output = ["half", Failed("runs/plain ran out of memory")]
    events = say(client, battle)
    assert "failed" in events[-1]["error"] and "plain" not in json.dumps(events)
    assert arena.battles[battle].turns == [] and not arena.battles[battle].busy


def test_a_message_that_is_too_long_names_no_model(arena, client) -> None:
    battle = begin(client)
    reply = client.post("/api/say", json={"battle": battle, "text": "word " * 300})
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "too_long"
    assert "tiny" not in reply.text and not arena.battles[battle].busy
    for text in ("", "  ", "x" * 20_001):
        assert client.post("/api/say", json={"battle": battle, "text": text}).status_code == 400


def test_answers_are_markup_to_nobody(arena, client) -> None:
    for attack in ATTACKS:
        arena.state.models["tiny"].scheduler.output = [attack]
        battle = begin(client)
        say(client, battle, f"Say {attack}")
        assert vote(client, battle).status_code == 200
        reply = client.get(f"/api/battle/{battle}")
        assert reply.headers["content-type"] == "application/json"
        assert reply.json()["turns"][0][side_of(arena, battle, "tiny")] == attack.strip()
    assert len(arena.store.events("vote")) == len(ATTACKS)
    page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"] and "<script>" not in page.text
    assert client.get("/api/battle/..%2f..%2fetc%2fpasswd").status_code == 404


def test_other_sites_and_other_kinds_of_body_are_refused(arena, client) -> None:
    battle = begin(client)
    say(client, battle)
    body = {"battle": battle, "vote": "left"}
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"host": "evil.example"}):
        assert client.post("/api/vote", json=body, headers=headers).status_code == 403
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/api/vote", content=json.dumps(body), headers=form).status_code == 415
    assert client.post("/api/say", json={"battle": battle, "text": "x" * 300_000}).status_code == 413
    assert client.post("/api/vote", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert arena.store.events() == []


def test_anothers_battle_is_unknown(arena) -> None:
    tokens = {name: annotators.add(arena.store, name, "annotator", 0.0) for name in ("Ann", "Bo")}
    people = TokenCache(arena.store)
    arena.state.user_for_token = lambda token: people.user_for_token(token or "")
    ann, bo = (client_of(arena, tokens[name], require_tokens=True) for name in ("Ann", "Bo"))
    nobody = client_of(arena, require_tokens=True)
    battle = begin(ann)
    say(ann, battle)
    assert bo.get(f"/api/battle/{battle}").status_code == 404
    assert bo.post("/api/say", json={"battle": battle, "text": "x"}).status_code == 404
    assert vote(bo, battle).status_code == 404
    for path in ("/api/leaderboard", f"/api/battle/{battle}"):
        assert nobody.get(path).status_code == 401
    assert nobody.post("/api/battle", json={}).status_code == 401 and nobody.get("/").status_code == 200
    assert arena.store.events("vote") == []
    assert vote(ann, battle).json()["new"]
    assert vote(bo, battle).status_code == 404 and bo.get(f"/api/battle/{battle}").status_code == 404
    assert arena.store.events("vote")[0].payload["annotator"] == "Ann"
    assert nobody.post("/login", json={"token": tokens["Bo"]}).status_code == 204
    assert nobody.get("/api/leaderboard").status_code == 200


def test_the_leaderboard_knows_every_vote(arena, client) -> None:
    assert client.get("/api/leaderboard").json()["players"] == []
    for _ in range(6):
        battle = begin(client)
        say(client, battle)
        vote(client, battle, side_of(arena, battle, "tiny"))
    result = client.get("/api/leaderboard").json()
    assert [row["name"] for row in result["players"]] == ["tiny", "plain"]
    assert result["battles"] == 6 and result["win_rates"]["tiny"]["plain"] == {"score": 1.0, "count": 6}
    controlled = client.get("/api/leaderboard?length_controlled=true").json()
    assert controlled["length_worth"] is not None and controlled["terms"]["length_controlled"]
    arena.origins = {**arena.origins, "new": {}}
    assert client.get("/api/leaderboard").json()["waiting"] == ["new"]
    assert client.get("/api/leaderboard?length_controlled=maybe").status_code == 400


def test_a_closed_stream_keeps_what_was_shown(arena, make_script) -> None:
    """The client goes while the models speak: the rows are freed, and the battle goes on with the words so far."""
    battle = Battle("ab", "owner", {"left": "tiny", "right": "plain"}, 1, 0.0, busy=True)
    scripts = [arena.state.models[name].scheduler for name in ("tiny", "plain")]
    scripts[0].output = ["first words"]

    class Slow(make_script):
        def submit(self, request: Any, on_event: Any) -> Any:
            return object()

    arena.state.models["plain"] = replace(arena.state.models["plain"], scheduler=Slow())

    async def go() -> None:
        response: Any = SideBySideReply(arena, battle, "Hi").response()
        sent: list[bytes] = []

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))

        async def receive() -> Any:
            while not any(b"first words" in part for part in sent):
                await asyncio.sleep(0)
            return {"type": "http.disconnect"}

        await asyncio.wait_for(response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send), 5)

    asyncio.run(go())
    assert battle.turns[0]["left"] == "first words" and battle.turns[0]["right"] == ""
    assert battle.turns[0]["stopped"] and not battle.busy
    assert scripts[0].cancelled == 1 and arena.state.models["plain"].scheduler.cancelled == 1
    assert torch.is_grad_enabled()
