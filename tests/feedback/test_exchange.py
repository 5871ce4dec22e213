import hashlib
import json

import pytest

from amenable.data.sources import read_demonstrations, read_rankings
from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback import exchange
from amenable.feedback.store import Store

PROMPT = (Message("user", "Name a thing."),)
ASKED = [{"role": "user", "content": "Name a thing."}]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "labels.db") as store:
        yield store


def rank(store, texts, ranks, **more):
    payload = {"prompt": ASKED, "completions": texts, "ranking": ranks, "annotator": "ann", "id": "", "meta": {}}
    return store.append("ranking", {**payload, "sources": [{"model": "m"}], **more}, 1.0)


def test_turns_that_are_context_stay_so_through_a_store(tmp_path):
    asked, said = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No.", "weight": 0}
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [asked, said, asked, {**said, "weight": 1}]}) + "\n")
    with Store(tmp_path / "labels.db") as store:
        assert exchange.bring_in(store, tmp_path / "a.jsonl", "ann", 0.0)["new"] == 1
        exchange.export(store, tmp_path / "out")
    (row,) = read_demonstrations(tmp_path / "out" / "demonstrations.jsonl").rows
    assert [message.trained for message in row.messages] == [True, False, True, True]


def test_pairs_keep_a_margin_and_choose_no_empty_answer(store, tmp_path):
    rank(store, ["x", "y"], [2, 1], margin=0.5)
    rank(store, ["x", "", "y"], [2, 1, 3])
    assert exchange.export(store, tmp_path) == {"rankings": 2, "pairs": 2}
    pairs = read_rankings(tmp_path / "pairs.jsonl")
    assert [(row.completions, row.margin) for row in pairs.rows] == [(("y", "x"), 0.5), (("x", "y"), None)]
    assert [row.completions for row in read_rankings(tmp_path / "rankings.jsonl").rows][1] == ("x", "", "y")
    assert pairs.rejected == []


def test_what_is_exported_is_what_training_reads(store, tmp_path):
    first = rank(store, ["a", "b", "c"], [2, 1, 2], meta={"ended": [True, False, True]})
    rank(store, ["x", "y"], [2, 1], strength=3)
    rank(store, ["x", "y"], [1, 1])
    rank(store, ["x", "y"], [1, 2], purpose="calibration")
    gone = rank(store, ["x", "z"], [1, 2])
    store.append("retraction", {"retracts": gone}, 2.0)
    messages = [*ASKED, {"role": "assistant", "content": "A rose."}]
    store.append("demonstration", {"messages": messages, "annotator": "bo", "id": "label-9"}, 3.0)
    out = tmp_path / "out"
    assert exchange.export(store, out) == {"rankings": 2, "pairs": 3, "demonstrations": 1}

    rankings = read_rankings(out / "rankings.jsonl").rows
    assert [(one.completions, one.ranks, one.annotator) for one in rankings] == [
        (("a", "b", "c"), (2.0, 1.0, 2.0), "ann"),
        (("x", "y"), (2.0, 1.0), "ann"),
    ]
    assert rankings[0].meta["ended"] == [True, False, True] and rankings[0].id == f"label-{first}"
    pairs = read_rankings(out / "pairs.jsonl").rows
    assert [pair.completions for pair in pairs] == [("b", "a"), ("b", "c"), ("y", "x")]
    assert pairs[2].meta["strength"] == 3 and pairs[2].margin is None
    (demonstration,) = read_demonstrations(out / "demonstrations.jsonl").rows
    assert demonstration.messages[-1].content == "A rose."

    lineage = json.loads((out / "lineage.json").read_text())
    assert lineage["annotators"] == {"ann": 2, "bo": 1} and lineage["answers_by"] == [{"model": "m"}]
    hashed = hashlib.sha256((out / "rankings.jsonl").read_bytes()).hexdigest()
    assert lineage["files"]["rankings.jsonl"] == {"rows": 2, "sha256": hashed}


def test_nothing_to_export_is_said_and_nothing_is_written(store, tmp_path):
    with pytest.raises(InputError, match="no label to write"):
        exchange.export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_comes_back_into_another_store(store, tmp_path):
    rank(store, ["a", "b", "c"], [2, 1, 3])
    exchange.export(store, tmp_path / "out")
    with Store(tmp_path / "other.db") as other:
        found = exchange.bring_in(other, tmp_path / "out" / "rankings.jsonl", None, 5.0)
        assert found == {"labels": 1, "new": 1, "unusable": 0}
        assert exchange.bring_in(other, tmp_path / "out" / "rankings.jsonl", None, 6.0)["new"] == 0
        (one,) = other.rankings()
    assert (one.completions, one.ranks, one.annotator) == (("a", "b", "c"), (2.0, 1.0, 3.0), "ann")
    assert one.meta["imported"] == "rankings.jsonl"


