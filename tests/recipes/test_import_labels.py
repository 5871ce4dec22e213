import json

from amenable import cli
from amenable.feedback.store import Store


def test_labels_are_taken_in_once(tmp_path, capsys):
    row = {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    store = ["--labels-db", str(tmp_path / "labels.db")]
    for new in (1, 0):
        assert cli.main(["import-labels", "--data", str(tmp_path / "pairs.jsonl"), "--annotator", "ann", *store]) == 0
        assert f"1 labels, {new} of them new" in capsys.readouterr().out
    with Store(tmp_path / "labels.db") as stored:
        assert [one.annotator for one in stored.rankings()] == ["ann"]


def test_a_question_is_answered_by_an_option(tmp_path, capsys):
    data = {"answer2": "Blue.", "answer1": "Red.", "prompt": "Which?"}
    result = {"type": "pairwise", "from_name": "pw", "to_name": "txt-1,txt-2", "value": {"selected": "left"}}
    rows = [{"id": 1, "data": data, "annotations": [{"completed_by": 3, "result": [result]}], "predictions": [1]}]
    (tmp_path / "studio.json").write_text(json.dumps(rows))
    (tmp_path / "config.xml").write_text(
        '<View><Text name="txt-1" value="$answer1"/><Text name="txt-2" value="$answer2"/></View>'
    )
    command = ["import-labels", "--data", str(tmp_path / "studio.json"), "--labels-db", str(tmp_path / "labels.db")]
    assert cli.main(command) == 2
    assert "--left-field NAME --right-field NAME" in capsys.readouterr().err
    assert cli.main([*command, "--left-field", "answer1"]) == 2
    assert "belong together" in capsys.readouterr().err and not (tmp_path / "labels.db").exists()
    assert cli.main([*command, "--label-config", str(tmp_path / "config.xml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "studio.json (Label Studio, JSON): 1 ranking, 0 demonstrations"
    assert "not stored: predictions" in lines and lines[-1].startswith("1 label")
    with Store(tmp_path / "labels.db") as stored:
        assert [(one.completions, one.ranks) for one in stored.rankings()] == [(("Red.", "Blue."), (1.0, 2.0))]


def test_a_mistake_makes_no_store(tmp_path, capsys):
    store = ["--labels-db", str(tmp_path / "labels.db")]
    (tmp_path / "odd.jsonl").write_text('{"text": "only text"}\n')
    for options in ([], ["--data", str(tmp_path / "none.jsonl")], ["--data", str(tmp_path / "odd.jsonl")]):
        assert cli.main(["import-labels", *options, *store]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "labels.db").exists()


def test_columns_of_other_names_are_mapped(tmp_path, capsys):
    rows = [{"q": "Hi", "good": "Hello.", "bad": "Go away.", "prompt": "x"}, {"q": "Hi", "good": "", "bad": "y"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["import-labels", "--data", str(tmp_path / "pairs.jsonl"), "--labels-db", str(tmp_path / "labels.db")]
    assert cli.main([*command, "--columns", "prompt=q", "chosen=good", "rejected=bda"]) == 2
    assert "no column 'bda', which --columns reads as rejected; the nearest is 'bad'" in capsys.readouterr().err
    mapped = [*command, "--columns", "prompt=q", "chosen=good", "rejected=bad"]
    for new in (1, 0):
        assert cli.main(mapped) == 0
        assert f"1 labels, {new} of them new; 1 rows could not be used" in capsys.readouterr().out
    with Store(tmp_path / "labels.db") as stored:
        assert [ranking.completions for ranking in stored.rankings()] == [("Hello.", "Go away.")]
