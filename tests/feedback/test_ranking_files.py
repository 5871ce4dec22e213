"""Rankings as files: they read back as they were."""

from pathlib import Path

import pytest

from amenable.data import sources
from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback.ranking_files import row_of, write_rankings, write_store
from amenable.feedback.store import Store

RANKINGS = [
    Ranking((Message("user", "Hé?"),), ("a", "b", ""), (2.0, 1.0, 3.0), "1", "Ann", {"ended": [True, False, True]}),
    Ranking((Message("user", "Ho?"),), ("a", "b"), (1.0, 2.0), "2", "Bo", {"ended": [True, True], "kind": "open"}),
]


def test_rows_read_back(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    write_rankings(file, RANKINGS)
    assert "Hé?" in file.read_text("utf-8")
    again = sources.read_rankings(file).rows
    names = ("prompt", "completions", "ranks", "id", "annotator")
    assert [[getattr(row, name) for name in names] for row in again] == [
        [getattr(row, name) for name in names] for row in RANKINGS
    ]
    assert [row.meta["ended"] for row in again] == [row.meta["ended"] for row in RANKINGS]
    assert row_of(RANKINGS[1])["kind"] == "open"
    write_rankings(file, [])
    assert file.read_text() == ""


def test_a_store_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "labels.db"
    write_store(file, RANKINGS)
    with Store(file) as store:
        assert [row.ranks for row in store.rankings()] == [(2.0, 1.0, 3.0), (1.0, 2.0)]
    unusable = Ranking(RANKINGS[0].prompt, ("a", "b"), (1.0, float("nan")), "3", "Ann")
    with pytest.raises(InputError):
        write_store(tmp_path / "other.db", [RANKINGS[0], unusable])
    assert not (tmp_path / "other.db").exists()
