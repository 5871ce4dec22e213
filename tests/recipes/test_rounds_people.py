"""What counts as a round's label of people, and when there are enough of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback.store import Store
from amenable.recipes import rounds_people
from amenable.recipes.rounds_labels import Round

ANSWERS = ("one", "two", "three")


@pytest.fixture
def pool(tmp_path: Path) -> list[Path]:
    """Two files of samples about the same four prompts, by two models."""
    files = [tmp_path / "new.jsonl", tmp_path / "old.jsonl"]
    for file, answers in zip(files, (ANSWERS[:2], ANSWERS[1:])):
        rows = [
            {
                "id": f"p{n}",
                "prompt": [{"role": "user", "content": f"{n}?"}],
                "completions": answers,
                "model": file.stem,
            }
            for n in range(4)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files


def ranking(number: int, ranks: tuple[float, ...] = (1, 2, 3), answers: tuple[str, ...] = ANSWERS) -> Ranking:
    return Ranking((Message("user", f"{number}?"),), answers, ranks, f"label-{number}", "ann")


def add(store: Path, *rankings: Ranking, **payload: Any) -> list[int]:
    with Store(store) as stored:
        return [stored.add_ranking(one, range(len(one.completions)), 3.0, 0.0, **payload) for one in rankings]


def test_rankings_of_the_pool_count_and_say_who_answered(pool: list[Path], tmp_path: Path) -> None:
    store = tmp_path / "labels.db"
    known = rounds_people.pool_of(pool)
    assert rounds_people.rankings(known, store) == [] and not store.exists()
    add(store, ranking(0), ranking(9), ranking(1, answers=("one", "two", "another")), ranking(2, (2, 1), ANSWERS[1:]))
    result = rounds_people.rankings(known, store)
    assert [row["other_models"] for row in result] == [[[], ["old"], []], [["old"], []]], "both said 'two'"
    assert [(row["id"], row["ranking"], row["models"], row["seconds"]) for row in result] == [
        ("p0", [1, 2, 3], ["new", "new", "old"], 3.0),
        ("p2", [2, 1], ["new", "old"], 3.0),
    ]


def test_what_was_corrected_or_taken_back_counts_as_it_stands_and_tests_do_not(
    pool: list[Path], tmp_path: Path
) -> None:
    store = tmp_path / "labels.db"
    first, second = add(store, ranking(0), ranking(1))
    add(store, ranking(0, (3, 2, 1)), replaces=first)
    with Store(store) as stored:
        stored.append("retraction", {"retracts": second}, 0.0)
        about = {"prompt": [{"role": "user", "content": "2?"}], "completions": ["one", "two"], "ranking": [1, 2]}
        stored.append("ranking", {**about, "purpose": "calibration", "annotator": "ann", "id": None, "meta": {}}, 0.0)
    result = rounds_people.rankings(rounds_people.pool_of(pool), store)
    assert [(row["id"], row["ranking"]) for row in result] == [("p0", [3, 2, 1])]


def test_it_waits_for_so_many_prompts_not_rankings(
    pool: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store, turn = tmp_path / "labels.db", Round(tmp_path / "round-1", "people")
    reply = iter([ranking(0), ranking(0), ranking(1, (1, 1, 1)), ranking(2)])

    def say_one() -> None:
        add(store, next(reply))

    rounds_people.collect(turn, pool, store, 3, 0.3, 0, pause=say_one)
    assert next(reply, None) is None
    counts = [line for line in capsys.readouterr().err.splitlines() if "of 3 prompts" in line]
    assert [line.split()[0] for line in counts] == ["0", "1", "2", "3"]
    rows = {name: [json.loads(line) for line in (turn.annotations / f"{name}.jsonl").open()] for name in PARTS}
    assert len(rows["labels"]) == 4 and {row["id"] for row in rows["labels"]} == {"p0", "p1", "p2"}
    ids = [{row["id"] for row in rows[name]} for name in ("train", "validation")]
    assert ids[0] | ids[1] == {"p0", "p2"} and not ids[0] & ids[1]  # both rankings of p0 lie on one side; ties on none


PARTS = ("labels", "train", "validation")


def test_a_stop_between_two_files_changes_nothing(
    pool: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, turn = tmp_path / "labels.db", Round(tmp_path / "round-1", "people")
    add(store, *(ranking(number) for number in range(3)))
    write = rounds_people.write_rows

    def torn(file: Path, rows: list[dict[str, Any]]) -> None:
        if file.name == "validation.jsonl":
            raise KeyboardInterrupt
        write(file, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rounds_people, "write_rows", torn)
        rounds_people.collect(turn, pool, store, 3, 0.3, 0)
    add(store, ranking(3))  # said afterwards: not of this round any more
    rounds_people.collect(turn, pool, store, 3, 0.3, 0)
    rows = {name: [json.loads(line)["id"] for line in (turn.annotations / f"{name}.jsonl").open()] for name in PARTS}
    assert rows["labels"] == ["p0", "p1", "p2"] and sorted(rows["train"] + rows["validation"]) == rows["labels"]


def test_too_few_prompts_and_nothing_but_ties_are_refused(pool: list[Path], tmp_path: Path) -> None:
    store, turn = tmp_path / "labels.db", Round(tmp_path / "round-1", "people")
    with pytest.raises(InputError, match="holds 4 prompts, and 5 are to be ranked"):
        rounds_people.collect(turn, pool, store, 5, 0.3, 0)
    add(store, ranking(0), *(ranking(number, (1, 1, 1)) for number in range(1, 4)))
    with pytest.raises(InputError, match=r"1 of 4 rankings prefer an answer.*too few.*1 more needed"):
        rounds_people.collect(turn, pool, store, 4, 0.3, 0)
    assert not rounds_people.has_labels(turn), "labels are still collected"


def test_contradictory_labels_are_named_and_left_out(
    pool: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store, turn = tmp_path / "labels.db", Round(tmp_path / "round-1", "people")
    add(store, *(ranking(number, (1, 2), ANSWERS[:2]) for number in range(4)))
    add(store, ranking(1, (2, 1), ANSWERS[:2]), ranking(2, (1, 2), ANSWERS[:2]))
    rounds_people.collect(turn, pool, store, 4, 0.3, 0, least=3)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "to the other" in line)
    assert line.startswith("ann preferred") and "1 pair" in line and "'1?': 'one' and 'two'" in line
    rows = {name: [json.loads(text) for text in (turn.annotations / f"{name}.jsonl").open()] for name in PARTS}
    assert len(rows["labels"]) == 6, "nothing is lost"
    taught = [row["id"] for row in rows["train"] + rows["validation"]]
    assert sorted(taught) == ["p0", "p2", "p3"], "a pair labelled alike twice counts once"


def test_rankings_that_are_ties_are_made_up_for_by_more_prompts(
    pool: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    store, turn = tmp_path / "labels.db", Round(tmp_path / "round-1", "people")
    later = iter([ranking(0, (1, 1, 1)), ranking(1), ranking(2), ranking(3)])
    rounds_people.collect(turn, pool, store, 2, 0.3, 0, pause=lambda: add(store, next(later)) and None, least=3)
    assert next(later, None) is None
    shown = capsys.readouterr().err
    assert "1 of 2 rankings prefer an answer" in shown and "2 more needed (3: ±57 %)" in shown


def test_a_pool_of_skipped_prompts_is_at_its_end(pool: list[Path], tmp_path: Path) -> None:
    store, turn = tmp_path / "labels.db", Round(tmp_path / "round-1", "people")
    add(store, *(ranking(number) for number in range(3)))
    with Store(store) as stored:
        task = stored.append("shown", {"prompt": [{"role": "user", "content": "3?"}]}, 0.0)
        stored.append("skip", {"assignment": task}, 0.0)
    with pytest.raises(InputError, match=r"3 of 3 rankings.*1 more needed"):
        rounds_people.collect(turn, pool, store, 4, 0.3, 0, max_skips=1)
