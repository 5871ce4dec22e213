"""A chat model trained on a person's clicks, over a tiny model: the page, the labels, the adapter, the report."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from amenable.errors import InputError
from amenable.feedback.store import Store
from amenable.recipes import personalize, rounds_people
from amenable.recipes.pipeline import StageRun
from amenable.serve import label

Person = Callable[[dict[str, Any], int], list[int]]
"""(task, its number) -> ranks of the left and the right answer"""


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def config(assistant: Path, tmp_path: Path) -> personalize.Config:
    """A run at its smallest, with a person's answer to each question."""
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"prompt": f"{name} asks: name a {colour} thing.", "reference": "A lemon is yellow."}
        for name in ("Ann", "Bo", "Cy", "Dee", "Eva", "Flo", "Gus", "Ida", "Jo", "Kit", "Lou", "Max")
        for colour in ("red", "blue", "green", "white", "black", "brown", "pink", "grey")
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return personalize.Config(
        model=assistant,
        data=questions,
        out=tmp_path / "run",
        labels_db=tmp_path / "labels.db",
        comparisons=16,
        repeats=1,
        max_new_tokens=8,
        test_prompts=6,
        port=0,
    )


@pytest.fixture
def sit_down(monkeypatch: pytest.MonkeyPatch) -> Callable[[Person], list[int]]:
    """sit_down(person): the stages run in this process, and the person answers whatever the page shows; returns the
    numbers of tasks of each page so far."""
    counts: list[int] = []
    page = label.background_page

    def run_all(runs: Sequence[StageRun]) -> None:
        for run in runs:
            run.run()

    def compare(address: str, person: Person) -> None:
        with httpx.Client(base_url=address) as client:
            while task := client.post("/api/next", json={"kind": "compare"}).json()["task"]:
                ranks = person(task, counts[-1])
                body = {"assignment": task["assignment"], "ranks": ranks, "seconds": 2.0}
                assert client.post("/api/rank", json=body).status_code == 200
                counts[-1] += 1

    def sit_down(person: Person) -> list[int]:
        @contextmanager
        def with_person(config: label.Config, app: Any) -> Iterator[str]:
            with page(config, app) as address:
                counts.append(0)
                thread = threading.Thread(target=compare, args=(address, person))
                thread.start()
                yield address
                thread.join()

        monkeypatch.setattr(label, "background_page", with_person)
        return counts

    monkeypatch.setattr(personalize, "run_all", run_all)
    monkeypatch.setattr(personalize, "CLOSING_SECONDS", 0.0)
    monkeypatch.setattr(personalize, "STEPS", 4)
    monkeypatch.setattr(rounds_people, "SECONDS", 0.05)
    return sit_down


def shorter(task: dict[str, Any], number: int) -> list[int]:
    """Prefers the answer of fewer words; of equal ones the first in the alphabet."""
    keys = [(len(text.split()), text) for text in task["completions"]]
    return [1, 2] if keys[0] < keys[1] else [2, 1]


def test_clicks_become_an_adapter_and_a_report_and_a_second_round_goes_on(
    config: personalize.Config, sit_down: Callable[[Person], list[int]], capsys: pytest.CaptureFixture
) -> None:
    counts = sit_down(shorter)
    out = personalize.run(config)
    assert counts == [17], "16 questions, one pair of them twice"
    labels = rows_of(out / "round-1" / "people" / "labels.jsonl")
    assert len(labels) == 17 and len({row["id"] for row in labels}) == 16
    assert (out / "round-1" / "dpo" / "adapter" / "adapter_model.safetensors").exists()
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["labels"]["decided"] == 17 and report["labels"]["contradictions"] == 0
    assert report["labels"]["shorter"]["wins"] == 1.0 and report["labels"]["repeated_alike"]["wins"] == 1.0
    assert set(report["models"]) == {"before", "round-1"} and report["prompts"] == 6
    assert report["models"]["before"]["sampled"]["change"] is None
    test = {row["id"] for row in rows_of(out / "prompts" / "test.jsonl")}
    assert not test & {row["id"] for row in labels}, "nothing is trained on the questions of the report"
    printed = capsys.readouterr().err
    assert f"amenable chat --model {out}/round-1/dpo --compare {config.model}" in printed
    assert "http://127.0.0.1:" in printed and "held-out questions" in (out / "report.html").read_text("utf-8")

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert personalize.run(config) == out and counts == [17], "the same command again opens no page"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    personalize.run(replace(config, rounds=2, comparisons=16))
    assert len(counts) == 2
    assert all(path.read_bytes() == data for path, data in before.items() if "round-1" in path.parts)
    train = rows_of(out / "round-2" / "labels" / "train.jsonl")
    assert {str(out / "round-1" / "dpo")} < {model for row in train for model in row["models"]}
    assert set(json.loads((out / "report.json").read_text("utf-8"))["models"]) == {"before", "round-1", "round-2"}


