"""The page of a control run: its episodes, the learned reward beside the true one, curves."""

import json
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.recipes import report
from amenable.recipes.reports import control_page
from amenable.stages import control

SMALL = control.Config(
    num_envs=2, num_steps=64, total_timesteps=256, eval_episodes=2, env_options=("max_episode_steps=40",)
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from a few comparisons."""
    out = tmp_path_factory.mktemp("control") / "run"
    options = {"learn_from": "comparisons", "max_labels": 6, "clip_steps": 10, "reward_updates": 2}
    return control.run(control.Config(**{**vars(SMALL), **options, "out": out}))


def test_the_page_of_a_run_from_comparisons(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.run(report.Config(run=compared)) == compared
    figures = json.loads((compared / "report.json").read_text("utf-8"))
    assert [row["moment"] for row in figures["episodes"]] == ["before", "midway", "after"]
    assert [row["timesteps"] for row in figures["episodes"]] == [0, 128, 256]
    assert figures["headline"][0] == "PPO learned to act in CartPole-v1 from comparisons of clips, judge: synthetic."
    assert len(figures["probes"]["learned"]) == len(figures["probes"]["true"]) > 4
    page = (compared / "report.html").read_text("utf-8")
    clips = [json.loads(unescape(text)) for text in re.findall(r'data-clip="(.*?)"', page)]
    assert [clip["frames"] for clip in clips] == [row["clip"]["frames"] for row in figures["episodes"]]
    assert "Learned against true return of clips" in page and not re.search('(src|href)="http', page)
    assert "PPO learned to act" in capsys.readouterr().err


def test_the_script_of_clips_is_one_function() -> None:
    script = control_page.clip_script()
    assert "export " not in script and not re.search(r"^import ", script, re.MULTILINE)
    assert script.startswith("(() => {") and "function clip(text, label)" in script and "function el(tag" in script


def test_an_unfinished_run_is_shown(tmp_path: Path, compared: Path) -> None:
    for name in ("config.yaml", "metrics.jsonl", "episodes.jsonl"):
        (tmp_path / name).write_bytes((compared / name).read_bytes())
    figures = json.loads((control_page.write(tmp_path) / "report.json").read_text("utf-8"))
    assert "not finished" in figures["headline"][1] and figures["probes"] is None


def test_the_headline_of_a_backflip_has_its_turns_instead_of_a_return() -> None:
    done = {"timesteps": 4096, "seconds": 60.0, "eval/return": 0.0, "eval/rotation": 0.654, "eval/full_turn": 0.25}
    stage: Any = SimpleNamespace(config={"judge": "people"}, finished=done)
    figures = {"algorithm": "ppo", "task": "x", "learned_from": "comparisons", "probes": None}
    last = control_page.headline(stage, figures)[-1]
    assert last == "An episode by the likeliest actions turns 0.65 times backwards; 25% have a full turn."


def test_another_folder_is_refused(tmp_path: Path) -> None:
    assert not control_page.is_control(tmp_path)
    with pytest.raises(InputError, match="holds no run of amenable control"):
        control_page.write(tmp_path)
