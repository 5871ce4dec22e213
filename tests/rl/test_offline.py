"""The run that DPO, KTO and context distillation share: what it refuses, prints and measures."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.rl import offline
from amenable.stages import distill_context, dpo, kto
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions


@pytest.fixture(scope="module")
def labeled(files: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [json.loads(line) for line in files.pairs.read_text("utf-8").splitlines()]
    rows = [
        {"prompt": pair["prompt"], "completion": pair[name], "label": name == "chosen"}
        for pair in pairs[:40]
        for name in ("chosen", "rejected")
    ]
    file = tmp_path_factory.mktemp("labeled") / "labeled.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def test_every_stage_beside_a_reference_has_the_same_options() -> None:
    for stage in (dpo, kto, distill_context):
        assert issubclass(stage.Config, offline.OfflinePolicyOptions)
        for wrong in ({"epochs": 0}, {"batch_size": 0}, {"kl_budget": -1.0}, {"eval_prompts": -1}, {"eval_steps": 0}):
            with pytest.raises(InputError, match=next(iter(wrong))):
                stage.Config(**wrong)  # type: ignore[arg-type]


def test_a_budget_ends_kto_and_keeps_weights_within_it(
    assistant: Path, labeled: Path, tmp_path: Path, rows_of: Callable, capsys: pytest.CaptureFixture
) -> None:
    config = kto.Config(
        model=assistant,
        data=(labeled,),
        out=tmp_path / "run",
        batch_size=16,
        epochs=4,
        beta=0.3,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        validation_split=0.25,
        kl_budget=0.05,
        eval_steps=1,
        max_new_tokens=16,
        device=DeviceOptions("cpu", "fp32", 1),
    )
    rows = rows_of(kto.run(config))
    kls = [row["objective/kl"] for row in rows]
    assert len(kls) < 16 and max(kls[:-1]) < 0.05 < kls[-1]
    assert "above --kl-budget 0.05: training ends" in " ".join(capsys.readouterr().err.split())
    unmeasured = replace(config, eval_prompts=0, out=tmp_path / "unmeasured")
    with pytest.raises(InputError, match="--kl-budget has no held-out prompts to measure on"):
        kto.run(unmeasured)
    assert not unmeasured.out.exists()