def file_of(tmp_path, name, content):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / name


def test_hh_rlhf_is_read(store, tmp_path):
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go away."}
    file = file_of(tmp_path, "hh.jsonl", json.dumps(row) + "\n")
    assert exchange.bring_in(store, file, "anthropic", 1.0)["new"] == 1
    (one,) = store.rankings()
    assert one == Ranking((Message("user", "Hi"),), ("Hello.", "Go away."), (1.0, 2.0), one.id, "anthropic", one.meta)


def test_label_studio_is_read(store, tmp_path):
    items = [{"id": "1", "title": "first"}, {"id": "2", "title": "second"}, {"id": "3", "title": "third"}]
    pairwise = {"type": "pairwise", "from_name": "pw", "value": {"selected": "right"}}
    ranker = {"type": "ranker", "value": {"ranker": {"best": ["2", "3", "1"]}}}
    text = {"type": "textarea", "value": {"text": ["An answer."]}}
    rows = [
        {
            "id": 7,
            "data": {"prompt": "Which?", "answer1": "left one", "answer2": "right one"},
            "annotations": [
                {"completed_by": 3, "result": [pairwise], "was_cancelled": False},
                {"completed_by": {"email": "bo@x.org"}, "result": [pairwise]},
                {"completed_by": 4, "result": [pairwise], "was_cancelled": True},
            ],
        },
        {"data": {"prompt": "Order them", "items": items}, "annotations": [{"completed_by": 3, "result": [ranker]}]},
        {"data": {"prompt": "Write"}, "annotations": [{"completed_by": 3, "result": [text, {"type": "choices"}]}]},
    ]
    file = file_of(tmp_path, "studio.json", rows)
    assert exchange.bring_in(store, file, None, 1.0) == {"labels": 4, "new": 4, "unusable": 1}
    first, second, third = store.rankings()
    assert (first.prompt[0].content, first.completions, first.ranks) == (
        "Which?",
        ("left one", "right one"),
        (2.0, 1.0),
    )
    assert [one.annotator for one in (first, second, third)] == ["3", "bo@x.org", "3"]
    assert (third.completions, third.ranks) == (("second", "third", "first"), (1.0, 2.0, 3.0))
    assert store.demonstrations()[0].messages[-1].content == "An answer."


def test_argilla_is_read_of_either_version(store, tmp_path):
    fields = {"prompt": "Which?", "response1": "one", "response2": "two"}
    rows = [
        {"id": "a", "fields": fields, "responses": {"best": [{"value": "response2", "user_id": "u1"}]}},
        {"id": "b", "fields": fields, "responses": {"order": [{"value": ["response2", "response1"], "user_id": "u1"}]}},
        {
            "id": "c",
            "fields": fields,
            "responses": [
                {
                    "user_id": "u2",
                    "status": "submitted",
                    "values": {
                        "order": {
                            "value": [{"value": "response1", "rank": 1}, {"value": "response2", "rank": 1}],
                        }
                    },
                },
                {"user_id": "u3", "status": "discarded", "values": {"order": {"value": "response1"}}},
            ],
        },
        {"id": "d", "fields": {"prompt": "Write"}, "responses": {"answer": [{"value": "So.", "user_id": "u1"}]}},
    ]
    file = file_of(tmp_path, "argilla.json", rows)
    assert exchange.bring_in(store, file, None, 1.0) == {"labels": 4, "new": 4, "unusable": 0}
    found = [(one.completions, one.ranks, one.annotator) for one in store.rankings()]
    assert found == [
        (("one", "two"), (2.0, 1.0), "u1"),
        (("two", "one"), (1.0, 2.0), "u1"),
        (("one", "two"), (1.0, 1.0), "u2"),
    ]
    assert store.demonstrations()[0].messages[0].content == "Write"


@pytest.mark.parametrize(
    "content", ["", "{", "not json\n", '[{"data": {}, "annotations": []}]', '{"text": "only text"}\n']
)
def test_a_file_without_labels_is_refused(store, tmp_path, content):
    with pytest.raises(InputError):
        exchange.bring_in(store, file_of(tmp_path, "odd.json", content), None, 1.0)
    with pytest.raises(InputError, match="no such file"):
        exchange.bring_in(store, tmp_path / "none.json", None, 1.0)
    assert store.events() == []
