"""The table of algorithms: rows of raced algorithms get their numbers, all other lines stay."""

import json
from pathlib import Path

import pytest

from amenable.errors import InputError
from benchmarks import algorithm_table

GAIN = {"value": 0.5, "low": 0.25, "high": 0.75, "seeds": [0.5]}
ROW = {"lines": 118, "gain": GAIN, "gain_greedy": GAIN, "reward_gain_greedy": GAIN, "kl": 2.346}


def test_raced_algorithms_get_their_numbers(tmp_path: Path) -> None:
    page, race = tmp_path / "page.md", tmp_path / "race.json"
    page.write_text(
        "# Algorithms\n\n| rloo | $R$ | a.py | | | | |\n| dpo | $D$ | b.py | 1 | 2 | 3 | 4 |\n\nrloo is here\n"
    )
    race.write_text(json.dumps({"algorithms": {"rloo": ROW}}))
    for _ in range(2):
        algorithm_table.main(race, page)
        assert page.read_text().splitlines() == [
            "# Algorithms",
            "",
            "| rloo | $R$ | a.py | 118 | +0.50 (0.25 to 0.75) | +0.50 (0.25 to 0.75), beats it | 2.35 |",
            "| dpo | $D$ | b.py | 1 | 2 | 3 | 4 |",
            "",
            "rloo is here",
        ]


def test_the_page_has_a_row_for_each_file_that_it_names() -> None:
    text = algorithm_table.PAGE.read_text("utf-8")
    rows = [line for line in text.splitlines() if "`amenable/stages/" in line and line.startswith("|")]
    files = {line.split("`amenable/")[1].split("`")[0] for line in rows}
    names = [line.split("|")[1].strip() for line in rows]
    assert (
        len(rows) >= 8
        and len(set(names)) == len(names)
        and all((algorithm_table.ROOT / "amenable" / file).is_file() for file in files)
    )


def test_a_missing_race_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make it by `amenable race`"):
        algorithm_table.main(tmp_path / "race.json")
