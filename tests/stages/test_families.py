"""The whole method on models of other families than the presets': every stage, and transformers opens what it saves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions
from amenable.recipes import verify
from amenable.stages import dpo, ppo, reward, sft
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.optimizer import OptimizerConfig
from tests.conftest import ONE_THREAD, TINY

GEMMA = replace(
    TINY,
    norm_placement="sandwich",
    activation="geglu",
    scale_embeddings=True,
    query_pre_attn_scalar=20,
    window=12,
    local_layers=(0,),
    local_rope_theta=5e3,
)
NEOX = replace(
    TINY,
    norm="layer",
    bias=True,
    qk_norm=False,
    parallel_residual=True,
    activation="exact_gelu",
    interleave_qkv=True,
    rotary_width=4,
    tie_embeddings=False,
)


@pytest.mark.parametrize(("family", "config", "rank"), [("gemma3_text", GEMMA, 0), ("gpt_neox", NEOX, 2)])
def test_every_stage_runs_and_saves_the_family(
    family: str, config: Any, rank: int, files: Any, words: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "base", Decoder(config), words)
    common = {"device": ONE_THREAD, "optimizer": OptimizerConfig(1e-3)}
    trained = {**common, "lora": LoraOptions(rank=rank), "max_new_tokens": 8}
    policy = sft.run(
        sft.Config(
            model=tmp_path / "base", data=files.demonstrations, out=tmp_path / "sft", epochs=1, batch_size=32, **trained
        )
    )
    judge = reward.run(
        reward.Config(model=policy, data=files.rankings, out=tmp_path / "reward", prompts_per_step=32, **common)
    )
    policies = {"model": policy, **trained}
    chosen = dpo.run(dpo.Config(data=files.rankings, out=tmp_path / "dpo", batch_size=32, **policies))
    improved = ppo.run(
        ppo.Config(reward=judge, data=files.prompts, out=tmp_path / "ppo", max_steps=2, prompts_per_step=4, **policies)
    )
    folders = [policy, judge, chosen, improved]
    for folder in folders:
        assert json.loads((folder / "config.json").read_text())["model_type"] == family
        verify.run(verify.Config(folder))


@torch.inference_mode()
def test_transformers_opens_them(tmp_path: Path, words: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(tmp_path, Decoder(GEMMA).eval(), words)
    ids = torch.arange(40) % 300
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids[None]).logits[0]
    decoder = pretrained.load_decoder(tmp_path).eval()
    torch.testing.assert_close(decoder.padded_logits(decoder(ids, Layout.of([40]))), theirs, rtol=1e-4, atol=1e-4)
