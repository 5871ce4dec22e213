import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.files import (
    MAX_DEPTH,
    BadRow,
    depth,
    has_lone_surrogate,
    iter_csv_rows,
    iter_json_rows,
    iter_lines,
    read_json_rows,
    read_text,
    row_location,
)
from amenable.errors import InputError

# characters that other readers take for the end of a line, and letters and line feeds
TEXTS = st.text(st.sampled_from("aé\u2028\u2029\x85\x0b\x0c\x1c\r\n\ufeff🦆"), max_size=8)
ROWS = st.lists(st.dictionaries(st.sampled_from("ab"), TEXTS, min_size=1), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(
    ROWS,
    st.sampled_from(["lines", "list", "indented", "data"]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([".json", ".json.gz", ".jsonl"]),
)
def test_every_way_to_write_rows_is_read_alike(tmp_path_factory, rows, form, mark, end, suffix):
    def dumped(value, indent=None):
        return json.dumps(value, ensure_ascii=False, indent=indent)

    text = {
        "lines": "".join(dumped(row) + "\n" for row in rows),
        "list": dumped(rows),
        "indented": dumped(rows, indent=2) + "\n",
        "data": dumped({"data": rows}, indent=1) if suffix != ".jsonl" else dumped(rows),
    }[form]
    data = (b"\xef\xbb\xbf" if mark else b"") + text.replace("\n", end).encode()
    file = tmp_path_factory.mktemp("rows") / f"rows{suffix}"
    file.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert [row for _, row in iter_json_rows(file)] == rows == [row for _, row in read_json_rows(file)]
    assert [number for number, _ in iter_json_rows(file)] == list(range(1, len(rows) + 1))


def test_the_text_of_a_file_is_without_its_mark_and_carriage_returns(tmp_path):
    (tmp_path / "a.md").write_bytes(b"\xef\xbb\xbf# One\r\n\xe2\x80\xa8two\x0c\n")
    assert read_text(tmp_path / "a.md") == "# One\n\u2028two\x0c"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_bytes_that_are_not_utf8_are_named_by_line_and_byte(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b'{"text": "fine"}\n\n{"text": "Caf\xe9"}\n')
    with pytest.raises(InputError, match=r"line 3 is not UTF-8 \(byte 14 is 0xE9\).*iconv -f LATIN1 -t UTF-8"):
        read_json_rows(file)
    with pytest.raises(InputError, match=r"line 3, byte 14 is 0xE9\).*iconv -f LATIN1 -t UTF-8 'a"):
        read_text(file)
    assert [type(row) for _, row in iter_json_rows(file)] == [dict, BadRow]
    file.write_bytes(b'[\n{"text": "Caf\xe9"}]\n')
    with pytest.raises(InputError, match=r"not UTF-8 \(line 2, byte 14 is 0xE9\)"):
        read_json_rows(file)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be"])
def test_utf16_is_named(tmp_path, encoding):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "a.jsonl").write_bytes(mark + '{"text": "x"}\n'.encode(encoding))
    with pytest.raises(InputError, match=r"it is UTF-(16|32), not UTF-8; convert it.*iconv -f UTF"):
        list(iter_lines(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": }\n', "line 2 is not JSON: Expecting value (column 7)"),
        ("a.json", '{"a": 1}\n{"a": }\n', "line 2 is not JSON: Expecting value (column 7)"),
        ("a.json", '[{"a": 1},\n {"a": }]\n', "not JSON: Expecting value (line 2, column 8)"),
        ("a.jsonl", '[{"a": 1},\n {"a": 1}\n', "not JSON: Expecting ',' delimiter (line 2, column 10)"),
        ("a.json", '{\n"a": 1,\n"b" 2}', "not JSON: Expecting ':' delimiter (line 3, column 5)"),
        ("a.json", '{"a": 1}\n\n{"a": "\\ud800"}', "line 3 holds half of a character"),
        ("a.json", '[{"a": 1},\n\n\n{"a": ["\\ud800"]}]', "row 2 (line 4) holds half of a character"),
        ("a.json", '[\n[1],\n[2],\n{"\\udc00": 1}]', "row 3 (line 4) holds half of a character"),
        ("a.jsonl", "7\n" + "[" * 300 + "]" * 300, "line 2 is nested"),
        ("a.json", "[1,\n" + "[" * 300 + "]" * 300 + "]", "row 2 (line 2) is nested"),
        ("a.json", "[" * 100_000, "not JSON that can be read"),
        ("a.jsonl", "{}\n" + "1" * 5000, "line 2 is not JSON that can be read"),
        ("a.json", "3", "neither a list of rows nor a row"),
    ],
)
def test_an_error_has_its_location(tmp_path, name, content, where):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        read_json_rows(tmp_path / name, "mend it")
    assert where in str(error.value)


def test_csv(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"two, with a\r\nbreak and ""quotes"""\r\n\r\n3,\xe2\x80\xa8\r\n')
    assert list(iter_csv_rows(file)) == [
        (2, {"id": "1", "text": 'two, with a\nbreak and "quotes"'}), (5, {"id": "3", "text": "\u2028"}),
    ]  # fmt: skip
    assert row_location(file, 5) == "line 5"
    file.write_text("id,text\n1,2\n1,2,3\n")
    with pytest.raises(InputError, match="line 3 has 3 values, and there are 2 columns"):
        list(iter_csv_rows(file))
    file.write_text(f"text\n{'x' * 200_000}\n")
    assert len(next(iter_csv_rows(file))[1]["text"]) == 200_000
    file.write_text("")
    assert list(iter_csv_rows(file)) == []
    file.write_text('a\n"never closed\nx')
    with pytest.raises(InputError, match="line 2 is not CSV: unexpected end of data"):
        list(iter_csv_rows(file))


def test_locations_of_rows(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"a": 1, "b": [1, 2]}, [1], "x"], indent=1))
    assert [row_location(file, number) for number in (1, 2, 3)] == [
        "row 1 (line 2)",
        "row 2 (line 9)",
        "row 3 (line 12)",
    ]
    file.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert row_location(file, 3) == "line 3"
    file.write_text('{"data": [1,\n2]}')
    assert row_location(file, 2) == "row 2 (line 2)"
    assert row_location(tmp_path / "a.parquet", 2) == "row 2"


def test_depth_and_half_characters():
    assert [depth(value) for value in (1, [], {"a": [1]}, [[[]], {}])] == [0, 1, 2, 3]
    value: list = []
    for _ in range(50 * MAX_DEPTH):
        value = [value]
    assert depth(value) == 50 * MAX_DEPTH + 1 and not has_lone_surrogate(value)
    assert has_lone_surrogate({"a": [{"b": ["fine", "\udfff"]}]}) and not has_lone_surrogate(["🦆", 1, None])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_text(tmp_path / "none.md")
