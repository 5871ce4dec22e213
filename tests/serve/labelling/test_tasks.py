"""Tasks out of files of samples and of gold items."""

import json

import pytest

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.serve.labelling.tasks import (
    REPEAT_AFTER,
    Candidate,
    pool_samples,
    read_gold_tasks,
    read_tasks,
    with_repeats,
)


def samples(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def request(text):
    return [{"role": "user", "content": text}]


def test_answers_of_several_models_to_a_prompt_come_together(tmp_path):
    (tmp_path / "one").mkdir()
    one = samples(
        tmp_path / "one" / "samples.jsonl",
        {
            "prompt": request("Hi"),
            "completions": ["a", "b", " ", "a"],
            "ended": [True, False, True, True],
            "model": "x",
        },
        {"prompt": request("Alone"), "completions": ["a", "a"], "model": "x"},
    )
    (tmp_path / "one" / "config.yaml").write_text("command: sample\nseed: 3\nsampling: {temperature: 0.5}\nrows: 4\n")
    two = samples(tmp_path / "two.jsonl", {"prompt": request("Hi"), "completions": ["c", "b"], "model": "y"})
    x, y = {"model": "x", "sampling": {"temperature": 0.5}, "seed": 3}, {"model": "y"}
    pooled = pool_samples([one, two])[(Message("user", "Hi"),)]
    assert list(pooled.candidates.values()) == [
        Candidate("a", True, [x]), Candidate("b", False, [x, y]), Candidate("", True, [x]), Candidate("c", True, [y])
    ]  # fmt: skip
    tasks = read_tasks([one, two], ("rank", "compare", "demonstrate", "converse"), 6, overlap=0.0)
    assert [(task.kind, len(task.completions)) for task in tasks] == [
        ("rank", 4),
        ("compare", 2),
        ("demonstrate", 0),
        ("demonstrate", 0),
    ]
    assert [task.id for task in read_tasks([one, two], ("rank",), 6)] == [tasks[0].id]
    (few,) = read_tasks([one, two], ("rank",), 2, overlap=1.0)
    assert len(few.completions) == 2 and few.purpose == "overlap"


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
        read_tasks([tmp_path / "bad.jsonl"], ("rank",), 6)
    with pytest.raises(InputError, match=r"no such file.*amenable demo"):
        read_tasks([tmp_path / "none.jsonl"], ("rank",), 6)


def test_a_text_that_two_models_gave_names_both(tmp_path):
    for name, texts in (("x", ["a", "b"]), ("y", ["b", "c"])):
        samples(tmp_path / f"{name}.jsonl", {"prompt": request("Hi"), "completions": texts, "model": name})
    (task,) = read_tasks([tmp_path / "x.jsonl", tmp_path / "y.jsonl"], ("rank",), 6, overlap=0.0)
    origins = {
        text: [source["model"] for source in (first, *others)]
        for text, first, others in zip(task.completions, task.sources, task.other_sources)
    }
    assert origins == {"a": ["x"], "b": ["x", "y"], "c": ["y"]}


def test_items_of_known_order_are_read_from_rankings(files):
    tasks = read_gold_tasks(files.rankings, "calibration")
    assert len(tasks) == 96 and tasks[0].gold_ranks == (2.0, 1.0, 2.0) and tasks[0].purpose == "calibration"
    assert read_gold_tasks(None, "screening") == []


def test_some_comparisons_come_a_second_time_later(tmp_path):
    file = samples(
        tmp_path / "samples.jsonl", *({"prompt": request(f"{n}?"), "completions": ["a", "b"]} for n in range(30))
    )
    tasks = read_tasks([file], ("compare", "demonstrate"), 6, overlap=0.0)
    assert with_repeats(tasks, 0) == tasks
    repeated = with_repeats(tasks, 2)
    assert [task for task in repeated if task.purpose != "repeat"] == tasks
    order = [task for task in repeated if task.kind == "compare"]
    for later in (task for task in order if task.purpose == "repeat"):
        (first,) = (task for task in order if task.prompt == later.prompt and task is not later)
        assert later.completions == first.completions and later.id != first.id
        assert order.index(later) - order.index(first) > REPEAT_AFTER
    assert sum(task.purpose == "repeat" for task in order) == 2
    assert sum(task.purpose == "repeat" for task in with_repeats(tasks, 99)) == 3, "all that fit in"
