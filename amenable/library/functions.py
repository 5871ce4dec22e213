"""The package as a library: every stage is a function, and what it has trained is a `Model`.

    import amenable as am

    sft = am.sft("runs/pretrain", data=[{"messages": [...]}], epochs=2)
    rm = am.reward(sft, data="pairs.jsonl")
    policy = am.rloo(sft, data=prompts, reward=[rm, my_function], out="runs/rloo")
    print(policy.chat("Where does Anna live?"), policy.metrics["objective/scores"][-1])

Functions are found in stages/, as commands are: am.NAME(...) is `amenable NAME`, its keywords are the options. A folder
is a path or a `Model`; data is a path, a list of rows, a `datasets.Dataset`, a pandas DataFrame, several of these, or
{path: weight}; a reward is any SPEC of rewards/spec.py, a `Model` or a function. With `out` the run directory is the
command's, and the same call goes on after a stop; without it, files are temporary and go with the result.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import json
import math
import shutil
import tempfile
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amenable.cli import command_files
from amenable.errors import InputError
from amenable.library.model import Model, Result
from amenable.renamed_options import new_name
from amenable.yaml_options import convert


def names() -> list[str]:
    """Return the names of the surface: the stages, `load`, `chat`, and the types."""
    own = [name for name in stages() if not (Path(__file__).parent.parent / name).is_dir()]
    return sorted([*own, "load", "chat", "Model", "Result", "InputError"])


def stages() -> list[str]:
    """Return the names of the stages: the files in stages/ that are commands."""
    return [file.stem for file in command_files()["stages"]]


def attribute(name: str) -> Any:
    """Return an attribute of the package: the function of a stage, `load`, `chat` or a type."""
    own = {"load": load, "chat": chat, "Model": Model, "Result": Result, "InputError": InputError}
    if name in own:
        return own[name]
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        raise AttributeError(f"amenable has no '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    return stage_function(name)


def load(folder: str | Path, device: str = "auto", precision: str = "auto") -> Model:
    """Load a model's folder: of a run, or a published one. Its weights are read when they are first used."""
    return Model(Path(folder), device=device, precision=precision)


def chat(model: str | Path | Model, message: str | Sequence[Mapping[str, str]], **options: Any) -> str:
    """Return a model's answer to a message, or to a conversation; options: see `Model.generate`."""
    return (model if isinstance(model, Model) else load(model)).chat(message, **options)


def stage_function(name: str) -> Callable[..., Result]:
    """Return a stage as a function of its options, which returns what the stage has made."""
    module = importlib.import_module(f"amenable.stages.{name}")
    fields = {field.name: field for field in dataclasses.fields(module.Config)}
    first = next(option for option in ("model", "models", "data") if option in fields)

    def stage(model: Any = None, /, *, out: str | Path | None = None, **options: Any) -> Result:
        if model is not None:
            if first in options:
                raise InputError(f"'{first}' is given twice", f"am.{name}", f"give it once, as in am.{name}({first})")
            options[first] = model
        scratch = Path(tempfile.mkdtemp(prefix="amenable-")) if out is None else None
        folder = scratch / name if scratch is not None else Path(typing.cast(str, out))
        try:
            config = configuration(module.Config, options, folder, f"am.{name}")
            module.run(config)
        except BaseException:
            if scratch is not None and not has_progress(folder):
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        result = Result(folder, device=config_device(config, "device"), precision=config_device(config, "precision"))
        if scratch is not None:
            weakref.finalize(result, shutil.rmtree, scratch, ignore_errors=True)
        return result

    stage.__name__ = stage.__qualname__ = name
    stage.__doc__ = f"{module.__doc__}\nOptions, with their meaning: `amenable {name.replace('_', '-')} --help`."
    keywords = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default_of(field), annotation=field.type)
        for field in fields.values()
        if field.name not in (first, "out")
    ]
    model_parameter = inspect.Parameter(
        first, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default_of(fields[first])
    )
    out_parameter = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None)
    stage.__signature__ = inspect.Signature([model_parameter, out_parameter, *keywords])  # type: ignore[attr-defined]
    return stage


def has_progress(folder: Path) -> bool:
    """Return True for a run that has saved something: a checkpoint, or why a guard stopped it."""
    from amenable.train.run_folder import STOPPED

    return (folder / STOPPED).exists() or any(folder.glob("checkpoint-*"))


