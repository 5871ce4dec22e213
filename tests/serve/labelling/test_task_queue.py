import threading

import pytest

from amenable.data.types import Message
from amenable.feedback.store import Store
from amenable.serve.errors import APIError
from amenable.serve.labelling.task_queue import AssignmentPolicy, TaskQueue
from amenable.serve.labelling.tasks import Task

PROMPT = (Message("user", "Name a thing."),)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def ranking(number, purpose="label", known=None, kind="rank"):
    texts = tuple(f"{letter}{number}" for letter in "abcd")
    return Task(f"{purpose}{number}", kind, PROMPT, texts, ({"model": "m"},) * 4, (True,) * 4, known, purpose)


def answer(queue, one, ranks=(1, 2, 3, 4)):
    return queue.answer(one.annotator, one.id, "ranking", {"ranking": list(ranks), "seconds": 1.0})


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "labels.db") as store:
        yield store


@pytest.fixture
def clock():
    return Clock()


def queue_of(store, clock, *tasks, **policy):
    return TaskQueue(store, tasks, AssignmentPolicy(**policy), clock)


def test_nobody_gets_what_another_has_and_what_was_left_open_comes_back(store, clock):
    queue = queue_of(store, clock, ranking(0), ranking(1), timeout=60.0)
    ann, bo = queue.next("ann", "rank"), queue.next("bo", "rank")
    assert (ann.task.id, bo.task.id) == ("label0", "label1")
    assert queue.next("ann", "rank").id == ann.id, "a page that was closed finds its task again"
    assert queue.next("cy", "rank") is None
    clock.now += 59
    queue.renew("bo", bo.id)
    clock.now += 2
    cy = queue.next("cy", "rank")
    assert cy.task.id == "label0", "what Ann left open goes to Cy, what Bo is at work on does not"
    assert queue.next("dee", "rank") is None
    with pytest.raises(APIError, match="with somebody else now"):
        answer(queue, ann)
    answer(queue, cy)
    answer(queue, bo)
    assert queue.next("ann", "rank") is None
    assert queue.progress("cy", "rank") == {"mine": 1, "tasks": 2, "answered": 2}


def test_a_late_answer_counts_while_nobody_else_has_the_task(store, clock):
    queue = queue_of(store, clock, ranking(0), timeout=60.0)
    ann = queue.next("ann", "rank")
    clock.now += 1000
    answer(queue, ann)
    assert queue.next("bo", "rank") is None


def test_another_server_on_the_same_store_knows_everything(store, clock, tmp_path):
    tasks = (ranking(0), ranking(1))
    queue = queue_of(store, clock, *tasks)
    ann = queue.next("ann", "rank")
    with Store(tmp_path / "labels.db") as same:
        other = queue_of(same, clock, *tasks)
        assert other.next("ann", "rank").id == ann.id
        assert other.next("bo", "rank").task.id == "label1"
        assert queue.next("cy", "rank") is None
        first = answer(queue, ann)
        assert answer(other, other.next("ann", "rank") or ann) == first, "the same answer twice is one"


def test_many_at_once_never_share_a_task(store, clock):
    queue = queue_of(store, clock, *(ranking(number) for number in range(12)))
    got = []

    def work(name):
        while (one := queue.next(name, "rank")) is not None:
            got.append((one.task.id, name))
            answer(queue, one)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(task for task, _ in got) == sorted(f"label{number}" for number in range(12))
    assert len(store.active("ranking")) == 12


def test_a_repeated_answer_is_one_and_another_is_refused(store, clock):
    queue = queue_of(store, clock, ranking(0), ranking(1))
    one = queue.next("ann", "rank")
    first = answer(queue, one)
    assert answer(queue, one) == first and len(store.events("ranking")) == 1
    with pytest.raises(APIError, match="another answer already"):
        answer(queue, one, (4, 3, 2, 1))
    with pytest.raises(APIError, match="no such task of yours") as refused:
        queue.answer("bo", one.id, "ranking", {"ranking": [1, 2, 3, 4]})
    assert refused.value.status == 404
    with pytest.raises(APIError, match="no such task"):
        queue.answer("bo", 10**9, "skip", {})


def test_an_answer_is_taken_back_and_given_anew(store, clock):
    queue = queue_of(store, clock, ranking(0), ranking(1))
    one = queue.next("ann", "rank")
    first = answer(queue, one)
    again = queue.undo("ann")
    assert again.id == one.id and again.previous_answer.id == first and store.active("ranking") == []
    assert queue.next("ann", "rank").id == one.id
    assert queue.progress("ann", "rank")["mine"] == 0
    second = answer(queue, again)
    (standing,) = store.active("ranking")
    assert standing.id == second != first and standing.payload["replaces"] == first
    queue.undo("ann")
    with pytest.raises(APIError, match="nothing to take back"):
        queue.undo("ann")


