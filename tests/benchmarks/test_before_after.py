"""The comparison of two checkouts: each in its own option names, measured as whole processes, in pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from amenable.data import sources
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.runtime import Runtime
from benchmarks import before_after, before_after_inputs
from benchmarks.before_after import Config, Usage

TREE = Path(__file__).parent.parent.parent


def test_each_checkout_is_called_in_its_own_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    both = "--model --data --epochs --batch-size --validation --eval-steps --save-steps --warmup-steps --max-steps"
    own = "--prompts-per-step --max-new-tokens --temperature --kl-coef"
    own += " --optimizer.learning-rate --critic-learning-rate"
    old_names = "--reward-model --watched --kl-target --machine.device --machine.precision --machine.threads"
    new_names = "--reward --num-traced-prompts --adaptive-kl-target --device --precision --threads --eval-prompts"
    names = {
        "old": f"{both} {own} {old_names}",
        "new": f"{both} {own} {new_names}",
    }
    monkeypatch.setattr(before_after, "option_names", lambda _, tree: set(names[tree.name].split()))
    config = Config(TREE, TREE, steps=8)
    old, new = (before_after.command("ppo", Path(name), tmp_path, config) for name in ("old", "new"))
    assert old[:4] == new[:4] == [sys.executable, "-m", "amenable", "ppo"]
    given = [dict(zip(words[4::2], words[5::2])) for words in (old, new)]
    folder = str(tmp_path / "reward-model")
    assert given[0]["--reward-model"] == given[1]["--reward"] == folder
    assert given[0]["--machine.threads"] == given[1]["--threads"] == "1"
    assert given[0]["--watched"] == given[1]["--num-traced-prompts"] == "0"
    assert given[0]["--kl-target"] == given[1]["--adaptive-kl-target"] == "0"
    assert given[0]["--max-steps"] == given[1]["--max-steps"] == "2"
    assert list(given[0].values()) == list(given[1].values())
    old, new = (before_after.command("dpo", Path(name), tmp_path, config) for name in ("old", "new"))
    assert "--eval-prompts" in new and "--eval-prompts" not in old
    with pytest.raises(before_after.InputError, match="no option --dropout"):
        before_after.command("sft", Path("new"), tmp_path, config)


def test_a_process_is_measured_whole(tmp_path: Path) -> None:
    """This process is large, so that only a larger one shows."""
    size = 2**30
    usage = before_after.measure(
        [sys.executable, "-c", f"x = bytearray({size}); x[::4096] = x[::4096]"], TREE, tmp_path
    )
    assert size < usage.memory < 1.2 * size
    assert 0 < usage.processor < 60 and usage.clock > 0
    with pytest.raises(subprocess.CalledProcessError) as raised:
        before_after.measure([sys.executable, "-c", "print('so far'); raise SystemExit(3)"], TREE, tmp_path)
    assert raised.value.returncode == 3 and "so far" in raised.value.stderr


def test_ratios_are_those_of_pairs() -> None:
    """Processor 2, 1 and 3 times as fast: 2; clock 1.5, 1 and 1; memory 1/2, 1 and 3/4 of the old."""
    pairs = [
        (Usage(3, 8, 2**22), Usage(2, 4, 2**21)),
        (Usage(5, 5, 2**22), Usage(5, 5, 2**22)),
        (Usage(9, 9, 2**22), Usage(9, 3, 3 * 2**20)),
    ]
    cells = [cell.strip() for cell in before_after.table_line("sft", pairs).strip("| ").split("|")]
    assert cells == ["sft", "8.0", "4.0", "**2.00**", "1.00 to 3.00", "1.00", "4", "3", "**0.75**"]


def test_inputs_begin_with_a_system_prompt_of_30_tokens(tmp_path: Path, runtime: Runtime) -> None:
    before_after_inputs.main(tmp_path, 1, "tiny")
    tokenizer = Tokenizer.load(tmp_path / "model")
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 16 and {row["prompt"][0]["role"] for row in rows} == {"system"}
    assert {len(tokenizer.encode(row["prompt"][0]["content"])) for row in rows} == {30}
    assert len({row["prompt"][0]["content"] for row in rows}) == 1
    assert len({row["prompt"][1]["content"] for row in rows}) == 16
    assert len(sources.read_demonstrations(tmp_path / "demonstrations.jsonl").rows) == 16
    decoder, _ = loading.load_policy(tmp_path / "model", runtime)
    scorer = loading.load_reward_model(tmp_path / "reward-model", runtime, tokenizer)
    assert scorer.decoder.config == decoder.config


@pytest.mark.slow
def test_a_checkout_beside_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.md"
    arguments = [str(TREE), str(TREE), "--size", "tiny", "--steps", "4", "--repeats", "1", "--out", str(out)]
    assert before_after.main(arguments) == 0
    lines = out.read_text("utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["sft", "reward", "dpo", "ppo"]
    assert capsys.readouterr().out == out.read_text("utf-8")


def test_mistakes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(before_after.InputError, match="no checkout of this project"):
        Config(tmp_path, TREE)
    with pytest.raises(before_after.InputError, match="unknown command: rlhf"):
        Config(TREE, TREE, only="sft,rlhf")
    with pytest.raises(before_after.InputError, match="below 1"):
        Config(TREE, TREE, repeats=0)
