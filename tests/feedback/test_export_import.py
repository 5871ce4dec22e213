import datetime
import hashlib
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amenable.data.sources import read_demonstrations, read_rankings
from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback import export_import
from amenable.feedback.hints import Hints
from amenable.feedback.store import Store

PROMPT = (Message("user", "Name a thing."),)
ASKED = [{"role": "user", "content": "Name a thing."}]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "labels.db") as store:
        yield store


def import_labels(store, file, annotator, time, hints=None):
    return export_import.store_labels(store, file, export_import.read(file, hints), annotator, time, hints)


def rank(store, texts, ranks, **more):
    payload = {"prompt": ASKED, "completions": texts, "ranking": ranks, "annotator": "ann", "id": "", "meta": {}}
    return store.append("ranking", {**payload, "sources": [{"model": "m"}], **more}, 1.0)


def test_turns_that_are_context_stay_so_through_a_store(tmp_path):
    request, reply = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No.", "weight": 0}
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"messages": [request, reply, request, {**reply, "weight": 1}]}) + "\n"
    )
    with Store(tmp_path / "labels.db") as store:
        assert import_labels(store, tmp_path / "a.jsonl", "ann", 0.0)["new"] == 1
        export_import.export(store, tmp_path / "out")
    (row,) = read_demonstrations(tmp_path / "out" / "demonstrations.jsonl").rows
    assert [message.trained for message in row.messages] == [True, False, True, True]


def test_pairs_keep_a_margin_and_choose_no_empty_answer(store, tmp_path):
    rank(store, ["x", "y"], [2, 1], margin=0.5)
    rank(store, ["x", "", "y"], [2, 1, 3])
    assert export_import.export(store, tmp_path) == {"rankings": 2, "pairs": 2}
    pairs = read_rankings(tmp_path / "pairs.jsonl")
    assert [(row.completions, row.margin) for row in pairs.rows] == [(("y", "x"), 0.5), (("x", "y"), None)]
    rankings = read_rankings(tmp_path / "rankings.jsonl").rows
    assert [(row.completions, row.margin) for row in rankings] == [(("x", "y"), 0.5), (("x", "", "y"), None)]
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
    assert export_import.export(store, out) == {"rankings": 2, "pairs": 3, "demonstrations": 1}

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
        export_import.export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_model_that_gave_an_answer_is_in_the_lineage(store, tmp_path):
    rank(store, ["x", "y"], [2, 1], sources=[{"model": "m"}, {"model": "n"}], other_sources=[[{"model": "o"}], []])
    export_import.export(store, tmp_path / "out")
    known = json.loads((tmp_path / "out" / "lineage.json").read_text())["answers_by"]
    assert known == [{"model": "m"}, {"model": "n"}, {"model": "o"}]


def test_an_export_comes_back_into_another_store(store, tmp_path):
    rank(store, ["a", "b", "c"], [2, 1, 3])
    export_import.export(store, tmp_path / "out")
    with Store(tmp_path / "other.db") as other:
        outcome = import_labels(other, tmp_path / "out" / "rankings.jsonl", None, 5.0)
        assert outcome == {"labels": 1, "new": 1, "unusable": 0}
        assert import_labels(other, tmp_path / "out" / "rankings.jsonl", None, 6.0)["new"] == 0
        (one,) = other.rankings()
    assert (one.completions, one.ranks, one.annotator) == (("a", "b", "c"), (2.0, 1.0, 3.0), "ann")
    assert one.meta["imported"] == "rankings.jsonl"


def file_of(tmp_path, name, content):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / name


def test_hh_rlhf_is_read(store, tmp_path):
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go away."}
    file = file_of(tmp_path, "hh.jsonl", json.dumps(row) + "\n")
    assert import_labels(store, file, "anthropic", 1.0)["new"] == 1
    (one,) = store.rankings()
    assert one == Ranking((Message("user", "Hi"),), ("Hello.", "Go away."), (1.0, 2.0), one.id, "anthropic", one.meta)


def test_label_studio_is_read(store, tmp_path):
    items = [{"id": "1", "title": "first"}, {"id": "2", "title": "second"}, {"id": "3", "title": "third"}]
    pairwise = {"type": "pairwise", "from_name": "pw", "to_name": "answer1,answer2", "value": {"selected": "right"}}
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
    rows[2]["annotations"][0]["result"].append({"type": "brush"})
    file = file_of(tmp_path, "studio.json", rows)
    assert import_labels(store, file, None, 1.0) == {"labels": 4, "new": 4, "unusable": 1}
    first, second, third = store.rankings()
    assert (first.prompt[0].content, first.completions, first.ranks) == (
        "Which?",
        ("left one", "right one"),
        (2.0, 1.0),
    )
    assert [one.annotator for one in (first, second, third)] == ["3", "bo@x.org", "3"]
    assert (third.completions, third.ranks) == (("second", "third", "first"), (1.0, 2.0, 3.0))
    assert store.demonstrations()[0].messages[-1].content == "An answer."


