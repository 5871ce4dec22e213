"""A model folder in a few lines."""

import json
import shutil
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes.model_summary import is_reward_model, summary
from amenable.train.origin import Origin


def test_a_base_model_is_to_be_trained(base: Path) -> None:
    lines = list(summary(base))
    assert lines[0].startswith(f"{base}: qwen3, 0.0 M parameters (2 layers of width 32), 64 tokens of context, 0 MB")
    assert lines[1].endswith("no chat template: a base model")
    assert lines[2:] == ["licence: not stated", f"next: amenable sft --model {base} --data demonstrations.jsonl"]


def test_quantised_weights_are_noted(assistant: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(assistant, folder)
    Origin("a/b", "mit", weights="Q4_1").write(folder)
    lines = list(summary(folder))
    assert lines[2] == "licence: mit; from a/b" and "about 4 bits (Q4_1)" in lines[3]


def test_a_template_that_fails_is_refused(assistant: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(assistant, folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(InputError, match="the chat template refuses"):
        list(summary(folder))


def test_reward_models_and_their_adapters(assistant: Path, judge: Path, tmp_path: Path) -> None:
    assert is_reward_model(judge) and not is_reward_model(assistant)
    for kind, scalar in (("SEQ_CLS", True), ("CAUSAL_LM", False)):
        fields = {"base_model_name_or_path": str(assistant), "task_type": kind}
        (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
        assert is_reward_model(tmp_path) == scalar
    assert next(iter(summary(judge))).startswith(f"{judge}: reward model, qwen3")
