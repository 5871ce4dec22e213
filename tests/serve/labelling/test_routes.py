import json
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from amenable.feedback import annotators
from amenable.feedback.store import Store
from amenable.serve import label
from amenable.serve.labelling.routes import FILES
from amenable.serve.security import COOKIE

CONFIG = label.Config()
ATTACKS = (
    "<script>alert(1)</script>",
    "'; DROP TABLE events; --",
    '" onload="alert(1)',
    "{{7*7}} ${7*7} %00 \u0000 \u2028",
    "../../../../etc/passwd",
)


@pytest.fixture
def place(tmp_path):
    """A store, the application on it, and tokens of two annotators and an owner."""
    rows = [
        {"prompt": [{"role": "user", "content": f"{n} {ATTACKS[0]}"}], "model": "secret", "completions": list("abc")}
        for n in range(6)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = label.Config(
        data=(tmp_path / "samples.jsonl",), labels_db=tmp_path / "labels.db", overlap=0.0, require_tokens=True
    )
    with Store(config.labels_db) as store:
        tokens = {name: annotators.add(store, name, "annotator", 0.0) for name in ("ann", "bo")}
        tokens["boss"] = annotators.add(store, "boss", "owner", 0.0)

        def suggest(conversation, number):
            return {"text": f"suggestion {number}", "model": "m", "seed": number}

        label_app = label.make_label_app(config, store, label.load_tasks(config), None, suggest, None)
        yield store, label_app, tokens


def client_of(label_app, token=None):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return TestClient(label.protect(CONFIG, label_app), base_url="http://127.0.0.1:8017", headers=headers)


@pytest.fixture
def ann(place):
    return client_of(place[1], place[2]["ann"])


def next_of(client, kind="rank"):
    return client.post("/api/next", json={"kind": kind}).json()["task"]


def test_without_a_token_everything_is_refused(place):
    nobody, wrong = client_of(place[1]), client_of(place[1], "x" * 43)
    for client in (nobody, wrong):
        assert client.get("/api/me").status_code == 401
        assert client.get("/api/owner/figures").status_code == 401
        for path in ("next", "rank", "skip", "undo", "hold", "suggest", "write", "owner/instructions"):
            reply = client.post(f"/api/{path}", json={"kind": "rank", "assignment": 1, "ranks": [1, 2], "text": ""})
            assert reply.status_code in (401, 422), path
            assert "kept" not in reply.text and "task" not in reply.json()
    assert not [event for event in place[0].events() if event.kind != "annotator"]


def test_on_this_machine_alone_the_owner_needs_no_token(place):
    place[1].local_owner = True
    reply = client_of(place[1]).get("/api/me").json()
    assert (reply["name"], reply["role"]) == ("owner", "owner")
    assert client_of(place[1], "wrong").get("/api/me").status_code == 401


def test_a_token_becomes_a_cookie_that_scripts_cannot_read_and_ends_when_revoked(place):
    store, label_app, tokens = place
    client = client_of(label_app)
    assert client.post("/api/enter", json={"token": "wrong"}).status_code == 401
    reply = client.post("/api/enter", json={"token": tokens["ann"]})
    cookie = reply.headers["set-cookie"].lower()
    assert COOKIE in cookie and "httponly" in cookie and "samesite=strict" in cookie
    assert client.get("/api/me").json()["name"] == "ann"
    annotators.revoke(store, "ann", 1.0)
    assert client.get("/api/me").status_code == 401


def test_a_ranking_is_kept_as_it_was_meant(place, ann):
    task = next_of(ann)
    assert set(task) == {"assignment", "kind", "former", "prompt", "completions", "ended", "seconds"}
    assert "secret" not in json.dumps(task), "who wrote an answer stays hidden"
    answer = {
        "assignment": task["assignment"],
        "ranks": [5, 2, 2],
        "ratings": [1, None, 7],
        "flags": [["violent", "violent"], [], ["hallucination"]],
        "notes": ATTACKS[1],
        "seconds": 12.5,
    }
    first = ann.post("/api/rank", json=answer)
    assert first.json() == ann.post("/api/rank", json=answer).json() and first.status_code == 200
    assert ann.post("/api/rank", json={**answer, "ranks": [1, 2, 3]}).status_code == 409
    (event,) = place[0].events("ranking")
    kept = event.payload
    by_text = {text: place for place, text in enumerate(kept["completions"])}
    for shown, text in enumerate(task["completions"]):
        assert kept["ranking"][by_text[text]] == [3, 1, 1][shown]
        assert kept["ratings"][by_text[text]] == answer["ratings"][shown]
        assert kept["flags"][by_text[text]] == sorted(set(answer["flags"][shown]))
    assert (kept["annotator"], kept["seconds"], kept["notes"]) == ("ann", 12.5, ATTACKS[1])
    assert kept["sources"][0]["model"] == "secret"
    former = ann.post("/api/undo", json={}).json()["task"]["former"]
    assert former["ranks"] == [3, 1, 1] and former["ratings"] == answer["ratings"]


def test_a_comparison_says_one_thing(ann, place):
    task = next_of(ann, "compare")
    answer = {"assignment": task["assignment"], "ranks": [2, 1], "strength": 3}
    for wrong in ({"strength": -3}, {"strength": 0}, {"strength": 5}, {"ranks": [1, 1]}, {"ranks": [1, 2, 3]}):
        assert ann.post("/api/rank", json={**answer, **wrong}).status_code == 422
    assert ann.post("/api/rank", json=answer).status_code == 200
    kept = place[0].events("ranking")[0].payload
    assert kept["strength"] == 3 and kept["ranking"][kept["shown_order"][1]] == 1


def test_suggestions_are_recorded_with_what_became_of_them(ann, place):
    task = next_of(ann, "converse")
    about = {"assignment": task["assignment"]}
    request = {"role": "user", "content": "Hi?"}
    assert ann.post("/api/suggest", json={**about, "turns": []}).status_code == 422
    built = [ann.post("/api/suggest", json={**about, "turns": [request]}).json() for _ in range(3)]
    assert [one["text"] for one in built] == ["suggestion 0", "suggestion 1", "suggestion 2"]
    turns = [
        request,
        {"role": "assistant", "content": "suggestion 1", "suggestion": built[1]["suggestion"]},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "suggestion 2, bettered", "suggestion": built[2]["suggestion"]},
    ]
    for wrong in ([request, request], [request], [turns[1]], [*turns[:3], {**turns[3], "suggestion": 1}]):
        assert ann.post("/api/write", json={**about, "turns": wrong}).status_code == 422
    assert ann.post("/api/write", json={**about, "turns": turns}).status_code == 200
    kept = place[0].events("conversation")[0].payload
    assert [fate["kept"] for fate in kept["suggestions"]] == ["refused", "taken", "edited"]
    assert len(kept["messages"]) == 4
    former = ann.post("/api/undo", json={}).json()["task"]["former"]
    assert former["turns"][3]["suggestion"] == built[2]["suggestion"]
    assert ann.post("/api/write", json={**about, "turns": former["turns"]}).status_code == 200


