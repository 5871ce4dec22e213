import json
from pathlib import Path

import pytest

from amenable.data import sources
from amenable.data.sources import (
    Rejected,
    read_demonstrations,
    read_prompts,
    read_rankings,
    read_texts,
)
from amenable.data.types import Message
from amenable.errors import InputError


def test_lines_files_and_reasons(tmp_path, jsonl):
    file = jsonl(
        tmp_path / "a.jsonl",
        b'\xef\xbb\xbf{"text": "one"}',
        b"",
        b'{"text": }',
        b'{"text": "\xff"}',
        [1],
        {"txt": "x"},
        b'{"text": "\\ud800"}',
        b'{"text": "a", "meta": ["\\udfff"]}',
        b"[" * 100_000,
        {"text": "two"},
    )
    loaded = read_texts(file)
    assert [(row.text, row.id) for row in loaded.rows] == [("one", "a.jsonl:1"), ("two", "a.jsonl:10")]
    assert [row.line for row in loaded.rejected] == [3, 4, 5, 6, 7, 8, 9]
    reasons = [row.reason for row in loaded.rejected]
    for reason, part in zip(
        reasons, ["not JSON: Expecting value (column 10)", "not UTF-8", "not an object", "no column 'text' among txt"]
    ):
        assert part in reason
    assert "surrogate" in reasons[4] and "surrogate" in reasons[5] and "not JSON" in reasons[6]
    assert loaded.rejected[0].file == str(file)
    first = f"{file}:3 not JSON: Expecting value (column 10)"
    assert loaded.report() == f"2 rows from 1 file, 7 rejected (first: {first})"


def test_a_clean_file_is_reported_in_few_words(tmp_path, jsonl):
    assert read_texts(jsonl(tmp_path / "a.jsonl", {"text": "x"})).report() == "1 rows from 1 file, 0 rejected"


def test_a_file_of_which_nothing_can_be_used_is_an_error(tmp_path, jsonl):
    bad = jsonl(tmp_path / "bad.jsonl", {"a": 1}, {"a": 2}, {"text": ""})
    with pytest.raises(
        InputError, match=r"bad\.jsonl: no text can be read \(line 1: .* among a; line 3: text is empty"
    ):
        read_texts(bad)
    jsonl(tmp_path / "good.jsonl", {"text": "x"})
    with pytest.raises(InputError, match=r"bad\.jsonl"):
        read_texts(tmp_path)
    with pytest.raises(InputError, match="it is empty"):
        read_texts(jsonl(tmp_path / "empty.jsonl"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_lines_may_end_either_way_and_gzip_is_transparent(tmp_path, name, jsonl):
    file = jsonl(tmp_path / name, {"text": "one"}, {"text": "two"}, line_end="\r\n")
    assert [row.text for row in read_texts(file).rows] == ["one", "two"]


@pytest.mark.parametrize("whole", [[{"text": "x"}, {"text": "y"}], {"data": [{"text": "x"}, {"text": "y"}]}])
def test_json_with_all_rows_at_once(tmp_path, whole):
    (tmp_path / "a.json").write_text(json.dumps(whole, indent=1))
    assert [row.id for row in read_texts(tmp_path / "a.json").rows] == ["a.json:1", "a.json:2"]


def test_json_of_a_single_row_or_of_none(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}))
    assert len(read_demonstrations(file).rows) == 1
    file.write_text("3")
    with pytest.raises(InputError, match="neither a list of rows"):
        read_texts(file)


def test_a_limit_stops_reading(tmp_path, jsonl):
    jsonl(tmp_path / "a.jsonl", {"text": "1"}, {"text": ""}, {"text": "2"}, b"never read")
    (tmp_path / "b.jsonl").write_text("never opened")
    loaded = read_texts(tmp_path, limit=2)
    assert [row.text for row in loaded.rows] == ["1", "2"]
    assert loaded.rejected == [Rejected(str(tmp_path / "a.jsonl"), 2, "text is empty")]
    assert loaded.files == (str(tmp_path / "a.jsonl"),)
    with pytest.raises(InputError, match="limit is 0"):
        read_texts(tmp_path, limit=0)


