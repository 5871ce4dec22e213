"""The comparison of two ways to a model. lm_eval is not here: a script that is told what to find stands for it."""

import json
import stat
import sys
from pathlib import Path

import pytest

from benchmarks import lm_eval_agreement as agreement

STAND_IN = """#!{python}
import json, pathlib, sys
given = dict(zip(sys.argv[4::2], sys.argv[5::2]))
for task in given["--tasks"].split(","):
    answers = [[["-1.5", "True"], ["-2.0", "False"]]] * 2 if "likelihoods" in task else [["a text"]] * 2
    if {differs!r} == task and given["--model"] != "hf":
        answers = [answers[0], [["-1.5", "True"], ["-2.5", "False"]]]
    rows = [json.dumps({{"doc_id": i, "filtered_resps": one}}) for i, one in enumerate(answers)]
    out = pathlib.Path(given["--output_path"]) / "m" / f"samples_{{task}}_2030.jsonl"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\\n".join(reversed(rows)))
"""


def stand_in(folder: Path, differs: str = "") -> Path:
    peer = folder / "peer"
    peer.write_text(STAND_IN.format(python=sys.executable, differs=differs), "utf-8")
    peer.chmod(peer.stat().st_mode | stat.S_IXUSR)
    return peer


@pytest.mark.slow
def test_ways_that_find_the_same_agree(
    base: Path, assistant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model, count in ((base, 4), (assistant, 7)):  # a model with a chat template is also asked in its format
        assert agreement.main(["--model", str(model), "--peer", str(stand_in(tmp_path))]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == count and all(line.endswith(": as by transformers") for line in lines)


@pytest.mark.slow
def test_another_likelihood_is_told_by_its_row(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = stand_in(tmp_path, "amenable_likelihoods")
    assert agreement.main(["--model", str(base), "--peer", str(peer)]) == 1
    assert "amenable_likelihoods by ids: row 1: [(-1.5, True), (-2.0, False)] is" in capsys.readouterr().out


def test_a_peer_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such module >&2; exit 3\n", "utf-8")
    broken.chmod(0o755)
    with pytest.raises(SystemExit, match="no such module"):
        agreement.evaluate(broken, tmp_path, "hf", "", ("amenable_texts",))


def test_numbers_agree_within_the_tolerance_and_flags_and_texts_exactly() -> None:
    assert agreement.compare([[(-1.0, True)]], [[(-1.0005, True)]]) == []
    assert len(agreement.compare([[(-1.0, True)], ["a"]], [[(-1.0, False)], ["b"]])) == 2
    assert agreement.compare([["a"]], []) == ["0 rows for 1"]


def test_the_tasks_ask_of_parts_of_characters_too(tmp_path: Path) -> None:
    agreement.write_tasks(tmp_path / "tasks")
    rows = [json.loads(line) for line in (tmp_path / "tasks/rows.jsonl").read_text("utf-8").splitlines()]
    assert any(not ending.isascii() for row in rows for ending in row["choices"])
    tasks = [json.loads((tmp_path / f"tasks/{name}.yaml").read_text("utf-8")) for name in agreement.TASKS]
    assert {task["output_type"] for task in tasks} == {"multiple_choice", "generate_until"}
