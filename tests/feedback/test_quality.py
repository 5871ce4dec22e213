import pytest

from amenable.data.types import Message
from amenable.feedback import quality
from amenable.feedback.store import Store
from amenable.serve.labelling.task_queue import AssignmentPolicy, TaskQueue
from amenable.serve.labelling.tasks import Task

PROMPT = (Message("user", "Name a thing."),)


def a_task(number, known=None):
    texts = tuple(f"{letter}{number}" for letter in "abc")
    purpose = "overlap" if known is None else "calibration"
    return Task(f"t{number}", "rank", PROMPT, texts, ({},) * 3, (True,) * 3, known, purpose)


def label(queue, annotator, ranks_of, seconds=20.0):
    """Answer everything there is by a function of the task."""
    while (one := queue.next(annotator, "rank")) is not None:
        ranks = ranks_of(one.task)
        payload = {
            "prompt": [{"role": "user", "content": "Name a thing."}],
            "completions": list(one.task.completions),
            "ranking": ranks,
            "meta": {"ended": [True] * 3},
            "shown_order": list(one.order),
            "seconds": seconds,
            "flags": [["violent"], [], []],
            "id": None,
            "notes": "",
        }
        queue.answer(annotator, one.id, "ranking", payload)


@pytest.fixture
def store(tmp_path):
    """Three people: Ann and Bo always agree, Cy is contrary on the last of ten tasks and much faster there."""
    with Store(tmp_path / "labels.db") as store:
        tasks = [a_task(number) for number in range(10)] + [a_task(99, known=(1.0, 2.0, 2.0))]
        queue = TaskQueue(store, tasks, AssignmentPolicy(raters=3, gold_every=2), clock=lambda: 7200.0)
        label(queue, "Ann", lambda task: [1, 2, 3])
        label(queue, "Bo", lambda task: [1, 2, 3])
        label(queue, "Cy", lambda task: [3, 2, 1] if task.id in ("t9", "t99") else [1, 2, 3])
        yield store


def test_agreement_is_that_of_the_pairs(store):
    result = quality.figures(store)["agreement"]
    # of 90 comparisons of two people on a pair, Cy is contrary to two people on three pairs
    assert result["tasks"] == 10
    assert result["pairwise"]["share"] == pytest.approx(84 / 90) and result["pairwise"]["n"] == 90
    assert result["pairwise"]["low"] < 84 / 90 <= result["pairwise"]["high"]
    cohens = {tuple(one["people"]): one["value"] for one in result["cohen"]}
    # with the first answer the best throughout there is no chance agreement to go beyond
    assert cohens["Ann", "Bo"] is None
    assert cohens["Ann", "Cy"] == pytest.approx(0.0)
    # 30 units of three values, -1 in 87 of 90 places, one unit of (-1, -1, 1) thrice:
    # D_o = 3 * (2 * 2 * 4) / 2 = 24, D_e = 2 * 87 * 3 * 4 / 89
    assert result["krippendorff"]["value"] == pytest.approx(1 - 24 * 89 / (2 * 87 * 3 * 4))


def test_one_shared_task_says_little_of_how_people_agree(tmp_path):
    """One pair ordered alike and one not, of one task: no "50 % to 50 %", and no interval of any coefficient."""
    with Store(tmp_path / "labels.db") as store:
        queue = TaskQueue(store, [a_task(0)], AssignmentPolicy(raters=2), clock=lambda: 7200.0)
        label(queue, "Ann", lambda task: [1, 2, 2])
        label(queue, "Bo", lambda task: [2, 3, 1])
        result = quality.figures(store, score=lambda *_: [3.0, 2.0, 1.0])
        alike = result["agreement"]["pairwise"]
        assert (alike["share"], alike["n"]) == (0.5, 2) and alike["low"] < 0.1 and alike["high"] > 0.9
        assert result["agreement"]["krippendorff"]["value"] is not None
        for report in (
            result["agreement"]["krippendorff"],
            result["agreement"]["fleiss"],
            *result["agreement"]["cohen"],
        ):
            assert report["low"] is None and report["high"] is None
        assert result["reward_model"]["all"]["high"] - result["reward_model"]["all"]["low"] > 0.5


def test_what_each_person_did(store):
    people = {one["name"]: one for one in quality.figures(store)["people"]}
    assert [people[name]["labels"] for name in ("Ann", "Bo", "Cy")] == [11, 11, 11]
    assert people["Ann"]["per_hour"] == pytest.approx(180)
    assert people["Ann"]["known"]["share"] == 1.0 and people["Ann"]["known"]["n"] == 2
    assert people["Cy"]["known"]["share"] == 0.0
    assert quality.figures(store)["hours"] == [{"start": 7200, "labels": 33}]
    assert quality.figures(store)["flags"] == {"violent": 33}


def test_disagreements_come_first_where_they_are_largest(store):
    (one,) = quality.figures(store)["disagreements"]
    assert one["completions"] == ["a9", "b9", "c9"]
    assert one["contrary"] == pytest.approx(6 / 9)
    assert {each["annotator"]: each["ranks"] for each in one["said"]}["Cy"] == [3, 2, 1]


def test_the_reward_model_is_compared_with_everybody(store):
    def score(prompt, completions, ended):
        return [-ord(text[0]) for text in completions]

    result = quality.figures(store, score=score)["reward_model"]
    assert result["all"]["share"] == pytest.approx(87 / 90)
    assert {one["name"]: one["share"] for one in result["people"]} == {"Ann": 1.0, "Bo": 1.0, "Cy": pytest.approx(0.9)}


def test_places_on_the_page_and_haste(tmp_path):
    with Store(tmp_path / "labels.db") as store:
        queue = TaskQueue(store, [a_task(number) for number in range(12)], AssignmentPolicy(raters=2))

        # Dee always likes best what is shown first
        def first(task):
            order = next(
                one.order for one in queue.assignments.values() if one.task.id == task.id and one.annotator == "Dee"
            )
            return [1 if i == order[0] else 2 for i in range(3)]

        label(queue, "Dee", first)
        label(queue, "Eva", lambda task: [1, 2, 3])
        (result,) = quality.positions(quality.rankings_of(store, store.active("ranking")))
        assert result["answers"] == 3 and result["expected"] == pytest.approx(1 / 3)
        assert result["places"][0]["share"] > 0.5 and result["places"][0]["low"] > 1 / 3
        assert quality.figures(store)["hasty"] == []
        one = queue.assignments[queue.history["Eva"][-1]]
        queue.undo("Eva")
        queue.answer("Eva", one.id, "ranking", {**one.answer.payload, "seconds": 1.0})
        (hasty,) = quality.figures(store)["hasty"]
        assert (hasty["annotator"], hasty["seconds"], hasty["usual"]) == ("Eva", 1.0, pytest.approx(20.0))


def test_an_empty_store_has_no_figures_and_no_mistakes(tmp_path):
    with Store(tmp_path / "labels.db") as store:
        result = quality.figures(store, score=lambda *_: [])
        assert result["people"] == [] and result["agreement"]["pairwise"]["share"] is None
        assert result["reward_model"]["all"]["share"] is None