def test_every_reader_reads_its_columns(tmp_path, jsonl):
    pair = jsonl(
        tmp_path / "pair.jsonl", {"prompt": "Who?", "chosen": "Tolan.", "rejected": "Nobody.", "annotator": "x"}
    )
    assert read_rankings(pair).rows[0].annotator == "x"
    assert read_prompts(pair).rows[0].messages == (Message("user", "Who?"),)
    with pytest.raises(InputError, match=r"no demonstration can be read .*a preference"):
        read_demonstrations(pair)
    unpaired = {"prompt": "Who?", "completion": "Tolan.", "label": True}
    file = jsonl(tmp_path / "unpaired.jsonl", unpaired, {**unpaired, "label": False})
    assert len(read_prompts(file).rows) == 2
    loaded = read_demonstrations(file)
    assert len(loaded.rows) == 1 and not loaded.rejected and loaded.left_out[0].reason == "labelled as unwanted"


def test_an_id_that_stands_for_two_prompts_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"id": 1, "prompt": "a?"}, {"id": 1, "prompt": "a?"}, {"id": 1, "prompt": "b?"}, {"prompt": "b?"}]
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = sources.read_prompts(tmp_path)
    assert [(row.file[-7:], row.line) for row in loaded.rejected] == [("a.jsonl", 3), ("b.jsonl", 3)]
    assert {row.reason for row in loaded.rejected} == {"the id '1' belongs to another prompt (a.jsonl:1)"}
    assert len(loaded.rows) == 6


def test_several_rankings_of_a_prompt_share_its_id(tmp_path: Path) -> None:
    row = {"id": "p", "prompt": "a?", "completions": ["x", "y"], "ranking": [1, 2]}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({**row, "annotator": name}) + "\n" for name in "ab"))
    assert not sources.read_rankings(tmp_path / "a.jsonl").rejected


def test_every_column_is_used_or_named_in_a_line_for_each_file(tmp_path: Path, jsonl) -> None:
    pair = {"question": "Who?", "chosen": "a", "rejected": "b", "source": "x"}
    file = jsonl(tmp_path / "pairs.jsonl", pair, {**pair, "question": None, "prompt": "Who?", "note": " "}, {"txt": 1})
    assert sources.read_rankings(file).plan() == [
        "pairs.jsonl: 2 rankings; columns question, chosen, rejected, prompt used; not used: source"
    ]
    dialogue = [{"role": "user", "content": "Who?", "name": "kim"}]
    file = jsonl(tmp_path / "prompts.jsonl", {"prompt": "Who?", "id": 3}, {"messages": dialogue, "prompt": 7})
    assert sources.read_prompts(file).plan() == [
        "prompts.jsonl: 2 prompts; columns prompt, id, messages used; not used: prompt (in 1 of 2 rows), messages.name"
    ]


def test_columns_that_a_reward_reads_are_named_as_used_by_it(tmp_path: Path, jsonl) -> None:
    dialogue = [{"role": "user", "content": "Who?", "name": "kim"}]
    file = jsonl(tmp_path / "prompts.jsonl", {"messages": dialogue, "answer": "Kim", "level": 2, "empty": " "})
    rest = "prompts.jsonl: 1 prompt; column messages used; "
    loaded = sources.read_prompts(file)
    assert loaded.plan({"answer", "id"}.__contains__) == [
        rest + "answer used by the reward; not used: level, messages.name"
    ]
    assert loaded.plan(lambda name: True) == [rest + "answer, level used by the reward; not used: messages.name"]


def test_files_of_a_folder_with_the_same_columns_share_a_line(tmp_path: Path, jsonl) -> None:
    for name in ("a", "b", "c"):
        jsonl(tmp_path / f"{name}.jsonl", *[{"text": "Once", **({"title": "t"} if name == "c" else {})}] * 2)
    assert sources.read_texts(tmp_path).plan() == [
        f"2 files in {tmp_path}: 4 texts; column text used",
        "c.jsonl: 2 texts; column text used; not used: title",
    ]