def test_a_skipped_task_goes_to_another_and_after_two_to_nobody(store, clock):
    queue = queue_of(store, clock, ranking(0))
    for name in ("ann", "bo"):
        queue.answer(name, queue.next(name, "rank").id, "skip", {"reason": "unclear"})
        assert queue.next(name, "rank") is None
    assert queue.next("cy", "rank") is None
    assert queue.progress("ann", "rank") == {"mine": 0, "tasks": 1, "answered": 0}


def test_overlapping_tasks_are_ranked_by_several_and_first(store, clock):
    queue = queue_of(store, clock, ranking(0), ranking(1, "overlap"), raters=2)
    assert queue.next("ann", "rank").task.id == "label0"
    answer(queue, queue.next("ann", "rank"))
    answer(queue, queue.next("ann", "rank"))
    assert queue.next("ann", "rank") is None, "nobody ranks the same twice"
    bo = queue.next("bo", "rank")
    assert bo.task.id == "overlap1"
    answer(queue, bo)
    assert queue.next("cy", "rank") is None


def test_known_items_come_in_between_and_to_everybody(store, clock):
    tasks = [ranking(number) for number in range(8)] + [ranking(9, "calibration", (1.0, 2.0, 3.0, 4.0))]
    queue = queue_of(store, clock, *tasks, gold_every=3)
    for name in ("ann", "bo"):
        observed = []
        for _ in range(4):
            one = queue.next(name, "rank")
            observed.append(one.task.purpose)
            answer(queue, one)
        assert observed == ["label", "label", "calibration", "label"]
    assert queue.gold_accuracy("ann", "calibration") == 1.0


@pytest.mark.parametrize(("ranks", "passes"), [((1, 2, 3, 4), True), ((1, 1, 1, 1), False), ((4, 3, 2, 1), False)])
def test_a_newcomer_is_screened(store, clock, ranks, passes):
    known = (1.0, 2.0, 3.0, 4.0)
    queue = queue_of(store, clock, ranking(0), ranking(8, "screening", known), ranking(9, "screening", known))
    for kind in ("converse", "rank"):
        one = queue.next("ann", kind)
        assert one.task.purpose == "screening" and queue.next("ann", kind).id == one.id
        answer(queue, one, ranks)
    with pytest.raises(APIError, match="cannot be taken back"):
        queue.undo("ann")
    if not passes:
        for kind in ("rank", "converse"):
            with pytest.raises(APIError, match="differ too often"):
                queue.next("ann", kind)
    allowed = "ann" if passes else "owner"
    assert queue.next(allowed, "rank", qualify=passes).task.id == "label0"


def test_the_order_on_the_page_is_drawn_anew_for_everybody(store, clock):
    queue = queue_of(store, clock, *(ranking(number, "overlap") for number in range(30)), raters=2)
    orders = {}
    for name in ("ann", "bo"):
        while (one := queue.next(name, "rank")) is not None:
            orders[name, one.task.id] = one.order
            answer(queue, one)
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders.values())
    assert len(set(orders.values())) > 10
    assert any(orders["ann", f"overlap{n}"] != orders["bo", f"overlap{n}"] for n in range(30))


def test_a_conversation_is_always_there_to_be_had(store, clock):
    queue = queue_of(store, clock)
    first = queue.next("ann", "converse")
    assert queue.next("ann", "converse").id == first.id and queue.next("bo", "converse").task.id != first.task.id
    queue.answer("ann", first.id, "conversation", {"messages": []})
    assert queue.next("ann", "converse").id != first.id


def test_a_text_of_two_models_is_stored_with_both_sources(store):
    task = Task(
        "t",
        "rank",
        PROMPT,
        ("a", "b"),
        ({"model": "x"}, {"model": "y"}),
        (True, True),
        other_sources=((), ({"model": "x"},)),
    )
    assignment = TaskQueue(store, [task]).next("ann", "rank")
    again = TaskQueue(store, [task])
    again.refresh()
    assert again.assignments[assignment.id].task.source_fields == task.source_fields == assignment.task.source_fields
    (shown,) = store.events("shown")
    assert shown.payload["other_sources"] == [[], [{"model": "x"}]]
