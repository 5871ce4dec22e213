"""Battles of hidden models: how pairs are drawn, what is kept, and what a forged or repeated request gets."""

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from starlette.testclient import TestClient

from amenable.errors import InputError
from amenable.feedback import annotators
from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.serve import arena, serve
from amenable.serve.battles import Arena, Battle, drawn_pair, in_order
from amenable.serve.openai.scheduler import Busy, Ended, Failed, Piece

ATTACKS = ("<script>alert(1)</script>", "'; DROP TABLE events; --", "../../etc/passwd", "\u0000 \u2028 %00")


class Script:
    """A scheduler that says what it is told to, piece by piece, instead of a model."""

    def __init__(self) -> None:
        self.says: list[Any] = ["one", " two"]
        self.asked: list[Any] = []
        self.cancelled = 0

    def submit(self, asked: Any, tell: Any) -> Any:
        self.asked.append(asked)
        for said in self.says:
            if isinstance(said, Exception):
                raise said
            tell(said if isinstance(said, (Failed, Ended)) else Piece(0, said))
        if not isinstance(self.says[-1], (Failed, Ended)):
            tell(Ended(0, "", SimpleNamespace(ids=[1], finish_reason="eos")))  # type: ignore[arg-type]
        return object()

    def cancel(self, request: Any) -> None:
        self.cancelled += 1


@pytest.fixture
def place(served, tmp_path):
    """An arena of two scripted models, `tiny` and `plain`, and its store."""
    with Store(tmp_path / "votes.db") as store:
        models = {name: replace(one, scheduler=Script()) for name, one in served.house.models.items()}
        house = replace(served.house, models=models, store=store)
        origins = {name: {"folder": f"runs/{name}", "sha256": name * 4} for name in models}
        yield Arena(house, store, origins, Sampling(max_new_tokens=8), RatingConfig(), lambda: 5.0, random.Random(0))


@pytest.fixture
def client(place):
    return client_of(place)


def client_of(place: Arena, token: str | None = None, **settings: Any) -> TestClient:
    config = arena.Config(per_minute=10**6, **settings)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    guard = arena.guard(config, place, serve.People(place.store))
    return TestClient(guard, base_url="http://127.0.0.1:8019", headers=headers)


def begin(client: TestClient) -> str:
    return client.post("/api/battle", json={}).json()["battle"]


def say(client: TestClient, battle: str, text: str = "Ann asks: name a red thing.") -> list[dict[str, Any]]:
    reply = client.post("/api/say", json={"battle": battle, "text": text})
    assert reply.status_code == 200, reply.text
    return [json.loads(part[6:]) for part in reply.text.split("\n\n") if part]


def vote(client: TestClient, battle: str, choice: str = "left") -> httpx.Response:
    return client.post("/api/vote", json={"battle": battle, "vote": choice, "seconds": 4.5})


