"""Options in YAML files: values of the dataclass's types, and errors that name the option and the file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from amenable.errors import InputError
from amenable.yaml_options import from_yaml


@dataclass(frozen=True)
class Inner:
    rate: float = 1.0
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Options:
    inner: Inner = field(default_factory=Inner)
    several: tuple[Inner, ...] = ()
    files: tuple[Path, ...] = ()
    limit: int | None = None


def read(tmp_path: Path, text: str) -> Options:
    (tmp_path / "options.yaml").write_text(text, "utf-8")
    return from_yaml(Options, tmp_path / "options.yaml")


def test_values_have_the_types_of_their_fields(tmp_path: Path) -> None:
    options = read(tmp_path, "inner: {rate: 2}\nseveral: [{kind: b}, {}]\nfiles: x\nlimit: 3\n")
    assert options == Options(Inner(2.0), (Inner(kind="b"), Inner()), (Path("x"),), 3)
    assert read(tmp_path, "") == Options()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("inner: {rat: 2}", r"options\.yaml: unknown option 'inner\.rat'; did you mean 'inner\.rate'\?"),
        ("inner: {rate: much}", r"'inner\.rate' is 'much', not float"),
        ("several: [{kind: c}]", r"'several\.kind' is 'c'; one of a, b"),
        ("limit: [1]", r"'limit' is \[1\], not int"),
        ("- 1", "a configuration is a mapping"),
        ("inner: {", "not readable as YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read(tmp_path, text)