def test_another_annotators_task_is_nobody_elses(place, ann):
    bo = client_of(place[1], place[2]["bo"])
    task = next_of(ann)
    about = {"assignment": task["assignment"]}
    for path, body in (
        ("rank", {"ranks": [1, 2, 3]}),
        ("skip", {"reason": "unclear"}),
        ("hold", {}),
        ("suggest", {"turns": []}),
        ("write", {"turns": [{"role": "assistant", "content": "x"}]}),
    ):
        reply, absent = (bo.post(f"/api/{path}", json={**body, "assignment": n}) for n in (about["assignment"], 10**9))
        assert reply.status_code == absent.status_code == 404 and reply.json() == absent.json()
    assert bo.post("/api/undo", json={}).status_code == 409
    assert next_of(bo)["prompt"] != task["prompt"]


def test_only_owners_see_figures_and_change_instructions(place, ann):
    boss = client_of(place[1], place[2]["boss"])
    for path in ("figures", "export/rankings", "export/demonstrations"):
        assert ann.get(f"/api/owner/{path}").status_code == 403
        assert boss.get(f"/api/owner/{path}").status_code == 200
    assert boss.get("/api/owner/export/..%2f..%2fetc%2fpasswd").status_code in (404, 422)
    assert ann.post("/api/owner/instructions", json={"text": "x"}).status_code == 403
    boss.post("/api/owner/instructions", json={"text": f"# New {ATTACKS[0]}"})
    assert ann.get("/api/me").json()["instructions"] == f"# New {ATTACKS[0]}"
    ann.post("/api/rank", json={"assignment": next_of(ann)["assignment"], "ranks": [1, 2, 3]})
    (row,) = boss.get("/api/owner/export/rankings").text.splitlines()
    assert json.loads(row)["annotator"] == "ann"


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_in_every_field_are_text_or_refused(place, ann, attack):
    store = place[0]
    task = next_of(ann, "demonstrate")
    for path, body in (
        ("next", {"kind": attack}),
        ("enter", {"token": attack}),
        ("rank", {"assignment": attack, "ranks": [1, 2, 3]}),
        ("rank", {"assignment": task["assignment"], "ranks": [attack, attack, attack]}),
        ("rank", {"assignment": task["assignment"], "ranks": [1, 2, 3], "flags": [[attack], [], []]}),
        ("skip", {"assignment": task["assignment"], "reason": attack}),
        ("hold", {"assignment": task["assignment"], attack: attack}),
        ("write", {"assignment": task["assignment"], "turns": [{"role": attack, "content": "x"}]}),
    ):
        assert ann.post(f"/api/{path}", json=body).status_code in (401, 422), path
    turns = [{"role": "assistant", "content": attack}]
    body = {"assignment": task["assignment"], "turns": turns, "notes": attack}
    assert ann.post("/api/write", json=body).status_code == 200
    (built,) = store.demonstrations()
    assert built.messages[-1].content == attack and store.events("demonstration")[0].payload["notes"] == attack
    assert ann.get(f"/{quote(attack, safe='')}").status_code in (200, 400, 404)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"assignment": 1e400, "ranks": [1, 2]}',
        b'{"assignment": NaN}',
        b"\xff\xfe",
        b"[" * 20000,
        b'{"kind": "\\ud800"}',
    ],
)
def test_malformed_json_is_refused_in_words(ann, body):
    for path in ("next", "rank", "write"):
        reply = ann.post(f"/api/{path}", content=body, headers={"content-type": "application/json"})
        assert 400 <= reply.status_code < 500 and reply.json()