def test_argilla_is_read(store, tmp_path):
    fields = {"prompt": "Which?", "response1": "one", "response2": "two"}
    rows = [
        {"id": "a", "fields": fields, "responses": {"best": [{"value": "response2", "user_id": "u1"}]}},
        {"id": "b", "fields": fields, "responses": {"best": [{"value": "neither", "user_id": "u1"}]}},
        {"id": "d", "fields": {"prompt": "Write"}, "responses": {"answer": [{"value": "So.", "user_id": "u1"}]}},
    ]
    file = file_of(tmp_path, "argilla.json", rows)
    assert import_labels(store, file, None, 1.0) == {"labels": 2, "new": 2, "unusable": 1}
    (one,) = store.rankings()
    assert (one.completions, one.ranks, one.annotator) == (("one", "two"), (2.0, 1.0), "u1")
    assert store.demonstrations()[0].messages[0].content == "Write"


@pytest.mark.parametrize(
    "content", ["", "{", "not json\n", '[{"data": {}, "annotations": []}]', '{"text": "only text"}\n']
)
def test_a_file_without_labels_is_refused(store, tmp_path, content):
    with pytest.raises(InputError):
        import_labels(store, file_of(tmp_path, "odd.json", content), None, 1.0)
    with pytest.raises(InputError, match="no such file"):
        import_labels(store, tmp_path / "none.json", None, 1.0)
    assert store.events() == []


def test_marks_and_line_separators_inside_texts_are_no_ends_of_lines(store, tmp_path):
    fields = {"prompt": "Which\u2028colour\x85?", "response-1": "Red.\u2029", "response-2": "Blue."}
    rows = [
        {
            "id": number,
            "fields": fields,
            "responses": {"rank": [{"value": ["response-2", "response-1"], "user_id": by}]},
        }
        for number, by in enumerate("ab")
    ]
    lines = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for name, text in (("a.jsonl", lines), ("a.json", json.dumps(rows, ensure_ascii=False, indent=1))):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        outcome = export_import.read(tmp_path / name)
        assert [one.annotator for one in outcome.rankings] == ["a", "b"] and outcome.rejected == []
        assert outcome.rankings[0].prompt[0].content == fields["prompt"]


def test_a_question_that_an_export_leaves_open_stops_it_and_is_answered_by_a_hint(store, tmp_path):
    data = {"answer2": "Blue.", "answer1": "Red.", "prompt": "Which?"}
    result = {"type": "pairwise", "from_name": "pw", "to_name": "txt-1,txt-2", "value": {"selected": "left"}}
    file = file_of(tmp_path, "studio.json", [{"id": 1, "data": data, "annotations": [{"result": [result]}]}])
    with pytest.raises(InputError, match=r"studio.json: row 1 \(line 1\): which fields do the tags.*--left-field"):
        import_labels(store, file, None, 1.0)
    assert store.events() == []
    hints = Hints(left_field="answer1", right_field="answer2")
    assert import_labels(store, file, None, 1.0, hints)["new"] == 1
    assert import_labels(store, file, None, 1.0, hints)["new"] == 0
    (one,) = store.rankings()
    assert (one.completions, one.ranks) == (("Red.", "Blue."), (1.0, 2.0))
    with pytest.raises(InputError, match="imported before, with other options"):
        import_labels(store, file, None, 1.0, Hints(left_field="answer2", right_field="answer1"))


