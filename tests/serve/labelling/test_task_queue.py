import json
import threading

import pytest

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.feedback.store import Store
from amenable.serve.labelling.task_queue import (
    APIError,
    Desk,
    Entry,
    Rules,
    Task,
    known_tasks,
    pooled,
    read_tasks,
)

PROMPT = (Message("user", "Name a thing."),)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def ranking(number, purpose="label", known=None, kind="rank"):
    texts = tuple(f"{letter}{number}" for letter in "abcd")
    return Task(f"{purpose}{number}", kind, PROMPT, texts, ({"model": "m"},) * 4, (True,) * 4, known, purpose)


def answer(desk, one, ranks=(1, 2, 3, 4)):
    return desk.answer(one.annotator, one.id, "ranking", {"ranking": list(ranks), "seconds": 1.0})


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "labels.db") as store:
        yield store


@pytest.fixture
def clock():
    return Clock()


def desk_of(store, clock, *tasks, **rules):
    return Desk(store, tasks, Rules(**{"overlap": 0.0, **rules}), clock)


def test_nobody_gets_what_another_has_and_what_was_left_open_comes_back(store, clock):
    desk = desk_of(store, clock, ranking(0), ranking(1), lease=60.0)
    ann, bo = desk.next("ann", "rank"), desk.next("bo", "rank")
    assert (ann.task.id, bo.task.id) == ("label0", "label1")
    assert desk.next("ann", "rank").id == ann.id, "a page that was closed finds its task again"
    assert desk.next("cy", "rank") is None
    clock.now += 59
    desk.hold("bo", bo.id)
    clock.now += 2
    cy = desk.next("cy", "rank")
    assert cy.task.id == "label0", "what Ann left open goes to Cy, what Bo is at work on does not"
    assert desk.next("dee", "rank") is None
    with pytest.raises(APIError, match="with somebody else now"):
        answer(desk, ann)
    answer(desk, cy)
    answer(desk, bo)
    assert desk.next("ann", "rank") is None
    assert desk.progress("cy", "rank") == {"mine": 1, "tasks": 2, "answered": 2}


def test_a_late_answer_counts_while_nobody_else_has_the_task(store, clock):
    desk = desk_of(store, clock, ranking(0), lease=60.0)
    ann = desk.next("ann", "rank")
    clock.now += 1000
    answer(desk, ann)
    assert desk.next("bo", "rank") is None


def test_another_server_on_the_same_store_knows_everything(store, clock, tmp_path):
    tasks = (ranking(0), ranking(1))
    desk = desk_of(store, clock, *tasks)
    ann = desk.next("ann", "rank")
    with Store(tmp_path / "labels.db") as same:
        other = desk_of(same, clock, *tasks)
        assert other.next("ann", "rank").id == ann.id
        assert other.next("bo", "rank").task.id == "label1"
        assert desk.next("cy", "rank") is None
        first = answer(desk, ann)
        assert answer(other, other.next("ann", "rank") or ann) == first, "the same answer twice is one"


def test_many_at_once_never_share_a_task(store, clock):
    desk = desk_of(store, clock, *(ranking(number) for number in range(12)))
    got = []

    def work(name):
        while (one := desk.next(name, "rank")) is not None:
            got.append((one.task.id, name))
            answer(desk, one)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(task for task, _ in got) == sorted(f"label{number}" for number in range(12))
    assert len(store.active("ranking")) == 12


def test_a_repeated_answer_is_one_and_another_is_refused(store, clock):
    desk = desk_of(store, clock, ranking(0), ranking(1))
    one = desk.next("ann", "rank")
    first = answer(desk, one)
    assert answer(desk, one) == first and len(store.events("ranking")) == 1
    with pytest.raises(APIError, match="another answer already"):
        answer(desk, one, (4, 3, 2, 1))
    with pytest.raises(APIError, match="no such task of yours") as refused:
        desk.answer("bo", one.id, "ranking", {"ranking": [1, 2, 3, 4]})
    assert refused.value.status == 404
    with pytest.raises(APIError, match="no such task"):
        desk.answer("bo", 10**9, "skip", {})


