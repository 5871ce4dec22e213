"""The session's base model as an examinee, and rows of tasks in files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from amenable.evaluation.answering import GenerationConfig, LoadedModel
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.tasks.form import Examinee
from amenable.train.log import silent
from amenable.train.runtime import Runtime


@pytest.fixture(scope="session")
def examinee(base: Path, runtime: Runtime) -> Examinee:
    model = LoadedModel.load(ModelEntry("base", base), runtime)
    return Examinee(model, 200, GenerationConfig(max_new_tokens=12), silent)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def file(name: str, *rows: Mapping[str, Any]) -> Path:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return file
