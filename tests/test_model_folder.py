"""Which model an adapter is for."""

import json
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.model_folder import adapter_of, base_folder, bases_of, is_adapter, parent_folder


def adapter(folder: Path, **fields: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder


def model(folder: Path) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_model_is_its_own_base(tmp_path: Path) -> None:
    assert base_folder(model(tmp_path)) == tmp_path and not is_adapter(tmp_path)


def test_a_model_with_adapter_files_is_a_model(tmp_path: Path) -> None:
    model(adapter(tmp_path, base_model_name_or_path="elsewhere"))
    assert base_folder(tmp_path) == tmp_path


def test_a_base_is_named_by_its_path_or_from_the_adapter(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    assert base_folder(adapter(tmp_path / "a", base_model_name_or_path=str(base))) == base
    assert base_folder(adapter(tmp_path / "b", base_model_name_or_path="../base")).resolve() == base


@pytest.mark.parametrize("fields", [{}, {"base_model_name_or_path": None}, {"base_model_name_or_path": "org/name"}])
def test_a_base_that_is_not_there_is_named(tmp_path: Path, fields: dict) -> None:
    with pytest.raises(InputError, match="is no folder here; write the folder of its base model"):
        base_folder(adapter(tmp_path / "a", **fields))


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        base_folder(tmp_path)


def test_an_adapter_may_be_on_an_adapter(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    first = adapter(tmp_path / "first", base_model_name_or_path=str(base))
    second = adapter(tmp_path / "second", base_model_name_or_path="../first")
    assert parent_folder(second).resolve() == first and base_folder(second) == base
    assert {name: path.resolve() for name, path in bases_of("model", second).items()} == {
        "model's base": first,
        "model's base's base": base,
    }
    assert bases_of("model", base) == {}


def test_a_circle_of_adapters_is_refused(tmp_path: Path) -> None:
    a = adapter(tmp_path / "a", base_model_name_or_path=str(tmp_path / "b"))
    adapter(tmp_path / "b", base_model_name_or_path=str(tmp_path / "a"))
    with pytest.raises(InputError, match="is an adapter on itself"):
        base_folder(a)


def test_the_adapter_of_a_run_is_beside_its_model(tmp_path: Path) -> None:
    base = model(tmp_path / "base")
    run = model(tmp_path / "run")
    assert adapter_of(run) is None
    inner = adapter(run / "adapter", base_model_name_or_path=str(base))
    assert adapter_of(run) == inner and adapter_of(inner) == inner
