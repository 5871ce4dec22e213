"""`amenable ppo`: the score rises, what is frozen stays, and a stopped run goes on to the bit."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from amenable.data import sources
from amenable.data.batches import minibatches
from amenable.data.orders import Draws, EpochOrder
from amenable.data.types import Prompt
from amenable.errors import InputError
from amenable.files import hash_of
from amenable.functional.masked import standardize
from amenable.generation.rollout import Rollout, length_mask
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.rl import monitor
from amenable.rl.experience import Experience, TokenizedPrompt
from amenable.rl.improve import MinibatchLoss, collect_experience, update
from amenable.rl.models import Models, load_critic, load_models
from amenable.seeds import derive_seed
from amenable.stages import ppo
from amenable.text.chat import render_prompt
from amenable.train import forward, loading
from amenable.train.examples import chunk_texts, fitting_prompts, raw_rows
from amenable.train.objective import accumulate
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime


@pytest.fixture(scope="module")
def config(assistant: Path, judge: Path, files: Any, tmp_path_factory: pytest.TempPathFactory) -> ppo.Config:
    return ppo.Config(
        model=assistant,
        reward=judge,
        data=files.prompts,
        out=tmp_path_factory.mktemp("ppo") / "run",
        max_steps=8,
        prompts_per_step=24,
        num_generations=1,
        num_mini_batches=2,
        num_ppo_epochs=1,
        temperature=0.7,
        kl_coef=0.05,
        adaptive_kl_target=0.0,
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


@dataclass(frozen=True)
class Loaded:
    """Models and critic as a run has them."""

    models: Models
    critic: ScalarModel

    @property
    def policy(self) -> Decoder:
        return self.models.policy

    @property
    def trained(self) -> tuple[torch.nn.Module, ...]:
        return self.policy, self.critic

    def algorithm(self, config: ppo.Config) -> ppo.PPO:
        """The algorithm with these options, and optimizers that have not stepped yet."""
        return ppo.PPO(self.models, self.critic, config)


@pytest.fixture
def loaded(config: ppo.Config, runtime: Runtime) -> Loaded:
    models = load_models(config, runtime)
    return Loaded(models, load_critic(models, config))


def first(prompts: list[list[int]], count: int) -> list[list[int]]:
    """Return the prompts of a run's first step."""
    return [prompts[i] for i in Draws(EpochOrder(len(prompts), 0)).step(1, count)]


@pytest.fixture
def experience(loaded: Loaded, short: ppo.Config) -> Experience:
    _, prompts = fitting_prompts(short.data, loaded.models.tokenizer, 44)
    return gather(loaded, first(prompts, 8), 1, short)


def gather(loaded: Loaded, prompts: list[list[int]], samples: int, config: ppo.Config) -> Experience:
    request = [TokenizedPrompt(Prompt((), str(i)), ids) for i, ids in enumerate(prompts)]
    return collect_experience(loaded.algorithm(config), loaded.models, config, request, ("rollout", 1), samples)


def estimate(experience: Experience, kl_coef: float, config: ppo.Config) -> Experience:
    """The experience with its advantages, not standardised yet."""
    estimated = replace(experience, columns=dict(experience.columns))
    ppo.PPO.compute_advantages(SimpleNamespace(config=config), estimated, kl_coef)  # type: ignore[arg-type]
    return estimated


def backward(loaded: Loaded, experience: Experience, chosen: list[int], config: ppo.Config) -> dict[str, float]:
    losses = loaded.algorithm(config).losses
    objectives = [MinibatchLoss(experience, loss, loaded.models.runtime.device) for loss in losses]
    return accumulate(objectives, chosen, loaded.models.runtime, config.max_tokens_per_pass)


def learn(
    loaded: Loaded, experience: Experience, config: ppo.Config, algorithm: ppo.PPO | None = None
) -> dict[str, float]:
    """All updates of an iteration on these answers; the models keep them."""
    estimated, algorithm = estimate(experience, 0.05, config), algorithm or loaded.algorithm(config)
    return update(algorithm, loaded.models, estimated, [], 1, 1.0, config, rounding=lambda: 0.0)