def test_an_answer_is_taken_back_and_given_anew(store, clock):
    desk = desk_of(store, clock, ranking(0), ranking(1))
    one = desk.next("ann", "rank")
    first = answer(desk, one)
    again = desk.undo("ann")
    assert again.id == one.id and again.former.id == first and store.active("ranking") == []
    assert desk.next("ann", "rank").id == one.id
    assert desk.progress("ann", "rank")["mine"] == 0
    second = answer(desk, again)
    (standing,) = store.active("ranking")
    assert standing.id == second != first and standing.payload["replaces"] == first
    desk.undo("ann")
    with pytest.raises(APIError, match="nothing to take back"):
        desk.undo("ann")


def test_a_skipped_task_goes_to_another_and_after_two_to_nobody(store, clock):
    desk = desk_of(store, clock, ranking(0))
    for name in ("ann", "bo"):
        desk.answer(name, desk.next(name, "rank").id, "skip", {"reason": "unclear"})
        assert desk.next(name, "rank") is None
    assert desk.next("cy", "rank") is None
    assert desk.progress("ann", "rank") == {"mine": 0, "tasks": 1, "answered": 0}


def test_overlapping_tasks_are_ranked_by_several_and_first(store, clock):
    desk = desk_of(store, clock, ranking(0), ranking(1, "overlap"), raters=2)
    assert desk.next("ann", "rank").task.id == "label0"
    answer(desk, desk.next("ann", "rank"))
    answer(desk, desk.next("ann", "rank"))
    assert desk.next("ann", "rank") is None, "nobody ranks the same twice"
    bo = desk.next("bo", "rank")
    assert bo.task.id == "overlap1"
    answer(desk, bo)
    assert desk.next("cy", "rank") is None


def test_known_items_come_in_between_and_to_everybody(store, clock):
    tasks = [ranking(number) for number in range(8)] + [ranking(9, "calibration", (1.0, 2.0, 3.0, 4.0))]
    desk = desk_of(store, clock, *tasks, calibration_every=3)
    for name in ("ann", "bo"):
        seen = []
        for _ in range(4):
            one = desk.next(name, "rank")
            seen.append(one.task.purpose)
            answer(desk, one)
        assert seen == ["label", "label", "calibration", "label"]
    assert desk.mean_right("ann", "calibration") == 1.0


@pytest.mark.parametrize(("ranks", "passes"), [((1, 2, 3, 4), True), ((1, 1, 1, 1), False), ((4, 3, 2, 1), False)])
def test_a_newcomer_is_screened(store, clock, ranks, passes):
    known = (1.0, 2.0, 3.0, 4.0)
    desk = desk_of(store, clock, ranking(0), ranking(8, "screening", known), ranking(9, "screening", known))
    for kind in ("converse", "rank"):
        one = desk.next("ann", kind)
        assert one.task.purpose == "screening" and desk.next("ann", kind).id == one.id
        answer(desk, one, ranks)
    with pytest.raises(APIError, match="cannot be taken back"):
        desk.undo("ann")
    if not passes:
        for kind in ("rank", "converse"):
            with pytest.raises(APIError, match="differ too often"):
                desk.next("ann", kind)
    allowed = "ann" if passes else "owner"
    assert desk.next(allowed, "rank", screened=passes).task.id == "label0"


def test_the_order_on_the_page_is_drawn_anew_for_everybody(store, clock):
    desk = desk_of(store, clock, *(ranking(number, "overlap") for number in range(30)), raters=2)
    orders = {}
    for name in ("ann", "bo"):
        while (one := desk.next(name, "rank")) is not None:
            orders[name, one.task.id] = one.order
            answer(desk, one)
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders.values())
    assert len(set(orders.values())) > 10
    assert any(orders["ann", f"overlap{n}"] != orders["bo", f"overlap{n}"] for n in range(30))


def test_a_conversation_is_always_there_to_be_had(store, clock):
    desk = desk_of(store, clock)
    first = desk.next("ann", "converse")
    assert desk.next("ann", "converse").id == first.id and desk.next("bo", "converse").task.id != first.task.id
    desk.answer("ann", first.id, "conversation", {"messages": []})
    assert desk.next("ann", "converse").id != first.id


