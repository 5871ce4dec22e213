import json
from pathlib import Path

import pytest

from amenable import cli
from amenable.recipes import formats

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


def test_the_page_has_the_table_that_the_command_prints(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["formats"]) == 0
    printed = capsys.readouterr().out.splitlines()
    page = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    assert page == printed, "put the output of 'amenable formats' into docs/formats.md"


def test_the_table_says_what_every_command_reads() -> None:
    rows = {
        cells[0]: cells for line in formats.table()[2:] if (cells := [cell.strip() for cell in line.split("|")[1:-1]])
    }
    assert rows["SHP"][1] == "history, human_ref_A, human_ref_B, labels" and rows["SHP"][3:] == [
        "",
        "",
        "yes",
        "",
        "yes",
        "",
    ]
    assert rows["TRL: language modeling"][3:] == ["yes", "", "", "", "", ""]
    assert rows["TRL: unpaired preference"][3:-1] == ["", "yes", "", "yes", "yes"]
    assert rows["TRL: unpaired preference"][-1] == "left out and counted: labelled as unwanted"
    assert "stepwise supervision" in rows["TRL: stepwise supervision"][-1]
    assert all("yes" in cells for cells in rows.values())


def test_a_file_is_described_with_a_row_as_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    row = {"q": "Who\nkeeps the ferry?", "good": "Tolan. " * 40, "bad": "Nobody.", "gap": 2, "note": "x"}
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "good": ""}) + "\n")
    assert cli.main(["formats", str(file)]) == 2
    captured = capsys.readouterr()
    assert "no command can read a row; 'amenable formats' lists what they read" in captured.err
    assert captured.out.count(": no; no ") == 5
    columns = ["--columns", "prompt=q", "chosen=good", "rejected=bad", "margin=gap"]
    assert cli.main(["formats", str(file), *columns]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "reward, dpo: pairs.jsonl: 1 ranking; columns q, good, bad, gap used; not used: note" in lines
    assert f"  rejected: {file}:2 chosen is empty, and an empty completion cannot be the better one" in lines
    assert (
        "  user       Who keeps the ferry?" in lines and "  rank 2     Nobody." in lines and "  margin     2" in lines
    )
    assert any(line.startswith("  rank 1     Tolan. Tolan.") and line.endswith("...") for line in lines)


def test_a_label_is_shown_with_its_completion(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "labels.jsonl").write_text(json.dumps({"prompt": "Who?", "completion": "Tolan.", "label": False}))
    assert cli.main(["formats", str(tmp_path / "labels.jsonl")]) == 0
    assert "  false      Tolan." in capsys.readouterr().out.splitlines()


def test_text_is_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("The ferry\nis kept.\n")
    assert cli.main(["formats", str(tmp_path / "a.txt")]) == 0
    assert "  text       The ferry is kept." in capsys.readouterr().out.splitlines()