def standardized(experience: Experience, kl_coef: float, config: ppo.Config) -> Experience:
    estimated = estimate(experience, kl_coef, config)
    mask = estimated.rollout.mask
    estimated.columns["advantages"] = standardize(estimated.columns["advantages"], mask)
    return estimated


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradients(loaded: Loaded) -> torch.Tensor:
    models = loaded.trained
    result = torch.cat([p.grad.flatten() for model in models for p in model.parameters() if p.grad is not None])
    for model in models:
        model.zero_grad(set_to_none=True)
    return result


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
    assert max(row["sampling/logp_difference"] for row in rows) < 1e-4
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    assert rows[-1]["objective/kl"] > 0.5 and rows[-1]["objective/kl_k3"] > 0
    for row in rows:
        assert row["objective/non_score_reward"] == pytest.approx(-0.05 * row["objective/kl"], abs=1e-6)
        assert row["updates"] == 2 and 0 <= row["completions/clipped_ratio"] <= 1


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_the_temperature_is_in_every_log_probability(short: ppo.Config, rows_of: Callable, temperature: float) -> None:
    rows = rows_of(ppo.run(replace(short, temperature=temperature, max_steps=2, warmup_steps=0)))
    assert max(row["sampling/logp_difference"] for row in rows) < 1e-4
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)


def test_reference_and_scorer_stay_as_they_are(
    loaded: Loaded, experience: Experience, short: ppo.Config, trained: Path
) -> None:
    before = [weights(model) for model in (*loaded.trained, *loaded.models.frozen)]
    learn(loaded, experience, short)
    after = [weights(model) for model in (*loaded.trained, *loaded.models.frozen)]
    assert [torch.equal(*pair) for pair in zip(before, after)] == [False, False, True, True]
    lineage = json.loads((trained / "lineage.json").read_text())["inputs"]
    for name, folder in (("model", short.model), ("reward", short.reward)):
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
        short,
        adaptive_kl_target=2.0,
        kl_horizon=40.0,
        keep_weights="score",
        validation=files.prompts,
        eval_steps=1,
        sample_steps=1,
    )
    rich = replace(rich, ptx_coef=0.5, ptx_data=files.text, ptx_tokens=100)
    rich = replace(rich, num_traced_prompts=3, eval_prompts=5)
    whole = outcome(ppo.run(replace(rich, out=tmp_path / "whole")))
    assert outcome(run_in_two(ppo, rich, stop)) == whole
    for name, lines in (("samples.jsonl", 32), ("traces.jsonl", 12), ("answers.jsonl", 25)):
        text = (rich.out / name).read_bytes()
        assert text == (tmp_path / "whole" / name).read_bytes() and len(text.splitlines()) == lines, name


def test_the_coefficient_follows_its_target(short: ppo.Config, rows_of: Callable) -> None:
    rows = rows_of(ppo.run(replace(short, adaptive_kl_target=1.0, kl_horizon=40.0)))
    for row, following in pairwise(rows):
        error = min(max(row["objective/kl"] / 1.0 - 1, -0.2), 0.2)
        expected = row["objective/kl_coef"] * (1 + error * 8 / 40)
        assert following["objective/kl_coef"] == pytest.approx(expected, rel=1e-6)
    assert rows[0]["objective/kl_coef"] == 0.05 and rows[1]["objective/kl_coef"] < 0.05