def config_device(config: Any, name: str) -> str:
    """Return a device option of a stage, where the stage has such options."""
    return getattr(getattr(config, "device", None), name, "auto")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of an option."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def configuration(config_class: Any, options: Mapping[str, Any], out: Path, where: str) -> Any:
    """Return a stage's Config of keyword options. Options of a group, such as learning_rate, may stand by themselves.

    InputError for an unknown option or a value of another type; rows of data are written to files beside `out`.
    """
    inputs = out.with_name(out.name + ".inputs")
    hints = typing.get_type_hints(config_class)
    groups = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    values: dict[str, Any] = {"out": out}
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        owners = [group for group, hint in groups.items() if name in {f.name for f in dataclasses.fields(hint)}]
        if name in groups and isinstance(value, Mapping):
            grouped.setdefault(name, {}).update(value)
        elif name in groups and dataclasses.is_dataclass(value):
            values[name] = value
        elif owners:
            grouped.setdefault(owners[0], {})[name] = value
        elif name in hints:
            values[name] = option(hints[name], name, value, inputs, where)
        else:
            raise unknown_option(
                name, [*hints, *(f.name for h in groups.values() for f in dataclasses.fields(h))], where
            )
    for group, given in grouped.items():
        types = typing.get_type_hints(groups[group])
        if wrong := next((name for name in given if name not in types), None):
            raise unknown_option(wrong, list(types), where)
        base = values.get(group, default_of(next(f for f in dataclasses.fields(config_class) if f.name == group)))
        checked = {name: option(types[name], name, value, inputs, where) for name, value in given.items()}
        values[group] = dataclasses.replace(base, **checked)
    return config_class(**values)


def unknown_option(name: str, known: Sequence[str], where: str) -> InputError:
    """Return the error for an unknown option, with the nearest name, or the name that it has now."""
    renamed, near = new_name(name, known), difflib.get_close_matches(name, known, n=1)
    hint = f"the option is called '{renamed}' now" if renamed else f"did you mean '{near[0]}'?" if near else None
    return InputError(f"unknown option '{name}'", where, hint or f"known are: {', '.join(known)}")


def option(hint: Any, name: str, value: Any, inputs: Path, where: str) -> Any:
    """Return an option's value: folders of models, files of rows, and everything else checked by its type."""
    inner = typing.get_args(hint)
    named = str in inner and isinstance(value, str)  # a folder, or an address
    if hint is Path or (Path in inner and typing.get_origin(hint) is not tuple and not named):
        return file_of(value, inputs / f"{name}.jsonl", where) if value is not None else None
    if typing.get_origin(hint) is tuple:
        if inner[0] is Path and not is_several(value):
            return (file_of(value, inputs / f"{name}.jsonl", where),)
        items = list_of(value, name)
        if inner[0] is Path:
            return tuple(file_of(item, inputs / f"{name}-{i}.jsonl", where) for i, item in enumerate(items))
        return tuple(item if callable(item) else convert(inner[0], item, Path(where), name) for item in items)
    return convert(hint, plain(value), Path(where), name)


def is_several(value: Any) -> bool:
    """Return True for {path: weight}, or a list of sources: paths, models or data sets, not the rows of one."""
    rows = isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value)
    return isinstance(value, (list, tuple, Mapping)) and not rows


def list_of(value: Any, name: str) -> list[Any]:
    """Return the values of a list option: of {name: value} as name=value, of models their folders."""
    if isinstance(value, Mapping):
        return [f"{key}={plain(item)}" for key, item in value.items()]
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    if name == "models":
        return [f"{item.name}={item.path()}" if isinstance(item, Model) else plain(item) for item in several]
    return several if all(isinstance(item, Mapping) for item in several) else [plain(item) for item in several]


def plain(value: Any) -> Any:
    """Return a model's folder, or a path, as text; anything else as it is."""
    if isinstance(value, Model):
        return str(value.path())
    return str(value) if isinstance(value, Path) else value


def file_of(value: Any, file: Path, where: str) -> Path:
    """Return the path that a value is, or the file that rows of data are written to."""
    if isinstance(value, Model):
        return value.path()
    if isinstance(value, (str, Path)):
        return Path(value)
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise InputError(
            f"'{file.stem}' is {type(value).__name__}", where, "give a path, or rows such as {'prompt': ...}"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as lines:
        for number, row in enumerate(rows_of(value), start=1):
            if not isinstance(row, Mapping):
                problem = f"row {number} of '{file.stem}' is {type(row).__name__}"
                raise InputError(problem, where, "rows are mappings, such as {'prompt': ...} or {'messages': [...]}")
            try:
                lines.write(json.dumps(dict(row), ensure_ascii=False, default=plain_value) + "\n")
            except (TypeError, ValueError) as error:
                raise InputError(f"row {number} of '{file.stem}' is no JSON: {error}", where) from None
    return file


def rows_of(value: Iterable[Any]) -> Iterable[Any]:
    """Return the rows of a pandas DataFrame, missing values as None; other rows unchanged."""
    if not (hasattr(value, "iloc") and hasattr(value, "to_dict")):
        return value
    return (
        {name: None if is_missing(cell) else cell for name, cell in row.items()} for row in value.to_dict("records")
    )


def is_missing(cell: Any) -> bool:
    """Return True for pandas' marks of a missing value: nan, NaT and NA."""
    return type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and math.isnan(cell))


def plain_value(value: Any) -> Any:
    """Return a value that JSON lacks as one that it has: numpy's as lists and numbers, dates as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a value of the type {type(value).__name__}")
