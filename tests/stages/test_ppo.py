"""`amenable ppo`: the score rises, what is frozen stays, and a stopped run goes on to the bit."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data import sources
from amenable.errors import InputError
from amenable.generation.experience import Experience, Targets
from amenable.generation.rollout import Rollout, length_mask
from amenable.stages import ppo
from amenable.train import artifacts, passes
from amenable.train.actors import Actors, load_actors
from amenable.train.feed import fitting_prompts, pieces_of, prompts_of_step
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import hash_of
from amenable.train.runtime import Machine, Runtime


@pytest.fixture(scope="module")
def config(assistant: Path, judge: Path, files: Any, tmp_path_factory: pytest.TempPathFactory) -> ppo.Config:
    return ppo.Config(
        model=assistant,
        reward_model=judge,
        data=files.prompts,
        out=tmp_path_factory.mktemp("ppo") / "run",
        max_steps=8,
        prompts_per_step=24,
        num_generations=1,
        num_mini_batches=2,
        num_ppo_epochs=1,
        kl_coef=0.05,
        kl_target=0.0,
        target_kl=0.0,
        entropy_coef=0.0,
        ptx_coef=0.0,
        frozen_layers=0,
        gamma=1.0,
        lam=0.95,
        missing_eos_penalty=1.0,
        sample_steps=5,
        max_new_tokens=20,
        optimizer=OptimizerConfig(learning_rate=3e-3, eps=1e-5),
        critic_learning_rate=5e-3,
        warmup_steps=2,
        save_steps=0,
        machine=Machine("cpu", "fp32", 1),
    )


@pytest.fixture(scope="module")
def trained(config: ppo.Config) -> Path:
    return ppo.run(config)


@pytest.fixture
def short(config: ppo.Config, tmp_path: Path) -> ppo.Config:
    """Four small steps."""
    return replace(config, out=tmp_path / "short", max_steps=4, prompts_per_step=8, num_mini_batches=2)


@pytest.fixture
def actors(config: ppo.Config, machine: Runtime) -> Actors:
    return load_actors(config.model, config.reward_model, 0, machine)


@pytest.fixture
def experience(actors: Actors, short: ppo.Config) -> Experience:
    _, prompts = fitting_prompts(short.data, actors.tokenizer, 44)
    return ppo.gather(actors, prompts_of_step(prompts, 8, 0, 1), 1, short)


def optimizers(actors: Actors, config: ppo.Config) -> tuple[Optimizer, Optimizer]:
    return Optimizer([actors.policy], config.optimizer), Optimizer([actors.critic], config.optimizer)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradients(actors: Actors) -> torch.Tensor:
    models = (actors.policy, actors.critic)
    found = torch.cat([p.grad.flatten() for model in models for p in model.parameters() if p.grad is not None])
    for model in models:
        model.zero_grad(set_to_none=True)
    return found


def test_the_score_rises_towards_what_people_like(
    trained: Path, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    rows = rows_of(trained)
    scores = [row["objective/scores"] for row in rows]
    assert sum(scores[-3:]) / 3 > scores[0] + 2.0
    texts = [json.loads(line) for line in (trained / "samples.jsonl").read_text().splitlines()]
    assert {row["step"] for row in texts} == {1, 5} and len(texts) == 16
    late = [row["completion"] for row in texts if row["step"] == 5]
    assert sum("Gladly" in text for text in late) > len(late) / 2, late


def test_the_sampler_is_the_trainer_and_kl_starts_at_zero(trained: Path, rows_of: Callable) -> None:
    rows = rows_of(trained)
    assert max(row["val/ratio_gap"] for row in rows) < 1e-4
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    assert rows[-1]["objective/kl"] > 0.5 and rows[-1]["objective/kl_k3"] > 0
    for row in rows:
        assert row["objective/non_score_reward"] == pytest.approx(-0.05 * row["objective/kl"], abs=1e-6)
        assert row["updates"] == 2 and 0 <= row["completions/ended"] <= 1


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_the_temperature_is_in_every_log_probability(short: ppo.Config, rows_of: Callable, temperature: float) -> None:
    rows = rows_of(ppo.run(replace(short, temperature=temperature, max_steps=2, warmup_steps=0)))
    assert max(row["val/ratio_gap"] for row in rows) < 1e-4
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)


def test_reference_and_scorer_stay_as_they_are(
    actors: Actors, experience: Experience, short: ppo.Config, trained: Path
) -> None:
    before = [weights(model) for model in (actors.policy, actors.critic, actors.reference, actors.scorer)]
    targets = ppo.estimate(experience, 0.05, short)
    ppo.learn(actors, optimizers(actors, short), experience, targets, [], 1, 1.0, short)
    after = [weights(model) for model in (actors.policy, actors.critic, actors.reference, actors.scorer)]
    assert [torch.equal(*pair) for pair in zip(before, after)] == [False, False, True, True]
    lineage = json.loads((trained / "lineage.json").read_text())["inputs"]
    for name, folder in (("model", short.model), ("reward_model", short.reward_model)):
        assert lineage[name]["sha256"] == hash_of(folder)


@pytest.mark.parametrize("stop", [2, 4])
def test_a_stopped_run_goes_on_to_the_bit(
    short: ppo.Config,
    files: Any,
    run_in_two: Callable,
    outcome: Callable,
    tmp_path: Path,
    stop: int,
) -> None:
    """With everything that has a state: both optimizers, an adapting coefficient, the best weights so far."""
    rich = replace(
        short, kl_target=2.0, kl_horizon=40.0, select="score", validation=files.prompts, eval_steps=1, sample_steps=1
    )
    rich = replace(rich, ptx_coef=0.5, ptx_data=files.text, ptx_tokens=100)
    whole = outcome(ppo.run(replace(rich, out=tmp_path / "whole")))
    assert outcome(run_in_two(ppo, rich, stop)) == whole
    assert len(whole["samples.jsonl"].splitlines()) == 32


def test_the_coefficient_follows_its_target(short: ppo.Config, rows_of: Callable) -> None:
    rows = rows_of(ppo.run(replace(short, kl_target=1.0, kl_horizon=40.0)))
    for row, following in pairwise(rows):
        error = min(max(row["objective/kl"] / 1.0 - 1, -0.2), 0.2)
        expected = row["objective/kl_coef"] * (1 + error * 8 / 40)
        assert following["objective/kl_coef"] == pytest.approx(expected, rel=1e-6)
    assert rows[0]["objective/kl_coef"] == 0.05 and rows[1]["objective/kl_coef"] < 0.05


def test_raw_text_mixed_in_keeps_the_policy_a_language_model(
    short: ppo.Config,
    files: Any,
    actors: Actors,
    machine: Runtime,
    rows_of: Callable,
    tmp_path: Path,
) -> None:
    pieces = pieces_of(sources.read_texts(files.text).rows[:60], actors.tokenizer, 64)
    losses = []
    for coefficient in (0.0, 3.0):
        config = replace(short, ptx_coef=coefficient, ptx_data=files.text, out=tmp_path / str(coefficient))
        policy, _ = artifacts.load_policy(ppo.run(config), machine)
        losses.append(passes.mean_loss(policy, [ppo.raw_rows([ids], 1, 0, 1, 0)[0] for ids in pieces], machine, 2000))
        assert ("loss/ptx" in rows_of(config.out)[0]) == bool(coefficient)
    assert losses[1] < losses[0] - 0.2


def test_frozen_layers_do_not_move(short: ppo.Config, actors: Actors, machine: Runtime, files: Any) -> None:
    out = ppo.run(replace(short, frozen_layers=1, max_steps=3, ptx_coef=1.0, ptx_data=files.text))
    before, after = (dict(m.named_parameters()) for m in (actors.policy, artifacts.load_policy(out, machine)[0]))
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved and not [name for name in moved if "embedding" in name or "layers.0." in name]


@pytest.mark.parametrize("max_tokens", [1, 70, 130])
def test_many_passes_are_one(actors: Actors, experience: Experience, short: ppo.Config, max_tokens: int) -> None:
    config = replace(short, entropy_coef=0.1, vf_coef=0.5)
    targets, chosen = ppo.estimate(experience, 0.05, config), [6, 1, 3, 0, 2]
    told = ppo.backward(actors, experience, targets, chosen, config)
    whole = gradients(actors)
    again = ppo.backward(actors, experience, targets, chosen, replace(config, max_tokens_per_pass=max_tokens))
    assert again == pytest.approx(told, rel=1e-4, abs=1e-5)
    assert torch.allclose(gradients(actors), whole, atol=1e-5) and whole.norm() > 0.01


def test_gathering_does_not_depend_on_the_passes(actors: Actors, experience: Experience, short: ppo.Config) -> None:
    _, prompts = fitting_prompts(short.data, actors.tokenizer, 44)
    again = ppo.gather(actors, prompts_of_step(prompts, 8, 0, 1), 1, replace(short, max_tokens_per_pass=40))
    assert again.rollout.responses == experience.rollout.responses
    for name in ("ref_logps", "values", "raw_scores", "scores"):
        assert torch.allclose(getattr(again, name), getattr(experience, name), atol=1e-4), name


def test_scores_are_clipped_and_a_missing_end_costs(actors: Actors, short: ppo.Config) -> None:
    _, prompts = fitting_prompts(short.data, actors.tokenizer, 44)
    cut = replace(short, max_new_tokens=8, missing_eos_penalty=3.0, score_clip=0.5)
    found = ppo.gather(actors, prompts[:8], 1, cut)
    assert not found.rollout.ended.all() and found.raw_scores.abs().max() > 0.5
    expected = found.raw_scores.clamp(-0.5, 0.5) - 3.0 * (~found.rollout.ended).float()
    assert torch.allclose(found.scores, expected)
    alone = [passes.row_rewards(actors.scorer, [row], actors.machine, 99).item() for row in found.rollout.rows()]
    assert found.raw_scores.tolist() == pytest.approx(alone, abs=1e-4)


def two_answers() -> Experience:
    mask = length_mask([3, 1])
    logps = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, 0.0, 0.0]])
    reference = torch.tensor([[-1.5, -1.0, -0.5], [-3.2, 0.0, 0.0]])
    rollout = Rollout([[1, 4], [1, 5]], [[6, 7, 2], [8]], torch.tensor([True, False]), mask, logps)
    values = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.0, 0.0]])
    return Experience(rollout, reference, values, torch.tensor([2.0, 0.5]), torch.tensor([2.0, -0.5]))


def test_estimates_by_hand(short: ppo.Config) -> None:
    targets = ppo.estimate(two_answers(), 0.1, replace(short, gamma=0.9, lam=0.8))
    rewards = [[-0.05, 0.1, 2.0], [-0.02 - 0.5]]
    deltas = [[-0.05 + 0.9 * 0.2 - 0.1, 0.1 + 0.9 * 0.3 - 0.2, 2.0 - 0.3], [-0.52 - 0.5]]
    third = deltas[0][2]
    second = deltas[0][1] + 0.72 * third
    first = deltas[0][0] + 0.72 * second
    raw = torch.tensor([first, second, third, deltas[1][0]])
    mask = length_mask([3, 1])
    assert targets.rewards[mask].tolist() == pytest.approx(rewards[0] + rewards[1])
    assert targets.returns[mask].tolist() == pytest.approx((raw + torch.tensor([0.1, 0.2, 0.3, 0.5])).tolist())
    standard = (raw - raw.mean()) / (raw.var(correction=0) + 1e-8).sqrt()
    assert targets.advantages[mask].tolist() == pytest.approx(standard.tolist(), abs=1e-5)
    assert not targets.advantages[~mask].any() and not targets.returns[~mask].any()


def test_whitened_rewards_have_unit_variance_and_their_mean(short: ppo.Config) -> None:
    mask = length_mask([3, 1])
    plain = ppo.estimate(two_answers(), 0.1, short).rewards[mask]
    whitened = ppo.estimate(two_answers(), 0.1, replace(short, whiten_rewards=True)).rewards[mask]
    assert whitened.var(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert whitened.mean().item() == pytest.approx(plain.mean().item(), abs=1e-5)


def test_the_entropy_bonus_raises_entropy(actors: Actors, experience: Experience, short: ppo.Config) -> None:
    still = torch.zeros_like(experience.values)
    targets, every = Targets(still, experience.values, still), list(range(8))
    ppo.backward(actors, experience, targets, every, replace(short, entropy_coef=0.0))
    assert gradients(actors).norm() < 1e-5  # no advantage, values on their targets: nothing to learn
    before = ppo.backward(actors, experience, targets, every, replace(short, entropy_coef=1.0))["policy/entropy_avg"]
    with torch.no_grad():
        for p in actors.policy.parameters():
            p -= 0.01 * p.grad
    assert ppo.backward(actors, experience, targets, every, short)["policy/entropy_avg"] > before


def test_updates_end_where_the_policy_has_moved_far_enough(
    actors: Actors, experience: Experience, short: ppo.Config
) -> None:
    config = replace(short, num_ppo_epochs=5, target_kl=1e-9)
    stats = ppo.learn(
        actors, optimizers(actors, config), experience, ppo.estimate(experience, 0.05, config), [], 1, 1.0, config
    )
    assert stats["updates"] == 2  # one pass of two minibatches, of five


def test_a_sampler_that_is_not_the_trainer_is_stopped(
    actors: Actors, experience: Experience, short: ppo.Config
) -> None:
    rollout = replace(experience.rollout, logps=experience.rollout.logps * 1.1)
    wrong = replace(experience, rollout=rollout)
    with pytest.raises(RuntimeError, match="before any update"):
        ppo.learn(actors, optimizers(actors, short), wrong, ppo.estimate(wrong, 0.05, short), [], 1, 1.0, short)


def test_the_weights_of_the_best_score_are_kept(
    short: ppo.Config,
    files: Any,
    monkeypatch: pytest.MonkeyPatch,
    machine: Runtime,
) -> None:
    seen: list[torch.Tensor] = []

    def score(actors: Actors, *_: Any) -> float:
        seen.append(weights(actors.policy).clone())
        return [0.0, 2.0, 1.0, -1.0][len(seen) - 1]

    monkeypatch.setattr(ppo, "greedy_score", score)
    out = ppo.run(replace(short, select="score", validation=files.prompts, eval_steps=1))
    saved = weights(artifacts.load_policy(out, machine)[0])
    assert [torch.equal(saved, each) for each in seen] == [False, True, False, False]
    assert json.loads((out / "finished.json").read_text())["selected_step"] == 2


def test_the_held_out_score_is_of_greedy_answers(actors: Actors, short: ppo.Config) -> None:
    _, prompts = fitting_prompts(short.data, actors.tokenizer, 44)
    first = ppo.greedy_score(actors, prompts[:6], short)
    assert first == ppo.greedy_score(actors, prompts[:6], replace(short, seed=5, temperature=0.3))
    halves = [ppo.greedy_score(actors, part, short) for part in (prompts[:3], prompts[3:6])]
    assert first == pytest.approx(sum(halves) / 2, abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_mini_batches": 5},
        {"num_mini_batches": 0},
        {"max_steps": 0},
        {"prompts_per_step": -8},
        {"temperature": 0.0},
        {"kl_coef": -0.1},
        {"lam": 1.5},
        {"sample_steps": 0},
        {"frozen_layers": -1},
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ppo.Config(**wrong)


def test_options_that_need_a_file_say_which() -> None:
    with pytest.raises(InputError, match="give --ptx-data"):
        ppo.Config(ptx_coef=1.0)
    with pytest.raises(InputError, match="give --validation"):
        ppo.Config(select="score")
