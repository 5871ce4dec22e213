"""The order of tasks: by what reward models say of them, whole, and the same for the same seed."""

import json

import pytest
import torch

from amenable.errors import InputError
from amenable.serve import label
from amenable.serve.labelling import task_order
from amenable.serve.labelling.tasks import read_tasks
from amenable.train.loading import save_model

COLOURS = {"red": ("rose", "brick"), "green": ("leaf", "frog"), "blue": ("sea", "sky"), "white": ("snow", "milk")}


@pytest.fixture
def samples(tmp_path):
    """Questions with two to four answers, one of them longer than any model reads."""
    rows = []
    for number, (colour, things) in enumerate(COLOURS.items()):
        for name in ("Ann", "Bo", "Cy"):
            said = [f"{manner}: a {thing}, it is {colour}." for thing in things for manner in ("Gladly", "Grimly")]
            asked = [{"role": "user", "content": f"{name} asks: name a {colour} thing."}]
            rows.append({"prompt": asked, "completions": said[: 2 + number % 3]})
    rows[3]["completions"] = ["long " * 200, "short"]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tasks(samples):
    return read_tasks([samples], ("rank", "compare", "demonstrate"), 4)


@pytest.fixture
def others(tmp_path, make_scalar_model, words):
    """Two reward models that know nothing, each in its own way."""
    folders = []
    for seed in (1, 2):
        folders.append(tmp_path / f"reward-{seed}")
        save_model(folders[-1], make_scalar_model(seed, vocab_size=words.vocab_size), words)
    return folders


@pytest.mark.parametrize("rule", ["random", "disagreement", "uncertainty", "coreset", "disagreement_coreset"])
def test_every_task_has_its_place(tasks, others, runtime, rule, monkeypatch):
    monkeypatch.setattr(task_order, "BATCH", 3)
    found = task_order.order_tasks(tasks, rule, others, 0, runtime)
    assert sorted(task.id for task in found) == sorted(task.id for task in tasks)
    assert found != tasks
    assert found == task_order.order_tasks(tasks, rule, others, 0, runtime)
    # kinds are asked for by the person: each has an order of its own
    kinds = [task.kind for task in found]
    assert kinds == sorted(kinds, key=list(dict.fromkeys(kinds)).index)


def test_the_most_disputed_is_first(tasks, others, runtime):
    ranked = [task for task in tasks if task.kind == "rank"]
    found = task_order.order_tasks(ranked, "disagreement", others, 0, runtime)
    p = torch.sigmoid(differences(ranked, others, runtime))
    disputed = [float(one.nanmean().nan_to_num(0)) for one in p.var(dim=0, unbiased=False)]
    assert len(set(disputed)) > 3
    assert found == sorted(ranked, key=lambda task: -disputed[ranked.index(task)])


def differences(tasks, folders, runtime):
    scores = task_order.scores_of(tasks, folders, runtime)
    first, second = torch.triu_indices(scores.shape[2], scores.shape[2], 1)
    return scores[..., first] - scores[..., second]


def test_scores_stand_where_the_answers_do(tasks, others, runtime):
    scores = task_order.scores_of(tasks, others, runtime)
    there = ~scores.isnan()
    for place, task in enumerate(tasks):
        fits = not any(len(text) > 500 for text in task.completions)
        assert there[:, place].sum(dim=1).tolist() == [len(task.completions) if fits else 0] * 2
    twice = task_order.scores_of([tasks[-3], tasks[0]], [others[1]], runtime)
    assert torch.allclose(twice[0, 1], scores[1, 0, : twice.shape[2]], atol=1e-5, equal_nan=True)


def test_a_rule_needs_its_reward_models(samples, others):
    def config(**changes):
        return label.Config(data=(samples,), **changes)

    for rule, number in (("disagreement", 1), ("disagreement_coreset", 0), ("uncertainty", 0)):
        with pytest.raises(InputError, match=f"the order '{rule}' has {number} reward models"):
            config(query_strategy=rule, ensemble=tuple(others[:number]))
    for rule, number in (("disagreement", 2), ("uncertainty", 1), ("random", 0), ("coreset", 0)):
        config(query_strategy=rule, ensemble=tuple(others[:number]))


def test_the_page_asks_in_that_order(samples, tmp_path):
    config = label.Config(data=(samples,), labels_db=tmp_path / "labels.db", query_strategy="coreset", seed=3)
    as_they_came = label.load_tasks(label.Config(data=(samples,), labels_db=config.labels_db, seed=3))
    asked = label.load_tasks(config)
    assert asked != as_they_came
    assert {task.id for task in asked} == {task.id for task in as_they_came}
    first = [task.prompt[0].content.split()[-2] for task in asked if task.kind == "demonstrate"][:4]
    assert sorted(first) == sorted(COLOURS)  # every colour once
