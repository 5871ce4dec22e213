"""Options in YAML files, as runs write them: read into a dataclass, with the name and type of each checked."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.renamed_options import new_name


def from_yaml(config_class: type, file: Path) -> Any:
    """Read a Config from the YAML file of a run. InputError for an unknown option, with the nearest known one."""
    import yaml

    if not file.is_file():
        raise InputError("no such configuration file", file, "a run writes its own as config.yaml")
    try:
        values = yaml.safe_load(file.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).replace("\n", " ")
        raise InputError(f"not readable as YAML ({reason})", file, "fix it, or leave out --config") from None
    if not isinstance(values, dict):
        raise InputError("a configuration is a mapping of options to values", file)
    values.pop("command", None)
    return build(config_class, values, file)


def build(config_class: type, values: dict[str, Any], file: Path, prefix: str = "") -> Any:
    """Build a dataclass from plain values, checking the name and type of each; `prefix` is that of a nested group."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    hints = typing.get_type_hints(config_class)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean '{prefix}{near[0]}'?" if near else f"known are: {', '.join(fields)}"
            if renamed := new_name(key, fields):
                hint = f"the option is called '{renamed}' now"
            raise InputError(f"unknown option '{prefix}{key}'", file, hint)
        arguments[key] = convert(hints[key], value, file, prefix + key)
    return config_class(**arguments)


def convert(hint: Any, value: Any, file: Path, key: str) -> Any:
    """Convert a plain YAML value to the type of a field, `hint`. InputError names `key`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(typing.cast(type, hint), value, file, f"{key}.")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return convert(next(kind for kind in inner if kind is not type(None)), value, file, key)
    if origin is tuple and isinstance(value, str):
        value = [value]
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else inner
        return tuple(convert(kind, item, file, key) for kind, item in zip(kinds, value))
    if origin is typing.Literal:
        if value not in inner:
            raise InputError(f"'{key}' is {value!r}", file, f"one of {', '.join(map(str, inner))}")
        return value
    if hint is Path:
        return Path(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise InputError(f"'{key}' is {value!r}, not {hint.__name__}", file)
    return value