def side_of(place: Arena, battle: str, model: str) -> str:
    return next(side for side, name in place.battles[battle].models.items() if name == model)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_graph_of_battles_is_connected_as_early_as_can_be(count: int) -> None:
    names, fought, draw = [f"m{i}" for i in range(count)], Counter[tuple[str, str]](), random.Random(1)
    for _ in range(count - 1):
        fought[in_order(*drawn_pair(names, fought, draw))] += 1
    reached = {"m0"}
    for _ in names:
        reached |= {name for pair in fought if reached & set(pair) for name in pair}
    assert reached == set(names)
    for _ in range(5 * count * (count - 1) // 2 - (count - 1)):
        fought[in_order(*drawn_pair(names, fought, draw))] += 1
    assert set(fought.values()) == {5}


def test_pairs_and_sides_are_drawn_at_random(place) -> None:
    sides = Counter(place.begin("owner").models["left"] for _ in range(200))
    assert set(sides) == {"tiny", "plain"} and min(sides.values()) > 60
    pairs = {tuple(drawn_pair(list("abcd"), {}, random.Random(seed))) for seed in range(60)}
    assert len(pairs) == 6


def test_both_are_asked_the_same_and_go_on_with_their_own_words(place, client) -> None:
    battle = begin(client)
    place.house.models["tiny"].scheduler.says = ["  rose", " red"]
    events = say(client, battle)
    tiny, plain = side_of(place, battle, "tiny"), side_of(place, battle, "plain")
    assert "".join(event["text"] for event in events if event.get("side") == tiny and "text" in event) == "rose red"
    assert {"side": plain, "ended": True} in events and events[-1] == {"done": True}
    say(client, battle, "And a blue one?")
    asked = [place.house.models[name].scheduler.asked for name in ("tiny", "plain")]
    tokenizer = place.house.models["tiny"].tokenizer
    second = tokenizer.decode(list(asked[0][1].ids))
    assert "rose red" in second and "blue one" in second and "one two" not in second
    assert len({one.seed for both in asked for one in both}) == 4
    assert client.get(f"/api/battle/{battle}").json()["turns"][0][tiny] == "rose red"


def test_real_models_answer_through_their_schedulers(served, place) -> None:
    place.house.models = {name: served.house.models[name] for name in ("tiny", "plain")}
    client = client_of(place)
    battle = begin(client)
    say(client, battle)
    said = place.battles[battle].turns[0]
    assert said["left"] or said["right"]
    assert vote(client, battle, "tie").json()["new"] is True


def test_a_vote_is_kept_with_all_that_was_said_and_only_then_are_names_told(place, client) -> None:
    battle = begin(client)
    told = json.dumps(say(client, battle)) + client.get(f"/api/battle/{battle}").text
    assert "tiny" not in told and "plain" not in told
    models = dict(place.battles[battle].models)
    reply = vote(client, battle, "both_bad").json()
    assert (reply["new"], reply["vote"], reply["models"]) == (True, "both_bad", models)
    (event,) = place.store.events("vote")
    assert event.id == reply["event"] and event.time == 5.0
    payload = event.payload
    assert (payload["annotator"], payload["vote"], payload["seconds"]) == ("owner", "both_bad", 4.5)
    assert payload["models"] == models
    assert payload["origins"]["left"] == {"folder": f"runs/{models['left']}", "sha256": models["left"] * 4}
    assert payload["turns"][0]["user"].startswith("Ann asks") and payload["turns"][0]["left"] == "one two"
    assert payload["sampling"]["max_new_tokens"] == 8


def test_a_vote_that_comes_again_is_counted_once_and_the_first_stands(place, client) -> None:
    battle = begin(client)
    say(client, battle)
    first = vote(client, battle, "left").json()
    for choice in ("left", "right", "tie"):
        again = vote(client, battle, choice).json()
        assert (again["new"], again["vote"], again["event"]) == (False, "left", first["event"])
    assert len(place.store.events("vote")) == 1
    # a server that was started anew knows it from the store
    place.battles.clear()
    place.votes.clear()
    place.seen = 0
    assert vote(client, battle, "right").json()["vote"] == "left"
    assert client.get(f"/api/battle/{battle}").json()["judged"]["models"] == first["models"]
    assert len(place.store.events("vote")) == 1
    assert client.post("/api/say", json={"battle": battle, "text": "more"}).status_code == 404


def test_a_vote_sent_many_times_at_once_is_counted_once(place, client) -> None:
    battle = begin(client)
    say(client, battle)
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda n: vote(client, battle, ("left", "right")[n % 2]), range(16)))
    assert [reply.status_code for reply in replies] == [200] * 16
    assert sum(reply.json()["new"] for reply in replies) == 1 == len(place.store.events("vote"))
    assert len({reply.json()["vote"] for reply in replies}) == 1


