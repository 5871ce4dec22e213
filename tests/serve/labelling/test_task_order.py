"""The order of tasks: by what reward models say of them, whole, and the same for the same seed."""

import json
import re

import pytest
import torch

from amenable import cli
from amenable.errors import InputError
from amenable.feedback.queries import uncertainty
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import SPELLINGS, load_reward
from amenable.serve import label
from amenable.serve.labelling import task_order
from amenable.serve.labelling.tasks import read_tasks

COLOURS = {"red": ("rose", "brick"), "green": ("leaf", "frog"), "blue": ("sea", "sky"), "white": ("snow", "milk")}


@pytest.fixture
def samples(tmp_path):
    """Questions with two to four answers, one of them longer than any model reads."""
    rows = []
    for number, (colour, things) in enumerate(COLOURS.items()):
        for name in ("Ann", "Bo", "Cy"):
            reply = [f"{manner}: a {thing}, it is {colour}." for thing in things for manner in ("Gladly", "Grimly")]
            request = [{"role": "user", "content": f"{name} asks: name a {colour} thing."}]
            rows.append({"prompt": request, "completions": reply[: 2 + number % 3]})
    rows[3]["completions"] = ["long " * 200, "short"]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tasks(samples):
    return read_tasks([samples], ("rank", "compare", "demonstrate"), 4)


@pytest.fixture
def others(make_scalar_model, words, runtime):
    """Two reward models that know nothing, each in its own way."""
    models = [make_scalar_model(seed, vocab_size=words.vocab_size) for seed in (1, 2)]
    return [load_reward(ModelReward(model, words, runtime), runtime) for model in models]


@pytest.mark.parametrize(
    "rule", ["random", "disagreement", "information_gain", "uncertainty", "coreset", "disagreement_coreset"]
)
def test_every_task_has_its_place(tasks, others, rule, monkeypatch):
    monkeypatch.setattr(task_order, "BATCH", 3)
    result = task_order.order_tasks(tasks, rule, others, 0)
    assert sorted(task.id for task in result) == sorted(task.id for task in tasks)
    assert result != tasks
    assert result == task_order.order_tasks(tasks, rule, others, 0)
    # kinds are asked for by the person: each has an order of its own
    kinds = [task.kind for task in result]
    assert kinds == sorted(kinds, key=list(dict.fromkeys(kinds)).index)


def test_the_most_disputed_is_first(tasks, others):
    ranked = [task for task in tasks if task.kind == "rank"]
    result = task_order.order_tasks(ranked, "disagreement", others, 0)
    p = torch.sigmoid(differences(ranked, others))
    disputed = [float(one.nanmean().nan_to_num(0)) for one in p.var(dim=0, unbiased=False)]
    assert len(set(disputed)) > 3
    assert result == sorted(ranked, key=lambda task: -disputed[ranked.index(task)])


def differences(tasks, rewards):
    scores = task_order.scores_of(tasks, rewards)
    first, second = torch.triu_indices(scores.shape[2], scores.shape[2], 1)
    return scores[..., first] - scores[..., second]


def test_scores_stand_where_the_answers_do(tasks, others):
    scores = task_order.scores_of(tasks, others)
    there = ~scores.isnan()
    for place, task in enumerate(tasks):
        fits = not any(len(text) > 500 for text in task.completions)
        assert there[:, place].sum(dim=1).tolist() == [len(task.completions) if fits else 0] * 2
    twice = task_order.scores_of([tasks[-3], tasks[0]], [others[1]])
    assert torch.allclose(twice[0, 1], scores[1, 0, : twice.shape[2]], atol=1e-5, equal_nan=True)


def test_a_rule_needs_its_rewards(samples):
    specs = ("runs/a", "ends")

    def config(**changes):
        return label.Config(data=(samples,), **changes)

    for rule, number in (("disagreement", 1), ("disagreement_coreset", 0), ("uncertainty", 0)):
        with pytest.raises(InputError, match=f"the order '{rule}' has {number} rewards .*--reward runs/reward"):
            config(query_strategy=rule, reward=specs[:number])
    for rule, number in (("disagreement", 2), ("uncertainty", 1), ("random", 0), ("coreset", 0)):
        config(query_strategy=rule, reward=specs[:number])


