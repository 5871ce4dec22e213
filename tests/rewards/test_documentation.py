"""The complete example of docs/rewards.md: its files and its command, as they stand on the page, on a tiny model."""

import json
import re
import shlex
from pathlib import Path

import pytest

from amenable import cli

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text("utf-8")
EXAMPLE = PAGE.partition("## Your data, your function: a complete example")[2].partition("\n## ")[0]
BLOCKS = dict(re.findall(r"^```(\w*)\n(.*?)^```", EXAMPLE, re.MULTILINE | re.DOTALL))
"""the example's code, by its language"""
SIZES = "--max-steps 2 --prompts-per-step 2 --num-generations 2 --num-mini-batches 1 --max-new-tokens 8 --device cpu"


def test_the_complete_example_runs(assistant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.csv").write_text(BLOCKS["csv"])
    (tmp_path / "my_rewards.py").write_text(BLOCKS["python"])
    command = next(line for line in BLOCKS[""].splitlines() if line.startswith("amenable rloo"))
    words = shlex.split(command.replace("runs/sft", str(assistant)))[1:]
    assert cli.main([*words, *SIZES.split()]) == 0
    row = json.loads((tmp_path / "runs/sums/metrics.jsonl").read_text().splitlines()[0])
    parts = {"my_rewards.py:close": 1, "length:1-8": 0.5, "number:answer": 2}
    total = sum(weight * row[f"rewards/{name}/mean"] for name, weight in parts.items())
    assert row["objective/scores"] == pytest.approx(total, abs=1e-4)


def test_every_rule_of_the_table_is_one() -> None:
    from amenable.rewards.rules import is_rule, parse_rule

    table = PAGE.partition("| SPEC | score |")[2].partition("\n\n")[0]
    specs = [spec for line in table.splitlines() for spec in re.findall(r"`([^`]+)`", line.partition(" | ")[0])]
    rules = [spec for spec in specs if is_rule(spec) and not spec.endswith(("SCHEMA.json", "RULE"))]
    assert len(rules) >= 8
    for spec in rules:
        parse_rule(spec)
