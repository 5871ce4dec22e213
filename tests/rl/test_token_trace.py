"""The numbers of single tokens, by hand for two answers of unequal length, and reached by other ways."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from amenable.functional.logprobs import token_logprobs
from amenable.generation.rollout import Rollout
from amenable.models.layout import Layout
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import load_reward
from amenable.rl import token_trace
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.rl.token_trace import PARTIAL_CHARACTER
from amenable.stages import ppo
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Runtime

MASK = torch.tensor([[True, True, True], [True, False, False]])
SETTINGS = token_trace.Settings(temperature=0.7, max_tokens=100)


@pytest.fixture
def models(make_decoder: Callable, make_scalar_model: Callable, words: Tokenizer, runtime: Runtime) -> Models:
    policy, reference = (make_decoder(seed, vocab_size=words.vocab_size) for seed in (1, 2))
    reward = load_reward(ModelReward(make_scalar_model(4, vocab_size=words.vocab_size), words, runtime, 100), runtime)
    return Models(policy, reference, words, reward, runtime, (reference,))


@pytest.fixture
def algorithm(models: Models, make_scalar_model: Callable, words: Tokenizer) -> ppo.PPO:
    options = {"gamma": 0.9, "lam": 0.8, "critic_learning_rate": 1e-3, "optimizer": OptimizerConfig(1e-3)}
    return ppo.PPO(models, make_scalar_model(3, vocab_size=words.vocab_size), ppo.Config(**options))


@pytest.fixture
def experience(models: Models) -> Experience:
    """Two answers with scores and values made up; outside the mask stands what must not be read."""
    prompts, responses = [[1, 40, 41], [1, 50]], [[60, 61, 2], [70]]
    rows = [(p + r, [False] * len(p) + [True] * len(r)) for p, r in zip(prompts, responses)]
    logps, ref_logps = torch.full((2, 3), 7.0), torch.full((2, 3), 9.0)
    for out, model in ((logps, models.policy), (ref_logps, models.reference)):
        out[MASK] = torch.cat(forward.compute_logprobs(model, rows, models.runtime, 100, SETTINGS.temperature))
    rollout = Rollout(prompts, responses, torch.tensor([True, False]), MASK, logps)
    values = torch.tensor([[0.1, 0.2, 0.3], [0.5, 9.0, 9.0]])
    columns = {"ref_logps": ref_logps, "values": values}
    return Experience(rollout, torch.tensor([2.0, 0.5]), torch.tensor([2.0, -0.5]), columns)


@pytest.fixture
def rows(algorithm: ppo.PPO, models: Models, experience: Experience) -> list[dict]:
    trace = token_trace.observe(algorithm, models, ["a", "b"], experience, 0.1, SETTINGS)
    return token_trace.rows_of(trace, models)


def test_rewards_and_advantages_by_hand(rows: list[dict], experience: Experience) -> None:
    first, second = rows
    kl = (experience.rollout.logps - experience.columns["ref_logps"])[0].tolist()
    assert first["kl"] == pytest.approx(kl, abs=1e-4)
    rewards = [-0.1 * kl[0], -0.1 * kl[1], -0.1 * kl[2] + 2.0]
    assert first["rewards"] == pytest.approx(rewards, abs=1e-4)
    third = rewards[2] - 0.3
    middle = rewards[1] + 0.9 * 0.3 - 0.2 + 0.72 * third
    begin = rewards[0] + 0.9 * 0.2 - 0.1 + 0.72 * middle
    assert first["advantages"] == pytest.approx([begin, middle, third], abs=2e-4)
    assert first["returns"] == pytest.approx([begin + 0.1, middle + 0.2, third + 0.3], abs=2e-4)
    assert first["values"] == [0.1, 0.2, 0.3] and second["values"] == [0.5]
    assert second["rewards"] == pytest.approx([-0.5 - 0.1 * second["kl"][0]], abs=1e-4)


def test_a_row_tells_what_was_said_and_paid(rows: list[dict], words: Tokenizer) -> None:
    first, second = rows
    assert (first["id"], first["ended"], first["score"], first["raw_score"]) == ("a", True, 2.0, 2.0)
    assert (second["id"], second["ended"], second["score"], second["raw_score"]) == ("b", False, -0.5, 0.5)
    assert first["score_index"] == 2 and second["score_index"] == 0
    assert first["prompt"] == words.decode([1, 40, 41])
    assert "".join(first["prompt_tokens"]) == words.decode([1, 40, 41], skip_special_tokens=False)
    assert first["tokens"][2] == words.eos and first["kl_coef"] == 0.1
    per_token = ("logps", "ref_logps", "kl", "values", "rewards", "advantages", "returns", "ratios", "tokens", "top")
    assert {len(first[name]) for name in per_token} == {3} and {len(second[name]) for name in per_token} == {1}


def test_the_ratio_is_one_until_the_policy_moves(
    algorithm: ppo.PPO, models: Models, experience: Experience, rows: list[dict]
) -> None:
    assert rows[0]["ratios"] == pytest.approx([1.0] * 3, abs=1e-3)
    trace = token_trace.observe(algorithm, models, ["a", "b"], experience, 0.1, SETTINGS)
    with torch.no_grad():
        for parameter in models.policy.parameters():
            parameter.mul_(1.1)
    moved = token_trace.rows_of(trace, models)
    now = forward.compute_logprobs(models.policy, experience.rollout.rows(), models.runtime, 100, 0.7)
    for i, row in enumerate(moved):
        expected = [math.exp(new - old) for new, old in zip(now[i].tolist(), row["logps"])]
        assert row["ratios"] == pytest.approx(expected, abs=1e-3)
        assert {name: row[name] for name in row if name != "ratios"} == {
            name: rows[i][name] for name in row if name != "ratios"
        }, "everything else is of the time before"
    assert max(abs(ratio - 1) for ratio in moved[0]["ratios"]) > 0.01


@pytest.mark.parametrize("max_tokens", [1, 5, 100])
@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_the_likeliest_are_those_of_the_sampler(
    models: Models, experience: Experience, temperature: float, max_tokens: int
) -> None:
    rollout = experience.rollout
    top = token_trace.top_alternatives(models.policy, rollout.rows(), models.runtime, max_tokens, temperature)
    for i in range(2):
        ids = torch.tensor(rollout.prompts[i] + rollout.completions[i])
        with torch.no_grad():
            logits = models.policy.logits(models.policy(ids, Layout.of([len(ids)], ids.device)))
        before = len(rollout.prompts[i]) - 1
        for place, report in enumerate(top[i]):
            here = logits[before + place]
            each = token_logprobs(here.expand(len(here), -1), torch.arange(len(here)), temperature).exp()
            best = each.argsort(descending=True)[:5].tolist()
            assert [token for token, _ in report] == best
            assert [p for _, p in report] == pytest.approx(each[best].tolist(), abs=1e-5)
    assert [len(report) for report in top] == [3, 1]


def test_rows_do_not_depend_on_the_passes(
    algorithm: ppo.PPO, models: Models, experience: Experience, rows: list[dict]
) -> None:
    small = replace(SETTINGS, max_tokens=1)
    one_by_one = token_trace.observe(algorithm, models, ["a", "b"], experience, 0.1, small)
    for row, again in zip(rows, token_trace.rows_of(one_by_one, models)):
        assert row["ratios"] == pytest.approx(again["ratios"], abs=2e-4)
        assert [[token for token, _ in place] for place in row["top"]] == [
            [token for token, _ in place] for place in again["top"]
        ]


@pytest.mark.parametrize("text", ["Gladly: a rose, it is red.", "  two\n\nlines ", "a b\u00a0c"])
def test_pieces_joined_are_the_text(words: Tokenizer, text: str) -> None:
    ids = [words.bos_id, *words.encode(text), words.eos_id]
    report = token_trace.pieces(words, ids)
    assert len(report) == len(ids) and report[0] == words.bos and report[-1] == words.eos
    assert "".join(report[1:-1]).replace(PARTIAL_CHARACTER, "") == text


def test_a_character_of_many_tokens_is_shown_by_the_last(words: Tokenizer) -> None:
    ids = words.encode("x🌹y")
    assert len(ids) == 6, "the little vocabulary spells it byte by byte"
    assert token_trace.pieces(words, ids) == [
        "x",
        PARTIAL_CHARACTER,
        PARTIAL_CHARACTER,
        PARTIAL_CHARACTER,
        "🌹",
        "y",
    ]
    assert token_trace.pieces(words, [ids[1], ids[5]]) == [PARTIAL_CHARACTER, "y"]  # never completed


def test_the_watched_are_spread_evenly() -> None:
    assert token_trace.evenly_spaced(range(100), 4) == [0, 25, 50, 75]
    assert token_trace.evenly_spaced(range(3), 6) == [0, 1, 2]
    assert token_trace.evenly_spaced(range(3), 0) == []
    result = token_trace.evenly_spaced(range(2001), 6)
    assert len(set(result)) == 6 and {b - a for a, b in pairwise(result)} <= {333, 334}


def test_an_algorithm_without_a_critic_has_no_rows_of_one(
    algorithm: ppo.PPO, models: Models, experience: Experience
) -> None:
    """Traces hold whichever columns there are; of a group's answers the first is traced."""

    class Plain:
        def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
            experience.columns["advantages"] = experience.scores[:, None] * experience.rollout.mask

    del experience.columns["values"]
    trace = token_trace.observe(Plain(), models, ["a"], experience, 0.1, SETTINGS)  # type: ignore[arg-type]
    (row,) = token_trace.rows_of(trace, models)
    assert "values" not in row and row["advantages"] == [2.0] * 3 and row["id"] == "a"
