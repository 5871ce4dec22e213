"""README.md and docs/: commands, options, targets, files and links exist; Python calls stages with their options; every
message of training is explained."""

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from amenable import cli
from amenable.errors import InputError
from amenable.recipes import doctor
from amenable.train import guards

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {
    cli.command_of(file): f"amenable.{room}.{file.stem}"
    for room, files in cli.command_files().items()
    for file in files
}
EXAMPLES = ("my_rewards.py", "amenable/stages/ranked.py")
OWN = "ranked"
"""command of the algorithm that docs/own_algorithm.md adds: test_own_algorithm.py runs it"""
"""files of a user"""
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
    options = [option for option in options if option != "--help"]
    if name.startswith("-") or name == OWN:
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
    """Its text; the table of commands grows with them."""
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(" ".join(line for line in lines if not line.startswith("|")).split()) <= 650


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_sentences_exist(document: Path) -> None:
    for name in re.findall(r"(?<![\w/.<-])((?:[a-z_]+/)*[a-z_]+\.py)\b", document.read_text("utf-8")):
        exists = (ROOT / name).exists() or any((ROOT / "amenable").glob(name if "/" in name else f"**/{name}"))
        exists = exists or (ROOT / "tests" / name).exists()
        assert exists or name in EXAMPLES, f"{document.name} names {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_named_in_sentences_exist(document: Path) -> None:
    configs = [importlib.import_module(module).Config for module in COMMANDS.values()]
    known = {"help", "config", "version", "debug", "option", "print-completion"} | {
        name for config in configs for name in cli.option_names(config)
    }
    lines = [
        line
        for line in document.read_text("utf-8").splitlines()
        if not re.search("python -m|make |torchrun |vllm serve ", line)
    ]
    for option in re.findall(r"(?<![\w-])--([a-z][a-z-]*(?:\.[a-z-]+)?)", "\n".join(lines)):
        assert option in known or option.split(".")[-1].replace("-", "_") in known, f"{document.name} names --{option}"


@pytest.mark.parametrize("document", ["README.md", "docs/design.md"])
def test_every_room_is_in_the_drawing(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    rooms = [file.parent.name for file in (ROOT / "amenable").glob("*/__init__.py")]
    assert rooms and not [room for room in rooms if f"\n  {room}/" not in text]


def test_python_in_the_readme_calls_stages_with_their_options() -> None:
    blocks = [
        block for language, block in CODE.findall((ROOT / "README.md").read_text("utf-8")) if language == "python"
    ]
    calls = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    stages = [call for call in calls if ast.unparse(call.func).startswith("am.")]
    assert stages
    for call in stages:
        name = ast.unparse(call.func).removeprefix("am.")
        known = cli.option_names(importlib.import_module(COMMANDS[name]).Config)
        assert {keyword.arg for keyword in call.keywords} <= {*known, "out"}, ast.unparse(call)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_is_python(document: Path) -> None:
    for language, block in CODE.findall(document.read_text("utf-8")):
        if language == "python":
            ast.parse(block)


def test_every_page_is_in_the_site() -> None:
    pages = re.findall(r":\s(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    documents = {path.relative_to(ROOT / "docs").as_posix() for path in DOCUMENTS[1:]}
    assert set(pages) == documents, "mkdocs.yml lists every page of docs/"


def test_every_extra_has_its_purpose() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    text = (ROOT / "docs" / "installation.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == extras == set(doctor.PURPOSES)


def messages(path: Path) -> list[str]:
    """The longest constant part of each message that a module raises, or keeps as `problem` or `failure`."""
    result = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("InputError") and node.args:
            text = node.args[0]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("problem", "failure"):
            text = node.value
        else:
            continue
        parts = [
            part.value for part in ast.walk(text) if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        result.append(max((part.strip(" ;:('\"") for part in parts), key=len, default=""))
    return [message for message in result if len(message) >= 10]


def test_every_message_of_training_is_explained() -> None:
    """In docs/troubleshooting.md: by the message's longest constant part, and every warning as it is."""
    page = " ".join((ROOT / "docs" / "troubleshooting.md").read_text("utf-8").replace("`", "").split())
    modules = [path for room in ("train", "rl") for path in sorted((ROOT / "amenable" / room).glob("*.py"))]
    raised = [message for path in modules for message in messages(path)]
    assert len(raised) >= 40
    missing = [message for message in raised if message not in page]
    missing += [check.warning for check in guards.checks() if f"| {check.warning} |" not in page]
    assert not missing, "docs/troubleshooting.md does not explain these messages"
