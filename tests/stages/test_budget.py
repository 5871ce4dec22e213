"""No pass of any stage computes more than its budget where all rows begin with the same system prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.stages import dpo, evaluate, ppo, reward, sft

SYSTEM = {"role": "system", "content": "Be gladly and be grimly."}
BUDGET = 50


def with_system_prompt(source: Path, folder: Path, rows: int) -> Path:
    """The first rows of a file, each conversation with the same system message before it."""
    lines = []
    for line in source.read_text("utf-8").splitlines()[:rows]:
        row = json.loads(line)
        name = "messages" if "messages" in row else "prompt"
        lines.append(json.dumps({**row, name: [SYSTEM, *row[name]]}))
    out = folder / source.name
    out.write_text("\n".join(lines) + "\n", "utf-8")
    return out


@pytest.fixture
def calls(
    files: Any, sft_config: sft.Config, reward_config: reward.Config, assistant: Path, judge: Path, tmp_path: Path
) -> dict[str, tuple[Any, Any]]:
    demonstrations, rankings, prompts = (
        with_system_prompt(path, tmp_path, 24) for path in (files.demonstrations, files.rankings, files.prompts)
    )
    small: dict[str, Any] = {"max_tokens_per_pass": BUDGET, "device": sft_config.device}
    training: dict[str, Any] = {"epochs": 1, "warmup_steps": 0, "validation_split": 0.25, **small}
    tuning = replace(sft_config, data=demonstrations, batch_size=9, **training)
    rating = replace(reward_config, data=rankings, heldout_annotators=None, demonstrations=demonstrations, **training)
    comparing = dpo.Config(model=assistant, data=rankings, batch_size=9, eval_steps=1, **training)
    policy = {"model": assistant, "reward": judge, "data": prompts, "validation": prompts, "ptx_data": files.text}
    sizes = {"max_steps": 1, "prompts_per_step": 4, "num_generations": 4, "num_mini_batches": 2, "warmup_steps": 0}
    asking = {"models": (f"sft={assistant}",), "data": prompts, "demonstrations": demonstrations, "lm_data": files.text}
    return {
        "sft": (sft, tuning),
        "reward": (reward, rating),
        "dpo": (dpo, comparing),
        "ppo": (ppo, ppo.Config(**policy, **sizes, ptx_coef=1.0, ptx_tokens=90, max_new_tokens=8, **small)),
        "evaluate": (
            evaluate,
            evaluate.Config(**asking, world=None, reward=judge, reference="sft", max_new_tokens=8, **small),
        ),
    }


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Tokens and rows of every pass that a decoder computes from now on, reading of prompts for sampling left out."""
    observed: list[tuple[int, int]] = []
    forward = Decoder.forward

    def noting(self: Decoder, ids: Any, layout: Layout, cache: Any = None, *rest: Any, **more: Any) -> Any:
        if cache is None:
            observed.append((ids.numel(), len(layout.lengths)))
        return forward(self, ids, layout, cache, *rest, **more)

    monkeypatch.setattr(Decoder, "forward", noting)
    return observed


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "ppo", "evaluate"])
def test_every_pass_is_within_the_budget(
    name: str, calls: dict[str, tuple[Any, Any]], sizes: list[tuple[int, int]], tmp_path: Path
) -> None:
    stage, config = calls[name]
    stage.run(replace(config, out=tmp_path / "out"))
    assert len(sizes) > 10 and max(rows for _, rows in sizes) > 1
    assert [size for size in sizes if size[0] > BUDGET and size[1] > 1] == []
