"""A reward that fails in the middle of a run: nothing is lost, and the run goes on once it is mended."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError, RewardError
from amenable.rl import improve
from amenable.stages import rloo
from amenable.train import checkpoint
from amenable.train.failed_rewards import FAILED_ROLLOUT, clear, is_mended, scoring
from amenable.train.runtime import DeviceOptions

FUNCTION = """
count = 0
def score(completions, target):
    global count
    count += 1
    if count == 3:
        raise ValueError("no third time")
    return [float(len(text) % 5) for text in completions]
"""


@pytest.fixture
def config(assistant: Path, tmp_path: Path) -> rloo.Config:
    rows = [{"prompt": f"{name} asks: name a red thing.", "target": "rose"} for name in ("Ann", "Bo", "Cy", "Di")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(FUNCTION)
    return rloo.Config(
        model=assistant,
        reward=("ends", f"{tmp_path}/mine.py:score"),
        data=tmp_path / "prompts.jsonl",
        out=tmp_path / "run",
        max_steps=4,
        prompts_per_step=2,
        num_generations=2,
        num_mini_batches=1,
        max_new_tokens=8,
        num_traced_prompts=0,
        save_steps=0,
        device=DeviceOptions("cpu", "fp32", 1),
    )


def test_a_run_goes_on_once_its_reward_is_mended(config: rloo.Config, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(
        InputError, match=r"stopped in step 3: .*score, line 7: raised ValueError: no third time; its 4"
    ):
        rloo.run(config)
    rows = [json.loads(line) for line in (config.out / FAILED_ROLLOUT).read_text().splitlines()]
    assert len(rows) == 4 and all(row["target"] == "rose" and row["rewards"].keys() == {"ends"} for row in rows)
    assert list(checkpoint.steps(config.out)) == [2]
    steps = (config.out / "metrics.jsonl").read_text()
    assert len(steps.splitlines()) == 2
    (tmp_path / "mine.py").write_text(FUNCTION.replace("== 3", "== 99"))
    rloo.run(config)
    printed = " ".join(capsys.readouterr().err.split())
    assert "prompts.jsonl: 4 prompts; column prompt used; target used by the reward" in printed
    assert "has changed: steps up to 2 were scored as it was" in printed
    assert (config.out / "metrics.jsonl").read_text().startswith(steps) and not (config.out / FAILED_ROLLOUT).exists()
    lineage = json.loads((config.out / "lineage.json").read_text())
    assert [entry["step"] for entry in lineage["mended"]] == [2]
    assert lineage["mended"][0]["sha256"] != lineage["inputs"]["reward"]["sha256"]
    whole = rloo.run(replace(config, out=tmp_path / "whole"))
    assert (whole / "metrics.jsonl").read_text() == (config.out / "metrics.jsonl").read_text()


HELD_OUT = """
def score(completions, target):
    global count
    count += target[0] == "lily"
    if count == FAILING and target[0] == "lily":
        raise ValueError("not these")
    return [float(len(text) % 5) for text in completions]

count = 0
"""


@pytest.mark.parametrize(("failing", "step", "saved"), [(1, 1, []), (2, 1, [0]), (5, 4, [3])])
def test_a_step_goes_on_with_its_evaluation_where_the_reward_failed_there(
    config: rloo.Config, tmp_path: Path, failing: int, step: int, saved: list[int], monkeypatch: Any
) -> None:
    rows = [{"prompt": f"{name} asks: name a red thing.", "target": "lily"} for name in ("Eve", "Flo")]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(HELD_OUT.replace("FAILING", str(failing)))
    options = {"validation": tmp_path / "held_out.jsonl", "eval_steps": 1, "num_traced_prompts": 1, "sample_steps": 1}
    config = replace(config, **options, keep_weights="score")
    with pytest.raises(InputError, match=f"stopped in step {step}: .*not these; its 2 completions"):
        rloo.run(config)
    assert (config.out / FAILED_ROLLOUT).exists() and sorted(checkpoint.steps(config.out)) == saved
    assert len((config.out / "metrics.jsonl").read_text().splitlines() if step > 1 else []) == step - 1
    (tmp_path / "mine.py").write_text(HELD_OUT.replace("FAILING", "99"))
    updates = []
    update = improve.update
    monkeypatch.setattr(improve, "update", lambda *args: updates.append(args[4]) or update(*args))
    rloo.run(config)
    assert updates == list(range(step + bool(saved), 5))
    whole = rloo.run(replace(config, out=tmp_path / "whole"))
    for name in ("metrics.jsonl", "answers.jsonl", "samples.jsonl", "traces.jsonl", "model.safetensors"):
        assert (whole / name).read_bytes() == (config.out / name).read_bytes(), name
    assert checkpoint.steps(config.out) == []


def test_only_a_failed_rewards_python_file_may_change(tmp_path: Path) -> None:
    assert not is_mended(tmp_path, Path("mine.py")) and clear(tmp_path, 1, {}) == []
    (tmp_path / FAILED_ROLLOUT).write_text("")
    assert is_mended(tmp_path, Path("mine.py")) and not is_mended(tmp_path, Path("runs/reward"))


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other"), scoring(None):  # type: ignore[arg-type]
        raise InputError("other")
    assert issubclass(RewardError, InputError)
