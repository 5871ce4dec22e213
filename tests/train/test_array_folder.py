"""A folder of arrays: there whole or not at all, with what was read beside them, wherever the files are now."""

from pathlib import Path

import pytest

from amenable.data import sources
from amenable.data.types import Text
from amenable.errors import InputError
from amenable.train.array_folder import (
    ArrayFiles,
    Conversion,
    convert,
    facts_of,
    loaded_of,
    map_file,
    read_facts,
    write_arrays,
)


class Nothing:
    """No entry for any text."""

    def add(self, text: Text, files: ArrayFiles) -> int:
        return len(text.text)


def test_a_folder_is_there_once_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "tokens" / "key"

    def write(files: ArrayFiles) -> dict[str, int]:
        files.write_int("ends", 7)
        assert not folder.exists() and read_facts(folder, ["ends"]) is None
        return {"count": 1}

    left = folder.with_name(".key.123.writing")
    left.mkdir(parents=True)
    (left / "ends.bin").write_text("of a killed process")
    write_arrays(folder, ["ends", "none"], write)
    facts = read_facts(folder, ["ends", "none"])
    assert facts is not None and facts["count"] == 1
    assert map_file(folder / "ends.bin", "int64").tolist() == [7] and map_file(folder / "none.bin", "u1").tolist() == []
    assert [path.name for path in folder.parent.iterdir()] == ["key"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def write(files: ArrayFiles) -> dict[str, int]:
        files.write_int("ends", 7)
        raise InputError("no row can be read")

    with pytest.raises(InputError, match="no row can be read"):
        write_arrays(tmp_path / "key", ["ends"], write)
    assert not list(tmp_path.iterdir())


def test_what_was_read_names_the_files_where_they_are_now(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "a", "note": 1}\n{"txt": "b"}\n', "utf-8")
    nothing = Conversion(sources.read_texts, Nothing, {}, "texts", [])
    loaded = convert([file], nothing, ArrayFiles({}), 0, lambda done, total: None, ())
    moved = tmp_path / "elsewhere" / file.name
    again = loaded_of(facts_of(loaded), [moved], "texts")
    assert loaded.rejected[0].file == str(file) and again.rejected[0].file == str(moved)
    assert again.files == (str(moved),) and again.columns[0].file == str(moved)
    assert again.plan() == loaded.plan() and len(again.rows) == 1 and isinstance(again, sources.Loaded)