def test_ties_alone_are_too_few_and_their_labels_count_elsewhere(
    config: personalize.Config, sit_down: Callable[[Person], list[int]]
) -> None:
    sit_down(lambda task, number: [1, 1])
    with pytest.raises(InputError, match=r"0 of \d+ rankings prefer an answer.*16 more needed.*the labels stay"):
        personalize.run(config)
    assert not (config.out / "round-1" / "people").exists()
    with Store(config.labels_db) as store:
        stored = len(store.rankings())
    assert stored == 22, "16 questions, 5 to spare, and one pair twice"
    counts = sit_down(shorter)
    more = replace(config, out=config.out.parent / "more", comparisons=40)
    personalize.run(more)
    assert counts[-1] < 40, "labels of the same answers count"
    report = json.loads((more.out / "report.json").read_text("utf-8"))
    assert report["labels"]["prompts"] >= 40 and report["labels"]["decided"] >= 16


def test_a_person_who_contradicts_themselves_is_shown_the_pair(
    config: personalize.Config, sit_down: Callable[[Person], list[int]], capsys: pytest.CaptureFixture
) -> None:
    first_number: dict[str, int] = {}

    def fickle(task: dict[str, Any], number: int) -> list[int]:
        """Prefers the shorter answer at first, and the other when the pair comes again."""
        key = json.dumps([task["prompt"], sorted(task["completions"])])
        ranks = shorter(task, number)
        return ranks if first_number.setdefault(key, number) == number else ranks[::-1]

    sit_down(fickle)
    out = personalize.run(config)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "to the other in" in line)
    assert line.startswith("owner preferred") and "1 pair" in line and "thing.'" in line
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["labels"]["contradictions"] == 1 and report["labels"]["repeated_alike"]["wins"] == 0.0
    taught = rows_of(out / "round-1" / "labels" / "train.jsonl") + rows_of(
        out / "round-1" / "labels" / "validation.jsonl"
    )
    assert len(taught) == 16 and len(rows_of(out / "round-1" / "people" / "labels.jsonl")) == 18, "one more was asked"


def test_what_cannot_be_trained_is_refused_before_any_work(
    config: personalize.Config, base: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps({"prompt": f"Why {n}?"}) + "\n" for n in range(20)))
    for options, problem in (
        ({"model": tmp_path / "none"}, r"no such model folder.*amenable get smollm2"),
        ({"model": base}, "cannot chat"),
        ({"data": few}, "more questions are needed and"),
    ):
        with pytest.raises(InputError, match=problem):
            personalize.run(replace(config, **options))
        assert not (config.out / "round-1").exists() and not config.labels_db.exists()
    for wrong in ({"comparisons": 15}, {"kl_budget": 0.0}, {"num_generations": 1}, {"rounds": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            replace(config, **wrong)


def test_the_command_of_a_run_names_what_is_not_the_default() -> None:
    assert personalize.command_of(personalize.Config()) == "amenable personalize"
    config = personalize.Config(out=Path("runs/my own"), rounds=2)
    assert personalize.command_of(config) == "amenable personalize --out 'runs/my own' --rounds 2"


def test_the_pair_has_few_words_in_common_and_an_answer_that_ended() -> None:
    texts = ["a red fish swims", "a red fish swims on", "blue sky above us", "green"]
    assert personalize.most_different(texts, [True] * 4) == (0, 2)
    assert personalize.most_different(texts, [False, True, False, False]) == (1, 2)
    assert personalize.most_different(["a", " a "], [True, True]) is None
    rows = [{"id": "q", "completions": texts, "ended": [False, True, False, False]}, {"completions": ["a"] * 2}]
    rows[1]["ended"] = [True, True]
    assert list(personalize.different_pairs(rows)) == [
        {"id": "q", "completions": [texts[1], texts[2]], "ended": [True, False]}
    ]