def test_a_vote_is_acknowledged_only_where_it_is_on_disk(place, client, monkeypatch, tmp_path) -> None:
    battle = begin(client)
    say(client, battle)

    def full(*_: Any) -> Any:
        raise InputError("the 'vote' could not be kept: database or disk is full", place.store.path)

    with monkeypatch.context() as broken:
        broken.setattr(place.store, "append_once", full)
        reply = vote(client, battle, "left")
        assert reply.status_code == 503 and "tiny" not in reply.text and str(tmp_path) not in reply.text
    assert client.get(f"/api/battle/{battle}").json()["judged"] is None
    assert vote(client, battle, "right").json()["new"]
    with Store(place.store.path) as another:
        assert [event.payload["vote"] for event in another.events("vote")] == ["right"]


def test_a_judged_battle_is_over(place, client) -> None:
    battle = begin(client)
    say(client, battle)
    vote(client, battle)
    assert client.post("/api/say", json={"battle": battle, "text": "more"}).status_code == 409


def test_what_was_not_said_cannot_be_judged(place, client) -> None:
    battle = begin(client)
    assert vote(client, battle).status_code == 409
    assert vote(client, "f" * 24).status_code == 404
    for wrong in ({"vote": "middle"}, {"vote": "left", "turns": []}, {"vote": "left", "seconds": -1}, {}):
        assert client.post("/api/vote", json={"battle": battle, **wrong}).status_code == 400
    assert place.store.events() == []
    place.battles[battle].busy = True
    place.battles[battle].turns.append({"user": "x", "left": "a", "right": "b"})
    assert vote(client, battle).status_code == 409
    assert client.post("/api/say", json={"battle": battle, "text": "x"}).status_code == 409


def test_a_busy_model_refuses_and_the_message_was_never_said(place, client) -> None:
    battle = begin(client)
    # the left one is asked first
    names = place.battles[battle].models
    first, second = (place.house.models[names[side]].scheduler for side in ("left", "right"))
    second.says = [Busy(7)]
    reply = client.post("/api/say", json={"battle": battle, "text": "x"})
    assert reply.status_code == 429 and reply.headers["retry-after"] == "7"
    assert first.cancelled == 1 and place.battles[battle].turns == [] and not place.battles[battle].busy
    second.says = ["there"]
    say(client, battle)
    assert len(place.battles[battle].turns) == 1


def test_a_model_that_fails_leaves_no_turn_and_no_name(place, client) -> None:
    battle = begin(client)
    place.house.models["plain"].scheduler.says = ["half", Failed("runs/plain ran out of memory")]
    events = say(client, battle)
    assert "failed" in events[-1]["error"] and "plain" not in json.dumps(events)
    assert place.battles[battle].turns == [] and not place.battles[battle].busy


def test_a_message_that_is_too_long_names_no_model(place, client) -> None:
    battle = begin(client)
    reply = client.post("/api/say", json={"battle": battle, "text": "word " * 300})
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "too_long"
    assert "tiny" not in reply.text and not place.battles[battle].busy
    for text in ("", "  ", "x" * 20_001):
        assert client.post("/api/say", json={"battle": battle, "text": text}).status_code == 400


def test_answers_are_markup_to_nobody(place, client) -> None:
    for attack in ATTACKS:
        place.house.models["tiny"].scheduler.says = [attack]
        battle = begin(client)
        say(client, battle, f"Say {attack}")
        assert vote(client, battle).status_code == 200
        reply = client.get(f"/api/battle/{battle}")
        assert reply.headers["content-type"] == "application/json"
        assert reply.json()["turns"][0][side_of(place, battle, "tiny")] == attack.strip()
    assert len(place.store.events("vote")) == len(ATTACKS)
    page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"] and "<script>" not in page.text
    assert client.get("/api/battle/..%2f..%2fetc%2fpasswd").status_code == 404


