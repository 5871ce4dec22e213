"""The command line: commands are files, help is quick, mistakes get one line and exit code 2."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from amenable import cli
from amenable.errors import InputError


@dataclass(frozen=True)
class Inner:
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Config:
    out: Path = Path("runs/x")
    steps: int = 3
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    data: Path | None = None
    optimizer: Inner = field(default_factory=Inner)


def test_every_command_is_a_file_and_says_what_it_does() -> None:
    text = cli.overview()
    for name in (
        "tokenizer",
        "pretrain",
        "sft",
        "sample",
        "annotate",
        "reward",
        "ppo",
        "dpo",
        "evaluate",
        "chat",
        "demo",
        "inspect",
        "compare",
    ):
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 3


def test_help_does_not_import_torch() -> None:
    code = "import sys; from amenable.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["ppoo"]) == 2
    assert capsys.readouterr().err == "amenable: there is no command 'ppoo'; did you mean 'ppo'?\n"


def test_options_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("command: x\nsteps: 7\nkind: b\nnames: [p, q]\noptimizer: {learning_rate: 1}\n")
    config = cli.parse(Config, ["--config", str(file), "--steps", "9"], "amenable x", "")
    assert config == Config(steps=9, kind="b", names=("p", "q"), optimizer=Inner(1.0))
    assert cli.parse(Config, [f"--config={file}"], "amenable x", "").steps == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 3", "unknown option 'step'; did you mean 'steps'"),
        (
            "optimizer: {learning_rat: 1}",
            "unknown option 'optimizer.learning_rat'; did you mean 'optimizer.learning_rate'",
        ),
        ("steps: many", "'steps' is 'many', not int"),
        ("steps: 2.5", "'steps' is 2.5, not int"),
        ("kind: c", "'kind' is 'c'; one of a, b"),
        ("steps: [", "not readable as YAML"),
        ("- 1", "a configuration is a mapping"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml") as caught:
        cli.parse(Config, ["--config", str(file)], "amenable x", "")
    assert message in str(caught.value)


def test_a_missing_file_and_a_missing_value(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such configuration"):
        cli.parse(Config, ["--config", str(tmp_path / "none.yaml")], "amenable x", "")
    with pytest.raises(InputError, match="--config needs a file"):
        cli.parse(Config, ["--config"], "amenable x", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--step", "3"], "Unrecognized options: --step, 3; did you mean --steps?"),
        (["--steps", "many"], "many"),
        (["--kind", "c"], "invalid choice 'c'"),
        (["--steps"], "Missing value for argument '--steps'"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(arguments: list[str], line: str) -> None:
    with pytest.raises(InputError) as caught:
        cli.parse(Config, arguments, "amenable x", "")
    assert line in str(caught.value) and "\n" not in str(caught.value) and "│" not in str(caught.value)


def test_what_a_configuration_refuses_is_told_in_its_own_words(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["ppo", "--num-mini-batches", "7"]) == 2
    report = capsys.readouterr().err
    assert report.startswith("amenable: num_mini_batches 7 does not divide the 128 samples of a step;")
    assert len(report.splitlines()) == 1


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("amenable 0.")


def test_help_lists_inputs_then_a_commands_own_options_then_common_ones() -> None:
    from amenable.stages import rloo

    names = [field.name for field in dataclasses.fields(cli.in_order_of_help(rloo.Config))]
    assert names[:5] == ["model", "reward", "data", "validation", "out"] and names[-1] == "max_bad_rows"
    assert names.index("loss_on") < names.index("kl_horizon") < names.index("seed")
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(rloo.Config))
    parsed = cli.parse(rloo.Config, ["--num-generations", "8", "--lora.rank", "2"], "amenable rloo", "")
    assert type(parsed) is rloo.Config and (parsed.num_generations, parsed.lora.rank) == (8, 2)
