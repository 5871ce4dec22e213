"""`amenable rloo`: advantages and losses by hand. More in test_online.py."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from amenable import cli
from amenable.data.batches import collate
from amenable.errors import InputError
from amenable.generation.rollout import Rollout, length_mask
from amenable.rl.experience import Experience, TokenizedPrompt
from amenable.rl.improve import MinibatchLoss, collect_experience
from amenable.rl.models import Models, load_models
from amenable.stages import rloo
from amenable.train import forward
from amenable.train.examples import fitting_prompts
from amenable.train.objective import accumulate
from amenable.train.runtime import Runtime


@pytest.fixture
def config(online: Callable[..., Any]) -> rloo.Config:
    return online(rloo)


@pytest.fixture
def models(config: rloo.Config, runtime: Runtime) -> Models:
    return load_models(config, runtime)


@pytest.fixture
def experience(models: Models, config: rloo.Config) -> Experience:
    """Sampled answers of two prompts, with their advantages."""
    prompts = [TokenizedPrompt(*pair) for pair in zip(*fitting_prompts(config.data, models.tokenizer, 44))][:2]
    algorithm = rloo.RLOO(models, config)
    experience = collect_experience(algorithm, models, config, prompts, ("rollout", 1), config.num_generations)
    algorithm.compute_advantages(experience, 0.05)
    return experience


def four_answers() -> Experience:
    """Scores of the textbook case, and one nat of KL in the first answer."""
    mask, logps = length_mask([2, 1, 1, 1]), torch.zeros(4, 2)
    rollout = Rollout([[1]] * 4, [[5, 6], [7], [8], [9]], torch.ones(4, dtype=torch.bool), mask, logps)
    ref_logps = torch.tensor([[-0.5, -0.5], [0.0, 9.0], [0.0, 9.0], [0.0, 9.0]])
    scores = torch.tensor([1.0, 0.0, 0.5, 0.1])
    return Experience(rollout, scores, scores, {"ref_logps": ref_logps})


def advantages(kl_in: str, kl_coef: float) -> list[float]:
    algorithm = SimpleNamespace(config=SimpleNamespace(kl_in=kl_in, estimator="k1"), group=4)
    experience = four_answers()
    rloo.RLOO.compute_advantages(algorithm, experience, kl_coef)  # type: ignore[arg-type]
    column = experience.columns["advantages"]
    assert not column[~experience.rollout.mask].any() and column[0, 0] == column[0, 1]
    return column[:, 0].tolist()


def test_advantages_by_hand() -> None:
    assert advantages("reward", 0.0) == pytest.approx([0.8, -0.533333, 0.133333, -0.4], abs=1e-5)
    assert advantages("loss", 0.3) == pytest.approx([0.8, -0.533333, 0.133333, -0.4], abs=1e-5)
    # a nat at 0.3 makes the first answer's 1.0 a 0.7: its own advantage falls by 0.3, the others' rise by 0.1
    assert advantages("reward", 0.3) == pytest.approx([0.5, -0.433333, 0.233333, -0.3], abs=1e-5)


def gradient(models: Models, experience: Experience, config: rloo.Config, limit: int = 8192) -> Tensor:
    models.policy.zero_grad(set_to_none=True)
    algorithm = rloo.RLOO(models, config)
    algorithm.kl_coef = 0.05
    objective = MinibatchLoss(experience, algorithm.losses[0], models.runtime.device, algorithm.mean_over)
    accumulate(objective, range(len(experience.scores)), models.runtime, limit)
    return gradients_of(models)


def gradients_of(models: Models) -> Tensor:
    return torch.cat([p.grad.flatten() for p in models.policy.parameters() if p.grad is not None])


def logps_of(models: Models, experience: Experience) -> list[Tensor]:
    """Log-probabilities of each answer's tokens, with gradient, one answer at a time."""
    batches = [collate([row]) for row in experience.rollout.rows()]
    return [forward.masked_logprobs(models.policy, batch, 0.7)[0] for batch in batches]


def test_before_any_update_the_gradient_is_reinforce_of_whole_answers(
    models: Models, experience: Experience, config: rloo.Config
) -> None:
    result = gradient(models, experience, config)
    models.policy.zero_grad(set_to_none=True)
    weights = experience.columns["advantages"][:, 0]
    terms = [a * logps.sum() for a, logps in zip(weights, logps_of(models, experience))]
    (-torch.stack(terms).mean()).backward()
    assert torch.allclose(result, gradients_of(models), atol=1e-4) and result.abs().max() > 1e-3


def test_on_tokens_each_token_counts_alike(models: Models, experience: Experience, config: rloo.Config) -> None:
    result = gradient(models, experience, replace(config, loss_on="token"))
    models.policy.zero_grad(set_to_none=True)
    weights = experience.columns["advantages"][:, 0]
    terms = [a * logps for a, logps in zip(weights, logps_of(models, experience))]
    (-torch.cat(terms).mean()).backward()
    assert torch.allclose(result, gradients_of(models), atol=1e-4)
    assert not torch.allclose(result, gradient(models, experience, config), atol=1e-2)


@pytest.mark.parametrize("loss_on", ["sequence", "token"])
def test_kl_in_the_loss_adds_the_gradient_of_its_estimate(
    models: Models, experience: Experience, config: rloo.Config, loss_on: str
) -> None:
    config = replace(config, loss_on=loss_on)
    experience.columns["ref_logps"] = experience.columns["ref_logps"] - 0.3 * experience.rollout.mask
    added = gradient(models, experience, replace(config, kl_in="loss")) - gradient(models, experience, config)
    models.policy.zero_grad(set_to_none=True)
    pairs = zip(logps_of(models, experience), experience.columns["ref_logps"], experience.rollout.mask)
    squares = [(logps - ref[mask]).square() / 2 for logps, ref, mask in pairs]
    penalty = torch.stack([s.sum() for s in squares]).mean() if loss_on == "sequence" else torch.cat(squares).mean()
    (0.05 * penalty).backward()
    assert torch.allclose(added, gradients_of(models), atol=1e-4) and added.abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"loss_on": "token"}, {"kl_in": "loss", "entropy_coef": 0.1}])
def test_the_gradient_does_not_depend_on_the_microbatches(
    models: Models, experience: Experience, config: rloo.Config, options: dict[str, Any]
) -> None:
    config = replace(config, **options)
    whole, parts = (gradient(models, experience, config, limit) for limit in (8192, 30))
    assert torch.allclose(whole, parts, atol=1e-4)


def test_a_single_answer_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(InputError, match=r"num_generations is 1.*--num-generations 4"):
        rloo.Config(num_generations=1)


def test_a_users_function_is_the_reward_on_the_command_line(
    config: rloo.Config, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text("def short(completion, ended):\n    return ended - len(completion) / 20\n")
    sizes = {"--max-steps": 1, "--prompts-per-step": 2, "--num-generations": 2, "--max-new-tokens": 8}
    options = {"--model": config.model, "--data": config.data, "--out": tmp_path / "out", "--device": "cpu", **sizes}
    arguments = ["rloo", *(str(word) for pair in options.items() for word in pair)]
    assert cli.main([*arguments, "--reward", f"{tmp_path}/mine.py:short", "length:2-4=0.5"]) == 0
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])
    names = [name for name in row if name.startswith("rewards/")]
    assert len(names) == 4 and row["objective/scores"] == pytest.approx(
        row[f"rewards/{tmp_path}/mine.py:short/mean"] + 0.5 * row["rewards/length:2-4/mean"], abs=1e-4
    )
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage["inputs"]["reward"]["path"].endswith("mine.py")
