import pytest

from amenable.data.column_mapping import ColumnMapping
from amenable.data.columns import ranking
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
        read = ranking(record, "f:1")
    except InvalidRow as reason:
        assert any(part in str(reason) for part in ("no columns 'chosen'", "stepwise")), reason
        return
    assert [text for _, text in sorted(zip(read.ranks, read.completions))] == [GOOD, BAD]
    names = {source.split(".")[0] for source in (*record.used_sources(), *record.unused())}
    assert names == {name for name, value in record.row.items() if value not in ("", [], None)} - {"id"}