def test_what_is_kept_and_what_is_not_is_told(store, tmp_path):
    row = {"model_a": "x", "model_b": "y", "winner": "model_a", "prompt": "Hi", "response_a": "a", "response_b": "b"}
    rows = [{**row, "language": "English", "score": math.nan}, {**row, "winner": None}, {**row, "winner": "z"}, 7]
    file = file_of(tmp_path, "arena.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    outcome = export_import.read(file)
    assert outcome.plan(file) == [
        "arena.jsonl (comparisons of two models): 1 ranking, 0 demonstrations",
        "stored with them: language, models",
        "1 could not be used: no column 'winner', or winner_model_a, winner_model_b and winner_tie (first: line 2)",
        "1 could not be used: the winner is 'z', not model_a, model_b, tie, tie (bothbad), nor 'x' or 'y'"
        " (first: line 3)",
        "1 could not be used: it is a number, and not as other rows are (comparisons of two models) (first: line 4)",
    ]
    assert export_import.store_labels(store, file, outcome, "ann", 1.0) == {"labels": 1, "new": 1, "unusable": 3}
    assert store.rankings()[0].annotator == "ann" and store.rankings()[0].meta["models"] == ["x", "y"]
    argilla = {"fields": {"prompt": "x"}, "responses": {"a": [{"value": "y", "user_id": "p"}]}, "vectors": {"v": [1]}}
    file = file_of(tmp_path, "argilla.json", [argilla])
    assert export_import.read(file).plan(file)[1:] == ["stored with them: annotator, question", "not stored: vectors"]


def test_parquet_with_values_that_json_has_not(store, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {"model_a": "x", "model_b": "y", "winner": "model_a", "prompt": "Hi", "response_a": "a", "response_b": "b"}
    about = {"time": datetime.datetime(2026, 1, 2), "raw": b"\xff", "weight": math.nan}
    parquet.write_table(pyarrow.Table.from_pylist([{**row, **about}, {**row, "winner": "z"}]), tmp_path / "a.parquet")
    outcome = export_import.read(tmp_path / "a.parquet")
    assert "first: row 2" in outcome.plan(tmp_path / "a.parquet")[-1]
    assert import_labels(store, tmp_path / "a.parquet", None, 1.0)["new"] == 1
    assert store.rankings()[0].meta["time"] == "2026-01-02 00:00:00" and "weight" not in store.rankings()[0].meta


def test_the_table_of_a_competition(store, tmp_path):
    """As Kaggle has it: quoted JSON lists, winners in three columns."""
    names = "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie,note"
    first = r'7,x,y,"[""Hi"",""And?""]","[""a"",""b,\n1""]","[""a"",""c""]",0,1,0,' + '"two\nlines"'
    text = f'{names}\n{first}\n8,x,y,"[""Hi""]","[""a""]","[""b""]",1,1,0,\n'
    file = file_of(tmp_path, "train.csv", text)
    assert import_labels(store, file, "crowd", 1.0) == {"labels": 1, "new": 1, "unusable": 1}
    (ranking,) = store.rankings()
    assert (ranking.completions, ranking.ranks, ranking.id) == (("b,\n1", "c"), (2.0, 1.0), "7")
    assert export_import.read(file).plan(file)[-1].endswith("(first: line 4)")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'{"chosen": "a b", "rejected": "a c"}\n{"chosen": }\n', "line 2 is not JSON"),
        (b'{"chosen": "a b", "rejected": "a c"}\n{"chosen": "Caf\xe9"}\n', "line 2 is not UTF-8 (byte 16 is 0xE9)"),
        (b'{"chosen": "a b"}\n{"chosen": 3, "rejected": "a c"}\n', "line 2: "),
        (
            b'[{"data": {}, "annotations": []},\n\n{"data": {}, "annotations": [7]}]',
            "row 2 (line 3): an anno",
        ),
        (b'{"fields": "x", "responses": "y"}', "line 1: fields is text, not an object"),
    ],
)
def test_a_fault_has_its_own_line_and_plain_words(store, tmp_path, content, where):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError) as error:
        import_labels(store, tmp_path / "a.jsonl", None, 1.0)
    assert where in str(error.value)


