"""Completion scripts: they know what --help lists, and bash completes by them."""

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amenable import cli, completion
from amenable.errors import InputError


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell."""
    folder = tmp_path_factory.mktemp("completion")
    files = {shell: folder / shell for shell in completion.SHELLS}
    for shell, file in files.items():
        file.write_text(cli.completion_script([shell]), "utf-8")
    return files


@pytest.fixture(scope="module")
def complete(scripts: dict[str, Path]) -> Callable[..., list[str]]:
    """What bash proposes after these words."""

    def proposals(*words: str) -> list[str]:
        program = (
            'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _amenable; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        command = ["bash", "-c", program, "bash", str(scripts["bash"]), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    return proposals


@pytest.mark.parametrize("command", ["stages.ppo", "stages.world", "serve.annotators", "recipes.get"])
def test_the_options_are_those_of_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = importlib.import_module(f"amenable.{command}").Config
    with pytest.raises(SystemExit):
        cli.parse(config, ["--help"], "amenable x", "")
    heads = [
        line.split("  ")[0] for line in re.findall(r"^[│| ]{0,2}(--[a-z].*)", capsys.readouterr().out, re.MULTILINE)
    ]
    shown = {name for head in heads for name in re.findall(r"--([a-z][\w.-]*)", head)}
    assert shown == {option.name for option in completion.options_of(config) if option.name}


def test_bash_completes_commands_options_and_choices(complete: Callable[..., list[str]]) -> None:
    assert complete("amenable", "pp") == ["ppo"]
    assert "--version" in complete("amenable", "--")
    assert complete("amenable", "ppo", "--kl-c") == ["--kl-coef"]
    assert complete("amenable", "sft", "--lora.ra") == ["--lora.rank"]
    assert complete("amenable", "ppo", "--precision", "") == ["auto", "fp32", "bf16"]
    assert complete("amenable", "annotators", "r") == ["revoke"]
    assert complete("amenable", "--print-completion", "z") == ["zsh"]
    assert complete("amenable", "ppo", "--data", "") == [], "bash completes files by itself"
    assert complete("amenable", "dpo", "--critic") == []


def test_every_command_is_in_every_script(scripts: dict[str, Path]) -> None:
    names = [cli.command_of(file) for files in cli.command_files().values() for file in files]
    for shell, file in scripts.items():
        text = file.read_text("utf-8")
        assert all(re.search(rf"(?<![\w-]){name}(?![\w-])", text) for name in names), shell
        assert "max-new-tokens" in text


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_shell_reads_its_script(shell: str, scripts: dict[str, Path]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(scripts[shell])], check=True)


def test_texts_are_quoted() -> None:
    option = completion.Option("data", "a file's [name]: $(touch x) `y`", kind="path")
    command = completion.Command("sft", "imitate: don't", (option,))
    assert "'\\''" not in completion.fish([command]) and "a file\\'s" in completion.fish([command])
    assert "\\[name\\]\\: $(touch x) `y`]" in completion.zsh([command])


def test_another_shell_is_refused() -> None:
    for arguments in ([], ["tcsh"], ["bash", "zsh"]):
        with pytest.raises(InputError, match="bash, zsh, fish"):
            cli.completion_script(arguments)


def test_the_script_needs_no_torch_when_it_runs(scripts: dict[str, Path]) -> None:
    assert "python" not in scripts["bash"].read_text("utf-8")
    assert sys.executable not in scripts["fish"].read_text("utf-8")