def test_forged_and_oversized_requests_go_no_further(ann, place):
    body = {"assignment": next_of(ann)["assignment"], "ranks": [1, 2, 3]}
    for status, headers in (
        (403, {"origin": "https://evil.example"}),
        (403, {"origin": "null"}),
        (403, {"sec-fetch-site": "cross-site"}),
        (403, {"host": "evil.example"}),
        (415, {"content-type": "text/plain"}),
    ):
        assert ann.post("/api/rank", json=body, headers=headers).status_code == status
    large = {**body, "notes": "x" * 10_000_000}
    assert ann.post("/api/rank", json=large).status_code == 413
    assert ann.post("/api/rank", json={**body, "notes": "x" * 20_001}).status_code == 422
    assert place[0].events("ranking") == []


def test_the_pages_are_few_have_no_inline_script_and_come_with_a_policy(ann):
    for path in FILES:
        reply = ann.get(path)
        assert reply.status_code == 200 and reply.content
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self'" in policy
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "onclick=", "style="):
            assert word not in reply.text, f"{word} in {path}"
        if path.endswith((".html", "/", "owner")):
            assert "<script>" not in reply.text
    for path in ("/label.html", "/../label.py", "/%2e%2e/label.py", "/pages/label.html", "/docs", "/openapi.json"):
        assert ann.get(path).status_code == 404


def test_a_page_with_a_goal_ends_there_and_one_key_answers_a_comparison(place, ann):
    _, label_app, _ = place
    label_app.one_key, label_app.goal, label_app.thanks = True, 2, "Enough."
    label_app.is_complete = lambda: label_app.queue.progress("ann", "compare")["answered"] >= 2
    me = ann.get("/api/me").json()
    assert me["one_key"] and me["thanks"] == "Enough."
    for count in range(2):
        reply = ann.post("/api/next", json={"kind": "compare"}).json()
        assert reply["progress"] == {"mine": count, "tasks": 2, "answered": count}
        body = {"assignment": reply["task"]["assignment"], "ranks": [1, 2]}
        assert reply["task"]["ended"] == [True, True] and ann.post("/api/rank", json=body).status_code == 200
    assert ann.post("/api/next", json={"kind": "compare"}).json()["task"] is None
    assert ann.post("/api/undo", json={}).json()["task"]["former"]["ranks"] == [1, 2]
    assert ann.post("/api/next", json={"kind": "compare"}).json()["task"] is not None


def test_a_repeated_comparison_is_given_to_who_answered_the_first(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": f"{n}"}], "completions": ["a", "b"]} for n in range(11)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = label.Config(
        data=(tmp_path / "samples.jsonl",), tasks=("compare",), repeats=1, overlap=0.0, labels_db=tmp_path / "labels.db"
    )
    with Store(config.labels_db) as store:
        owner = client_of(label.make_label_app(config, store, label.load_tasks(config), None, None, None))
        prompts = []
        while task := next_of(owner, "compare"):
            prompts.append(task["prompt"][0]["content"])
            owner.post("/api/rank", json={"assignment": task["assignment"], "ranks": [1, 2]})
        purposes = [event.payload["purpose"] for event in store.events("ranking")]
    assert len(prompts) == 12 and prompts[0] == prompts[-1] and purposes == ["label"] * 11 + ["repeat"]