def test_other_sites_and_other_kinds_of_body_are_refused(place, client) -> None:
    battle = begin(client)
    say(client, battle)
    body = {"battle": battle, "vote": "left"}
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"host": "evil.example"}):
        assert client.post("/api/vote", json=body, headers=headers).status_code == 403
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/api/vote", content=json.dumps(body), headers=form).status_code == 415
    assert client.post("/api/say", json={"battle": battle, "text": "x" * 300_000}).status_code == 413
    assert client.post("/api/vote", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert place.store.events() == []


def test_anothers_battle_is_unknown(place) -> None:
    tokens = {name: annotators.add(place.store, name, "annotator", 0.0) for name in ("Ann", "Bo")}
    people = serve.People(place.store)
    place.house.whose = lambda token: people.holder(token or "")
    ann, bo = (client_of(place, tokens[name], require_tokens=True) for name in ("Ann", "Bo"))
    nobody = client_of(place, require_tokens=True)
    battle = begin(ann)
    say(ann, battle)
    assert bo.get(f"/api/battle/{battle}").status_code == 404
    assert bo.post("/api/say", json={"battle": battle, "text": "x"}).status_code == 404
    assert vote(bo, battle).status_code == 404
    for path in ("/api/leaderboard", f"/api/battle/{battle}"):
        assert nobody.get(path).status_code == 401
    assert nobody.post("/api/battle", json={}).status_code == 401 and nobody.get("/").status_code == 200
    assert place.store.events("vote") == []
    assert vote(ann, battle).json()["new"]
    assert vote(bo, battle).status_code == 404 and bo.get(f"/api/battle/{battle}").status_code == 404
    assert place.store.events("vote")[0].payload["annotator"] == "Ann"
    assert nobody.post("/login", json={"token": tokens["Bo"]}).status_code == 204
    assert nobody.get("/api/leaderboard").status_code == 200


def test_battles_that_nobody_judges_are_forgotten(place) -> None:
    made = [place.begin("owner").id for _ in range(25)]
    assert len(place.battles) == 20 and made[-1] in place.battles and made[0] not in place.battles
    place.begin("another")
    place.clock = lambda: 1e6
    last = place.begin("another")
    assert list(place.battles) == [last.id]


def test_battles_under_way_count_only_once_something_is_said(place) -> None:
    battle = place.begin("owner")
    assert not place.fought()
    battle.turns.append({"user": "x", "left": "a", "right": "b"})
    assert place.fought() == {("plain", "tiny"): 1}


def test_the_leaderboard_knows_every_vote(place, client) -> None:
    assert client.get("/api/leaderboard").json()["players"] == []
    for _ in range(6):
        battle = begin(client)
        say(client, battle)
        vote(client, battle, side_of(place, battle, "tiny"))
    found = client.get("/api/leaderboard").json()
    assert [row["name"] for row in found["players"]] == ["tiny", "plain"]
    assert found["battles"] == 6 and found["win_rates"]["tiny"]["plain"] == {"score": 1.0, "count": 6}
    controlled = client.get("/api/leaderboard?length_controlled=true").json()
    assert controlled["length_worth"] is not None and controlled["terms"]["length_controlled"]
    place.origins = {**place.origins, "new": {}}
    assert client.get("/api/leaderboard").json()["waiting"] == ["new"]
    assert client.get("/api/leaderboard?length_controlled=maybe").status_code == 400


def test_a_closed_stream_keeps_what_was_shown(served, place) -> None:
    """The client goes while the models speak: the rows are freed, and the battle goes on with the words so far."""
    import asyncio

    from amenable.serve.battles import Exchange

    battle = Battle("ab", "owner", {"left": "tiny", "right": "plain"}, 1, 0.0, busy=True)
    scripts = [place.house.models[name].scheduler for name in ("tiny", "plain")]
    scripts[0].says = ["first words"]

    class Slow(Script):
        def submit(self, asked: Any, tell: Any) -> Any:
            return object()

    place.house.models["plain"] = replace(place.house.models["plain"], scheduler=Slow())

    async def go() -> None:
        response: Any = Exchange(place, battle, "Hi").response()
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
    assert scripts[0].cancelled == 1 and place.house.models["plain"].scheduler.cancelled == 1
    assert torch.is_grad_enabled()
