"""Two evaluations, or two demos, side by side."""

import json
import shutil
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes.reports import compare_evaluations


@pytest.fixture
def other_run(demo_run: Path, tmp_path: Path) -> Path:
    """The same demo again, its PPO better and at another price of KL; DPO was left out."""
    other = tmp_path / "other"
    shutil.copytree(demo_run, other)
    evaluation = json.loads((other / "evaluate" / "evaluation.json").read_text())
    evaluation["models"]["ppo"]["gold"] += 1
    del evaluation["models"]["dpo"]
    (other / "evaluate" / "evaluation.json").write_text(json.dumps(evaluation))
    rows = [json.loads(line) for line in (other / "evaluate" / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        row["answers"]["ppo"]["sampled"]["gold"] += 1
    (other / "evaluate" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    for demo, price in ((demo_run, 0.1), (other, 0.2)):
        config = demo / "ppo" / "config.yaml"
        config.write_text(config.read_text().replace(str(demo_run), str(demo)) + f"kl_coef: {price}\nptx: {demo}/x\n")
    return other


def test_models_in_both_evaluations(demo_run: Path, other_run: Path) -> None:
    rows = compare_evaluations.evaluations(demo_run / "evaluate", other_run / "evaluate")
    result = {row["model"]: row for row in rows if row["suite"] == "test"}
    assert list(result) == ["base", "sft", "ppo"]
    gold = next(row for row in result["ppo"]["sampled"] if row["name"] == "gold")
    assert gold["b"] == pytest.approx(gold["a"] + 1)
    # all differences are the same here, and such tell no interval
    assert result["ppo"]["gain"]["sampled"] == {"value": pytest.approx(1.0), "low": None, "high": None}
    assert result["ppo"]["gain"]["greedy"]["value"] == 0.0 == result["sft"]["gain"]["sampled"]["value"]


def test_suites_stand_beside_the_test_prompts() -> None:
    one = {"models": {"sft": {"gold": 1.0}}, "suites": {"closed": {"sft": {"gold": 2.0}}, "gone": {"sft": {}}}}
    other = {"models": {}, "suites": {"closed": {"sft": {"gold": 3.0, "greedy": {"gold": 4.0}}}}}
    assert compare_evaluations.shared_figures(one, other) == [
        {
            "model": "sft",
            "suite": "closed",
            "sampled": [{"name": "gold", "a": 2.0, "b": 3.0}],
            "greedy": [{"name": "gold", "a": None, "b": 4.0}],
            "gain": {},
        }
    ]


def test_claims_and_options_of_two_demos(demo_run: Path, other_run: Path) -> None:
    claim = {"id": "a", "claim": "PPO is preferred.", "verdict": "holds"}
    for demo, report in ((demo_run, [claim]), (other_run, [{**claim, "verdict": "undecided"}, {**claim, "id": "b"}])):
        (demo / "report.json").write_text(json.dumps({"claims": report, "models": {"sft": {"gold": 1.0}}}))
    result = compare_evaluations.demos(demo_run, other_run)
    assert [row["name"] for row in result["claims"]] == ["a", "b"] and "a" not in result["claims"][1]
    assert (result["claims"][0]["a"]["verdict"], result["claims"][0]["b"]["verdict"]) == ("holds", "undecided")
    assert {row["claim"] for row in result["claims"]} == {"PPO is preferred."}
    assert [row["model"] for row in result["models"]] == ["sft"]
    assert result["options"] == [{"name": "ppo.kl_coef", "a": 0.1, "b": 0.2}], "own files are no difference"


def test_of_several_seeds_the_first_one_tells_the_options(demo_run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    shutil.copytree(demo_run, tmp_path / "full" / "seed-0")
    shutil.copytree(demo_run, tmp_path / "full" / "seed-1")
    for seed, seconds in (("seed-0", 1), ("seed-1", 2)):
        (tmp_path / "full" / seed / "ppo" / "config.yaml").write_text(f"command: ppo\nmax_steps: {seconds}\n")
    rows = compare_evaluations.stage_options(tmp_path / "full", demo_run)
    assert {"name": "ppo.max_steps", "a": 1} in rows


def test_a_demo_without_a_report_says_how_to_write_it(demo_run: Path, other_run: Path) -> None:
    with pytest.raises(InputError, match=r"has no report.json; 'amenable report --run"):
        compare_evaluations.demos(demo_run, other_run)
