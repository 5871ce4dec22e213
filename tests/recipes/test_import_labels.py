import json

from amenable import cli
from amenable.feedback.store import Store


def test_labels_are_taken_in_once(tmp_path, capsys):
    row = {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    store = ["--store", str(tmp_path / "labels.db")]
    for new in (1, 0):
        assert cli.main(["import-labels", "--data", str(tmp_path / "pairs.jsonl"), "--annotator", "ann", *store]) == 0
        assert f"1 labels, {new} of them new" in capsys.readouterr().out
    with Store(tmp_path / "labels.db") as kept:
        assert [one.annotator for one in kept.rankings()] == ["ann"]


def test_a_mistake_makes_no_store(tmp_path, capsys):
    store = ["--store", str(tmp_path / "labels.db")]
    (tmp_path / "odd.jsonl").write_text('{"text": "only text"}\n')
    for options in ([], ["--data", str(tmp_path / "none.jsonl")], ["--data", str(tmp_path / "odd.jsonl")]):
        assert cli.main(["import-labels", *options, *store]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "labels.db").exists()
