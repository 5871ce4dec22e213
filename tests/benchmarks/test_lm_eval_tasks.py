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


def test_no_example_is_a_row_of_the_test() -> None:
    tested = {row["sent_more"] for row in lm_eval_tasks.make_rows("crows-pairs", 200)}
    examples = lm_eval_tasks.make_examples("crows-pairs", 200, 40)
    assert len(examples) == 40 and not tested & {row["sent_more"] for row in examples}
    assert tested & {row["sent_more"] for row in lm_eval_tasks.make_rows("crows-pairs", 40, "shots")}
    assert lm_eval_tasks.make_examples("piqa", 200, 2) == lm_eval_tasks.make_rows("piqa", 2, "shots")


@pytest.mark.slow
@pytest.mark.skipif(not lm_eval_tasks.PEER.exists(), reason="make bench-lm-eval sets lm_eval up")
@pytest.mark.parametrize("options", [(), ("--num-shots", "2"), ("--context", "48")])
def test_figures_are_those_of_lm_eval(options: tuple[str, ...], base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With two examples, and in a short context, rows are longer than the context and lose their beginning, BOS too."""
    code = lm_eval_tasks.main(["--model", str(base), "--shapes", "tiny-gpt2", "--rows", "6", *options])
    report = capsys.readouterr().out
    assert code == 0, report
    assert bool(options) == ("6 of 6 prompts cut" in report)
