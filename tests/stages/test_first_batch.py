"""Every training stage shows its first batch before it trains, and `--inspect-batch` stops there."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from amenable.errors import InputError
from amenable.stages import dpo, ppo, pretrain, reward, sft
from amenable.train.runtime import DeviceOptions

STAGES = ("pretrain", "sft", "reward", "dpo", "ppo")
ONE_THREAD = DeviceOptions("cpu", "fp32", 1)


@pytest.fixture
def configs(
    files: Any,
    pretrain_config: pretrain.Config,
    sft_config: sft.Config,
    reward_config: reward.Config,
    assistant: Path,
    judge: Path,
    tmp_path: Path,
) -> dict[str, Any]:
    """The smallest runs of all training stages."""
    out = tmp_path / "run"
    return {
        "pretrain": replace(pretrain_config, out=out, max_steps=2, warmup_steps=1),
        "sft": replace(sft_config, out=out, epochs=1, batch_size=36, warmup_steps=1),
        "reward": replace(reward_config, out=out, epochs=1, prompts_per_step=36, warmup_steps=1),
        "dpo": dpo.Config(
            assistant, files.pairs, out=out, epochs=1, batch_size=40, warmup_steps=1, save_steps=0, device=ONE_THREAD
        ),
        "ppo": ppo.Config(
            model=assistant,
            reward=judge,
            data=files.prompts,
            out=out,
            max_steps=2,
            prompts_per_step=4,
            num_mini_batches=1,
            max_new_tokens=12,
            warmup_steps=1,
            save_steps=0,
            device=ONE_THREAD,
        ),
    }


def stage_of(name: str) -> Any:
    return {"pretrain": pretrain, "sft": sft, "reward": reward, "dpo": dpo, "ppo": ppo}[name]


@pytest.mark.parametrize("name", STAGES)
def test_inspecting_stops_and_leaves_the_real_run_as_it_would_be(
    configs: dict[str, Any],
    name: str,
    outcome: Callable[[Path], dict[str, Any]],
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:
    stage, config = stage_of(name), configs[name]
    assert stage.run(replace(config, inspect_batch=True)) == config.out
    reply = " ".join(capsys.readouterr().err.split())
    assert "row 1" in reply and "% trained, no padding" in reply and "nothing was trained" in reply
    assert '<span class="trained"' in (config.out / "first_batch.html").read_text("utf-8")
    assert not (config.out / "model.safetensors").exists() and not (config.out / "finished.json").exists()
    assert yaml.safe_load((config.out / "config.yaml").read_text("utf-8"))["inspect_batch"] is False
    stage.run(config)
    untouched = replace(config, out=tmp_path / "untouched")
    stage.run(untouched)
    assert outcome(config.out) == outcome(untouched.out)
    page = "first_batch.html"
    assert (config.out / page).read_bytes() == (untouched.out / page).read_bytes()


def test_a_run_that_goes_on_does_not_show_it_again(
    configs: dict[str, Any], stop_at: Callable[[int], None], run_in_two: Callable, capsys: pytest.CaptureFixture
) -> None:
    run_in_two(dpo, replace(configs["dpo"], batch_size=20), 1)
    reply = capsys.readouterr().err
    assert reply.count("first batch:") == 1 and reply.count("row 1 ") == 1


def test_a_paused_ppo_is_inspected_where_it_stands(
    configs: dict[str, Any], stop_at: Callable[[int], None], capsys: pytest.CaptureFixture
) -> None:
    stop_at(1)
    with pytest.raises(Exception, match="saved at step 1"):
        ppo.run(configs["ppo"])
    capsys.readouterr()
    ppo.run(replace(configs["ppo"], inspect_batch=True))
    assert "nothing was trained" in capsys.readouterr().err
    assert (configs["ppo"].out / "checkpoint-1").exists()


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "ppo"])
def test_a_template_that_opens_twice_is_refused(configs: dict[str, Any], name: str, assistant: Path) -> None:
    model = configs[name].out.parent / "twice"
    shutil.copytree(assistant, model)
    settings = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    settings["chat_template"] = "{{ bos_token }}" + settings["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    row = "row 1 of the" if name == "ppo" else "the row of"
    with pytest.raises(InputError, match=rf"{row} .*token 1 is another BOS"):
        stage_of(name).run(replace(configs[name], model=model))
    assert name == "ppo" or not configs[name].out.exists()