def test_raw_text_mixed_in_keeps_the_policy_a_language_model(
    short: ppo.Config,
    files: Any,
    loaded: Loaded,
    runtime: Runtime,
    rows_of: Callable,
    tmp_path: Path,
) -> None:
    pieces = chunk_texts(sources.read_texts(files.text).rows[:60], loaded.models.tokenizer, 64)
    losses = []
    for coefficient in (0.0, 3.0):
        config = replace(short, ptx_coef=coefficient, ptx_data=files.text, out=tmp_path / str(coefficient))
        policy, _ = loading.load_policy(ppo.run(config), runtime)
        losses.append(forward.mean_loss(policy, [raw_rows([ids], 1, 0, 1, 0)[0] for ids in pieces], runtime, 2000))
        row = rows_of(config.out)[0]
        added = {name for name in row if name in ("loss/ptx", "policy/grad_norm_rl", "policy/grad_norm_ptx")}
        assert len(added) == (3 if coefficient else 0)
        assert not coefficient or (
            row["policy/grad_norm"] <= (row["policy/grad_norm_rl"] + row["policy/grad_norm_ptx"]) * 1.001
        )
    assert losses[1] < losses[0] - 0.2


def test_frozen_layers_do_not_move(short: ppo.Config, loaded: Loaded, runtime: Runtime, files: Any) -> None:
    out = ppo.run(replace(short, frozen_layers=1, max_steps=3, ptx_coef=1.0, ptx_data=files.text))
    before, after = (dict(m.named_parameters()) for m in (loaded.policy, loading.load_policy(out, runtime)[0]))
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved and not [name for name in moved if "embedding" in name or "layers.0." in name]


@pytest.mark.parametrize("max_tokens", [1, 70, 130])
def test_many_passes_are_one(loaded: Loaded, experience: Experience, short: ppo.Config, max_tokens: int) -> None:
    config = replace(short, entropy_coef=0.1, vf_coef=0.5)
    experience, chosen = standardized(experience, 0.05, config), [6, 1, 3, 0, 2]
    report = backward(loaded, experience, chosen, config)
    whole = gradients(loaded)
    again = backward(loaded, experience, chosen, replace(config, max_tokens_per_pass=max_tokens))
    assert again == pytest.approx(report, rel=1e-4, abs=1e-5)
    assert torch.allclose(gradients(loaded), whole, atol=1e-5) and whole.norm() > 0.01


