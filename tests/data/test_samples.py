import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.samples import Sample, read_samples, sample_row
from amenable.data.types import Message, Prompt
from amenable.errors import InputError

ROW = {"id": "a", "prompt": [{"role": "user", "content": "Hi"}], "completions": ["x", "y"], "model": "m"}
SAMPLE_FIELDS = ((Message("user", "Hi"),), ("x", "y"), (True, True))
SAMPLE = Sample("a", (Message("user", "Hi"),), ("x", "y"), (True, True), "m")


def write(tmp_path, *rows):
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_row_that_is_written_is_read_again(tmp_path):
    row = sample_row(Prompt((Message("user", "Hi"),), "a", {"source": "s"}), ["x", "y"], [True, True], "m")
    assert row == {**ROW, "ended": [True, True], "source": "s"}
    ((_, sample),) = read_samples(write(tmp_path, row))
    assert (sample.prompt, sample.completions, sample.ended, sample.meta) == (*SAMPLE_FIELDS, {"source": "s"})


def test_absent_columns_have_defaults(tmp_path):
    bare = {"prompt": "Hi", "completions": ["x"], "ended": None, "model": None}
    samples = list(read_samples(write(tmp_path, ROW, {**ROW, "ended": [True, False], "kind": "open"}, bare)))
    assert samples[0] == (1, SAMPLE)
    assert (samples[1][1].ended, samples[1][1].kind) == ((True, False), "open")
    assert samples[2] == (3, Sample("3", (Message("user", "Hi"),), ("x",), (True,)))


def test_a_mark_at_the_start_is_no_part_of_the_row_and_latin1_is_refused(tmp_path):
    file = tmp_path / "samples.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n")
    assert [row for _, row in read_samples(file)] == [SAMPLE]
    file.write_bytes(json.dumps(ROW).encode() + b"\n" + json.dumps(ROW).replace("x", "Caf\xe9").encode("latin-1"))
    with pytest.raises(InputError, match=r"samples.jsonl: line 2 is not UTF-8 \(byte 80 is 0xE9\).*iconv"):
        list(read_samples(file))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (7, "it is a number, not an object"),
        ("text", "it is text, not an object"),
        ({**ROW, "prompt": None}, "no column 'prompt' among id, completions, model"),
        ({"prompt": "Hi"}, "no column 'completions'"),
        ({**ROW, "prompt": 3}, "prompt is a number, not a list of messages"),
        ({**ROW, "prompt": []}, "the conversation is empty"),
        ({**ROW, "prompt": ["Hi"]}, "message 1 of prompt is text, not an object"),
        ({**ROW, "prompt": [{"role": "user"}]}, "the content of message 1 of prompt is null, not text"),
        ({**ROW, "completions": "x"}, "completions is text, not a list"),
        ({**ROW, "completions": ["x", 1]}, "completion 2 is a number, not text"),
        ({**ROW, "ended": [True]}, "ended is not a list of 2"),
        ({**ROW, "ended": [1, 0]}, "ended is not a list of 2"),
        ({**ROW, "model": ["m"]}, "model is a list, not text"),
    ],
)
def test_an_invalid_row_is_named_by_its_line(tmp_path, row, why):
    with pytest.raises(InputError, match="line 2 is no row of samples") as error:
        list(read_samples(write(tmp_path, ROW, row)))
    assert why in str(error.value) and "amenable sample" in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*ROW, "ended", "kind"]), JSON)
def test_any_value_in_any_column_gives_a_row_or_an_error_with_its_line(tmp_path_factory, column, value):
    file = write(tmp_path_factory.mktemp("samples"), ROW, {**ROW, column: value})
    try:
        rows = list(read_samples(file))
    except InputError as error:
        assert "line 2" in str(error)
    else:
        assert len(rows) == 2 and all(isinstance(text, str) for text in rows[1][1].completions)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"no such file.*amenable sample"):
        list(read_samples(tmp_path / "none.jsonl"))
