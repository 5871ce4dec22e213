import json
from pathlib import Path

import pytest

from amenable.recipes import answers
from amenable.recipes.folders import Stage, read_stages


@pytest.fixture
def stages(demo_run: Path) -> dict[str, Stage]:
    return {stage.name: stage for stage in read_stages(demo_run)}


def write(stage: Stage, rows: list[dict]) -> None:
    (stage.folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(i: int, ppo: float | None, sft: float | None, kind: str = "story", key: str = "gold") -> dict:
    told = {
        name: {"greedy": {"text": f"{name} {i}", "ended": True, key: v}} for name, v in (("ppo", ppo), ("sft", sft))
    }
    return {"id": f"p{i}", "kind": kind, "prompt": f"prompt {i}", "answers": told}


def ordered(cards: list[answers.Card], order: str) -> list[str]:
    found = sorted((card.orders[order], card.turns[0][1]) for card in cards if order in card.orders)
    return [prompt.removeprefix("prompt ") for _, prompt in found]


def test_orders_put_the_extremes_first(stages: dict[str, Stage]) -> None:
    write(stages["evaluate"], [row(0, 1.0, 0.5), row(1, 2.0, 2.5), row(2, -1.0, -3.0)])
    cards = answers.cards(stages["evaluate"], None, "ppo", "sft")
    # gains: +0.5, -0.5, +2
    assert ordered(cards, "gain") == ["2", "0", "1"] and ordered(cards, "loss") == ["1", "0", "2"]
    assert ordered(cards, "best") == ["1", "0", "2"] and ordered(cards, "worst") == ["2", "0", "1"]


def test_reward_stands_in_where_no_truth_is_known(stages: dict[str, Stage]) -> None:
    write(stages["evaluate"], [row(0, 1.0, 0.5, key="reward"), row(1, 2.0, None, key="reward")])
    cards = answers.cards(stages["evaluate"], None, "ppo", "sft")
    assert ordered(cards, "best") == ["1", "0"]
    assert ordered(cards, "gain") == ["0"], "nothing is known of the other model's second answer"


def test_random_ones_depend_on_the_seed_alone(stages: dict[str, Stage]) -> None:
    write(stages["evaluate"], [row(i, None, None) for i in range(200)])
    first, again, other = (
        ordered(answers.cards(stages["evaluate"], None, "ppo", "sft", seed), "random") for seed in (0, 0, 1)
    )
    assert first == again and first != other
    assert len(first) == answers.MOST_RANDOM and len(set(first)) == len(first)


def test_every_kind_keeps_its_extremes(stages: dict[str, Stage]) -> None:
    rows = [row(i, 10.0 + i, 0.0, "easy") for i in range(300)] + [
        row(i, float(-i), 0.0, "hard") for i in range(300, 400)
    ]
    write(stages["evaluate"], rows)
    cards = answers.cards(stages["evaluate"], None, "ppo", "sft")
    assert ordered(cards, "best")[:12] == [str(i) for i in range(299, 287, -1)]
    assert ordered([card for card in cards if card.kind == "hard"], "best") == ["300", "301", "302", "303"]
    assert answers.kinds_of(cards) == ["easy", "hard"]


def test_text_is_kept_within_bounds(stages: dict[str, Stage]) -> None:
    rows = [row(i, 1.0, 0.0) for i in range(400)]
    for one in rows:
        one["answers"]["ppo"]["greedy"]["text"] = "word " * 10_000
    write(stages["evaluate"], rows)
    cards = answers.cards(stages["evaluate"], None, "ppo", "sft")
    longest = max(len(answer.text) for card in cards for answer in card.answers["greedy"])
    assert longest == answers.LONGEST + 2
    assert 0 < sum(len(answer.text) for card in cards for answer in card.answers["greedy"]) <= answers.MOST_CHARACTERS


def test_the_truth_comes_from_the_row_or_from_the_world(stages: dict[str, Stage]) -> None:
    cards = answers.cards(stages["evaluate"], stages["world"], "ppo", "sft")
    told = {card.turns[-1][1].split()[-1]: card.truth for card in cards}
    assert told["0?"] == "cooper" and told["1?"] == ""
    write(stages["evaluate"], [row(0, 1.0, 0.0) | {"truth": "a cooper"}])
    assert answers.cards(stages["evaluate"], stages["world"], "ppo", "sft")[0].truth == "a cooper"


@pytest.mark.parametrize(
    ("truth", "told"),
    [
        ({"value": "cooper", "person": "Mira"}, "cooper"),
        ({"cause": "stranger", "template": "Who is {p}?"}, "nothing is known (stranger)"),
        ({"rule": "start", "words": ["Dear neighbour,"], "topic": "mill"}, "start: Dear neighbour,"),
        ({"rule": "count", "count": 2}, "count: 2"),
        ({"count": 3, "category": "pet"}, "3"),
        ({"reference": "Would you come, please?"}, "for example: Would you come, please?"),
        ({"kind": "story", "key": ["a", "b"]}, ""),
        (None, ""),
    ],
)
def test_a_truth_in_a_few_words(truth: dict | None, told: str) -> None:
    assert answers.truth_text(truth) == told


def test_a_conversation_keeps_its_turns(stages: dict[str, Stage]) -> None:
    cards = answers.cards(stages["evaluate"], None, "ppo", "sft")
    talk = next(card for card in cards if card.turns[-1][1].endswith("number 5?"))
    assert [role for role, _ in talk.turns] == ["user", "assistant", "user"]


def test_nothing_evaluated_no_cards() -> None:
    assert answers.cards(None, None, "ppo", "sft") == []
    assert answers.iterations(None) == []


def test_iterations_come_by_step(stages: dict[str, Stage]) -> None:
    found = answers.iterations(stages["ppo"])
    assert [part.step for part in found] == [1, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert len(found[0].rows) == 4
    assert found[0].rows[0]["prompt"] == "Name 2 foods of the market." and not found[0].rows[0]["ended"]


def test_of_very_many_iterations_some_are_kept(stages: dict[str, Stage]) -> None:
    write(stages["ppo"], [{"step": step, "prompt": "p", "completion": "c"} for step in range(1, 1001)])
    steps = [part.step for part in answers.iterations(stages["ppo"])]
    assert len(steps) == answers.MOST_ITERATIONS and (steps[0], steps[-1]) == (1, 1000)
