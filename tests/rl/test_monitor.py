"""Watching a policy: a second opinion by hand. Held-out and watched prompts are tested with `ppo`, which asks them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.generation.rollout import Rollout, length_mask
from amenable.rl import monitor
from amenable.rl.experience import Experience
from amenable.rl.models import Actors
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.runtime import Runtime


@pytest.fixture
def actors(make_decoder: Callable, make_scalar_model: Callable, words: Tokenizer, runtime: Runtime) -> Actors:
    return Actors(make_decoder(), make_decoder(), make_scalar_model(), make_scalar_model(), words, runtime)


def an_experience(scores: torch.Tensor) -> Experience:
    responses = [[7, 8, 9], [10, 11], [12]]
    mask = length_mask([3, 2, 1])
    rollout = Rollout([[5, 6]] * 3, responses, torch.ones(3, dtype=torch.bool), mask, torch.zeros(3, 3))
    return Experience(rollout, torch.zeros(3, 3), torch.zeros(3, 3), scores, scores)


def test_a_second_opinion_by_hand(actors: Actors, make_scalar_model: Callable, runtime: Runtime) -> None:
    watcher = make_scalar_model(4)
    scores = forward.row_rewards(watcher, an_experience(torch.zeros(3)).rollout.rows(), runtime, 100)
    same = monitor.second_opinion(watcher, an_experience(2 * scores + 1), actors, 100)
    assert same["watch/score"] == pytest.approx(float(scores.mean()))
    assert same["watch/score_std"] == pytest.approx(float(scores.std(unbiased=False)))
    assert same["watch/correlation"] == pytest.approx(1.0, abs=1e-5)
    other = monitor.second_opinion(watcher, an_experience(-scores), actors, 100)
    assert other["watch/correlation"] == pytest.approx(-1.0, abs=1e-5)


def test_scores_that_are_all_alike_have_no_correlation(actors: Actors, make_scalar_model: Callable) -> None:
    told = monitor.second_opinion(make_scalar_model(4), an_experience(torch.ones(3)), actors, 100)
    assert told["watch/correlation"] == 0.0


def test_nobody_watches_unless_asked_to(actors: Actors) -> None:
    assert monitor.load_watcher(None, actors) is None
    assert monitor.second_opinion(None, an_experience(torch.ones(3)), actors, 100) == {}


def test_the_watcher_is_not_trained(actors: Actors, judge: Path) -> None:
    watcher = monitor.load_watcher(judge, actors)
    assert watcher is not None and not any(p.requires_grad for p in watcher.parameters())


def test_the_first_held_out_prompts_are_taken(files: Any, words: Tokenizer) -> None:
    every = monitor.held_out_prompts(files.prompts, words, 44, 0)
    assert len(every) == 32 and monitor.held_out_prompts(files.prompts, words, 44, 3) == every[:3]
    assert monitor.held_out_prompts(None, words, 44, 3) == []
