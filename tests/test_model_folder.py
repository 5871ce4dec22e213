"""Which model an adapter is for."""

import json
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.model_folder import base_folder, is_adapter


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
