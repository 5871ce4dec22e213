import pytest

from amenable.data.record import InvalidRow, Record, is_number, text_of, without_nulls, words_of


def test_null_is_absent_at_every_depth():
    row = {"a": None, "b": [{"c": None, "d": [None, {"e": None}]}, {"c": None}], "f": {"g": None}, "h": {}, "i": 0}
    assert without_nulls(row) == {"b": [{"d": [None, None]}, None], "h": {}, "i": 0}
    assert dict(Record(row)) == {"b": [{"d": [None, None]}, None], "h": {}, "i": 0}


def test_columns_that_are_read_are_used_and_others_named():
    record = Record({"id": 7, "b": [{"role": "user", "name": "x", "content": "hi"}], "c": 1, "d": " ", "e": None})
    assert "b" in record and record.used == set() and record.unused() == ["b", "c"]
    assert record["b"] and record.get("x") is None and record.used == {"b"}
    assert record.unused() == ["c", "b.name"] and record.rest() == {"c": 1, "d": " "}
    assert record.id("f:1") == "7" and Record({}).id("f:1") == "f:1"
    assert Record.of(record) is record and len(record) == 4


def test_unused_keys_inside_completions_are_named_too():
    record = Record({"completions": [{"rank": 0, "completion": [{"role": "assistant", "by": "x"}], "score": 1}]})
    assert record["completions"] and record.unused() == ["completions.by", "completions.score"]


def test_blank_values_are_not_filled():
    record = Record({"a": "", "b": " \n", "c": [], "d": 0, "e": False, "f": "x", "g": {}})
    assert [name for name in record if record.filled(name)] == ["d", "e", "f", "g"]
    assert not record.filled("nowhere")


@pytest.mark.parametrize(
    ("value", "says"), [(3, "a number"), (True, "true or false"), ([], "a list"), ({}, "an object")]
)
def test_a_value_that_must_be_text_is_named_by_its_type(value, says):
    with pytest.raises(InvalidRow, match=f"answer is {says}, not text"):
        text_of(value, "answer")
    with pytest.raises(InvalidRow, match="answer is empty"):
        words_of(" ", "answer")


def test_numbers_are_finite_and_no_booleans():
    assert [is_number(value) for value in (1, -0.5, True, float("nan"), float("inf"), "1", None)] == [True, True] + [
        False
    ] * 5
