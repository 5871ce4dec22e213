from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.data import columns
from amenable.data.column_mapping import ColumnMapping
from amenable.data.format_examples import BAD, EXAMPLES, GOOD, FormatExample
from amenable.data.published_formats import join_rows
from amenable.data.record import InvalidRow, Record


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_preference_ranks_the_good_completion_first(example: FormatExample) -> None:
    mapping = ColumnMapping({})
    rows = list(join_rows(((i, mapping.record(row)) for i, row in enumerate(example.rows)), mapping))
    record = rows[0][1]
    assert isinstance(record, Record)
    try:
        read = columns.ranking(record, "f:1")
    except InvalidRow as reason:
        assert any(
            part in str(reason) for part in ("no columns 'chosen'", "stepwise", "'amenable kto' trains on these")
        ), reason
        return
    assert [text for _, text in sorted(zip(read.ranks, read.completions))] == [GOOD, BAD]
    names = {source.split(".")[0] for source in (*record.used_sources(), *record.unused())}
    assert names == {name for name, value in record.row.items() if value not in ("", [], None)} - {"id"}


ROWS = [(row, name) for example in EXAMPLES for row in example.rows for name in row]
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-4, 4), st.floats(), st.text("ab [{", max_size=4)),
    lambda parts: st.one_of(
        st.lists(parts, max_size=3),
        st.dictionaries(
            st.sampled_from(["role", "content", "response", "text", "axes", "rank", "answer", "full_text", "messages"]),
            parts,
        ),
    ),
    max_leaves=6,
)


@given(st.sampled_from(ROWS), VALUES, st.sampled_from([columns.ranking, columns.demonstration, columns.prompt]))
def test_any_value_in_any_column_is_read_or_has_a_reason(place, value, reader) -> None:
    row, name = place
    with suppress(InvalidRow):
        reader({**row, name: value}, "f:1")


@pytest.mark.parametrize(
    ("format", "change"),
    [("HelpSteer, HelpSteer2", {"response": [None]}), ("LMSYS, Kaggle", {"response_a": "", "response_b": ""})],
)
def test_lists_and_blanks_where_texts_should_be(format: str, change: dict) -> None:
    row = next(each.rows[0] for each in EXAMPLES if each.name == format)
    with pytest.raises(InvalidRow):
        columns.ranking({**row, **change}, "f:1")


@given(st.sampled_from(ROWS), VALUES)
def test_rows_of_any_values_are_joined_or_left_alone(place, value) -> None:
    row, name = place
    mapping = ColumnMapping({})
    rows = list(join_rows(iter([(1, mapping.record({**row, name: value})), (2, mapping.record(row))]), mapping))
    assert [number for number, _ in rows] in ([1], [1, 2])
