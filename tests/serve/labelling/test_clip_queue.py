"""Pairs of clips become tasks as they come."""

from pathlib import Path

from amenable.feedback.store import Store
from amenable.serve.labelling.clip_queue import ClipQueue


def pair(store: Store, run: str, number: int) -> None:
    clips = [f"left {number}", f"right {number}"]
    store.append("clip_pair", {"run": run, "number": number, "task": f"{run} {number}", "completions": clips}, 0.0)


def test_tasks_come_while_people_label(tmp_path: Path) -> None:
    with Store(tmp_path / "clips.db") as store:
        queue = ClipQueue(store, [], question="Which?", run="a", overlap=0.0)
        assert queue.next("ann", "compare", qualify=False) is None
        for run, number in (("a", 0), ("b", 0), ("a", 1)):
            pair(store, run, number)
        first = queue.next("ann", "compare", qualify=False)
        assert first is not None and first.task.id == "a 0" and first.task.prompt[0].content == "Which?"
        assert sorted(first.task.completions) == ["left 0", "right 0"]
        queue.answer("ann", first.id, "ranking", {"ranking": [1, 2]})
        second = queue.next("ann", "compare", qualify=False)
        assert second is not None and second.task.id == "a 1"
        assert len(ClipQueue(store, [], run=None).tasks) == 0
        every = ClipQueue(store, [], run=None)
        every.refresh()
        assert [task.id for task in every.tasks] == ["a 0", "b 0", "a 1"]


def test_a_share_is_for_several_people(tmp_path: Path) -> None:
    with Store(tmp_path / "clips.db") as store:
        for number in range(200):
            pair(store, "a", number)
        queue = ClipQueue(store, [], overlap=0.2)
        queue.refresh()
        assert 20 < sum(task.purpose == "overlap" for task in queue.tasks) < 60
