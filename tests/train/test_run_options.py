"""Options that stages have in common: sensible numbers only, and the same in every stage."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.models.lora import LoraOptions
from amenable.train.run_options import (
    MAY_CHANGE_ON_RESUME,
    AdapterOptions,
    OfflineOptions,
    RunOptions,
    TrainingOptions,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0; it must be 1 or more"),
        ({"keep_checkpoints": -1}, "keep_checkpoints is -1"),
        ({"max_bad_rows": -0.1}, "max_bad_rows is -0.1"),
        ({"max_bad_rows": 1.5}, "max_bad_rows is 1.5"),
        ({"max_bad_rows": float("nan")}, "max_bad_rows is nan"),
        ({"save_steps": -1}, "save_steps is -1"),
        ({"final_lr_frac": 1.1}, "final_lr_frac is 1.1"),
        ({"columns": ("promt=question",)}, "--columns: unknown target 'promt'; did you mean 'prompt'"),
        ({"max_tokens_per_pass": 0}, "max_tokens_per_pass is 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions(**options)


def test_the_ends_of_the_range_are_allowed() -> None:
    assert TrainingOptions(keep_checkpoints=1, max_bad_rows=0.0).keep_checkpoints == 1
    assert TrainingOptions(max_bad_rows=1.0, save_steps=0).max_bad_rows == 1.0


def test_adapters_with_divided_products_are_refused() -> None:
    for adapters in ({"lora": LoraOptions(rank=2)}, {"prompt_tuning": 4}):
        with pytest.raises(InputError, match="tensor_parallel is 2 with adapters or virtual tokens; train the weights"):
            AdapterOptions(tensor_parallel=2, **adapters)  # type: ignore[arg-type]


def test_a_split_is_needed_where_no_file_is_held_out() -> None:
    OfflineOptions(validation_split=0.1)
    OfflineOptions(validation=Path("file"), validation_split=0.0)
    with pytest.raises(InputError, match="validation_split is 0"):
        OfflineOptions(validation_split=0.0)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "dpo", "ppo"])
def test_every_training_stage_has_them_all(stage: str) -> None:
    config = importlib.import_module(f"amenable.stages.{stage}").Config
    assert issubclass(config, TrainingOptions)
    names = {field.name for field in dataclasses.fields(config)}
    assert {field.name for field in dataclasses.fields(TrainingOptions)} <= names
    assert set(MAY_CHANGE_ON_RESUME) - {"max_kl", "scoring", "sampler_url", "reference_url"} <= names


@pytest.mark.parametrize("stage", ["sample", "annotate", "evaluate"])
def test_other_stages_have_those_of_a_run(stage: str) -> None:
    config = importlib.import_module(f"amenable.stages.{stage}").Config
    assert issubclass(config, RunOptions) and not issubclass(config, TrainingOptions)
