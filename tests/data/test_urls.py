"""Files behind URLs are read as streams, with the rows and the lineage that files of this machine have."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amenable.data import urls
from amenable.data.readers import list_files
from amenable.data.sources import read_texts
from amenable.data.urls import UrlPath, content_hash, open_raw, size_of, state_of, to_path, unfold
from amenable.errors import InputError

ROWS = "".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(3)).encode()


@pytest.fixture
def bucket() -> Iterator[Any]:
    """The root of files in memory, as a remote file system."""
    fs = pytest.importorskip("fsspec").filesystem("memory")
    fs.pipe({"/bucket/a.jsonl": ROWS, "/bucket/b/c.jsonl.gz": gzip.compress(ROWS), "/bucket/notes.md": b"none"})
    yield fs
    fs.rm("/bucket", recursive=True)


def test_a_folded_url_is_the_url_unless_the_path_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        str(to_path(Path("s3://bucket/texts/a.jsonl")))
        == "s3://bucket/texts/a.jsonl"
        == unfold("s3:/bucket/texts/a.jsonl")
    )
    assert to_path("https://host/a.jsonl.gz").suffix == ".gz"
    for local in ("texts/a.jsonl", "C:/texts", "owner/name:split", "a:b"):
        assert not isinstance(to_path(local), UrlPath) and str(to_path(local)) == local
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "bucket").mkdir(parents=True)
    assert not isinstance(to_path("s3://bucket"), UrlPath)


@pytest.mark.parametrize("source", ["memory://bucket", "memory://bucket/**/*", "memory:/bucket"])
def test_a_folder_and_a_pattern_have_their_data_files(bucket: Any, source: str) -> None:
    names = [str(file).partition("bucket")[2] for file in list_files(source)]
    assert names == ["/a.jsonl", "/b/c.jsonl.gz"]
    loaded = read_texts(source)
    assert [text.text for text in loaded.rows] == [f"text {i}" for i in range(3)] * 2
    assert [text.id for text in loaded.rows][2:4] == ["a.jsonl:3", "c.jsonl.gz:1"]
    assert loaded.files[0].startswith("memory://")


def test_every_kind_of_file_is_read(bucket: Any) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    zstandard = pytest.importorskip("zstandard")
    table, columns, stream = arrow.table({"text": ["one", "two"]}), io.BytesIO(), io.BytesIO()
    parquet.write_table(table, columns)
    with arrow.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    contents = {"a.parquet": columns.getvalue(), "a.arrow": stream.getvalue(), "a.csv": b"text\none\ntwo\n"}
    contents["a.jsonl.zst"] = zstandard.compress(b'{"text": "one"}\n{"text": "two"}\n')
    for name, content in contents.items():
        bucket.pipe(f"/bucket/kinds/{name}", content)
        assert [text.text for text in read_texts(f"memory://bucket/kinds/{name}").rows] == ["one", "two"], name


def test_what_is_not_there_is_a_line(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^memory://bucket/none.jsonl: no such file or folder; check the address"):
        read_texts("memory://bucket/none.jsonl")
    with pytest.raises(InputError, match="no data files in this folder"):
        list_files("memory://bucket/*.md")
    with pytest.raises(InputError, match=r"^nothing://host/a.jsonl: nothing:// is no address that fsspec reads"):
        read_texts("nothing://host/a.jsonl")
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: exec("raise ImportError('Install s3fs to access S3')"))
    with pytest.raises(InputError, match=r"s3:// needs a package .*Install s3fs.*; pip install 'amenable\[urls\]'"):
        read_texts("s3://bucket/a.jsonl")


def test_a_connection_that_breaks_is_a_line(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise RuntimeError("the connection\nwas reset")

    monkeypatch.setattr(type(bucket), "open", lambda *arguments, **options: Broken())
    with pytest.raises(InputError, match=r"a.jsonl: cannot be read \(RuntimeError: the connection was reset\)"):
        read_texts("memory://bucket/a.jsonl")


def test_a_file_that_changes_has_another_hash(bucket: Any, tmp_path: Path) -> None:
    file, local = to_path("memory://bucket/a.jsonl"), tmp_path / "a.jsonl"
    before = state_of(file), content_hash(file)
    assert (state_of(file), content_hash(file)) == before and size_of(file) == len(ROWS)
    bucket.pipe("/bucket/a.jsonl", ROWS[:-1] + b" ")
    assert size_of(file) == len(ROWS) and state_of(file) != before[0] and content_hash(file) != before[1]
    local.write_bytes(ROWS)
    assert size_of(local) == state_of(local)["bytes"] == len(ROWS) and open_raw(local).read() == ROWS


def test_a_hash_of_the_content_goes_before_a_time(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"size": 7, "ETag": "abc", "LastModified": "today"}
    monkeypatch.setattr(type(bucket), "info", lambda *arguments: info)
    file = to_path("memory://bucket/a.jsonl")
    assert urls.state_of(file) == {"bytes": 7, "version": "abc"}
