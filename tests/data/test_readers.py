import gzip
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from amenable.data import readers, sources
from amenable.data.sources import read_demonstrations, read_texts
from amenable.errors import InputError


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}], "n": i}
        for i in range(3)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    loaded = read_demonstrations(tmp_path / "a.parquet")
    assert [row.messages[0].content for row in loaded.rows] == ["q0", "q1", "q2"]
    assert loaded.rows[2].id == "a.parquet:3" and loaded.rows[2].meta == {"n": 2}
    (tmp_path / "b.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"b\.parquet: no parquet file, or damaged: "):
        read_demonstrations(tmp_path / "b.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"pip install 'amenable\[parquet\]'"):
        read_texts(tmp_path / "a.parquet")


def test_text_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"One\r\n\r\nstill one.\n")
    assert [row.text for row in read_texts(tmp_path / "a.txt").rows] == ["One\n\nstill one."]
    (tmp_path / "b.txt").write_text("One\n<|endoftext|>\n\nTwo\n<|endoftext|>\n")
    rows = read_texts(tmp_path / "b.txt").rows
    assert [(row.text, row.id) for row in rows] == [("One", "b.txt:1"), ("\nTwo", "b.txt:3")]
    (tmp_path / "c.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(InputError, match=r"not UTF-8 \(line 2, byte 1 is 0xFF\)"):
        read_texts(tmp_path / "c.txt")


def test_a_long_text_file_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    paragraphs = [f"Paragraph {i}. " + "word " * 900 for i in range(12)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    texts = [row.text for row in read_texts(tmp_path / "book.txt").rows]
    assert "\n\n".join(texts) == "\n\n".join(paragraphs)
    assert [len(text) > readers.PAGE for text in texts] == [True, True, False]


def test_damaged_gzip_is_an_error_not_half_a_file(tmp_path):
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(5000)))
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.jsonl\.gz: the file is cut short"):
        read_texts(tmp_path / "cut.jsonl.gz")
    (tmp_path / "not.jsonl.gz").write_bytes(b'{"text": "plain"}\n')
    with pytest.raises(InputError, match=r"not\.jsonl\.gz: damaged, or no gzip"):
        read_texts(tmp_path / "not.jsonl.gz")


def test_folders_are_read_in_order_and_only_for_data(tmp_path, jsonl):
    jsonl(tmp_path / "b" / "x.jsonl.gz", {"text": "second"})
    jsonl(tmp_path / "a" / "x.jsonl", {"text": "first"})
    jsonl(tmp_path / ".cache" / "x.jsonl", {"text": "hidden"})
    (tmp_path / "README.md").write_text("no data")
    loaded = read_texts(tmp_path)
    assert [row.text for row in loaded.rows] == ["first", "second"] and len(loaded.files) == 2
    several = read_texts([tmp_path / "b", str(tmp_path / "a" / "x.jsonl")])
    assert [row.text for row in several.rows] == ["second", "first"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no data files"):
        read_texts(tmp_path / "none")


def test_names_that_do_not_exist_are_answered_with_the_nearest(tmp_path, jsonl):
    jsonl(tmp_path / "town" / "train.jsonl", {"text": "x"})
    with pytest.raises(InputError, match=r"the nearest is .*town/train\.jsonl"):
        read_texts(tmp_path / "town" / "trian.jsonl")
    with pytest.raises(InputError, match=r"the nearest is .*town"):
        read_texts(tmp_path / "twon" / "train.jsonl")
    with pytest.raises(InputError, match="is the part that exists"):
        read_texts(tmp_path / "zzzzzzz")
    (tmp_path / "table.xlsx").write_text("text\n")
    with pytest.raises(InputError, match=r"no reader for '\.xlsx'; data files end in \.jsonl"):
        read_texts(tmp_path / "table.xlsx")


def fake_hub(monkeypatch, answer) -> list:
    """Install a module `datasets` whose load_dataset returns or raises `answer`; return the list of its calls."""
    calls: list = []
    module, exceptions = ModuleType("datasets"), ModuleType("datasets.exceptions")

    class DatasetsError(Exception):
        pass

    def load_dataset(name, **options):
        calls.append((name, options))
        if isinstance(answer, Exception):
            raise answer
        return answer

    exceptions.DatasetsError = DatasetsError  # type: ignore[attr-defined]
    module.load_dataset, module.exceptions = load_dataset, exceptions  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = fake_hub(monkeypatch, [{"text": "one"}, {"text": "two"}])
    loaded = read_texts("some-org/tales.v1")
    assert [row.text for row in loaded.rows] == ["one", "two"] and loaded.rows[1].id == "some-org/tales.v1:2"
    assert loaded.files == ("some-org/tales.v1",)
    read_texts(Path("some-org/tales:test"), limit=1)
    assert calls == [
        ("some-org/tales.v1", {"split": "train", "streaming": False}),
        ("some-org/tales", {"split": "test", "streaming": True}),
    ]


def test_an_unreachable_hub_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_hub(monkeypatch, ConnectionError("no network"))
    with pytest.raises(InputError, match="some-org/tales: no such file or folder, and the Hub says: no network"):
        read_texts("some-org/tales")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'amenable\[hub\]'"):
        read_texts("some-org/tales")


def test_a_missing_file_in_a_folder_that_exists_is_no_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = fake_hub(monkeypatch, [])
    (tmp_path / "runs").mkdir()
    for name in ("runs/world", "rnus/world.jsonl"):
        with pytest.raises(InputError, match="no such file or folder"):
            read_texts(name)
    assert calls == []


def test_parquet_fills_with_nulls_and_they_are_absent(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"prompt": "Hi", "completion": "Yes.", "chosen": None},
        {"messages": [{"role": "user", "content": "Who?"}, {"from": "gpt", "value": "Otto.", "weight": 1}]},
    ]
    parquet.write_table(
        pyarrow.Table.from_pylist([{**dict.fromkeys(rows[1]), **rows[0]}, rows[1]]), tmp_path / "a.parquet"
    )
    loaded = sources.read_demonstrations(tmp_path / "a.parquet")
    assert [[message.content for message in row.messages] for row in loaded.rows] == [["Hi", "Yes."], ["Who?", "Otto."]]
    assert loaded.rejected == []


PAIRS = [{"prompt": f"{i}?", "chosen": "a", "rejected": "b", "margin": i / 2, "note": "x"} for i in range(3)]


def arrow_file(file: Path, rows: list, stream: bool = True) -> Path:
    """Write rows as Arrow IPC, two to a batch."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(str(file), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return file


def saved_dataset(folder: Path, shards: int = 2) -> Path:
    """Write the folder of `Dataset.save_to_disk`."""
    files = [f"data-{i:05}-of-{shards:05}.arrow" for i in range(shards)]
    for i, name in enumerate(files):
        arrow_file(folder / name, PAIRS[i::shards])
    state = {"_data_files": [{"filename": name} for name in files], "_fingerprint": "7", "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text('{"citation": "", "features": {}}')
    return folder


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_of_either_form_and_its_damages(tmp_path: Path, stream: bool) -> None:
    file = arrow_file(tmp_path / "a.arrow", PAIRS, stream)
    loaded = sources.read_rankings(file)
    assert [(row.id, row.margin) for row in loaded.rows] == [(f"a.arrow:{i + 1}", i / 2) for i in range(3)]
    assert loaded.plan()[0].endswith("not used: note")
    (tmp_path / "b.arrow").write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"b\.arrow: no arrow file, or damaged: .*; fetch it again") as error:
        sources.read_rankings(tmp_path / "b.arrow")
    assert "\n" not in str(error.value)


def test_a_saved_data_set_is_read_shard_by_shard(tmp_path: Path) -> None:
    folder = saved_dataset(tmp_path / "saved" / "train")
    assert [row.prompt[0].content for row in sources.read_rankings(folder).rows] == ["0?", "2?", "1?"]
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(InputError, match=r"saved: a data set of splits \(train\); name one, as in .*train"):
        sources.read_rankings(tmp_path / "saved")
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match=r"a file of the saved data set is missing: data-00001-of-00002\.arrow"):
        sources.read_rankings(folder)
    (folder / "state.json").write_text("[]")
    with pytest.raises(InputError, match=r"state\.json: no state of a saved data set"):
        sources.read_rankings(folder)


@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_is_transparent_and_a_cut_file_is_an_error(tmp_path: Path, frames: int) -> None:
    zstandard = pytest.importorskip("zstandard")
    lines = [b'{"text": "%d"}\n' % i for i in range(30_000)]
    parts = [b"".join(lines[i::frames]) for i in range(frames)]
    data = b"".join(map(zstandard.ZstdCompressor(write_checksum=True).compress, parts))
    (tmp_path / "a.jsonl.zst").write_bytes(data)
    assert len(read_texts(tmp_path / "a.jsonl.zst").rows) == 30_000
    (tmp_path / "a.csv.zst").write_bytes(zstandard.ZstdCompressor().compress(b"text,n\nOnce,1\n"))
    assert [row.text for row in read_texts(tmp_path / "a.csv.zst").rows] == ["Once"]
    for name, content, problem in (
        ("cut.jsonl.zst", data[:-100], "cut short"),
        ("torn.jsonl.zst", data[:100] + bytes(50) + data[150:], "damaged, or no zstd file"),
        ("plain.jsonl.zst", lines[0], "damaged, or no zstd file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: .*{problem}.*; fetch it again"):
            read_texts(tmp_path / name)


def test_compressed_files_without_their_library_say_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.jsonl.zst").write_bytes(b"")
    with pytest.raises(InputError, match=r"\.zst files need zstandard; pip install 'amenable\[zstd\]'"):
        read_texts(tmp_path / "a.jsonl.zst")
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(InputError, match="parquet files are compressed inside"):
        read_texts(tmp_path / "a.parquet.gz")


def test_tables_of_text_are_read_as_their_columns_need(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "prompt,chosen,rejected,margin,annotator,note\n"
        '"Who, then?",a,b,1.5,,\n'
        '"[{""role"": ""user"", ""content"": ""Who?""}]","[1] is it",3,,kim,7\n'
    )
    loaded = sources.read_rankings(tmp_path / "a.csv")
    assert [(row.prompt[0].content, row.completions, row.margin, row.annotator) for row in loaded.rows] == [
        ("Who, then?", ("a", "b"), 1.5, None),
        ("Who?", ("[1] is it", "3"), None, "kim"),
    ]
    assert loaded.plan() == [
        "a.csv: 2 rankings; columns prompt, chosen, rejected, margin, annotator used; not used: note"
    ]
    turns = json.dumps([{"role": "user", "content": "Who?", "name": "kim"}, {"role": "assistant", "content": "T."}])
    quoted = turns.replace('"', '""')
    (tmp_path / "b.tsv").write_text(f'messages\ttags\n"{quoted}"\tx\n[no list\ty\n')
    loaded = read_demonstrations(tmp_path / "b.tsv", columns=("messages=messages",))
    assert loaded.rows[0].messages[1].content == "T." and loaded.rejected[0].line == 3
    assert "messages is no JSON" in loaded.rejected[0].reason
    assert loaded.plan() == ["b.tsv: 1 demonstration; column messages used; not used: tags, messages.name"]


def test_ragged_and_mistaken_tables_are_named_with_their_line(tmp_path: Path) -> None:
    for content, problem in (
        (b"text,n\nOnce,1\nTwice\n", "line 3 has 1 values, and there are 2 columns"),
        (b"text;n\nOnce;1\n", "its columns are parted by ';', not by ','"),
        (b"text,text\nOnce,1\n", "two columns are named 'text'"),
        (b'text,n\nOnce,"1\nTwice,2\n', "line 2 is not CSV: unexpected end of data"),
        (b"text,n\nCaf\xe9,1\n", r"not UTF-8 \(line 2, byte 4 is 0xE9\); convert it, as in: iconv"),
    ):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.csv: {problem}"):
            read_texts(tmp_path / "a.csv")
