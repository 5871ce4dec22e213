from amenable import cli
from amenable.data.types import Message, Ranking
from amenable.feedback.store import Store


def test_labels_are_written_by_the_command_with_a_dash(tmp_path, capsys):
    paths = ["--labels-db", str(tmp_path / "labels.db"), "--out", str(tmp_path / "out")]
    assert cli.main(["export-labels", *paths]) == 2
    assert "no such store" in capsys.readouterr().err and not (tmp_path / "labels.db").exists()
    with Store(tmp_path / "labels.db") as store:
        store.add_ranking(Ranking((Message("user", "Hi"),), ("a", "b"), (1.0, 2.0), "x", "ann"), [1, 0], 2.0, 3.0)
    assert cli.main(["export-labels", *paths]) == 0
    assert "1 rankings" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "lineage.json",
        "pairs.jsonl",
        "rankings.jsonl",
    ]
    assert cli.main(["export-labels", *paths[:2], "--out", str(tmp_path / "labels.db")]) == 2
    assert "is a file" in capsys.readouterr().err
