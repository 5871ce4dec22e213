"""The tables of ways to fine-tune: quality over seeds, intervals over examples, differences paired by example."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amenable.recipes.reports import peft_page
from amenable.recipes.reports.peft_page import WayRun


def way_run(folder: Path, values: list[float], parameters: int, sizes: list[float] | None = None) -> WayRun:
    folder.mkdir(parents=True)
    (folder / "finished.json").write_text(json.dumps({"seconds": 12.0}))
    rows = [{"step": 1, "peak_bytes": 5 << 20}, {"step": 2, "peak_bytes": 9 << 20, "loaded_bytes": 6 << 20}]
    (folder / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = {str(i): (value, 1.0 if sizes is None else sizes[i]) for i, value in enumerate(values)}
    return WayRun(folder, 1e-3, (parameters, 200), examples)


def test_a_loss_is_nats_over_tokens_and_a_difference_is_paired(tmp_path: Path) -> None:
    sizes = [1.0, 3.0]
    ways = {
        "full": [way_run(tmp_path / f"f{i}", values, 200, sizes) for i, values in enumerate(([1.0, 3.0], [3.0, 9.0]))],
        "lora": [way_run(tmp_path / f"l{i}", values, 10, sizes) for i, values in enumerate(([2.0, 6.0], [4.0, 12.0]))],
    }
    figures = peft_page.figures_of(ways)
    assert figures["full"]["quality"]["value"] == pytest.approx(2.0) and figures["full"]["seeds"] == [1.0, 3.0]
    assert figures["lora"]["difference"] == {"value": 1.0, "low": 1.0, "high": 1.0}, "alike for every example"
    assert figures["lora"]["share"] == 0.05 and figures["lora"]["training_bytes"] == 3 << 20
    assert peft_page.headline("sft", figures) == [
        "Supervised fine-tuning: the best held-out loss is that of all weights, 2.000.",
        "Worse than all weights: LoRA.",
    ]


def test_only_examples_of_all_runs_count(tmp_path: Path) -> None:
    ways = {
        "full": [way_run(tmp_path / "a", [1.0, 1.0, 0.0], 200)],
        "prefix": [way_run(tmp_path / "b", [0.0, 1.0], 10)],
    }
    figures = peft_page.figures_of(ways)
    assert figures["full"]["examples"] == 2 and figures["full"]["quality"]["value"] == 1.0
    assert figures["prefix"]["difference"]["value"] == -0.5


def test_seeds_that_hold_out_other_examples_count_with_their_own(tmp_path: Path) -> None:
    ways = {way: [way_run(tmp_path / f"{way}{i}", [1.0, 0.0], 200) for i in range(2)] for way in ("full", "lora")}
    for runs in ways.values():
        runs[1] = replace(runs[1], examples={"1": (1.0, 1.0), "2": (1.0, 1.0)})
    figures = peft_page.figures_of(ways)
    assert figures["full"]["examples"] == 3 and figures["full"]["seeds"] == [0.5, 1.0]
    assert figures["full"]["quality"]["value"] == 0.75 and figures["lora"]["difference"]["value"] == 0.0


def test_page_table_and_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ways = {
        "full": [way_run(tmp_path / "a", [1.0, 0.0, 1.0, 0.0], 200)],
        "prompt": [way_run(tmp_path / "b", [0.0, 1.0, 1.0, 0.0], 10)],
    }
    out = peft_page.write(tmp_path, {"classify": ways, "sft": ways}, "amenable compare-peft --epochs 1")
    page, shown = (out / "peft.html").read_text("utf-8"), capsys.readouterr().err
    assert "amenable compare-peft --epochs 1" in page and "Supervised fine-tuning" in page and "10 (5 %)" in page
    assert "prompt tuning cannot be told from all weights." in " ".join(shown.split())
    (row, other) = peft_page.table("classify", peft_page.figures_of(ways)).rows
    assert row[0] == "all weights" and row[3] == "–" and row[5:] == ("3 MiB", "12", "0.001") and other[2] == "0.500"
    assert json.loads((out / "peft.json").read_text())["stages"]["sft"]["prompt"]["parameters"] == 10
