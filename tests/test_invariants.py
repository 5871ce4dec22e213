"""What can't go silently wrong and is no single module's business: losses however they are divided, pads, dropout.

That a packed row is the row alone, that cached decoding is the uncached, that a reward is its row's alone and that
dropout is off while generating is asserted beside the modules (models/decoder, generation/engine, train/forward).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amenable.data.sources import read_demonstrations, read_texts
from amenable.models.heads import ScalarModel
from amenable.rl.experience import Experience, Ratios, require_same_distribution
from amenable.rl.models import Actors, load_actors
from amenable.stages import dpo, ppo, reward, sft
from amenable.text.chat import render
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import fitting_prompts, pieces_of, whole
from amenable.train.forward import Row
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime
from amenable.train.step import backward_next_token

LOSSES = ("pretrain", "sft", "reward", "dpo", "ppo", "ptx")
WHOLE = 100_000
"""tokens of a pass that holds any of these batches"""


@dataclass(frozen=True)
class Bench:
    """Everything that the six losses are computed of: small models, and a batch for each."""

    actors: Actors
    experience: Experience
    texts: list[Row]
    conversations: list[Row]
    items: list[Any]
    pairs: list[dpo.Pair]
    reward: reward.Config
    dpo: dpo.Config
    ppo: ppo.Config

    def backward(self, loss: str, max_tokens: int, models: Actors | None = None) -> None:
        """Add the gradient of a loss, as its stage does, at most `max_tokens` a pass."""
        actors = models or self.actors
        policy, runtime = actors.policy, actors.runtime
        if loss in ("pretrain", "sft", "ptx"):
            rows, weight = (self.conversations if loss == "sft" else self.texts), 0.3 if loss == "ptx" else 1.0
            backward_next_token(policy, rows, runtime, max_tokens, weight)
        elif loss == "reward":
            reward.backward(actors.critic, self.items, replace(self.reward, max_tokens_per_pass=max_tokens), runtime)
        elif loss == "dpo":
            dpo.walk(policy, self.pairs, replace(self.dpo, max_tokens_per_pass=max_tokens), runtime)
        else:
            config = replace(self.ppo, max_tokens_per_pass=max_tokens)
            ppo.backward(actors, self.experience, ppo.estimate(self.experience, 0.05, config), [5, 0, 3, 1], config)


@pytest.fixture(scope="module")
def bench(
    files: Any, assistant: Path, judge: Path, reward_config: reward.Config, words: Tokenizer, runtime: Runtime
) -> Bench:
    actors = load_actors(assistant, judge, 0, runtime)
    one_thread = DeviceOptions("cpu", "fp32", 1)
    of_dpo = dpo.Config(assistant, files.pairs, device=one_thread)
    of_ppo = ppo.Config(assistant, judge, data=files.prompts, max_new_tokens=16, entropy_coef=0.1, device=one_thread)
    of_ppo = replace(of_ppo, temperature=0.7, kl_coef=0.3, kl_target=1.5)
    _, prompts = fitting_prompts(files.prompts, words, 40)
    demonstrations = read_demonstrations(files.demonstrations).rows[:6]
    rendered = [render(words, row.messages) for row in demonstrations]
    texts = read_texts(files.text).rows[:6]
    return Bench(
        actors,
        ppo.gather(actors, prompts[:6], ("rollout", 1), 1, of_ppo),
        [whole(piece) for piece in pieces_of(texts, words, 23)],
        [(row.ids, row.trained) for row in rendered],
        reward.read(reward_config, words, 64)[0][:5],
        dpo.with_reference(actors.policy, dpo.read(of_dpo, words, 64)[0][:5], of_dpo, runtime),
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
    trained = bench.actors.policy, bench.actors.critic
    bench.backward(loss, WHOLE)
    at_once = gradients(*trained)
    bench.backward(loss, max_tokens)
    assert at_once.norm() > 1e-3
    assert torch.allclose(gradients(*trained), at_once, atol=1e-5 * max(1.0, float(at_once.abs().max())))


@pytest.mark.parametrize("loss", LOSSES)
def test_no_pad_is_ever_read(bench: Bench, loss: str, words: Tokenizer) -> None:
    """So the embedding of pad gets no gradient as an input; as an output of tied weights it only loses to the rest."""
    read = set[int]()
    models = (bench.actors.policy, bench.actors.critic.decoder)
    hooks = [
        model.token_embedding.register_forward_pre_hook(lambda _, ids: read.update(ids[0].tolist())) for model in models
    ]
    bench.backward(loss, WHOLE)
    for hook in hooks:
        hook.remove()
    gradients(bench.actors.policy, bench.actors.critic)
    assert words.bos_id in read and words.pad_id not in read


def test_the_pad_embedding_of_a_model_that_predicts_nothing_has_no_gradient(bench: Bench, words: Tokenizer) -> None:
    bench.backward("reward", WHOLE)
    gradient = bench.actors.critic.decoder.token_embedding.weight.grad
    assert gradient is not None and gradient.norm() > 0
    assert not gradient[words.pad_id].any()
    gradients(bench.actors.critic)


def test_what_is_frozen_is_the_same_bit_for_bit_after_a_step(
    bench: Bench, assistant: Path, judge: Path, runtime: Runtime
) -> None:
    actors = load_actors(assistant, judge, 0, runtime)
    models = (actors.policy, actors.critic, actors.reference, actors.scorer)
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in models]
    rate = OptimizerConfig(learning_rate=3e-4)
    optimizers = Optimizer([actors.policy], rate), Optimizer([actors.critic], rate)
    config = replace(bench.ppo, prompts_per_step=6, num_mini_batches=2)
    ppo.learn(actors, optimizers, bench.experience, ppo.estimate(bench.experience, 0.1, config), [], 1, 1.0, config)
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
    monkeypatch.setattr(loading.pretrained, "load_decoder", lambda folder, **_: load(folder, dropout=0.5))
    monkeypatch.setattr(forward.Decoder, "forward", watching)
    small: dict[str, Any] = {
        "reward": replace(bench.reward, prompts_per_step=24, epochs=1, warmup_steps=1),
        "dpo": replace(bench.dpo, epochs=1, batch_size=30, warmup_steps=1),
        "ppo": replace(bench.ppo, max_steps=2, prompts_per_step=4, num_mini_batches=2, warmup_steps=1, watched=0),
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
    actors = load_actors(assistant, judge, 0, runtime)
    config = replace(bench.ppo, prompts_per_step=6, num_mini_batches=1)
    rate = OptimizerConfig(learning_rate=3e-4)
    optimizers = Optimizer([actors.policy], rate), Optimizer([actors.critic], rate)
    targets = ppo.estimate(bench.experience, 0.05, config)
    if wrong == "dropout":
        decoder = loading.pretrained.load_decoder(assistant, dropout=0.5).train()
        actors = replace(actors, policy=decoder)
    elif wrong == "temperature":
        config = replace(config, temperature=3.0)
    else:
        with torch.no_grad():
            for weight in actors.policy.parameters():
                weight.mul_(1.5)
    with pytest.raises(RuntimeError, match=said):
        ppo.learn(actors, optimizers, bench.experience, targets, [], 1, 1.0, config)


def test_a_small_gap_points_to_precision() -> None:
    with pytest.raises(RuntimeError, match="points to precision"):
        require_same_distribution(Ratios(1000, 0.015, 1.0, 0.0), 0.01)


def test_a_reward_does_not_know_its_batch(bench: Bench, runtime: Runtime) -> None:
    scorer: ScalarModel = bench.actors.scorer
    rows = [row for item in bench.items for row in item.rows]
    together = forward.row_rewards(scorer, rows, runtime, WHOLE)
    for order in (range(len(rows)), range(len(rows))[::-1]):
        for size in (1, 60, 200):
            scores = forward.row_rewards(scorer, [rows[i] for i in order], runtime, size)
            assert torch.allclose(scores, together[list(order)], atol=1e-5)
