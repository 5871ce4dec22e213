import pytest

from amenable.data.record import InvalidRow, Record
from amenable.data.types import Demonstration
from amenable.feedback.argilla import flat_labels, is_flat, is_record, record_labels
from amenable.feedback.hints import Hints, Unclear

FIELDS = {"response-2": "Blue.", "prompt": "Which?", "response-1": "Red."}


def read(row, hints=None, labels=record_labels):
    return list(labels(Record(row), "file:1", hints or Hints()))


def record(value, fields=FIELDS, **more):
    return {"id": "u1", "fields": fields, "responses": {"rank": [{"value": value, "user_id": "p1"}]}, **more}


@pytest.mark.parametrize(
    "value",
    [
        ["response-1", "response-2"],
        [{"value": "response-2", "rank": 2}, {"value": "response-1", "rank": 1}],
        {"value": ["response-1", "response-2"], "rank": [1, 2]},
    ],
)
def test_an_order_is_by_the_names_of_fields(value):
    (result,) = read(record(value, metadata={"batch": 3}))
    assert dict(zip(result.completions, result.ranks)) == {"Red.": 1.0, "Blue.": 2.0}
    assert (result.id, result.annotator, result.meta["metadata"]) == ("u1", "p1", {"batch": 3})
    assert result.meta["question"] == "rank" and result.meta["answers"][result.ranks.index(1.0)] == "response-1"


def test_ties_and_fields_without_a_rank():
    value = [{"value": name, "rank": rank} for name, rank in (("a", 1), ("b", 1), ("c", None), ("d", 3))]
    fields = {"prompt": "x", "a": "1", "b": "2", "c": "3", "d": "4"}
    (result,) = read(record(value, fields))
    assert (result.completions, result.ranks) == (("1", "2", "4"), (1.0, 1.0, 3.0))
    assert result.meta["fields"] == {"c": "3"}
    assert "1 ranked answers" in str(*read(record(value[2:], fields)))


def test_the_better_of_two_is_by_name():
    (result,) = read(record("response-1"))
    assert dict(zip(result.completions, result.ranks)) == {"Red.": 1.0, "Blue.": 2.0}
    odd = {"asked": "Which?", "completion-a": "Red.", "completion-b": "Blue."}
    with pytest.raises(Unclear, match="which field is the prompt: asked, completion-a"):
        read(record("completion-b", odd))
    (result,) = read(record("completion-b", odd), Hints(prompt_field="asked"))
    assert result.prompt[0].content == "Which?" and dict(zip(result.completions, result.ranks))["Blue."] == 1.0
    assert "which are not two" in str(*read(record("b", {"prompt": "x", "a": "1", "b": "2", "c": "3"})))


def test_who_gave_up_is_left_out_and_other_answers_are_kept_as_notes():
    row = {
        "fields": FIELDS,
        "external_id": "mine",
        "responses": [
            {"user_id": by, "status": status, "values": {"best": {"value": better}, **more}}
            for by, status, better, more in (
                ("p1", "submitted", "response-1", {"why": {"value": "true"}}),
                ("p2", "discarded", "response-2", {}),
                (None, "submitted", "response-2", {}),
            )
        ],
    }
    first, second = read(row)
    assert (first.annotator, first.meta["notes"], first.id) == ("p1", {"why": "true"}, "mine")
    assert second.annotator is None and "notes" not in second.meta


def test_a_written_answer_where_nothing_is_compared():
    (result,) = read(record("So.", {"text": "Write"}))
    assert isinstance(result, Demonstration) and [turn.content for turn in result.messages] == ["Write", "So."]
    assert "no order of fields" in str(*read(record("So.")))


HUB_2 = {
    "id": "r1", "_server_id": "x", "status": "completed", **FIELDS, "score": 0.5,
    "rank.responses": [["response-2", "response-1"], ["response-1", "response-2"], ["response-1", "response-2"]],
    "rank.responses.users": ["p1", "p2", "p3"],
    "rank.responses.status": ["submitted", "submitted", "draft"],
    "rank.suggestion": ["response-1", "response-2"], "rank.suggestion.agent": "m",
    "why.responses": ["clear"], "why.responses.users": ["p2"], "why.responses.status": ["submitted"],
}  # fmt: skip
HUB_1 = {
    **FIELDS, "external_id": None, "metadata": '{"batch": 3}',
    "rank": [
        {"user_id": "p1", "status": "submitted", "value": {"rank": [1, 2], "value": ["response-2", "response-1"]}},
        {"user_id": "p2", "status": "submitted", "value": {"rank": [2, 1], "value": ["response-2", "response-1"]}},
        {"user_id": "p3", "status": "discarded", "value": None},
    ],
    "rank-suggestion": None, "rank-suggestion-metadata": {"type": None, "score": None, "agent": None},
}  # fmt: skip


@pytest.mark.parametrize("row", [HUB_1, HUB_2])
def test_flat_rows_of_the_hub(row):
    assert is_flat(row) and not is_record(row)
    record = Record(row)
    result = list(flat_labels(record, "file:1", Hints()))
    assert [(dict(zip(one.completions, one.ranks))["Red."], one.annotator) for one in result] == [
        (2.0, "p1"),
        (1.0, "p2"),
    ]
    assert all(one.prompt[0].content == "Which?" for one in result)
    if row is HUB_2:
        assert result[1].meta["notes"] == {"why": "clear"} and result[0].id == "r1"
        assert [*filter(record.filled, record.rest())] == [
            "_server_id", "status", "score", "rank.suggestion", "rank.suggestion.agent",
        ]  # fmt: skip
    else:
        assert result[0].meta["metadata"] == '{"batch": 3}' and result[0].id == "file:1"


def test_columns_of_version_1_as_datasets_turns_them():
    """A list of objects may come back as an object of lists."""
    turned = {key: [entry[key] for entry in HUB_1["rank"]] for key in ("user_id", "status", "value")}
    assert read({**HUB_1, "rank": turned}, labels=flat_labels) == read(HUB_1, labels=flat_labels)


def test_people_that_are_not_named_are_nobody():
    row = {key: value for key, value in HUB_2.items() if not key.endswith((".users", ".status"))}
    assert [one.annotator for one in read(row, labels=flat_labels)] == [None] * 3


@pytest.mark.parametrize(
    "row",
    [
        {"fields": 3, "responses": {}},
        record(["response-1", "nowhere"]),
        record(7),
        {"fields": FIELDS, "responses": 7},
        {"fields": FIELDS, "responses": [7]},
        {"fields": FIELDS, "responses": {"rank": 7}},
        {"fields": FIELDS, "responses": {"rank": [7]}},
    ],
)
def test_what_is_no_label_says_why(row):
    (result,) = read(row)
    assert isinstance(result, InvalidRow) and str(result)
