"""Calls are written down, run in order, and side by side as processes."""

from pathlib import Path

import pytest
import yaml

from amenable.cli import from_yaml
from amenable.errors import InputError
from amenable.recipes.together import Call, run_all, side_by_side, with_one_thread
from amenable.stages import dpo, tokenizer


def text_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("a cat sat on the mat\n" * 50)
    return path


def test_options_are_written_so_that_the_command_repeats_them(tmp_path: Path) -> None:
    call = Call("dpo", dpo.Config(out=tmp_path / "dpo", beta=0.25, data=tmp_path / "x.jsonl"))
    path = call.write(tmp_path / "plan")
    assert yaml.safe_load(path.read_text())["command"] == "dpo"
    assert from_yaml(dpo.Config, path) == call.config


def test_groups_run_and_leave_their_options(tmp_path: Path) -> None:
    config = tokenizer.Config(data=text_file(tmp_path), out=tmp_path / "tok", vocab_size=270)
    run_all([[Call("tokenizer", config)]], tmp_path / "plan")
    assert (tmp_path / "tok" / "finished.json").exists() and (tmp_path / "plan" / "tok.yaml").exists()


def test_side_by_side_runs_what_is_not_done_and_tells_of_a_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    calls = [
        with_one_thread(
            Call("dpo", dpo.Config(model=tmp_path / "none", data=tmp_path / "no.jsonl", out=tmp_path / "d"))
        ),
        with_one_thread(
            Call("dpo", dpo.Config(model=tmp_path / "none", data=tmp_path / "no.jsonl", out=tmp_path / "e"))
        ),
    ]
    assert calls[0].config.machine.threads == 1
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "finished.json").write_text("{}")  # done already: not run again, which would fail
    with pytest.raises(InputError, match="'dpo' ended with exit code 2"):
        side_by_side(calls, tmp_path / "plan")
    said = capfd.readouterr().err
    assert said.count("no such") == 1  # the failing child's own message, passed on