ITEMS = [{"id": "1", "title": "one"}, {"id": "2", "body": "two"}]
STUDIO = {
    "id": 7,
    "data": {"prompt": "Which?", "a": "Red.", "b": "Blue.", "items": ITEMS},
    "annotations": [
        {
            "completed_by": {"id": 3, "email": "bo@x.org"},
            "result": [
                {"type": "pairwise", "from_name": "pw", "to_name": "a,b", "value": {"selected": "left"}},
                {"type": "ranker", "from_name": "r", "to_name": "items", "value": {"ranker": {"r": ["2", "1"]}}},
                {"type": "textarea", "from_name": "t", "to_name": "a", "value": {"text": ["So."]}},
                {"type": "choices", "from_name": "c", "to_name": "a", "value": {"choices": ["yes"]}},
            ],
        }
    ],
}
SAID = {"value": ["b", "a"], "user_id": "p1", "status": "submitted"}
FIELDS = {"prompt": "Which?", "a": "Red.", "b": "Blue."}
REPLY = {"message_id": "m2", "text": "Yes.", "role": "assistant", "rank": 0, "replies": []}
ROOT = {
    "message_id": "m1",
    "text": "Why?",
    "role": "prompter",
    "rank": None,
    "replies": [REPLY, {**REPLY, "text": "No.", "rank": 1}],
}
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}]
OTHER = {"role": "assistant", "content": "b"}
ROWS = {
    "Label Studio": STUDIO,
    "JSON-MIN": {**FIELDS, "pw": [{"ranker": {"x": ["2", "1"]}}], "items": ITEMS, "annotation_id": 1, "lead_time": 2.5},
    "Argilla": {"id": "x", "fields": FIELDS, "responses": {"rank": [SAID]}, "metadata": {}},
    "Argilla 1": {"fields": FIELDS, "responses": [{"user_id": "p", "values": {"q": {"value": ["a", "b"]}}}]},
    "Hub 2": {**FIELDS, "q.responses": [["a", "b"]], "q.responses.users": ["p"], "q.responses.status": ["submitted"]},
    "Hub 1": {**FIELDS, "q": [{**SAID, "value": {"rank": [1, 2], "value": ["a", "b"]}}], "external_id": "e"},
    "trees": {"message_tree_id": "t", "prompt": ROOT},
    "messages": {"message_tree_id": "t", "parent_id": None, **{**ROOT, "replies": None}},
    "arena": {
        "model_a": "x",
        "model_b": "y",
        "winner": "tie",
        "conversation_a": TALK,
        "conversation_b": [*TALK[:1], OTHER],
    },
    "LMSYS": {
        **{"model_a": "x", "model_b": "y", "prompt": '["Hi"]', "response_a": '["a"]', "response_b": '["b"]'},
        **{"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
    },
    "AlpacaEval": {
        **{"instruction": "Hi", "output_1": "a", "output_2": "b", "generator_1": "x", "generator_2": "y"},
        **{"preference": 1.2, "annotator": "judge"},
    },
    "ranking": {"prompt": TALK[:1], "completions": ["a", "b"], "ranking": [1, 2], "models": ["x", "y"]},
    "pair": {"prompt": "Hi", "chosen": "a", "rejected": [OTHER], "margin": 1.0, "id": 3},
    "graded": {"context": "Hi", "completions": [{"completion": "a", "rank": 0}, {"completion": "b", "rank": 1}]},
    "demonstration": {"messages": TALK, "id": "x"},
    "alpaca": {"instruction": "Hi", "input": "x", "output": "a", "history": [["q", "a"]]},
}
ODD = [None, True, 0, 1, -1, 2.5, math.nan, math.inf, 10**400, "", " ", "a", "model_a", "left", "\ud800", "x\u2028"]
KEYS = ["value", "rank", "text", "role", "content", "id", "selected"]
JSON = st.recursive(
    st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def replaced(value, path, other):
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], other)
    return copy


@pytest.mark.parametrize("form", ROWS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_at_any_place_gives_labels_or_an_error_with_its_line(tmp_path, form, data):
    """In the second of three rows: the others are read, or the error names the second; and what is read can be kept."""
    row = ROWS[form]
    path, value = data.draw(st.sampled_from(list(places(row)))), data.draw(JSON)
    rows = [row, replaced(row, path, value), row]
    if form == "messages" and isinstance(rows[1], dict):
        rows = [row, {**rows[1], "parent_id": "m1", "message_id": "m2"}, {**row, "parent_id": "m1", "message_id": "m3"}]
    file = file_of(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    try:
        outcome = export_import.read(file, Hints(buckets=("x", "r")))
        lines = outcome.plan(file)
    except InputError as error:
        assert form == "messages" or "line 2" in str(error), error
        return
    assert all(number == 2 for number, _ in outcome.rejected) or form == "messages"
    assert lines and len(outcome.rankings) + len(outcome.demonstrations) >= 2
    with Store(tmp_path / "labels.db") as stored:
        counts = export_import.store_labels(stored, file, outcome, None, 1.0, Hints(buckets=("x", "r")))
        assert counts["unusable"] == len(outcome.rejected)


@pytest.mark.parametrize("form", [form for form in ROWS if form not in ("messages", "demonstration", "alpaca")])
def test_every_form_is_read_as_it_is(tmp_path, form):
    file = file_of(tmp_path, "a.json", [ROWS[form]])
    outcome = export_import.read(file, Hints(buckets=("x", "r")))
    assert outcome.rankings and outcome.rejected == [] and outcome.rankings[0].completions