def test_any_rewards_make_the_ensemble(samples, tmp_path):
    """Each SPEC of --reward is a member, its weight scales its scores; --ensemble is the option's former name."""
    file = tmp_path / "mine.py"
    file.write_text("def score(completion):\n    return sum(map(ord, completion)) % 7\n")
    options = ["--data", str(samples), "--tasks", "compare", "--query-strategy", "uncertainty", "--device", "cpu"]
    config = cli.parse(label.Config, [*options, "--ensemble", f"{file}:score=0.5"], "label", "")
    assert config.reward == (f"{file}:score=0.5",)
    tasks = label.load_tasks(config)
    values = [[sum(map(ord, text)) % 7 for text in task.completions] for task in tasks]
    gaps = [abs(first - second) for first, second in values]
    assert gaps == sorted(gaps) and len(set(gaps)) > 2
    p = torch.sigmoid(torch.tensor(0.5 * gaps[-1]))
    reward = load_reward(f"{file}:score=0.5", None)
    assert uncertainty(task_order.scores_of(tasks, [reward]))[-1] == pytest.approx(float(1 - p), abs=1e-5)


def test_rewards_read_the_columns_of_the_prompts_rows(samples, tmp_path):
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    samples.write_text("".join(json.dumps({**row, "things": row["completions"][0]}) + "\n" for row in rows))
    (tmp_path / "more.jsonl").write_text(json.dumps({**rows[0], "things": "other", "level": 3}) + "\n")
    options = {"query_strategy": "uncertainty", "reward": ("match:things",), "judge": ("match:things",)}
    config = label.Config(data=(samples, tmp_path / "more.jsonl"), tasks=("compare",), **options)
    tasks = label.load_tasks(config)
    first = next(task for task in tasks if task.prompt[0].content == rows[0]["prompt"][0]["content"])
    assert first.columns == {"things": rows[0]["completions"][0], "level": 3, "id": "1", "kind": ""}
    score = label.load_scorer(config, tasks)
    prompt = [{"role": "user", "content": first.prompt[0].content}]
    assert score(prompt, [first.columns["things"], "other"], [True, True]) == [1.0, 0.0]
    assert score([{"role": "user", "content": "Unknown?"}], ["a", "b"], [True, True]) is None
    with pytest.raises(
        InputError, match=r"samples.jsonl: the reward 'match:thing' needs the column 'thing'; did you mean"
    ):
        label.load_tasks(label.Config(**{**vars(config), "reward": ("match:thing",)}))
    for options in ({"reward": ("tokens:1-",)}, {"reward": ("ends",), "judge": ("tokens:1-",)}):
        with pytest.raises(InputError, match="counts tokens, and no model answers here"):
            label.load_scorer(changed := label.Config(**{**vars(config), **options}), label.load_tasks(changed))
    with pytest.raises(InputError, match="needs the column 'thing'"):
        label.load_scorer(label.Config(**{**vars(config), "judge": ("match:thing",)}), tasks)


@pytest.mark.parametrize("spec", ["lenght:4-30", "{tmp}/none"])
def test_a_wrong_reward_is_refused_with_the_grammar(spec, samples, tmp_path):
    config = label.Config(
        data=(tmp_path / "no.jsonl",), query_strategy="uncertainty", reward=(spec.format(tmp=tmp_path),)
    )
    with pytest.raises(InputError, match=re.escape(SPELLINGS)):
        label.load_tasks(config)
    with pytest.raises(InputError, match=re.escape(SPELLINGS)):
        label.load_scorer(label.Config(data=(samples,), judge=config.reward), [])


def test_the_page_asks_in_that_order(samples, tmp_path):
    config = label.Config(data=(samples,), labels_db=tmp_path / "labels.db", query_strategy="coreset", seed=3)
    as_they_came = label.load_tasks(label.Config(data=(samples,), labels_db=config.labels_db, seed=3))
    request = label.load_tasks(config)
    assert request != as_they_came
    assert {task.id for task in request} == {task.id for task in as_they_came}
    first = [task.prompt[0].content.split()[-2] for task in request if task.kind == "demonstrate"][:4]
    assert sorted(first) == sorted(COLOURS)  # every colour once