def samples(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(text):
    return [{"role": "user", "content": text}]


def test_answers_of_several_models_to_a_prompt_come_together(tmp_path):
    (tmp_path / "one").mkdir()
    one = samples(
        tmp_path / "one" / "samples.jsonl",
        {"prompt": asked("Hi"), "completions": ["a", "b", " ", "a"], "ended": [True, False, True, True], "model": "x"},
        {"prompt": asked("Alone"), "completions": ["a", "a"], "model": "x"},
    )
    (tmp_path / "one" / "config.yaml").write_text("command: sample\nseed: 3\nsampling: {temperature: 0.5}\nrows: 4\n")
    two = samples(tmp_path / "two.jsonl", {"prompt": asked("Hi"), "completions": ["c", "b"], "model": "y"})
    x, y = {"model": "x", "sampling": {"temperature": 0.5}, "seed": 3}, {"model": "y"}
    entries = pooled([one, two])[(Message("user", "Hi"),)]
    assert entries == [
        Entry("a", True, [x]), Entry("b", False, [x, y]), Entry("", True, [x]), Entry("c", True, [y])
    ]  # fmt: skip
    tasks = read_tasks([one, two], ("rank", "compare", "demonstrate", "converse"), 6, Rules(overlap=0.0))
    assert [(task.kind, len(task.completions)) for task in tasks] == [
        ("rank", 4),
        ("compare", 2),
        ("demonstrate", 0),
        ("demonstrate", 0),
    ]
    assert [task.id for task in read_tasks([one, two], ("rank",), 6, Rules())] == [tasks[0].id]
    (limit_fields,) = read_tasks([one, two], ("rank",), 2, Rules(overlap=1.0))
    assert len(limit_fields.completions) == 2 and limit_fields.purpose == "overlap"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "line 1 is not JSON"),
        ("7", "line 1 is no row of samples .it is a number, not an object"),
        ('{"prompt": "\\ud800"}', "half of a character"),
        ('{"prompt": "Hi"}', "line 1 is no row of samples .no column 'completions'"),
        ('{"prompt": [], "completions": []}', "empty"),
        (
            '{"prompt": [{"role": "user", "content": "Hi"}], "completions": [1, 2]}',
            "completion 1 is a number, not text",
        ),
        ('{"prompt": [{"role": "user", "content": "Hi"}], "completions": ["a"]}', "two different answers"),
    ],
)
def test_a_file_that_is_none_of_samples_is_refused(tmp_path, text, match):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(InputError, match=match):
        read_tasks([tmp_path / "bad.jsonl"], ("rank",), 6, Rules())
    with pytest.raises(InputError, match=r"no such file.*amenable demo"):
        read_tasks([tmp_path / "none.jsonl"], ("rank",), 6, Rules())


def test_a_text_that_two_models_gave_names_both_in_what_is_kept(tmp_path):
    for name, texts in (("x", ["a", "b"]), ("y", ["b", "c"])):
        samples(tmp_path / f"{name}.jsonl", {"prompt": asked("Hi"), "completions": texts, "model": name})
    (task,) = read_tasks([tmp_path / "x.jsonl", tmp_path / "y.jsonl"], ("rank",), 6, Rules(overlap=0.0))
    origins = {
        text: [source["model"] for source in (first, *others)]
        for text, first, others in zip(task.completions, task.sources, task.other_sources)
    }
    assert origins == {"a": ["x"], "b": ["x", "y"], "c": ["y"]}
    with Store(tmp_path / "labels.db") as store:
        one = Desk(store, [task], Rules()).next("ann", "rank")
        again = Desk(store, [task], Rules())
        again.refresh()
        assert again.given[one.id].task.origins == task.origins == one.task.origins
        (shown,) = store.events("shown")
        assert shown.payload["other_sources"] == [list(others) for others in task.other_sources]


def test_items_of_known_order_are_read_from_rankings(files):
    tasks = known_tasks(files.rankings, "calibration")
    assert len(tasks) == 96 and tasks[0].known == (2.0, 1.0, 2.0) and tasks[0].purpose == "calibration"
    assert known_tasks(None, "screening") == []
