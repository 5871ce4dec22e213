import sqlite3
import subprocess
import sys
import threading

import pytest

from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback.store import Event, Store

PROMPT = (Message("system", "Be brief."), Message("user", "Hé\u2028llo? 👋"))
RANKING = Ranking(PROMPT, ("One.", "Two,\ntwo.", "Three."), (2.0, 1.0, 2.0), "p7", "anne", {"kind": "greeting"})


def test_events_come_back_in_order_after_reopening(tmp_path):
    path = tmp_path / "new" / "feedback.db"
    with Store(path) as store:
        assert store.append("note", {"text": "a"}, 12.5) == 1
        assert store.append("skip", {"prompt": "p7"}, 13.0) == 2
    with Store(path) as store:
        assert store.append("note", {"text": None}, None) == 3
        assert store.events() == [
            Event(1, "note", 12.5, {"text": "a"}),
            Event(2, "skip", 13.0, {"prompt": "p7"}),
            Event(3, "note", None, {"text": None}),
        ]
        assert [event.id for event in store.events("note")] == [1, 3]


def test_events_cannot_be_changed_or_removed(tmp_path):
    with Store(tmp_path / "feedback.db") as store:
        store.append("note", {}, 0.0)
        for statement in ("DELETE FROM events", "UPDATE events SET kind = 'other'"):
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                store.connection.execute(statement)
        assert len(store.events()) == 1


def test_a_ranking_comes_back_as_it_was(tmp_path):
    with Store(tmp_path / "feedback.db") as store:
        identity = store.add_ranking(RANKING, shown_order=[2, 0, 1], seconds=8.25, time=100.0)
        assert store.rankings() == [RANKING]
        (event,) = store.events()
        pair = Ranking(PROMPT, ("x", "y"), (1.0, 2.0), "p8", "bert", margin=0.5)
        store.add_ranking(pair, [0, 1], 1.0, time=101.0)
        assert store.rankings() == [RANKING, pair]
    assert (event.id, event.time) == (identity, 100.0)
    assert event.payload["shown_order"] == [2, 0, 1] and event.payload["seconds"] == 8.25


def test_a_correction_replaces_what_it_names(tmp_path):
    better = Ranking(PROMPT, RANKING.completions, (1.0, 2.0, 3.0), "p7", "anne")
    best = Ranking(PROMPT, RANKING.completions, (3.0, 2.0, 1.0), "p7", "anne")
    other = Ranking(PROMPT, ("x", "y"), (1.0, 2.0), "p8", "bert")
    with Store(tmp_path / "feedback.db") as store:
        first = store.add_ranking(RANKING, [0, 1, 2], 1.0, time=1.0)
        store.add_ranking(other, [0, 1], 1.0, time=2.0)
        second = store.add_ranking(better, [0, 1, 2], 1.0, time=3.0, replaces=first)
        assert store.rankings() == [other, better]
        store.add_ranking(best, [0, 1, 2], 1.0, time=4.0, replaces=second)
        assert store.rankings() == [other, best]
        assert len(store.events()) == 4  # what was said before is still known


def test_mistakes_are_said_and_nothing_is_kept(tmp_path):
    with Store(tmp_path / "feedback.db") as store:
        with pytest.raises(InputError, match="no ranking 9 to correct"):
            store.add_ranking(RANKING, [0, 1, 2], 1.0, 1.0, replaces=9)
        with pytest.raises(InputError, match="shown order"):
            store.add_ranking(RANKING, [0, 1, 1], 1.0, 1.0)
        for payload in ({"score": float("nan")}, {"who": {1, 2}}):
            with pytest.raises(InputError, match="not JSON"):
                store.append("note", payload, 0.0)
        with pytest.raises(InputError, match="not JSON"):
            store.append_all("note", [{"fine": 1}, {"bad": float("inf")}], 0.0)
        assert store.events() == []


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one " * 40)
    with pytest.raises(InputError, match=r"text\.db.*not a database"):
        Store(tmp_path / "text.db")
    with pytest.raises(InputError, match=r"text\.db"):
        Store(tmp_path / "text.db" / "feedback.db")
    with sqlite3.connect(tmp_path / "later.db") as later:
        later.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="later version"):
        Store(tmp_path / "later.db")


def test_many_rankings_are_stored_at_once(tmp_path):
    other = Ranking((Message("user", "Hi"),), ("x", "y"), (1.0, 2.0), "p8", "bert")
    with Store(tmp_path / "feedback.db") as store:
        assert store.add_rankings([RANKING, other]) == [1, 2]
        assert store.rankings() == [RANKING, other]