def test_answers_to_one_prompt_share_it_and_the_gradient_is_that_of_each_alone(
    loaded: Loaded, short: ppo.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, prompts = fitting_prompts(short.data, loaded.models.tokenizer, 44)
    config = replace(short, num_generations=3, entropy_coef=0.1)
    experience = gather(loaded, first(prompts, 4), 3, config)
    experience, chosen = standardized(experience, 0.05, config), [3, 4, 5, 0, 1, 2, 9]
    batches, values = list[Any](), ppo.forward.masked_values

    def looked_at(critic: Any, batch: Any) -> torch.Tensor:
        batches.append(batch)
        return values(critic, batch)

    monkeypatch.setattr(ppo.forward, "masked_values", looked_at)
    report = backward(loaded, experience, chosen, config)
    whole = gradients(loaded)
    (batch,) = batches
    assert [stem > 0 for stem in batch.prefix_lengths] == [False, True, True, False, True, True, False]
    assert len(batch.ids) < sum(batch.lengths)
    apart = backward(loaded, experience, chosen, replace(config, max_tokens_per_pass=1))
    assert len(batches) == 8 and not batches[-1].prefix_lengths
    assert apart == pytest.approx(report, rel=1e-4, abs=1e-5)
    assert torch.allclose(gradients(loaded), whole, atol=1e-5) and whole.norm() > 0.01


def test_both_losses_by_hand(loaded: Loaded, experience: Experience, short: ppo.Config) -> None:
    """Against the log-probabilities and values of the time of sampling, which the updates have moved away from."""
    rollout, mask, chosen = experience.rollout, experience.rollout.mask, [3, 0, 5]
    moved = torch.linspace(-0.5, 0.5, mask.numel()).view(mask.shape)
    columns = {
        **experience.columns,
        "logps": (rollout.logps - moved) * mask,
        "values": experience.columns["values"] - 2 * moved,
    }
    old = standardized(replace(experience, columns=columns), 0.05, short)
    policy, critic = [], []
    for place in mask[chosen].nonzero().tolist():
        at = chosen[place[0]], place[1]
        ratio, advantage = moved[at].exp(), old.columns["advantages"][at]
        policy.append(-min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
        value, goal = experience.columns["values"][at], old.columns["returns"][at]
        held = value.clamp(old.columns["values"][at] - 0.2, old.columns["values"][at] + 0.2)
        critic.append(max((value - goal) ** 2, (held - goal) ** 2) / 2)
    report = backward(loaded, old, chosen, short)
    assert report["loss/policy_avg"] == pytest.approx(float(sum(policy)) / len(policy), abs=1e-4)
    assert report["loss/value_avg"] == pytest.approx(float(sum(critic)) / len(critic), rel=1e-3)
    assert report["policy/clipfrac_avg"] > 0 and report["value/clipfrac_avg"] > 0
    gaps = moved[chosen][mask[chosen]]
    assert report["sampling/logp_difference"] == pytest.approx(float(gaps.abs().mean()), abs=1e-4)
    assert report["policy/ratio"] == pytest.approx(float(gaps.exp().mean()), rel=1e-4)
    assert set(report) == {
        *("loss/policy_avg", "loss/value_avg", "policy/entropy_avg", "policy/approxkl_avg", "policy/clipfrac_avg"),
        *("policy/ratio", "value/clipfrac_avg", "sampling/logp_difference", "sampling/kl"),
        *("sampling/ratio", "sampling/ratio_var"),
    }


def test_gathering_does_not_depend_on_the_passes(loaded: Loaded, experience: Experience, short: ppo.Config) -> None:
    _, prompts = fitting_prompts(short.data, loaded.models.tokenizer, 44)
    request = first(prompts, 8)
    again = gather(loaded, request, 1, replace(short, max_tokens_per_pass=40))
    assert again.rollout.completions == experience.rollout.completions
    for name in ("ref_logps", "values"):
        assert torch.allclose(again.columns[name], experience.columns[name], atol=1e-4), name
    assert torch.allclose(again.raw_scores, experience.raw_scores, atol=1e-4)
    assert torch.allclose(again.scores, experience.scores, atol=1e-4)


def test_scores_are_clipped_and_a_missing_end_costs(loaded: Loaded, short: ppo.Config) -> None:
    _, prompts = fitting_prompts(short.data, loaded.models.tokenizer, 44)
    cut = replace(short, max_new_tokens=8, missing_eos_penalty=3.0, score_clip=0.5)
    result = gather(loaded, prompts[:8], 1, cut)
    assert not result.rollout.ended.all() and result.raw_scores.abs().max() > 0.5
    expected = result.raw_scores.clamp(-0.5, 0.5) - 3.0 * (~result.rollout.ended).float()
    assert torch.allclose(result.scores, expected)
    _, scorer = loaded.models.frozen
    alone = [forward.compute_rewards(scorer, [row], loaded.models.runtime, 99).item() for row in result.rollout.rows()]
    assert result.raw_scores.tolist() == pytest.approx(alone, abs=1e-4)


def two_answers() -> Experience:
    mask = length_mask([3, 1])
    logps = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, 0.0, 0.0]])
    reference = torch.tensor([[-1.5, -1.0, -0.5], [-3.2, 0.0, 0.0]])
    rollout = Rollout([[1, 4], [1, 5]], [[6, 7, 2], [8]], torch.tensor([True, False]), mask, logps)
    values = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.0, 0.0]])
    columns = {"ref_logps": reference, "values": values}
    return Experience(rollout, torch.tensor([2.0, 0.5]), torch.tensor([2.0, -0.5]), columns)


