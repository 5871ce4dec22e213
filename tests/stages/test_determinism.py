"""Two runs of a training stage with one seed make the same files, to the bit; another seed makes another model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.recipes import verify
from amenable.stages import (
    a2c,
    classify,
    dpo,
    expert_iteration,
    grpo,
    kto,
    online_dpo,
    ppo,
    pretrain,
    reinforce,
    reward,
    rloo,
    sft,
    trpo,
)
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions
from tests.conftest import write_rows

MACHINE = DeviceOptions("cpu", "fp32", 1)
ONLINE = {"rloo": rloo, "grpo": grpo, "reinforce": reinforce, "a2c": a2c, "trpo": trpo,
          "expert-iteration": expert_iteration, "online-dpo": online_dpo}  # fmt: skip
STAGES = ("pretrain", "sft", "classify", "reward", "ppo-ptx", "ppo-bf16", "dpo", "kto", *ONLINE)


LABELLED = [{"text": f"{('Bad', 'Good')[i % 2]} {i}", "label": i % 2} for i in range(40)]


@pytest.fixture(scope="module")
def calls(
    files: Any,
    labelled: Path,
    pretrain_config: pretrain.Config,
    sft_config: sft.Config,
    reward_config: reward.Config,
    judge: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Any, Any]]:
    """Every stage at its smallest, with whatever it draws at random at work: order, dropout, answers, minibatches."""
    policy = ppo.Config(
        model=reward_config.model,
        reward=judge,
        data=files.prompts,
        max_steps=2,
        prompts_per_step=4,
        num_mini_batches=2,
        max_new_tokens=8,
        optimizer=OptimizerConfig(learning_rate=3e-3, eps=1e-5),
        warmup_steps=1,
        sample_steps=1,
        num_traced_prompts=1,
        device=MACHINE,
    )
    names = "model reward data prompts_per_step max_new_tokens optimizer warmup_steps num_traced_prompts device"
    sizes = {name: getattr(policy, name) for name in names.split()}
    sizes |= {"max_steps": 1, "num_generations": 2, "num_mini_batches": 1}
    unpaired = kto.Config(model=reward_config.model, data=(labelled,), batch_size=48, eval_steps=3, eval_prompts=4)
    preferences = dpo.Config(model=reward_config.model, data=files.rankings, epochs=1, batch_size=24, eval_steps=3)
    texts = write_rows(tmp_path_factory.mktemp("texts") / "texts.jsonl", LABELLED)
    tagged = classify.Config(
        model=sft_config.model, data=(texts,), epochs=1, batch_size=16, dropout=0.1, device=MACHINE
    )
    return {
        "pretrain": (pretrain, replace(pretrain_config, max_steps=3, warmup_steps=1, eval_steps=3, dropout=0.1)),
        "sft": (sft, replace(sft_config, epochs=1, batch_size=24, dropout=0.2)),
        "classify": (classify, tagged),
        "reward": (reward, replace(reward_config, epochs=1, prompts_per_step=24, max_prompts=48)),
        "ppo-ptx": (ppo, replace(policy, ptx_coef=0.5, ptx_data=files.text, ptx_tokens=60)),
        "ppo-bf16": (ppo, replace(policy, device=replace(MACHINE, precision="bf16"))),
        "dpo": (dpo, replace(preferences, validation_split=0.25, warmup_steps=1, device=MACHINE)),
        "kto": (kto, replace(unpaired, validation_split=0.25, warmup_steps=1, device=MACHINE)),
        **{name: (stage, stage.Config(**sizes)) for name, stage in ONLINE.items()},
    }


def built(folder: Path) -> dict[str, Any]:
    """Hashes of all that a run has made but its options, which name its folder; and its closing figures."""
    hashes = {name: fact["sha256"] for name, fact in json.loads((folder / "manifest.json").read_text()).items()}
    closing = json.loads((folder / "finished.json").read_text())
    figures = {name: fact for name, fact in closing.items() if name not in ("seconds", "tokens_per_second")}
    return {"figures": figures, **{name: sha256 for name, sha256 in hashes.items() if name != "config.yaml"}}


@pytest.mark.parametrize("name", STAGES)
def test_the_seed_decides_every_bit(name: str, calls: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    stage, config = calls[name]
    first = built(stage.run(replace(config, out=tmp_path / "first")))
    torch.manual_seed(12345)  # whatever has drawn from torch's own generator before has no say
    torch.rand(7)
    assert built(stage.run(replace(config, out=tmp_path / "second"))) == first
    other = built(stage.run(replace(config, out=tmp_path / "other", seed=config.seed + 1)))
    assert other["model.safetensors"] != first["model.safetensors"]
    assert other["metrics.jsonl"] != first["metrics.jsonl"]
    assert [check.line for check in verify.checks(verify.Config(tmp_path / "first")) if check.state != "good"] == []
