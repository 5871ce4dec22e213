"""What can't go silently wrong and is no single module's business: losses however they are divided, pads, dropout.

That a packed row is the row alone, that cached decoding is the uncached, that a reward is its row's alone and that
dropout is off while generating is asserted beside the modules (models/decoder, generation/engine, train/forward).
"""

import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amenable.data.mixture import Mixed
from amenable.data.sources import read_demonstrations, read_texts
from amenable.rl.experience import Experience, Ratios, require_same_distribution
from amenable.rl.models import load_critic, load_models
from amenable.stages import dpo, ppo, reward, sft
from amenable.text.chat import render
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import chunk_texts, fitting_prompts, text_row
from amenable.train.forward import Row
from amenable.train.objective import NextToken, accumulate
from amenable.train.optimizer import OptimizerConfig
from amenable.train.rankings import Pair, add_reference_logps
from amenable.train.runtime import DeviceOptions, Runtime

LOSSES = ("pretrain", "sft", "reward", "dpo", "ppo", "ptx")
WHOLE = 100_000
"""tokens of a pass that holds any of these batches"""


def ppo_tests() -> Any:
    """The tests of PPO: they load its models and take its updates."""
    path = Path(__file__).parent / "stages" / "test_ppo.py"
    spec = importlib.util.spec_from_file_location("tests_of_ppo", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules.get("tests_of_ppo") or importlib.util.module_from_spec(spec)
    if "tests_of_ppo" not in sys.modules:
        sys.modules["tests_of_ppo"] = module
        spec.loader.exec_module(module)
    return module


def load(config: ppo.Config, runtime: Runtime) -> Any:
    models = load_models(config, runtime)
    return ppo_tests().Loaded(models, load_critic(models, config))


@dataclass(frozen=True)
class Bench:
    """Everything that the six losses are computed of: small models, and a batch for each."""

    loaded: Any
    experience: Experience
    texts: list[Row]
    conversations: list[Row]
    items: list[Any]
    pairs: list[Pair]
    reward: reward.Config
    dpo: dpo.Config
    ppo: ppo.Config

    def backward(self, loss: str, max_tokens: int, loaded: Any = None) -> None:
        """Add the gradient of a loss, as its stage does, at most `max_tokens` a pass."""
        loaded = loaded or self.loaded
        policy, critic, runtime = loaded.policy, loaded.critic, loaded.models.runtime
        if loss in ("pretrain", "sft", "ptx"):
            rows, weight = (self.conversations if loss == "sft" else self.texts), 0.3 if loss == "ptx" else 1.0
            accumulate(NextToken(policy), rows, runtime, max_tokens, scale=weight)
        elif loss == "reward":
            accumulate(reward.RankingObjective(critic), self.items, runtime, max_tokens)
        elif loss == "dpo":
            accumulate(dpo.DPO(policy, self.dpo), self.pairs, runtime, max_tokens)
        else:
            config = replace(self.ppo, max_tokens_per_pass=max_tokens)
            tests = ppo_tests()
            tests.backward(loaded, tests.standardized(self.experience, 0.05, config), [5, 0, 3, 1], config)


@pytest.fixture(scope="module")
def bench(
    files: Any, assistant: Path, judge: Path, reward_config: reward.Config, words: Tokenizer, runtime: Runtime
) -> Bench:
    one_thread = DeviceOptions("cpu", "fp32", 1)
    of_dpo = dpo.Config(assistant, files.pairs, device=one_thread)
    of_ppo = ppo.Config(
        model=assistant, reward=judge, data=files.prompts, max_new_tokens=16, entropy_coef=0.1, device=one_thread
    )
    rates: dict[str, Any] = {"optimizer": OptimizerConfig(learning_rate=3e-4), "critic_learning_rate": 3e-4}
    of_ppo = replace(of_ppo, temperature=0.7, kl_coef=0.3, adaptive_kl_target=1.5, **rates)
    loaded = load(of_ppo, runtime)
    _, prompts = fitting_prompts(files.prompts, words, 40)
    demonstrations = read_demonstrations(files.demonstrations).rows[:6]
    rendered = [render(words, row.messages) for row in demonstrations]
    texts = read_texts(files.text).rows[:6]
    return Bench(
        loaded,
        ppo_tests().gather(loaded, prompts[:6], 1, of_ppo),
        [text_row(piece) for piece in chunk_texts(texts, words, 23)],
        [(row.ids, row.loss_mask) for row in rendered],
        reward.read(reward_config, words, 64)[0][:5],
        add_reference_logps(loaded.policy, Mixed([""], [dpo.read(of_dpo, words, 64)[0][:5]]), runtime, WHOLE),
        reward_config,
        of_dpo,
        of_ppo,
    )


def gradients(*models: nn.Module) -> Tensor:
    """All gradients in one row, and none left."""
    parts = [
        torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for model in models for p in model.parameters()
    ]
    for model in models:
        model.zero_grad(set_to_none=True)
    return torch.cat(parts)


@pytest.mark.parametrize("max_tokens", [1, 90])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_is_the_same_however_many_passes_it_takes(bench: Bench, loss: str, max_tokens: int) -> None:
    trained = bench.loaded.trained
    bench.backward(loss, WHOLE)
    at_once = gradients(*trained)
    bench.backward(loss, max_tokens)
    assert at_once.norm() > 1e-3
    assert torch.allclose(gradients(*trained), at_once, atol=1e-5 * max(1.0, float(at_once.abs().max())))


@pytest.mark.parametrize("loss", LOSSES)
def test_no_pad_is_ever_read(bench: Bench, loss: str, words: Tokenizer) -> None:
    """So the embedding of pad gets no gradient as an input; as an output of tied weights it only loses to the rest."""
    read = set[int]()
    models = (bench.loaded.policy, bench.loaded.critic.decoder)
    hooks = [
        model.token_embedding.register_forward_pre_hook(lambda _, ids: read.update(ids[0].tolist())) for model in models
    ]
    bench.backward(loss, WHOLE)
    for hook in hooks:
        hook.remove()
    gradients(bench.loaded.policy, bench.loaded.critic)
    assert words.bos_id in read and words.pad_id not in read


def test_the_pad_embedding_of_a_model_that_predicts_nothing_has_no_gradient(bench: Bench, words: Tokenizer) -> None:
    bench.backward("reward", WHOLE)
    gradient = bench.loaded.critic.decoder.token_embedding.weight.grad
    assert gradient is not None and gradient.norm() > 0
    assert not gradient[words.pad_id].any()
    gradients(bench.loaded.critic)


def test_what_is_frozen_is_the_same_bit_for_bit_after_a_step(
    bench: Bench, assistant: Path, judge: Path, runtime: Runtime
) -> None:
    loaded = load(bench.ppo, runtime)
    models = (*loaded.trained, *loaded.models.frozen)
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    ppo_tests().learn(loaded, bench.experience, replace(bench.ppo, prompts_per_step=6, num_mini_batches=2))
    same = [
        all(torch.equal(old[name], tensor) for name, tensor in model.state_dict().items())
        for old, model in zip(before, models)
    ]
    assert same == [False, False, True, True]
    assert all(p.grad is None for model in models[2:] for p in model.parameters())


@pytest.mark.parametrize("stage", ["reward", "dpo", "ppo"])
def test_dropout_is_off_where_answers_are_compared(
    bench: Bench, stage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also for a model that has some: whoever computes a loss does so in evaluation mode."""
    modes, original = list[bool](), forward.Decoder.forward

    def watching(self: forward.Decoder, *rest: Any, **named: Any) -> Any:
        modes.append(self.training and bool(self.config.dropout))
        return original(self, *rest, **named)

    load = loading.pretrained.load_decoder
    monkeypatch.setattr(loading.pretrained, "load_decoder", lambda folder, *_, **__: load(folder, dropout=0.5))
    monkeypatch.setattr(forward.Decoder, "forward", watching)
    small: dict[str, Any] = {
        "reward": replace(bench.reward, prompts_per_step=24, epochs=1, warmup_steps=1),
        "dpo": replace(bench.dpo, epochs=1, batch_size=30, warmup_steps=1),
        "ppo": replace(
            bench.ppo, max_steps=2, prompts_per_step=4, num_mini_batches=2, warmup_steps=1, num_traced_prompts=0
        ),
    }
    {"reward": reward, "dpo": dpo, "ppo": ppo}[stage].run(replace(small[stage], out=tmp_path / "run"))  # type: ignore[attr-defined]
    assert modes and not any(modes)


def test_dropout_is_on_where_it_is_asked_for(
    sft_config: sft.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modes, original = list[bool](), forward.Decoder.forward

    def watching(self: forward.Decoder, *rest: Any, **named: Any) -> Any:
        modes.append(self.training and self.config.dropout == 0.1)
        return original(self, *rest, **named)

    monkeypatch.setattr(forward.Decoder, "forward", watching)
    sft.run(replace(sft_config, out=tmp_path / "run", epochs=1, batch_size=36, warmup_steps=1))
    assert True in modes and False in modes  # training, and validation


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("dropout", r"in training mode, so it is dropout"),
        ("temperature", r"dropout is off and the gap is large, which points to temperature"),
        ("stale weights", r"dropout is off and the gap is large"),
    ],
)
def test_a_sampler_that_is_not_the_trainer_stops_the_run_with_the_cause(
    bench: Bench, wrong: str, said: str, assistant: Path, judge: Path, runtime: Runtime
) -> None:
    loaded = load(bench.ppo, runtime)
    config = replace(bench.ppo, prompts_per_step=6, num_mini_batches=1)
    if wrong == "dropout":
        decoder = loading.pretrained.load_decoder(assistant, dropout=0.5).train()
        loaded = replace(loaded, models=replace(loaded.models, policy=decoder))
    elif wrong == "temperature":
        config = replace(config, temperature=3.0)
    else:
        with torch.no_grad():
            for weight in loaded.policy.parameters():
                weight.mul_(1.5)
    with pytest.raises(RuntimeError, match=said):
        ppo_tests().learn(loaded, bench.experience, config)


def test_a_small_gap_points_to_precision() -> None:
    with pytest.raises(RuntimeError, match="points to precision"):
        require_same_distribution(Ratios(1000, 0.015, 1.0, 0.0), 0.01)


def test_a_reward_does_not_know_its_batch(bench: Bench, runtime: Runtime) -> None:
    _, scorer = bench.loaded.models.frozen
    rows = [row for item in bench.items for row in item.rows]
    together = forward.compute_rewards(scorer, rows, runtime, WHOLE)
    for order in (range(len(rows)), range(len(rows))[::-1]):
        for size in (1, 60, 200):
            scores = forward.compute_rewards(scorer, [rows[i] for i in order], runtime, size)
            assert torch.allclose(scores, together[list(order)], atol=1e-5)
