"""Rows of a vocabulary that no token of the tokenizer has, as Qwen has: not drawn, not trained, saved unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.evaluation.answering import LoadedModel
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.tasks.likelihood import Request, score
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.serve.conversation import load_model
from amenable.stages import dpo, ppo, reward, sft
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import text_row
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.runtime import Runtime

PADDING = 23
LOUD = OptimizerConfig(learning_rate=1e-3, weight_decay=0.5)


def pad(folder: Path, out: Path) -> Path:
    """The model of a folder with rows that no token has; as tokens they would be the likeliest everywhere."""
    model = pretrained.load_scalar(folder) if "judge" in out.name else pretrained.load_decoder(folder)
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    words, count = Tokenizer.load(folder), decoder.config.vocab_size
    pretrained.resize_vocabulary(decoder, count + PADDING, torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoder.token_embedding.weight[count:] *= 100
    loading.save_model(out, model, words)
    return out


@pytest.fixture(scope="module")
def folders(assistant: Path, judge: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("padded")
    padded = {"padded": pad(assistant, out / "assistant"), "padded judge": pad(judge, out / "judge")}
    return {"whole": assistant, "whole judge": judge, **padded}


@pytest.fixture
def calls(sft_config: sft.Config, reward_config: reward.Config, files: Any) -> dict[str, tuple[Any, Any]]:
    small: dict[str, Any] = {"warmup_steps": 0, "optimizer": LOUD, "device": sft_config.device}
    steps = {"max_steps": 2, "prompts_per_step": 8, "num_mini_batches": 2, "max_new_tokens": 8, "temperature": 1.6}
    return {
        "sft": (sft, replace(sft_config, epochs=1, batch_size=24, dropout=0.0, **small)),
        "reward": (reward, replace(reward_config, epochs=1, prompts_per_step=24, **small)),
        "dpo": (
            dpo,
            dpo.Config(data=files.rankings, epochs=1, batch_size=24, validation_split=0.25, eval_steps=3, **small),
        ),
        "ppo": (
            ppo,
            ppo.Config(data=files.prompts, validation=files.prompts, critic_learning_rate=1e-3, **steps, **small),
        ),
    }


@pytest.mark.parametrize("name", ["sft", "reward", "dpo", "ppo"])
def test_a_stage_does_what_it_does_without_them_and_saves_them_as_they_were(
    name: str, calls: dict[str, tuple[Any, Any]], folders: dict[str, Path], rows_of: Any, tmp_path: Path
) -> None:
    stage, config = calls[name]
    outs = {}
    for kind in ("whole", "padded"):
        inputs = {"model": folders[kind]} | ({"reward": folders[f"{kind} judge"]} if name == "ppo" else {})
        outs[kind] = stage.run(replace(config, out=tmp_path / kind, **inputs))
    for whole_row, padded_row in zip(rows_of(outs["whole"]), rows_of(outs["padded"]), strict=True):
        # the parts of a reward have the names of its folders
        whole_row, padded_row = (
            {key: value for key, value in row.items() if not key.startswith("rewards/") or name == "dpo"}
            for row in (whole_row, padded_row)
        )
        assert padded_row == pytest.approx(whole_row, rel=1e-3, abs=1e-4)
    load = pretrained.load_scalar if name == "reward" else pretrained.load_decoder
    before = pretrained.load_decoder(folders["padded"]).state_dict()
    whole_state, padded_state = (load(outs[kind]).state_dict() for kind in ("whole", "padded"))
    embeddings = [key for key in padded_state if key.endswith("token_embedding.weight")]
    assert embeddings and whole_state.keys() == padded_state.keys()
    for key, value in padded_state.items():
        if key in embeddings:
            assert torch.equal(value[-PADDING:], before["token_embedding.weight"][-PADDING:])
            value = value[:-PADDING]
        assert torch.allclose(value, whole_state[key], atol=2e-4), key


@pytest.fixture
def both(folders: dict[str, Path], runtime: Runtime) -> tuple[Decoder, Decoder, Tokenizer]:
    """The model without and with padding."""
    (plain, words), (padded, _) = (loading.load_policy(folders[name], runtime) for name in ("whole", "padded"))
    assert padded.config.vocab_size == plain.config.vocab_size + PADDING and padded.num_tokens == words.vocab_size
    return plain, padded, words


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2.0, max_new_tokens=12),
        Sampling(temperature=0.0, max_new_tokens=12),
        Sampling(temperature=1.5, repetition_penalty=1.3, top_k=200, max_new_tokens=12),
    ],
    ids=["hot", "greedy", "penalised"],
)
def test_they_are_never_drawn(
    both: tuple[Decoder, Decoder, Tokenizer], sampling: Sampling, bf16: bool, runtime: Runtime
) -> None:
    plain, padded, words = both
    prompts = [[words.bos_id, *words.encode(text)] for text in ("a rose is", "the sea")]
    with replace(runtime, bf16=bf16).autocast():
        (ours, theirs) = (
            generate(decoder, prompts, sampling, eos_id=words.eos_id, samples=4) for decoder in (padded, plain)
        )
    for group, other in zip(ours, theirs):
        for answer, same in zip(group, other):
            assert answer.ids == same.ids and answer.logps == pytest.approx(same.logps, abs=1e-5)


def test_log_probabilities_are_of_the_tokens_alone(both: tuple[Decoder, Decoder, Tokenizer], runtime: Runtime) -> None:
    plain, padded, words = both
    rows = [text_row([words.bos_id, *words.encode(text)]) for text in ("the rose is red.", "a sea, it is blue.")]
    for one, other in zip(*(forward.compute_logprobs(decoder, rows, runtime, 100) for decoder in (plain, padded))):
        assert torch.allclose(one, other, atol=1e-5)
    kls = forward.compute_kls(padded, plain, rows, rows, runtime, 100)
    assert max(float(kl.abs().max()) for kl in kls) < 1e-5
    requests = [Request("the rose is", choice) for choice in (" red.", " blue.")]
    models = [LoadedModel(ModelEntry("m", Path("m")), decoder, words, runtime) for decoder in (plain, padded)]
    first, other = (score(model, requests, 100) for model in models)
    assert [each.logp for each in first] == pytest.approx([each.logp for each in other], abs=1e-5)
    assert [each.greedy for each in first] == [each.greedy for each in other]


def test_a_chat_knows_how_many_tokens_there_are(folders: dict[str, Path], words: Tokenizer, runtime: Runtime) -> None:
    assert load_model(folders["padded"], runtime).decoder.num_tokens == words.vocab_size


def test_all_logits_are_there_for_whoever_compares_them_with_others(
    both: tuple[Decoder, Decoder, Tokenizer],
) -> None:
    plain, padded, _ = both
    hidden = torch.randn(3, padded.config.hidden_size)
    assert padded.padded_logits(hidden).shape[1] == plain.logits(hidden).shape[1] + PADDING
    assert torch.equal(padded.padded_logits(hidden)[:, :-PADDING], padded.logits(hidden))


def test_weight_decay_leaves_them(both: tuple[Decoder, Decoder, Tokenizer]) -> None:
    _, padded, _ = both
    optimizer, before = Optimizer([padded], LOUD), padded.token_embedding.weight.detach().clone()
    for parameter in padded.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = padded.token_embedding.weight.detach()
    assert torch.equal(after[-PADDING:], before[-PADDING:]) and not torch.equal(after[:-PADDING], before[:-PADDING])