def test_threads_and_stores_may_write_at_once(tmp_path):
    path = tmp_path / "feedback.db"
    stored: list[int] = []

    def say(store, who):
        for i in range(10):
            stored.append(store.append("note", {"who": who, "i": i}, 0.0))

    with Store(path) as one, Store(path) as other:
        threads = [threading.Thread(target=say, args=(store, n)) for n, store in enumerate((one, one, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = one.events()
    assert sorted(stored) == [event.id for event in events] == list(range(1, 31))
    for who in range(3):
        assert [event.payload["i"] for event in events if event.payload["who"] == who] == list(range(10))


WRITER = """
import sys
from amenable.feedback.store import Store
store = Store(sys.argv[1])
i = 0
while True:
    identity = store.append("note", {"i": i, "text": "x" * 500}, float(i))
    print(identity, i, flush=True)
    i += 1
"""


def test_what_was_acknowledged_survives_a_killed_process(tmp_path):
    path = tmp_path / "feedback.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    acknowledged = [tuple(map(int, writer.stdout.readline().split())) for _ in range(40)]
    writer.kill()  # SIGKILL, somewhere in the middle of writing
    rest, _ = writer.communicate()
    acknowledged += [tuple(map(int, line.split())) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    with Store(path) as store:
        stored = {event.id: event.payload["i"] for event in store.events()}
        assert len(acknowledged) >= 40
        for identity, number in acknowledged:
            assert stored[identity] == number
        assert len(stored) - len(acknowledged) in (0, 1)  # one may have been kept without a chance to say so
        assert store.append("note", {"i": -1}, 0.0) > max(stored)
        assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store.connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: synced at every commit


def test_many_events_are_kept_whole_or_not_at_all(tmp_path):
    with Store(tmp_path / "feedback.db") as store:
        store.connection.execute(
            "CREATE TRIGGER third BEFORE INSERT ON events WHEN (SELECT COUNT(*) FROM events) >= 2 "
            "BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        with pytest.raises(InputError, match="full"):
            store.append_all("note", [{"i": i} for i in range(3)], 0.0)
        assert store.events() == []


def test_an_event_of_a_name_is_kept_once_by_any_process(tmp_path):
    path = tmp_path / "feedback.db"
    with Store(path) as store, Store(path) as other:
        first = store.append_once("answer", {"said": "a"}, 1.0, "answer 7")
        assert first == (1, True)
        assert other.append_once("answer", {"said": "b"}, 2.0, "answer 7") == (1, False)
        assert other.append_once("answer", {"said": "c"}, 2.0, "answer 8") == (2, True)
        assert store.append_new("answer", [{"said": "d"}, {"said": "e"}], 3.0, ["answer 8", "answer 9"]) == 1
        assert [event.payload["said"] for event in store.events(after=1)] == ["c", "e"]


def test_what_is_taken_back_no_longer_stands(tmp_path):
    with Store(tmp_path / "feedback.db") as store:
        first = store.add_ranking(RANKING, [0, 1, 2], 1.0, time=1.0)
        store.append("retraction", {"retracts": first}, 2.0)
        assert store.rankings() == [] and len(store.events("ranking")) == 1
        again = store.add_ranking(RANKING, [0, 1, 2], 1.0, time=3.0, replaces=first)
        assert [event.id for event in store.active("ranking")] == [again]


def test_demonstrations_are_both_answers_and_conversations(tmp_path):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    with Store(tmp_path / "feedback.db") as store:
        store.append("demonstration", {"messages": messages, "annotator": "anne", "id": "d1"}, 1.0)
        store.append("conversation", {"messages": messages * 2, "annotator": "bert"}, 2.0)
        assert [(len(one.messages), one.id) for one in store.demonstrations()] == [(2, "d1"), (4, "label-2")]


def test_a_store_of_the_first_format_is_opened_with_what_it_holds(tmp_path):
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as old:
        old.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, time REAL, payload TEXT)"
        )
        old.execute("INSERT INTO events (kind, time, payload) VALUES ('note', 1.0, '{}')")
        old.execute("PRAGMA user_version = 1")
    for _ in range(2):
        with Store(path) as store:
            assert [event.kind for event in store.events()] == ["note"]
    with Store(path) as store:
        assert store.append_once("note", {}, None, "x") == (2, True)
