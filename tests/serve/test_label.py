import json
import socket
import threading
import time
import urllib.request

import pytest

from amenable.errors import InputError
from amenable.feedback.store import Store
from amenable.serve import label, security
from amenable.train.runtime import DeviceOptions

ONE_THREAD = DeviceOptions(device="cpu", precision="fp32", threads=1)


@pytest.fixture
def config(tmp_path):
    row = {"prompt": [{"role": "user", "content": "Ann asks: name a red thing."}], "completions": list("abc")}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + "\n")
    return label.Config(data=(tmp_path / "samples.jsonl",), labels_db=tmp_path / "labels.db", port=0, device=ONE_THREAD)


def changed(config, **changes):
    return label.Config(**{**vars(config), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": 1},
        {"answers": 10},
        {"raters": 1},
        {"overlap": 1.5},
        {"overlap": float("nan")},
        {"port": 70000},
        {"assignment_timeout_minutes": 0.0},
        {"gold_every": 1},
        {"tasks": ()},
        {"data": ()},
    ],
)
def test_impossible_options_are_refused(config, changes):
    with pytest.raises(InputError):
        changed(config, **changes)


def test_others_are_let_in_with_tokens_only(config):
    public = changed(config, host="0.0.0.0")
    for closed in (public, changed(config, require_tokens=True)):
        with pytest.raises(InputError, match=r"nobody holds a token.*annotators add NAME --role owner"):
            label.run(closed)
    with Store(config.labels_db) as store:
        assert not label.make_label_app(public, store, [], None, None, None).local_owner
        assert label.make_label_app(config, store, [], None, None, None).local_owner


def test_the_command_serves_until_it_is_stopped_and_says_where(config, capsys, monkeypatch):
    servers = []
    make = security.make_server
    monkeypatch.setattr(security, "make_server", lambda guard: servers.append(make(guard)) or servers[-1])
    monkeypatch.chdir(config.labels_db.parent)
    thread = threading.Thread(target=label.run, args=(config,))
    thread.start()
    try:
        end = time.monotonic() + 20
        while not (servers and servers[0].started) and time.monotonic() < end:
            time.sleep(0.02)
        answer = capsys.readouterr().out
        address = answer.split("label at ")[1].split()[0]
        assert "1 to rank, 1 to compare, 1 to demonstrate" in answer
        with urllib.request.urlopen(f"{address}/api/me") as reply:
            assert json.load(reply)["name"] == "owner"
    finally:
        servers[0].should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def test_a_port_in_use_is_said(config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="give another --port"):
            label.run(changed(config, port=taken.getsockname()[1]))


def test_a_model_suggests_and_another_try_is_another_answer(config, assistant):
    suggest = label.load_suggester(changed(config, model=assistant))
    requested = [{"role": "user", "content": "Ann asks: name a red thing."}]
    first, again, second = suggest(requested, 0), suggest(requested, 0), suggest(requested, 1)
    assert first == again and first["seed"] != second["seed"]
    assert first["text"] and first["model"] == str(assistant) and first["sampling"]["temperature"] == 0.7
    talked = [
        {"role": "system", "content": "Be kind."},
        *requested,
        {"role": "assistant", "content": "A rose."},
        *requested,
    ]
    assert isinstance(suggest(talked * 1, 0)["text"], str)


def test_a_reward_model_scores_what_people_ranked(config, judge):
    score = label.load_scorer(changed(config, judge=(str(judge),)), [])
    prompt = [{"role": "user", "content": "Ann asks: name a red thing."}]
    glad, grim = score(prompt, ["Gladly: a rose, it is red.", "Grimly: a rose, it is red."], [True, True])
    assert glad > grim
    assert score(prompt, ["word " * 500, "b"], [True, True]) is None
    assert label.load_scorer(config, []) is None
    words = label.load_scorer(changed(config, judge=("length:2-", "ends=0.5")), [])
    assert words(prompt, ["a", "a b"], [True, False]) == [0.5, 1.0]


def test_instructions_are_the_owners_file_or_text(config, tmp_path):
    with Store(config.labels_db) as store:
        label_app = label.make_label_app(config, store, [], label.read_instructions(config), None, None)
        assert label_app.instructions() == label.INSTRUCTIONS
        store.append("instructions", {"text": "# Mine"}, 1.0)
        assert label_app.instructions() == "# Mine"
        (tmp_path / "told.md").write_text("# Theirs")
        report = label.read_instructions(changed(config, instructions=tmp_path / "told.md"))
        assert label.make_label_app(config, store, [], report, None, None).instructions() == "# Theirs"
    with pytest.raises(InputError, match="give a Markdown file"):
        label.read_instructions(changed(config, instructions=tmp_path / "none.md"))
