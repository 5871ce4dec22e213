import json

import pytest

from benchmarks import labelling


@pytest.mark.slow
def test_every_label_is_counted_and_kept(tmp_path):
    payloads, times, seconds = labelling.people(tmp_path / "people", 2, 7)
    assert len(times) == 7 and len(payloads) == 14
    assert all(0 < one < seconds for one in times)
    assert [payload["annotator"] for payload in payloads if "ranking" in payload].count("person 0") == 4
    assert min(labelling.ceilings(tmp_path / "alone", payloads, 3)) > 0
    for name in ("one", "many"):
        lines = (tmp_path / "alone" / f"{name}.jsonl").read_text().splitlines()
        assert sorted(lines) == sorted(map(json.dumps, payloads)), "appends are of the same events, each whole"


def test_a_row_has_a_cell_for_every_heading(capsys, monkeypatch):
    figures = labelling.Figures(8, 100.4, 5.04, 9.96, 200.0, 400.0, 250.0, 999.6)
    monkeypatch.setattr(labelling, "measure", lambda folder, clients, labels: figures)
    assert labelling.main(["--clients", "8"]) == [figures]
    _, heads, rule, row = capsys.readouterr().out.splitlines()
    assert row == "| 8 | 100 | 5.0 ms | 10.0 ms | 200 | 400 | 250 | 1000 |"
    assert heads.count("|") == rule.count("|") == row.count("|")
