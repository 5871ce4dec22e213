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
from amenable.rl import token_trace
from amenable.rl.experience import Experience
from amenable.rl.models import Actors
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.runtime import Runtime

MASK = torch.tensor([[True, True, True], [True, False, False]])
SETTINGS = token_trace.Settings(kl_coef=0.1, gamma=0.9, lam=0.8, temperature=0.7, max_tokens=100)


@pytest.fixture
def actors(make_decoder: Callable, make_scalar_model: Callable, words: Tokenizer, runtime: Runtime) -> Actors:
    size = {"vocab_size": words.vocab_size}
    return Actors(
        make_decoder(1, **size),
        make_decoder(2, **size),
        make_scalar_model(3, **size),
        make_scalar_model(4, **size),
        words,
        runtime,
    )


@pytest.fixture
def experience(actors: Actors) -> Experience:
    """Two answers with scores and values made up; outside the mask stands what must not be read."""
    prompts, responses = [[1, 40, 41], [1, 50]], [[60, 61, 2], [70]]
    rows = [(p + r, [False] * len(p) + [True] * len(r)) for p, r in zip(prompts, responses)]
    logps, ref_logps = torch.full((2, 3), 7.0), torch.full((2, 3), 9.0)
    for out, model in ((logps, actors.policy), (ref_logps, actors.reference)):
        out[MASK] = torch.cat(forward.row_logprobs(model, rows, actors.runtime, 100, SETTINGS.temperature))
    rollout = Rollout(prompts, responses, torch.tensor([True, False]), MASK, logps)
    values = torch.tensor([[0.1, 0.2, 0.3], [0.5, 9.0, 9.0]])
    return Experience(rollout, ref_logps, values, torch.tensor([2.0, 0.5]), torch.tensor([2.0, -0.5]))


@pytest.fixture
def rows(actors: Actors, experience: Experience) -> list[dict]:
    return token_trace.rows_of(token_trace.observe(actors, ["a", "b"], experience, SETTINGS), actors)


def test_rewards_and_advantages_by_hand(rows: list[dict], experience: Experience) -> None:
    first, second = rows
    kl = (experience.rollout.logps - experience.ref_logps)[0].tolist()
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
    assert "".join(first["prompt_tokens"]) == words.decode([1, 40, 41], keep_control=True)
    assert first["tokens"][2] == words.eos and first["kl_coef"] == 0.1
    per_token = ("logps", "ref_logps", "kl", "values", "rewards", "advantages", "returns", "ratios", "tokens", "top")
    assert {len(first[name]) for name in per_token} == {3} and {len(second[name]) for name in per_token} == {1}


def test_the_ratio_is_one_until_the_policy_moves(actors: Actors, experience: Experience, rows: list[dict]) -> None:
    assert rows[0]["ratios"] == pytest.approx([1.0] * 3, abs=1e-3)
    seen = token_trace.observe(actors, ["a", "b"], experience, SETTINGS)
    with torch.no_grad():
        for parameter in actors.policy.parameters():
            parameter.mul_(1.1)
    moved = token_trace.rows_of(seen, actors)
    now = forward.row_logprobs(actors.policy, experience.rollout.rows(), actors.runtime, 100, 0.7)
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
    actors: Actors, experience: Experience, temperature: float, max_tokens: int
) -> None:
    rollout = experience.rollout
    top = token_trace.likeliest(actors.policy, rollout.rows(), actors.runtime, max_tokens, temperature)
    for i in range(2):
        ids = torch.tensor(rollout.prompts[i] + rollout.completions[i])
        with torch.no_grad():
            logits = actors.policy.logits(actors.policy(ids, Layout.of([len(ids)], ids.device)))
        before = len(rollout.prompts[i]) - 1
        for place, told in enumerate(top[i]):
            here = logits[before + place]
            each = token_logprobs(here.expand(len(here), -1), torch.arange(len(here)), temperature).exp()
            best = each.argsort(descending=True)[:5].tolist()
            assert [token for token, _ in told] == best
            assert [p for _, p in told] == pytest.approx(each[best].tolist(), abs=1e-5)
    assert [len(told) for told in top] == [3, 1]


def test_rows_do_not_depend_on_the_passes(actors: Actors, experience: Experience, rows: list[dict]) -> None:
    one_by_one = token_trace.observe(actors, ["a", "b"], experience, replace(SETTINGS, max_tokens=1))
    for row, again in zip(rows, token_trace.rows_of(one_by_one, actors)):
        assert row["ratios"] == pytest.approx(again["ratios"], abs=2e-4)
        assert [[token for token, _ in place] for place in row["top"]] == [
            [token for token, _ in place] for place in again["top"]
        ]


@pytest.mark.parametrize("text", ["Gladly: a rose, it is red.", "  two\n\nlines ", "a b\u00a0c"])
def test_pieces_joined_are_the_text(words: Tokenizer, text: str) -> None:
    ids = [words.bos_id, *words.encode(text), words.eos_id]
    told = token_trace.pieces(words, ids)
    assert len(told) == len(ids) and told[0] == words.bos and told[-1] == words.eos
    assert "".join(told[1:-1]).replace(token_trace.OPEN, "") == text


def test_a_character_of_many_tokens_is_shown_by_the_last(words: Tokenizer) -> None:
    ids = words.encode("x🌹y")
    assert len(ids) == 6, "the little vocabulary spells it byte by byte"
    assert token_trace.pieces(words, ids) == ["x", token_trace.OPEN, token_trace.OPEN, token_trace.OPEN, "🌹", "y"]
    assert token_trace.pieces(words, [ids[1], ids[5]]) == [token_trace.OPEN, "y"]  # never completed


def test_the_watched_are_spread_evenly() -> None:
    assert token_trace.evenly(range(100), 4) == [0, 25, 50, 75]
    assert token_trace.evenly(range(3), 6) == [0, 1, 2]
    assert token_trace.evenly(range(3), 0) == []
    found = token_trace.evenly(range(2001), 6)
    assert len(set(found)) == 6 and {b - a for a, b in pairwise(found)} <= {333, 334}
