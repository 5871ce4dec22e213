"""`amenable ppo`: the score rises, what is frozen stays, and a stopped run goes on to the bit."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data import sources
from amenable.data.batches import minibatches
from amenable.data.types import Prompt
from amenable.errors import InputError
from amenable.generation.rollout import Rollout, length_mask
from amenable.rl import monitor, token_trace
from amenable.rl.experience import Experience, Targets
from amenable.rl.models import Actors, load_actors
from amenable.seeds import derive_seed
from amenable.stages import ppo
from amenable.text.chat import render_prompt
from amenable.train import forward, loading
from amenable.train.examples import fitting_prompts, pieces_of, prompts_of_step
from amenable.train.log import Log
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import hash_of
from amenable.train.runtime import DeviceOptions, Runtime


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
        temperature=0.7,
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
        device=DeviceOptions("cpu", "fp32", 1),
    )


@pytest.fixture(scope="module")
def trained(config: ppo.Config) -> Path:
    return ppo.run(config)


@pytest.fixture
def short(config: ppo.Config, tmp_path: Path) -> ppo.Config:
    """Four small steps."""
    return replace(config, out=tmp_path / "short", max_steps=4, prompts_per_step=8, num_mini_batches=2)


@pytest.fixture
def actors(config: ppo.Config, runtime: Runtime) -> Actors:
    return load_actors(config.model, config.reward_model, 0, runtime)


@pytest.fixture
def experience(actors: Actors, short: ppo.Config) -> Experience:
    _, prompts = fitting_prompts(short.data, actors.tokenizer, 44)
    return ppo.gather(actors, prompts_of_step(prompts, 8, 0, 1), ("rollout", 1), 1, short)


def ids_of(actors: Actors, prompt: Prompt) -> list[int]:
    return render_prompt(actors.tokenizer, prompt.messages)


def optimizers(actors: Actors, config: ppo.Config) -> tuple[Optimizer, Optimizer]:
    return Optimizer([actors.policy], config.optimizer), Optimizer([actors.critic], config.optimizer)


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


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
    texts = rows_in(trained / "samples.jsonl")
    assert {row["step"] for row in texts} == {1, 5, 8} and len(texts) == 24
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
    rich = replace(rich, watched=3, eval_prompts=5)
    whole = outcome(ppo.run(replace(rich, out=tmp_path / "whole")))
    assert outcome(run_in_two(ppo, rich, stop)) == whole
    for name, lines in (("samples.jsonl", 32), ("traces.jsonl", 12), ("answers.jsonl", 25)):
        text = (rich.out / name).read_bytes()
        assert text == (tmp_path / "whole" / name).read_bytes() and len(text.splitlines()) == lines, name


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
    runtime: Runtime,
    rows_of: Callable,
    tmp_path: Path,
) -> None:
    pieces = pieces_of(sources.read_texts(files.text).rows[:60], actors.tokenizer, 64)
    losses = []
    for coefficient in (0.0, 3.0):
        config = replace(short, ptx_coef=coefficient, ptx_data=files.text, out=tmp_path / str(coefficient))
        policy, _ = loading.load_policy(ppo.run(config), runtime)
        losses.append(forward.mean_loss(policy, [ppo.raw_rows([ids], 1, 0, 1, 0)[0] for ids in pieces], runtime, 2000))
        assert ("loss/ptx" in rows_of(config.out)[0]) == bool(coefficient)
    assert losses[1] < losses[0] - 0.2


def test_frozen_layers_do_not_move(short: ppo.Config, actors: Actors, runtime: Runtime, files: Any) -> None:
    out = ppo.run(replace(short, frozen_layers=1, max_steps=3, ptx_coef=1.0, ptx_data=files.text))
    before, after = (dict(m.named_parameters()) for m in (actors.policy, loading.load_policy(out, runtime)[0]))
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


def test_answers_to_one_prompt_share_it_and_the_gradient_is_that_of_each_alone(
    actors: Actors, short: ppo.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, prompts = fitting_prompts(short.data, actors.tokenizer, 44)
    config = replace(short, num_generations=3, entropy_coef=0.1)
    experience = ppo.gather(actors, prompts_of_step(prompts, 4, 0, 1), ("rollout", 1), 3, config)
    targets, chosen = ppo.estimate(experience, 0.05, config), [3, 4, 5, 0, 1, 2, 9]
    batches, values = list[Any](), ppo.forward.trained_values

    def looked_at(critic: Any, batch: Any) -> torch.Tensor:
        batches.append(batch)
        return values(critic, batch)

    monkeypatch.setattr(ppo.forward, "trained_values", looked_at)
    told = ppo.backward(actors, experience, targets, chosen, config)
    whole = gradients(actors)
    (batch,) = batches
    assert [stem > 0 for stem in batch.prefix_lengths] == [False, True, True, False, True, True, False]
    assert len(batch.ids) < sum(batch.lengths)
    apart = ppo.backward(actors, experience, targets, chosen, replace(config, max_tokens_per_pass=1))
    assert len(batches) == 8 and not batches[-1].prefix_lengths
    assert apart == pytest.approx(told, rel=1e-4, abs=1e-5)
    assert torch.allclose(gradients(actors), whole, atol=1e-5) and whole.norm() > 0.01


def test_both_losses_by_hand(actors: Actors, experience: Experience, short: ppo.Config) -> None:
    """Against the log-probabilities and values of the time of sampling, which the updates have moved away from."""
    rollout, mask, chosen = experience.rollout, experience.rollout.mask, [3, 0, 5]
    moved = torch.linspace(-0.5, 0.5, mask.numel()).view(mask.shape)
    before = replace(rollout, logps=rollout.logps - moved)
    old = replace(experience, rollout=before, values=experience.values - 2 * moved)
    targets = ppo.estimate(old, 0.05, short)
    policy, critic = [], []
    for place in mask[chosen].nonzero().tolist():
        at = chosen[place[0]], place[1]
        ratio, advantage = moved[at].exp(), targets.advantages[at]
        policy.append(-min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
        value, goal = experience.values[at], targets.returns[at]
        held = value.clamp(old.values[at] - 0.2, old.values[at] + 0.2)
        critic.append(max((value - goal) ** 2, (held - goal) ** 2) / 2)
    told = ppo.backward(actors, old, targets, chosen, short)
    assert told["loss/policy_avg"] == pytest.approx(float(sum(policy)) / len(policy), abs=1e-4)
    assert told["loss/value_avg"] == pytest.approx(float(sum(critic)) / len(critic), rel=1e-3)
    assert told["policy/clipfrac_avg"] > 0 and told["val/clipfrac_avg"] > 0


def test_gathering_does_not_depend_on_the_passes(actors: Actors, experience: Experience, short: ppo.Config) -> None:
    _, prompts = fitting_prompts(short.data, actors.tokenizer, 44)
    asked = prompts_of_step(prompts, 8, 0, 1)
    again = ppo.gather(actors, asked, ("rollout", 1), 1, replace(short, max_tokens_per_pass=40))
    assert again.rollout.completions == experience.rollout.completions
    for name in ("ref_logps", "values", "raw_scores", "scores"):
        assert torch.allclose(getattr(again, name), getattr(experience, name), atol=1e-4), name


def test_scores_are_clipped_and_a_missing_end_costs(actors: Actors, short: ppo.Config) -> None:
    _, prompts = fitting_prompts(short.data, actors.tokenizer, 44)
    cut = replace(short, max_new_tokens=8, missing_eos_penalty=3.0, score_clip=0.5)
    found = ppo.gather(actors, prompts[:8], ("rollout", 1), 1, cut)
    assert not found.rollout.ended.all() and found.raw_scores.abs().max() > 0.5
    expected = found.raw_scores.clamp(-0.5, 0.5) - 3.0 * (~found.rollout.ended).float()
    assert torch.allclose(found.scores, expected)
    alone = [forward.row_rewards(actors.scorer, [row], actors.runtime, 99).item() for row in found.rollout.rows()]
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


def updated(actors: Actors, experience: Experience, config: ppo.Config) -> dict[str, float]:
    """What `learn` says of its updates on these answers; the models keep them."""
    targets = ppo.estimate(experience, 0.05, config)
    return ppo.learn(actors, optimizers(actors, config), experience, targets, [], 1, 1.0, config)


def chosen_by(config: ppo.Config) -> list[list[int]]:
    """The rows of every update of step 1."""
    sizes = (config.prompts_per_step, config.num_generations, config.num_mini_batches, config.num_ppo_epochs)
    return minibatches(*sizes, derive_seed(config.seed, "minibatch", 1))


@pytest.mark.parametrize("epochs", [1, 3])
def test_updates_end_before_the_first_minibatch_that_is_too_far(
    actors: Actors, experience: Experience, short: ppo.Config, epochs: int
) -> None:
    """In the middle of a pass as well; what was not stepped on leaves no gradient, and neither model moves on."""
    config = replace(short, num_mini_batches=4, num_ppo_epochs=epochs)
    before = [{name: p.clone() for name, p in model.state_dict().items()} for model in (actors.policy, actors.critic)]

    def again() -> None:
        for model, state in zip((actors.policy, actors.critic), before):
            model.load_state_dict(state)

    assert updated(actors, experience, config)["updates"] == 4 * epochs
    again()
    assert updated(actors, experience, replace(config, target_kl=1e9))["updates"] == 4 * epochs
    again()
    assert updated(actors, experience, replace(config, target_kl=1e-9))["updates"] == 1
    assert all(p.grad is None for model in (actors.policy, actors.critic) for p in model.parameters())
    moved = weights(actors.policy), weights(actors.critic)
    again()
    targets, step = ppo.estimate(experience, 0.05, config), optimizers(actors, config)
    ppo.backward(actors, experience, targets, chosen_by(config)[0], config)
    for part in step:
        part.step(1.0)
    assert torch.equal(moved[0], weights(actors.policy)) and torch.equal(moved[1], weights(actors.critic))


def test_updates_go_on_up_to_the_target(actors: Actors, experience: Experience, short: ppo.Config) -> None:
    """The kl of every minibatch, measured before its update, decides: the first above the target ends the updates."""
    config = replace(short, num_mini_batches=4, num_ppo_epochs=2)
    start, measured = {name: p.clone() for name, p in actors.policy.state_dict().items()}, list[float]()
    value = {name: p.clone() for name, p in actors.critic.state_dict().items()}
    targets, step = ppo.estimate(experience, 0.05, config), optimizers(actors, config)
    for chosen in chosen_by(config):
        measured.append(ppo.backward(actors, experience, targets, chosen, config)["policy/approxkl_avg"])
        for part in step:
            part.step(1.0)
    limit = sorted(measured)[4]
    allowed = next(place for place, kl in enumerate(measured) if kl > limit)
    actors.policy.load_state_dict(start)
    actors.critic.load_state_dict(value)
    assert 1 < allowed < 8, measured
    assert updated(actors, experience, replace(config, target_kl=limit))["updates"] == allowed


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
    runtime: Runtime,
) -> None:
    seen: list[torch.Tensor] = []

    def scores(ask: Any, held_out: list[monitor.Asked], decode: Any, log: Log, step: int) -> dict[str, float]:
        seen.append(weights(ask.args[0].policy).clone())
        return {"eval/score": [5.0, 0.0, 2.0, 1.0, -1.0][step]}

    monkeypatch.setattr(monitor, "evaluate", scores)
    out = ppo.run(replace(short, select="score", validation=files.prompts, eval_steps=1))
    saved = weights(loading.load_policy(out, runtime)[0])
    # the score before any update, though the highest, is none of the run's
    assert [torch.equal(saved, each) for each in seen] == [False, False, True, False, False]
    assert json.loads((out / "finished.json").read_text())["selected_step"] == 2


def test_held_out_prompts_are_answered_as_the_policy_learns(
    short: ppo.Config, files: Any, actors: Actors, rows_of: Callable
) -> None:
    out = ppo.run(replace(short, validation=files.prompts, eval_prompts=6, eval_steps=3, missing_eos_penalty=0.0))
    rows = rows_in(out / "answers.jsonl")
    known, _ = fitting_prompts(files.prompts, actors.tokenizer, 44)
    assert [row["step"] for row in rows] == [0] * 6 + [3] * 6 + [4] * 6
    assert [row["id"] for row in rows] == [prompt.id for prompt in known[:6]] * 3
    assert max(abs(row["kl"]) for row in rows[:6]) < 1e-3, "before any update the policy is the reference"
    assert sum(row["kl"] for row in rows[-6:]) > 0.1
    metrics = {row["step"]: row for row in rows_of(out)}
    assert [step for step in metrics if "eval/score" in metrics[step]] == [3, 4]
    for step in (3, 4):
        of_step = [row for row in rows if row["step"] == step]
        assert metrics[step]["eval/score"] == pytest.approx(sum(row["score"] for row in of_step) / 6, abs=1e-3)
        assert metrics[step]["eval/kl"] == pytest.approx(sum(row["kl"] for row in of_step) / 6, abs=1e-3)


def test_held_out_answers_are_drawn_with_the_same_numbers(actors: Actors, short: ppo.Config, tmp_path: Path) -> None:
    known, ids = fitting_prompts(short.data, actors.tokenizer, 44)
    asked, log = list(zip(known, ids)), Log(tmp_path, "x")

    def told(held_out: list[monitor.Asked], step: int, config: ppo.Config) -> dict[str, float]:
        ask = partial(ppo.gather, actors, samples=1, config=config)
        return monitor.evaluate(ask, held_out, actors.tokenizer.decode, log, step)

    first = told(asked, 1, short)
    assert told(asked, 2, short) == first
    assert told(asked[:9], 3, short) != first  # fewer prompts, each answered the same
    assert told(asked[:9], 4, replace(short, seed=1)) != first
    assert told(asked[:9], 5, replace(short, temperature=1.5)) != first
    rows = rows_in(tmp_path / "answers.jsonl")
    said = {step: [row["completion"] for row in rows if row["step"] == step] for step in range(1, 6)}
    assert said[1] == said[2] and said[1][:9] == said[3]
    assert said[3] != said[4] and said[3] != said[5]


def test_watching_leaves_the_training_as_it_is(
    short: ppo.Config, files: Any, outcome: Callable, tmp_path: Path
) -> None:
    """To the bit; and so does answering held-out prompts."""
    plain = replace(short, watched=0, sample_steps=1, entropy_coef=0.01, out=tmp_path / "plain")
    alone = outcome(ppo.run(plain))
    watched = outcome(ppo.run(replace(plain, watched=5, out=tmp_path / "watched")))
    assert watched == alone
    assert not (plain.out / "traces.jsonl").exists() and (tmp_path / "watched" / "traces.jsonl").exists()
    asked = outcome(ppo.run(replace(plain, validation=files.prompts, eval_steps=2, out=tmp_path / "asked")))
    assert asked["model.safetensors"] == alone["model.safetensors"]


def test_the_same_prompts_are_watched_with_the_same_numbers(
    short: ppo.Config, files: Any, actors: Actors, rows_of: Callable
) -> None:
    out = ppo.run(replace(short, watched=4, sample_steps=2))
    rows = rows_in(out / "traces.jsonl")
    known, _ = fitting_prompts(files.prompts, actors.tokenizer, 44)
    assert [row["step"] for row in rows] == [1] * 4 + [2] * 4 + [4] * 4
    assert [row["id"] for row in rows] == [known[place].id for place in (0, 8, 16, 24)] * 3
    coefficients = {row["step"]: row["objective/kl_coef"] for row in rows_of(out)}
    for row in rows:
        assert row["kl_coef"] == pytest.approx(coefficients[row["step"]], abs=1e-4)
        assert sum(row["rewards"]) == pytest.approx(row["score"] - row["kl_coef"] * sum(row["kl"]), abs=1e-2)
    assert max(abs(kl) for row in rows[:4] for kl in row["kl"]) < 1e-3
    assert max(abs(ratio - 1) for row in rows for ratio in row["ratios"]) > 0.02
    ask = partial(ppo.gather, actors, samples=1, config=short)
    how = token_trace.Settings(0.0, short.gamma, short.lam, short.temperature, short.max_tokens_per_pass)
    at_start = monitor.observe(ask, [(known[0], ids_of(actors, known[0]))], actors, how, 0.05)
    assert actors.tokenizer.decode(at_start.experience.rollout.completions[0], True) == "".join(rows[0]["tokens"])


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
        {"watched": -1},
        {"eval_prompts": -1},
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