def test_estimates_by_hand(short: ppo.Config) -> None:
    targets = estimate(two_answers(), 0.1, replace(short, gamma=0.9, lam=0.8)).columns
    rewards = [[-0.05, 0.1, 2.0], [-0.02 - 0.5]]
    deltas = [[-0.05 + 0.9 * 0.2 - 0.1, 0.1 + 0.9 * 0.3 - 0.2, 2.0 - 0.3], [-0.52 - 0.5]]
    third = deltas[0][2]
    second = deltas[0][1] + 0.72 * third
    first = deltas[0][0] + 0.72 * second
    raw = torch.tensor([first, second, third, deltas[1][0]])
    mask = length_mask([3, 1])
    assert targets["rewards"][mask].tolist() == pytest.approx(rewards[0] + rewards[1])
    assert targets["returns"][mask].tolist() == pytest.approx((raw + torch.tensor([0.1, 0.2, 0.3, 0.5])).tolist())
    assert targets["advantages"][mask].tolist() == pytest.approx(raw.tolist(), abs=1e-5)
    assert not targets["advantages"][~mask].any() and not targets["returns"][~mask].any()


def test_whitened_rewards_have_unit_variance_and_their_mean(short: ppo.Config) -> None:
    mask = length_mask([3, 1])
    plain = estimate(two_answers(), 0.1, short).columns["rewards"][mask]
    whitened = estimate(two_answers(), 0.1, replace(short, whiten_rewards=True)).columns["rewards"][mask]
    assert whitened.var(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert whitened.mean().item() == pytest.approx(plain.mean().item(), abs=1e-5)


def test_the_entropy_bonus_raises_entropy(loaded: Loaded, experience: Experience, short: ppo.Config) -> None:
    values, every = experience.columns["values"], list(range(8))
    columns = {**experience.columns, "advantages": torch.zeros_like(values), "returns": values}
    experience = replace(experience, columns=columns)
    backward(loaded, experience, every, replace(short, entropy_coef=0.0))
    assert gradients(loaded).norm() < 1e-5  # no advantage, values on their targets: nothing to learn
    before = backward(loaded, experience, every, replace(short, entropy_coef=1.0))["policy/entropy_avg"]
    with torch.no_grad():
        for p in loaded.policy.parameters():
            p -= 0.01 * p.grad
    assert backward(loaded, experience, every, short)["policy/entropy_avg"] > before


def chosen_by(config: ppo.Config) -> list[list[int]]:
    """The rows of every update of step 1."""
    sizes = (config.prompts_per_step, config.num_generations, config.num_mini_batches, config.num_ppo_epochs)
    return minibatches(*sizes, derive_seed(config.seed, "minibatch", 1))


@pytest.mark.parametrize("epochs", [1, 3])
def test_updates_end_before_the_first_minibatch_that_is_too_far(
    loaded: Loaded, experience: Experience, short: ppo.Config, epochs: int
) -> None:
    """In the middle of a pass as well; what was not stepped on leaves no gradient, and neither model moves on."""
    config = replace(short, num_mini_batches=4, num_ppo_epochs=epochs)
    before = [{name: p.clone() for name, p in model.state_dict().items()} for model in loaded.trained]

    def again() -> None:
        for model, state in zip(loaded.trained, before):
            model.load_state_dict(state)

    assert learn(loaded, experience, config)["updates"] == 4 * epochs
    again()
    assert learn(loaded, experience, replace(config, target_kl=1e9))["updates"] == 4 * epochs
    again()
    assert learn(loaded, experience, replace(config, target_kl=1e-9))["updates"] == 1
    assert all(p.grad is None for model in loaded.trained for p in model.parameters())
    moved = weights(loaded.policy), weights(loaded.critic)
    again()
    optimizers = loaded.algorithm(config).optimizers
    backward(loaded, standardized(experience, 0.05, config), chosen_by(config)[0], config)
    for optimizer in optimizers.values():
        optimizer.step(1.0)
    assert torch.equal(moved[0], weights(loaded.policy)) and torch.equal(moved[1], weights(loaded.critic))


def test_updates_go_on_up_to_the_target(loaded: Loaded, experience: Experience, short: ppo.Config) -> None:
    """The kl of every minibatch, measured before its update, decides: the first above the target ends the updates."""
    config = replace(short, num_mini_batches=4, num_ppo_epochs=2)
    start, measured = {name: p.clone() for name, p in loaded.policy.state_dict().items()}, list[float]()
    value = {name: p.clone() for name, p in loaded.critic.state_dict().items()}
    estimated, optimizers = standardized(experience, 0.05, config), loaded.algorithm(config).optimizers
    estimated.columns["logps"] = experience.rollout.logps
    for chosen in chosen_by(config):
        measured.append(backward(loaded, estimated, chosen, config)["policy/approxkl_avg"])
        for optimizer in optimizers.values():
            optimizer.step(1.0)
    limit = sorted(measured)[4]
    allowed = next(place for place, kl in enumerate(measured) if kl > limit)
    loaded.policy.load_state_dict(start)
    loaded.critic.load_state_dict(value)
    assert 1 < allowed < 8, measured
    assert learn(loaded, experience, replace(config, target_kl=limit))["updates"] == allowed


def test_a_sampler_that_is_not_the_trainer_is_stopped(
    loaded: Loaded, experience: Experience, short: ppo.Config
) -> None:
    rollout = replace(experience.rollout, logps=experience.rollout.logps * 1.1)
    wrong = replace(experience, rollout=rollout)
    with pytest.raises(RuntimeError, match="before any update"):
        learn(loaded, wrong, short)


def test_the_weights_of_the_best_score_are_kept(
    short: ppo.Config,
    files: Any,
    monkeypatch: pytest.MonkeyPatch,
    runtime: Runtime,
) -> None:
    observed: list[torch.Tensor] = []

    def scores(ask: Any, held_out: list[TokenizedPrompt], decode: Any) -> tuple[dict[str, float], list[Any]]:
        observed.append(weights(ask.args[1].policy).clone())
        return {"eval/score": [5.0, 0.0, 2.0, 1.0, -1.0][len(observed) - 1]}, []

    monkeypatch.setattr(monitor, "evaluate", scores)
    out = ppo.run(replace(short, keep_weights="score", validation=files.prompts, eval_steps=1))
    saved = weights(loading.load_policy(out, runtime)[0])
    # the score before any update, though the highest, is none of the run's
    assert [torch.equal(saved, each) for each in observed] == [False, False, True, False, False]
    assert json.loads((out / "finished.json").read_text())["selected_step"] == 2


def test_held_out_prompts_are_answered_as_the_policy_learns(
    short: ppo.Config, files: Any, loaded: Loaded, rows_of: Callable
) -> None:
    out = ppo.run(replace(short, validation=files.prompts, eval_prompts=6, eval_steps=3, missing_eos_penalty=0.0))
    rows = rows_in(out / "answers.jsonl")
    known, _ = fitting_prompts(files.prompts, loaded.models.tokenizer, 44)
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


def test_held_out_answers_are_drawn_with_the_same_numbers(loaded: Loaded, short: ppo.Config) -> None:
    known, ids = fitting_prompts(short.data, loaded.models.tokenizer, 44)
    held_out = [TokenizedPrompt(*pair) for pair in zip(known, ids)]

    def completions(count: int, config: ppo.Config) -> list[str]:
        ask = partial(collect_experience, loaded.algorithm(config), loaded.models, config)
        metrics, rows = monitor.evaluate(ask, held_out[:count], loaded.models.tokenizer.decode)
        assert metrics["eval/kl"] == pytest.approx(sum(row["kl"] for row in rows) / count, abs=1e-3)
        return [row["completion"] for row in rows]

    first, fewer = completions(len(held_out), short), completions(9, short)
    assert completions(len(held_out), short) == first and fewer == first[:9]
    assert completions(9, replace(short, seed=1)) != fewer
    assert completions(9, replace(short, temperature=1.5)) != fewer


def test_watching_leaves_the_training_as_it_is(
    short: ppo.Config, files: Any, outcome: Callable, tmp_path: Path
) -> None:
    """To the bit; and so does answering held-out prompts."""
    plain = replace(short, num_traced_prompts=0, sample_steps=1, entropy_coef=0.01, out=tmp_path / "plain")
    alone = outcome(ppo.run(plain))
    watched = outcome(ppo.run(replace(plain, num_traced_prompts=5, out=tmp_path / "watched")))
    assert watched == alone
    assert not (plain.out / "traces.jsonl").exists() and (tmp_path / "watched" / "traces.jsonl").exists()
    request = outcome(ppo.run(replace(plain, validation=files.prompts, eval_steps=2, out=tmp_path / "request")))
    assert request["model.safetensors"] == alone["model.safetensors"]


def test_the_same_prompts_are_watched_with_the_same_numbers(
    short: ppo.Config, files: Any, loaded: Loaded, rows_of: Callable
) -> None:
    out = ppo.run(replace(short, num_traced_prompts=4, sample_steps=2))
    rows = rows_in(out / "traces.jsonl")
    known, _ = fitting_prompts(files.prompts, loaded.models.tokenizer, 44)
    assert [row["step"] for row in rows] == [1] * 4 + [2] * 4 + [4] * 4
    assert [row["id"] for row in rows] == [known[place].id for place in (0, 8, 16, 24)] * 3
    coefficients = {row["step"]: row["objective/kl_coef"] for row in rows_of(out)}
    for row in rows:
        assert row["kl_coef"] == pytest.approx(coefficients[row["step"]], abs=1e-4)
        assert sum(row["rewards"]) == pytest.approx(row["score"] - row["kl_coef"] * sum(row["kl"]), abs=1e-2)
    assert max(abs(kl) for row in rows[:4] for kl in row["kl"]) < 1e-3
    assert max(abs(ratio - 1) for row in rows for ratio in row["ratios"]) > 0.02
    ids = render_prompt(loaded.models.tokenizer, known[0].messages)
    first_prompt = [TokenizedPrompt(known[0], ids)]
    at_start = collect_experience(loaded.algorithm(short), loaded.models, short, first_prompt, ("watched",), 1)
    assert loaded.models.tokenizer.decode(at_start.rollout.completions[0], skip_special_tokens=False) == "".join(
        rows[0]["tokens"]
    )


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
        {"num_traced_prompts": -1},
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
        ppo.Config(keep_weights="score")


def test_the_penalty_adapts_and_a_stopped_run_goes_on_to_the_bit(
    short: ppo.Config, rows_of: Callable[[Path], Any], tmp_path: Path, run_in_two: Callable[[Any, Any, int], Path]
) -> None:
    config = replace(short, objective="kl-penalty", penalty_coef=4.0, penalty_target=1e-4, max_steps=3)
    whole = ppo.run(replace(config, out=tmp_path / "whole"))
    parted = run_in_two(ppo, replace(config, out=tmp_path / "parted"), 2)
    assert (whole / "model.safetensors").read_bytes() == (parted / "model.safetensors").read_bytes()
    rows = rows_of(whole)
    for before, after in pairwise(rows):
        measured, target = before["policy/penalty_kl"], 1e-4
        factor = 0.5 if measured < target / 1.5 else 2.0 if measured > target * 1.5 else 1.0
        assert after["policy/penalty_coef"] == before["policy/penalty_coef"] * factor
    assert rows[0]["policy/penalty_coef"] == 4.0 and len({row["policy/penalty_coef"] for row in rows}) > 1
    assert "policy/clipfrac_avg" not in rows[0]


@pytest.mark.parametrize("objective", ["none", "kl-penalty"])
def test_bounds_of_a_clip_that_is_not_there_are_refused(objective: Any) -> None:
    with pytest.raises(InputError, match=f"--objective {objective} has no clip"):
        ppo.Config(objective=objective, cliprange_high=0.3)
