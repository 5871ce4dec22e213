"""README.md and docs/: commands parse, targets and links exist, Python runs up to the first call that trains."""

import ast
import dataclasses
import importlib
import re
import shlex
from pathlib import Path

import pytest

from amenable import cli
from amenable.errors import InputError

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {
    cli.command_of(file): f"amenable.{room}.{file.stem}"
    for room, files in cli.command_files().items()
    for file in files
}
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def code_of(text: str) -> list[str]:
    """Return the lines of code blocks and the code within sentences."""
    fenced = [line for language, block in CODE.findall(text) if not language for line in block.splitlines()]
    rest = CODE.sub("", text)
    indented = [line.strip() for line in rest.splitlines() if line.startswith("    ")]
    return [*fenced, *indented, *re.findall(r"`([^`\n]+)`", rest)]


def shown(start: str) -> list[tuple[str, str]]:
    """Return (document, command) for all that is shown and begins with `start`, without comments."""
    return [
        (document.name, line.split("  #")[0].strip())
        for document in DOCUMENTS
        for line in code_of(document.read_text("utf-8"))
        if line.startswith(start) and "<" not in line.split("  #")[0]
    ]


@pytest.mark.parametrize(("document", "command"), sorted(set(shown("amenable "))))
def test_every_command_shown_is_one(
    document: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *options = shlex.split(command)[1:]
    if name.startswith("-"):
        return
    assert name in COMMANDS, f"{document}: {command}"
    config = importlib.import_module(COMMANDS[name]).Config
    if "--config" in options:
        monkeypatch.chdir(tmp_path)
        file = Path(options[options.index("--config") + 1])
        file.parent.mkdir(parents=True)
        file.write_text("seed: 1\n")
    assert isinstance(cli.parse(config, options, name, ""), config)


def test_a_command_that_is_none_is_noticed() -> None:
    config = importlib.import_module(COMMANDS["ppo"]).Config
    with pytest.raises(InputError):
        cli.parse(config, ["--kl-target", "3"], "ppo", "")


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for name, module in COMMANDS.items():
        assert f"`{module.replace('.', '/')}.py`" in text, f"README's table lacks amenable {name}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 1300


def test_every_target_shown_is_one() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert shown("make ")
    for document, command in shown("make "):
        assert command.split()[1] in targets, f"{document}: {command}"


def test_every_benchmark_shown_is_one() -> None:
    assert shown("python -m benchmarks.")
    for document, command in shown("python -m benchmarks."):
        module = command.split()[2]
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), f"{document}: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text("utf-8")):
        assert target.startswith("http") or (document.parent / target).exists(), f"{document.name} links {target}"


def test_python_in_the_readme_names_what_exists() -> None:
    blocks = [
        block for language, block in CODE.findall((ROOT / "README.md").read_text("utf-8")) if language == "python"
    ]
    assert blocks
    for block in blocks:
        setup = [node for node in ast.parse(block).body if "run(" not in ast.unparse(node)]
        names: dict[str, object] = {}
        exec(compile(ast.Module(setup, []), "README.md", "exec"), names)
        assert any(dataclasses.is_dataclass(value) for value in names.values())
