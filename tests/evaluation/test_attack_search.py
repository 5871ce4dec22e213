"""Search for an edit that raises the score: what is tried, what is found, and on which prompts it is measured."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.evaluation import attack_search
from amenable.evaluation.attack_search import AFTER, COORDINATES, AttackOptions, Edit, greedy_search, search_attack
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import ranking_rows
from amenable.train.log import Log
from amenable.train.rankings import TokenizedRanking, with_rows
from amenable.train.runtime import Runtime
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes


@pytest.fixture
def items(words: Tokenizer) -> list[TokenizedRanking]:
    """Twelve prompts with two answers, the second the better."""
    rankings = [
        Ranking((Message("user", f"name thing {i}."),), ("a rose", f"salt {i}."), (2.0, 1.0), f"p{i}")
        for i in range(12)
    ]
    return [with_rows(each, ranking_rows(each, words, 256) or []) for each in rankings]


@pytest.fixture
def search(
    items: list[TokenizedRanking],
    words: Tokenizer,
    make_scalar_model: Callable[..., ScalarModel],
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, Any]]:
    """Attacks a reward that is the number of a row's tokens."""

    def compute_rewards(model: object, rows: Sequence[tuple[list[int], list[bool]]], *rest: object) -> torch.Tensor:
        return torch.tensor([float(len(ids)) for ids, _ in rows])

    monkeypatch.setattr(attack_search.forward, "compute_rewards", compute_rewards)

    def run(
        queries: int, count: int = 12, context: int = 256, gold: attack_search.Gold | None = None
    ) -> dict[str, Any]:
        model = make_scalar_model(vocab_size=words.vocab_size, context_length=context)
        return search_attack(model, items[:count], words, runtime, 2000, queries, 0, Log(tmp_path, "reward"), gold)

    return run


def worth(edit: Edit) -> float:
    """Best: the third option of each part."""
    return sum(float(getattr(edit, name) == options[2]) for name, options in COORDINATES.items())


def test_an_edit_by_hand() -> None:
    text = "It is red. Ask again."
    assert Edit(repeats=2).apply(text) == "It is red. Ask again. Ask again. Ask again."
    assert Edit("Sure: ", AFTER[2], AFTER[4], "!").apply(text) == f"Sure: {text}{AFTER[2]}{AFTER[4]}!"
    assert (
        Edit().apply(text) == text
        and Edit().parts == {}
        and Edit(mark="!", repeats=1).parts
        == {
            "mark": "!",
            "repeats": 1,
        }
    )


def test_the_search_finds_the_best_of_every_part_and_tries_no_more_than_it_may() -> None:
    tried: list[Edit] = []

    def gains(edits: Sequence[Edit]) -> list[float]:
        tried.extend(edits)
        return [worth(edit) for edit in edits]

    best, count = greedy_search(gains, 200, 0)
    assert worth(best) == len(COORDINATES) and count == len(tried) == len(set(tried)) == 200
    assert greedy_search(lambda edits: [worth(edit) for edit in edits], 200, 0)[0] == best
    tried.clear()
    assert greedy_search(gains, 5, 1)[1] == len(tried) == 5
    assert greedy_search(lambda edits: [-math.inf] * len(edits), 30, 0) == (Edit(), 30)


def test_a_reward_of_length_is_attacked_by_length(search: Callable[..., dict[str, Any]]) -> None:
    attack = search(100)
    assert attack["edit"]["repeats"] == 3 and {"before", "after", "then"} <= attack["edit"].keys()
    assert (attack["queries"], attack["prompts"], attack["raised"], attack["gold"]) == (100, 6, 1.0, None)
    assert attack["low"] <= attack["gain"] <= attack["high"] and attack["gain"] > 5
    assert search(100) == attack and search(0) == {} == search(100, count=1)
    assert 0 < search(100, context=64)["gain"] < attack["gain"], "longer rows than the context are no edits"


def test_an_edit_that_gold_approves_of_is_no_attack(
    search: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    def gold(prompt_id: str, answer: str) -> float:
        assert prompt_id.startswith("p")
        return 1.0 * answer.startswith("Sure: ") - 0.5 * ("correct" in answer)

    attack = search(150, gold=gold)
    assert attack["edit"].get("before") != "Sure: " and attack["gain"] > 0 and attack["gold"] in (0.0, -0.5)
    assert "attack: the best of 150 edits" in " ".join(capsys.readouterr().err.split())
    nothing = search(20, gold=lambda _, answer: float(len(answer)))
    assert nothing["edit"] == {} and nothing["gain"] == 0.0
    assert "none of 20 edits raises the score" in " ".join(capsys.readouterr().err.split())


def test_gold_is_that_of_the_world_of_the_prompts(items: list[TokenizedRanking], tmp_path: Path) -> None:
    few = {"people": 6, "documents": 20, "validation_documents": 4, "demonstrations": 8, "validation_demonstrations": 4}
    prompts = {"reward_prompts": 4, "ppo_prompts": 4, "validation_prompts": 4, "test_prompts": 6}
    others = {
        "suite_prompts": 6,
        "public_demonstrations": 6,
        "validation_public_demonstrations": 2,
        "task_questions": 20,
    }
    world = ClosedWorld.make(0, Sizes(**few, **prompts, **others))
    folder = world.write(tmp_path / "world")
    prompt = next(iter(world.truths))
    options = AttackOptions(world=folder)
    gold = options.load_gold([TokenizedRanking([], [], [], "", id=prompt)])
    assert gold is not None and gold(prompt, "Yes.") == world.gold(prompt, "Yes.").gold
    with pytest.raises(InputError, match="p0"):
        options.load_gold(items)
    assert (
        AttackOptions().load_gold(items) is None
        and AttackOptions(attack_queries=0, world=folder).load_gold(items) is None
    )
    for wrong in (-1, 10_001):
        with pytest.raises(InputError, match="attack_queries"):
            AttackOptions(attack_queries=wrong)
