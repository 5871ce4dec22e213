"""Rows of the comparison with lm_eval are those of the forms; where lm_eval is installed, the figures are its own."""

import json
from pathlib import Path

import pytest

from amenable.evaluation.tasks.forms import read_tasks
from benchmarks import lm_eval_tasks


@pytest.mark.parametrize("form", lm_eval_tasks.TASKS)
def test_rows_are_of_their_form_and_always_the_same(form: str, tmp_path: Path) -> None:
    rows = lm_eval_tasks.make_rows(form, 4)
    assert rows == lm_eval_tasks.make_rows(form, 4) and rows[0] != rows[1]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_tasks([str(tmp_path / "rows.jsonl")])["rows"].form.name == form


@pytest.mark.slow
@pytest.mark.skipif(not lm_eval_tasks.PEER.exists(), reason="make bench-lm-eval sets lm_eval up")
@pytest.mark.parametrize("shots", ["0", "2"])
def test_figures_are_those_of_lm_eval(shots: str, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forms: tuple[str, ...] = ("arc", "hellaswag", "mmlu", "race", "piqa", "crows-pairs", "boolq", "gsm8k")
    if (
        shots == "0"
    ):  # with examples its rows are longer than the context: cut ones lose their BOS in lm_eval, and not here
        forms = (*forms, "lambada")
    options = ["--model", str(base), "--shapes", "tiny-gpt2", "--rows", "6", "--num-shots", shots, "--forms", *forms]
    code = lm_eval_tasks.main(options)
    assert code == 0, capsys.readouterr().out
