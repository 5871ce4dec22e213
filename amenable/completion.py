"""Shell completion: a script for bash, zsh or fish that knows every command, option and choice.

    amenable --print-completion bash > ~/.local/share/bash-completion/completions/amenable

The script is written once, from the commands' Configs: a press of the tab key starts no Python.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import shlex
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

Kind = typing.Literal["path", "value", "switch"]
SHELLS = ("bash", "zsh", "fish")
POSITIONAL = typing.get_args(Positional[int])[1]
"""the mark of a field without a name on the command line"""


@dataclass(frozen=True)
class Option:
    """An option of a command: its name without dashes, or "" for a positional one."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    kind: Kind = "value"


@dataclass(frozen=True)
class Command:
    """A command, its line of help and its options."""

    name: str
    help: str
    options: tuple[Option, ...]


COMMON = (
    Option("config", "options of a run: its config.yaml", kind="path"),
    Option("help", "show the options", kind="switch"),
)


def options_of(config_class: type, prefix: str = "") -> Iterator[Option]:
    """Yield the options of a Config as tyro names them; those of a group begin with its name, unless that is empty."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    helps = field_helps(config_class)
    for field in dataclasses.fields(config_class):
        hint, marks = hints[field.name], list[Any]()
        if typing.get_origin(hint) is typing.Annotated:
            hint, *marks = typing.get_args(hint)
        names = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
        name = names[0] if names else field.name
        if dataclasses.is_dataclass(hint):
            yield from options_of(typing.cast(type, hint), f"{prefix}{name}." if name else prefix)
            continue
        text = helps.get(field.name, "")
        dashed = "" if POSITIONAL in marks else (prefix + name).replace("_", "-")
        if hint is bool:
            yield Option(dashed, text, kind="switch")
            yield Option(f"{prefix}no-{name}".replace("_", "-"), f"not: {text}", kind="switch")
        else:
            # a text may be a folder: a SPEC of --reward, a model of serve
            kind: Kind = "path" if {Path, str} & set(kinds_of(hint)) else "value"
            yield Option(dashed, text, choices_of(hint), kind)


def kinds_of(hint: Any) -> list[Any]:
    """Return the types that the values of a field may have: of a union or a tuple those of its parts."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return [kind for part in typing.get_args(hint) for kind in kinds_of(part)]
    return [hint]


def choices_of(hint: Any) -> tuple[str, ...]:
    """Return the values that a field may have, where they can be listed."""
    kinds = [kind for kind in kinds_of(hint) if typing.get_origin(kind) is typing.Literal]
    return tuple(str(value) for kind in kinds for value in typing.get_args(kind))


def field_helps(config_class: type) -> dict[str, str]:
    """Return the docstring below each field, up to a semicolon; fields of base classes are included."""
    helps = dict[str, str]()
    for base in reversed(config_class.__mro__):
        if base is object:
            continue
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                helps[ast.unparse(field.target)] = " ".join(str(text.value.value).split()).partition(";")[0]
    return helps


def script(shell: str, commands: list[Command]) -> str:
    """Return the completion script of a shell in SHELLS."""
    return {"bash": bash, "zsh": zsh, "fish": fish}[shell](commands)


def every_option(command: Command) -> list[Option]:
    """Return a command's options with those that all commands have."""
    return [*command.options, *COMMON]


def words(names: list[str] | tuple[str, ...]) -> str:
    """Return words as one quoted argument of a shell."""
    return shlex.quote(" ".join(names))


def bash(commands: list[Command]) -> str:
    """Return a script for bash: words by command, values by command and option; else files."""
    options, values = list[str](), list[str]()
    first = [*(command.name for command in commands), "--help", "--version", "--print-completion"]
    for command in commands:
        names = [f"--{option.name}" for option in every_option(command) if option.name]
        options.append(f"    {command.name}) options={words(names)} ;;")
        for option in command.options:
            before = f"--{option.name}" if option.name else command.name
            if option.choices:
                values.append(f"    '{command.name} {before}') values={words(option.choices)} ;;")
    return "\n".join(
        [
            "# completion of amenable for bash",
            "_amenable() {",
            "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} options= values=",
            "  COMPREPLY=()",
            '  if [ "$previous" = --print-completion ]; then',
            f'    COMPREPLY=($(compgen -W {words(SHELLS)} -- "$current")); return',
            "  fi",
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f"    options={words(first)}",
            '    COMPREPLY=($(compgen -W "$options" -- "$current")); return',
            "  fi",
            '  case "${COMP_WORDS[1]}" in',
            *options,
            "  esac",
            '  case "${COMP_WORDS[1]} $previous" in',
            *values,
            "  esac",
            "  if [[ $current == -* ]]; then",
            '    COMPREPLY=($(compgen -W "$options" -- "$current"))',
            '  elif [ -n "$values" ]; then',
            '    COMPREPLY=($(compgen -W "$values" -- "$current"))',
            "  fi",
            "}",
            "complete -o default -F _amenable amenable",
            "",
        ]
    )


def zsh(commands: list[Command]) -> str:
    """Return a script for zsh, with the help of every option."""

    def text(value: str) -> str:
        return "".join(f"\\{letter}" if letter in "[]:\\" else letter for letter in value)

    def argument(option: Option) -> str:
        values = (
            f"({' '.join(option.choices)})" if option.choices else {"path": "_files", "value": " "}.get(option.kind)
        )
        tail = "" if option.kind == "switch" else f":{text(option.name) or 'value'}:{values}"
        return shlex.quote(f"*--{option.name}[{text(option.help)}]{tail}" if option.name else tail)

    lines = [shlex.quote(f"{command.name}:{text(command.help)}") for command in commands]
    cases = [
        f"    {command.name}) _arguments {' '.join(map(argument, every_option(command)))} '*:file:_files' ;;"
        for command in commands
    ]
    return "\n".join(
        [
            "#compdef amenable",
            "_amenable() {",
            "  if (( CURRENT == 2 )); then",
            "    local -a commands",
            f"    commands=({' '.join(lines)})",
            "    _describe command commands; return",
            "  fi",
            "  shift words; (( CURRENT-- ))",
            "  case $words[1] in",
            *cases,
            "  esac",
            "}",
            'if [ "$funcstack[1]" = _amenable ]; then _amenable "$@"; else compdef _amenable amenable; fi',
            "",
        ]
    )


def fish(commands: list[Command]) -> str:
    """Return a script for fish, with the help of every option."""

    def quoted(value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = ["# completion of amenable for fish", "complete -c amenable -n __fish_use_subcommand -f"]
    for command in commands:
        lines.append(f"complete -c amenable -n __fish_use_subcommand -a {command.name} -d {quoted(command.help)}")
        where = f"complete -c amenable -n '__fish_seen_subcommand_from {command.name}'"
        for option in every_option(command):
            values = f" -a {words(option.choices)}" if option.choices else ""
            takes = {"path": " -r -F", "value": " -x", "switch": ""}[option.kind]
            named = f" -l {option.name}{takes}" if option.name else ""
            if named or values:
                lines.append(f"{where}{named}{values} -d {quoted(option.help)}")
    return "\n".join([*lines, ""])
