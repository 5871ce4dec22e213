"""Hints where a model folder is missing."""

from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.library.functions import load
from amenable.train import loading
from amenable.train.known_models import KNOWN_MODELS, hint_for


def test_a_missing_folder_may_be_a_known_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("smollm2", "models/smollm2", "SmolLM2"):
        assert hint_for(Path(name)) == "'amenable get smollm2' fetches it to models/smollm2"
    assert hint_for(Path("runs/sft")) is None and hint_for(Path("runs/smollm2")) is None and hint_for(Path("x")) is None
    with pytest.raises(InputError, match="smollm2: no such model folder; 'amenable get smollm2' fetches it"):
        loading.require_model(Path("smollm2"), "amenable sft")
    with pytest.raises(InputError, match="smollm2: no such model folder; 'amenable get smollm2' fetches it"):
        load("smollm2")


def test_a_folder_that_is_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("smollm2", "mine"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
        assert hint_for(Path(name)) == f"did you mean models/{name}?"


def test_every_known_model_is_whole() -> None:
    for name, model in KNOWN_MODELS.items():
        assert name == name.lower() and len(model.sha256) == 64 and model.file.endswith(".gguf")
        assert model.wheel == f"{model.package.replace('-', '_')}-{model.version}-py3-none-any.whl"
