"""`amenable <command> --option value`: a command is a file in stages/, serve/ or recipes/ that has `Config` and `run`.

There is no table of commands: the file system is the table. Heavy imports happen only once a command is chosen.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import dataclasses
import difflib
import gc
import importlib
import inspect
import io
import re
import sys
import typing
from functools import partial
from pathlib import Path
from typing import Any

from amenable.errors import InputError, Interrupted
from amenable.ranks import as_member, in_group
from amenable.renamed_options import accept_old_name, new_name
from amenable.yaml_options import from_yaml

INPUTS = ("model", "models", "reward", "data", "validation", "out")
"""options that --help lists first"""
PACKAGES = {
    "stages": "Stages: each reads run directories and files, and writes a run directory",
    "recipes": "Recipes: whole experiments, stage after stage",
    "serve": "People: talk to a model, label, serve",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 wrong input, 130 interrupted, 141 closed pipe."""
    return as_member(partial(run, list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command in this process, or in those of its `--processes`, and return the exit code."""
    debug = "--debug" in arguments
    replace_unknown_characters(sys.stdout, sys.stderr)
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return dispatch(arguments)
    except InputError as error:
        if debug:
            raise
        print(f"amenable: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"\namenable: {stop}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\namenable: stopped; repeat the command to resume it from what is saved", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141


def replace_unknown_characters(*streams: Any) -> None:
    """Let streams of another encoding than UTF-8, such as a pipe on Windows, show "?" for a character they lack."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="replace")


def dispatch(arguments: list[str]) -> int:
    """Import the command's file, parse the options into its Config, and run it."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        from amenable import __version__

        print(f"amenable {__version__}")
        return 0
    if arguments[0] == "--print-completion":
        print(completion_script(arguments[1:]), end="")
        return 0
    name, rest = arguments[0], arguments[1:]
    commands = {command_of(file): package for package, files in command_files().items() for file in files}
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        raise InputError(
            f"there is no command '{name}'", how=f"did you mean '{near[0]}'?" if near else "see 'amenable --help'"
        )
    gc.disable()  # imports make objects that stay: collecting among them would take a sixth of the time
    module = importlib.import_module(f"amenable.{commands[name]}.{name.replace('-', '_')}")
    gc.freeze()
    gc.enable()
    config = parse(module.Config, rest, f"amenable {name}", module.__doc__ or "")
    if not in_group() and getattr(getattr(config, "placement", None), "cluster", "none") == "ray":
        from amenable.cluster.launch import launch_on_ray

        return launch_on_ray(name, config)
    count = getattr(config, "processes", 1)
    if count > 1 and not in_group():
        from amenable.launcher import launch

        return launch([sys.executable, "-m", "amenable", *arguments], count)
    module.run(config)
    return 0


def command_files() -> dict[str, list[Path]]:
    """Return the files that are commands, by package: those that define both Config and run."""
    root = Path(__file__).parent
    return {
        package: [file for file in sorted((root / package).glob("[a-z]*.py")) if is_command(file)]
        for package in PACKAGES
    }


def command_of(file: Path) -> str:
    """Return a command's name: that of its file, with dashes as in options."""
    return file.stem.replace("_", "-")


def is_command(file: Path) -> bool:
    text = file.read_text("utf-8")
    return "\nclass Config" in text and "\ndef run(" in text


def overview() -> str:
    """Return the text of `amenable --help`: every command with the first line of its file."""
    lines = ["usage: amenable <command> [--option value ...] [--config file.yaml] [--debug]", ""]
    for package, files in command_files().items():
        lines += [PACKAGES[package], *(f"  {command_of(file):<13} {summary(file)}" for file in files), ""]
    lines.append("'amenable <command> --help' shows a command's options; each runs bare.")
    lines.append("'amenable --print-completion bash' (zsh, fish) prints a script that completes them.")
    return "\n".join(lines)


def summary(file: Path) -> str:
    """Return the first line of a command's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    return docstring.splitlines()[0] if docstring else ""


def completion_script(arguments: list[str]) -> str:
    """Return the completion script for the shell that is named. InputError for another, or none."""
    from amenable import completion

    if len(arguments) != 1 or arguments[0] not in completion.SHELLS:
        hint = f"name one: amenable --print-completion {completion.SHELLS[0]}"
        raise InputError(f"shells with completion are {', '.join(completion.SHELLS)}", how=hint)
    commands = [
        completion.Command(
            command_of(file),
            summary(file),
            tuple(completion.options_of(importlib.import_module(f"amenable.{package}.{file.stem}").Config)),
        )
        for package, files in command_files().items()
        for file in files
    ]
    return completion.script(arguments[0], commands)


def parse(config_class: type, arguments: list[str], program: str, description: str) -> Any:
    """Parse options into a Config: the command line over `--config file.yaml` over the defaults."""
    import tyro

    arguments, file = take_config_file(arguments)
    names = [field.name for field in dataclasses.fields(config_class)]
    arguments = [accept_old_name(argument, names) for argument in arguments]
    default = config_class() if file is None else from_yaml(config_class, file)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            values = tyro.cli(
                in_order_of_help(config_class),
                args=arguments,
                default=default,
                prog=program,
                description=description,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff),
            )
            return config_class(**{name: getattr(values, name) for name in names})
    except SystemExit as end:
        if end.code != 2:
            raise
        raise usage_error(errors.getvalue(), program, option_names(config_class)) from None


def in_order_of_help(config_class: type) -> type:
    """Return a Config whose options stand as --help lists them: inputs, its own, then those that it inherits."""
    fields: dict[str, Any] = {field.name: field for field in dataclasses.fields(config_class)}
    declared = [name for base in config_class.__mro__ for name in inspect.get_annotations(base)]
    order = dict.fromkeys(name for name in (*INPUTS, *declared) if name in fields)
    listed: Any = type(config_class.__name__, (config_class,), {"__doc__": config_class.__doc__})
    listed.__dataclass_fields__ = {name: fields[name] for name in order}
    return listed


def option_names(config_class: type) -> list[str]:
    """Return the names of a Config's options, of its fields and of the command line; those of a nested group by their
    own and by their dotted names."""
    names, hints = list[str](), typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        group: Any = field.default_factory
        inner = [option.name for option in dataclasses.fields(group)] if dataclasses.is_dataclass(group) else []
        marks = getattr(hints[field.name], "__metadata__", ())
        renamed = [mark.name for mark in marks if getattr(mark, "name", None)]
        names += [field.name, *renamed, *inner, *(f"{field.name}.{name}" for name in inner)]
    return names


def usage_error(message: str, program: str, known: list[str]) -> InputError:
    """Return the option parser's framed message as one line, with the nearest or the new name of an unknown option."""
    lines = [line.strip("│|+╭╮╰╯ ") for line in message.splitlines()[1:]]
    lines = [line for line in lines if line.strip("─-") and not line.startswith("For full helptext")]
    problem, _, suggestions = " ".join(lines).removeprefix("Error parsing Config: ").partition(" Perhaps you meant:")
    problem = problem.partition(" Argument helptext:")[0]
    near = re.search(r"--[\w.-]+", suggestions)
    hint = f"did you mean {near[0]}?" if near else None if ";" in problem else f"see '{program} --help'"
    unknown = re.match(r"Unrecognized options: --([\w.-]+)", problem)
    renamed = new_name(unknown[1], known) if unknown else None
    return InputError(problem, how=f"the option is called --{renamed.replace('_', '-')} now" if renamed else hint)


def take_config_file(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Split `--config FILE` (or `--config=FILE`) from the other options."""
    rest, file = [], None
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            value = next(remaining, None)
            if value is None:
                raise InputError("--config needs a file", how="as in --config runs/ppo/config.yaml")
            file = Path(value)
        elif argument.startswith("--config="):
            file = Path(argument.removeprefix("--config="))
        else:
            rest.append(argument)
    return rest, file
