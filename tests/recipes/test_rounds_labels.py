"""What a round's reward model learns from, and whose answers its labels prefer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from amenable.data.files import read_json_lines
from amenable.recipes import rounds_labels
from amenable.recipes.rounds_labels import Round

OLD, NEW, SFT = Path("old/ppo"), Path("new/ppo"), Path("sft")


def row(number: int, who: str = "ann", **report: Any) -> dict[str, Any]:
    request = [{"role": "user", "content": f"question {number}"}]
    return {
        "prompt": request,
        "completions": ["a", "b"],
        "ranking": [1, 2],
        "annotator": who,
        "id": f"{number}",
        **report,
    }


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ranked(models: Sequence[Path], ranking: Sequence[float]) -> dict[str, Any]:
    return row(0, models=[str(model) for model in models], ranking=list(ranking), completions=["x"] * len(models))


def turn(folder: Path, rows: Sequence[dict[str, Any]], before: tuple[Round, ...] = ()) -> Round:
    built = Round(folder, "annotate", before)
    write(built.annotations / "train.jsonl", rows[1:])
    write(built.annotations / "validation.jsonl", rows[:1])
    return built


def test_a_preference_is_a_mean_over_rankings_of_their_pairs_of_both() -> None:
    rows = [
        ranked((NEW, OLD, OLD), (1, 2, 3)),  # 1
        ranked((OLD, NEW), (1, 2)),  # 0
        ranked((OLD, NEW), (1, 1)),  # one half
        ranked((OLD, NEW, NEW), (2, 1, 3)),  # one half
        ranked((OLD, OLD), (1, 2)),  # says nothing
        ranked((SFT, NEW), (1, 2)),  # of another
    ]
    share = rounds_labels.win_rate(rows, NEW, OLD)
    turned = rounds_labels.win_rate(rows, OLD, NEW)
    assert share is not None and turned is not None
    assert share["wins"] == turned["wins"] == 0.5 and share["n"] == 4
    assert rounds_labels.win_rate(rows[:1], NEW, OLD)["wins"] == 1.0  # type: ignore[index]
    assert rounds_labels.win_rate(rows, OLD, SFT) is None


def test_the_best_changes_only_where_labels_prefer_the_newer(tmp_path: Path) -> None:
    first = turn(tmp_path / "round-1", [row(1), row(2)])
    wins, loses = ((1, 2), (2, 1))
    second = turn(tmp_path / "round-2", [ranked((first.policy, SFT), loses)] * 2, (first,))
    third = turn(tmp_path / "round-3", [ranked((second.policy, SFT), wins)] * 2, (first, second))
    assert rounds_labels.best_previous_policy(first, SFT) == rounds_labels.best_previous_policy(second, SFT) == SFT
    assert rounds_labels.best_previous_policy(third, SFT) == SFT
    fourth = Round(tmp_path / "round-4", "annotate", (first, second, third))
    assert rounds_labels.best_previous_policy(fourth, SFT) == second.policy


def test_all_rounds_are_learned_from_and_what_a_round_holds_out_is_in_no_training(tmp_path: Path) -> None:
    first = turn(tmp_path / "round-1", [row(1), row(2), row(3)])
    second = turn(tmp_path / "round-2", [row(4), row(5)], (first,))
    earlier = write(tmp_path / "home" / "train.jsonl", [row(number, "home") for number in (1, 2, 4, 6)])
    stored = write(tmp_path / "home" / "heldout.jsonl", [row(number, "home") for number in (3, 7)])
    assert rounds_labels.write_training_set(second, earlier, stored, 2) == {"new": 3, "earlier": 2, "rows": 8}

    def report(name: str) -> list[tuple[str, str]]:
        return [(one["id"], one["annotator"]) for one in read(second.labels / f"{name}.jsonl")]

    assert report("train") == [("2", "home"), ("6", "home"), *[(id, "ann") for id in "223355"]]
    assert report("validation") == [("1", "ann"), ("4", "ann")]
    assert report("heldout") == [("7", "home")]


def test_alone_every_ranking_stands_once(tmp_path: Path) -> None:
    only = turn(tmp_path / "round-1", [row(1), row(2), row(3)])
    assert rounds_labels.write_training_set(only, None, None, 4) == {"new": 2, "earlier": 0, "rows": 2}
    assert not (only.labels / "heldout.jsonl").exists()


def test_what_is_mixed_is_said_plainly() -> None:
    alone, mixed = {"new": 17, "earlier": 0, "rows": 17}, {"new": 17, "earlier": 1690, "rows": 1707}
    assert rounds_labels.describe_mix(alone, "people", 4) == "the reward model learns from 17 rankings of people alone"
    sentence = "the reward model learns from 17 rankings of people, each 4 times, beside 1690 earlier comparisons"
    assert rounds_labels.describe_mix(mixed, "people", 4) == f"{sentence} of the base run"
    assert "simulated annotators beside 1690" in rounds_labels.describe_mix(mixed, "simulated annotators", 1)


def test_prompts_are_fresh_and_in_an_order_of_the_seed(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.jsonl", [row(number) for number in range(20)])
    gone = write(tmp_path / "gone.jsonl", [row(number, id=f"label-{number}") for number in range(5)])
    result = rounds_labels.unused_prompts(pool, [gone, tmp_path / "not there"], 0)
    assert {int(one["id"]) for one in result} == set(range(5, 20)) and result != sorted(
        result, key=lambda one: int(one["id"])
    )
    assert rounds_labels.unused_prompts(pool, [gone], 0) == result != rounds_labels.unused_prompts(pool, [gone], 1)


def test_prompts_of_other_columns_have_ids_that_no_two_rounds_share(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.jsonl", [{"question": f"Why {number}?"} for number in range(6)])
    first = write(tmp_path / "first.jsonl", rounds_labels.unused_prompts(pool, [], 0)[:3])
    second = rounds_labels.unused_prompts(pool, [first], 0)
    assert len(second) == 3 and all(one["prompt"][0]["content"].startswith("Why ") for one in second)
    names = [one["id"] for one in (*read_json_lines(first), *second)]
    assert len(set(names)) == 6 and names[0].startswith("pool.jsonl:")


def test_a_file_that_says_the_same_stays_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "rows.jsonl"
    rounds_labels.write_rows(file, [row(1)])
    with monkeypatch.context() as patch:
        patch.setattr(rounds_labels, "write_text", lambda *_: pytest.fail("written again"))
        rounds_labels.write_rows(file, [row(1)])
    rounds_labels.write_rows(file, [row(2)])
    assert read(file) == [row(2)]
