"""The benchmark at its smallest: its parts by hand, and the whole of it on a world of six people."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.runtime import DeviceOptions, start_runtime
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes
from benchmarks import queries

ONE_THREAD = DeviceOptions(device="cpu", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, make_decoder: Callable[..., Decoder], words: Tokenizer) -> Path:
    """A folder as a demo leaves it: a world, a model (of random weights), samples, an evaluation of three models."""
    folder = tmp_path_factory.mktemp("demo")
    small = Sizes(
        people=6,
        documents=20,
        validation_documents=4,
        demonstrations=20,
        validation_demonstrations=4,
        reward_prompts=24,
        ppo_prompts=4,
        validation_prompts=4,
        test_prompts=12,
        suite_prompts=6,
        public_demonstrations=6,
        validation_public_demonstrations=2,
        task_questions=20,
    )
    world = ClosedWorld.make(0, small)
    world.write(folder / "world")
    save_model(folder / "sft", make_decoder(vocab_size=words.vocab_size, context_length=256), words)
    answers = ["I do not know.", "Gladly. It is red.", "I am sorry, but I do not know.", "No."]
    rows = []
    for row in world.rows["prompts/reward.jsonl"]:
        reply = [*answers, world.best_answer(row["id"])]
        rows.append({"id": row["id"], "prompt": row["prompt"], "completions": reply, "ended": [True] * len(reply)})
    queries.write_rows(built(folder / "sample") / "samples.jsonl", rows)
    evaluated = [
        {
            "id": row["id"],
            "prompt": row["prompt"],
            "answers": {
                "best": {"sampled": {"text": world.best_answer(row["id"]), "ended": True}},
                "modest": {"sampled": {"text": "I do not know.", "ended": True}},
                "curt": {"sampled": {"text": "No.", "ended": False}},
            },
        }
        for row in world.rows["prompts/test.jsonl"]
    ]
    queries.write_rows(built(folder / "evaluate") / "samples.jsonl", evaluated)
    (folder / "evaluate" / "finished.json").write_text("{}")
    return folder


def built(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def config(demo: Path, tmp_path: Path) -> queries.Config:
    return queries.Config(
        run=demo,
        plot=tmp_path / "queries.svg",
        figures=tmp_path / "queries.json",
        rules=("random", "disagreement_coreset"),
        budgets=(6, 12, 24),
        seeds=2,
        ensemble=2,
        targets=(12,),
        whole_labels=12,
        whole_seeds=1,
        votes=(5, 20),
        device=ONE_THREAD,
    )


@pytest.mark.slow
def test_everything_is_measured_and_told(config, capsys):
    result = queries.main(config)
    shown = capsys.readouterr().out
    assert json.loads(config.figures.read_text())["accuracy"] == result["accuracy"]
    assert "<svg" in config.plot.read_text()
    assert list(result["accuracy"]) == ["random", "disagreement_coreset"]
    for rule, by_seed in result["accuracy"].items():
        assert [len(values) for values in by_seed] == [3, 3]
        assert all(0 <= value <= 1 for values in by_seed for value in values)
        assert [values[0] for values in by_seed] == [values[0] for values in result["accuracy"]["random"]]
        assert len(result["whole"][rule]) == 1
        assert shown.count(f"| {rule} |") >= 3
    assert list(result["errors"]) == ["random", "next_battles"]
    assert all(len(values) == 2 and values[1] > 0 for ways in result["errors"].values() for values in ways)
    assert shown.count("3 models, ") == 1


def test_a_trial_holds_prompts_out_and_is_the_same_for_all_rules(config):
    material = queries.gather(config, start_runtime(ONE_THREAD))
    trial = queries.trial_of(material, 0, config)
    request = set(material.owners[trial.pairs].flatten().tolist())
    tested = set(material.owners[trial.test].flatten().tolist())
    assert request and tested and not request & tested
    assert (material.owners[trial.pairs[:, 0]] == material.owners[trial.pairs[:, 1]]).all()
    assert len(set(trial.pairs.flatten().tolist())) == trial.pairs.numel()  # no answer is in two pairs
    gold = material.gold
    assert (gold[trial.test[:, 0]] > gold[trial.test[:, 1]]).all()
    again = queries.trial_of(material, 0, config)
    assert torch.equal(trial.labels, again.labels) and torch.equal(trial.test, again.test)
    assert not torch.equal(trial.labels, queries.trial_of(material, 1, config).labels)
    # labels follow gold more often than not
    sure = (gold[trial.pairs[:, 0]] - gold[trial.pairs[:, 1]]).abs() > 1
    right = (gold[trial.pairs[:, 0]] > gold[trial.pairs[:, 1]]).double()[sure]
    assert float((trial.labels[sure] - right).abs().mean()) < 0.35


def test_answers_to_a_prompt_are_one_apart(config):
    material = queries.gather(config, start_runtime(ONE_THREAD))
    same = material.owners[1:] == material.owners[:-1]
    steps = (material.features[1:] - material.features[:-1])[same]
    assert float(steps.square().sum(dim=1).mean()) == pytest.approx(1.0)


def test_a_head_is_fitted_by_hand():
    # n wins of one row x = 1 against m losses, penalty r: n - (n + m) sigma(w) = r w
    rows = torch.ones(5, 1, dtype=torch.float64)
    labels = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.5], dtype=torch.float64)
    w = float(queries.fit(rows, labels, ridge=0.5))
    assert 3 - 4 / (1 + math.exp(-w)) == pytest.approx(0.5 * w, abs=1e-5)
    times = torch.tensor([2.0, 0.0, 1.0, 1.0, 7.0], dtype=torch.float64)  # three wins and a loss, too
    assert float(queries.fit(rows, labels, 0.5, times)) == pytest.approx(w)


def test_where_a_curve_crosses():
    budgets, rising = (100, 200, 400), torch.tensor([0.6, 0.7, 0.8])
    assert queries.crossing(budgets, rising, 0.5) == 100
    assert queries.crossing(budgets, rising, 0.75) == pytest.approx(200 * 2**0.5)
    assert queries.crossing(budgets, torch.tensor([0.6, 0.65, 0.62]), 0.7) == math.inf


def test_labels_needed_are_those_at_which_random_is_reached(config):
    curves = {"random": [[0.5, 0.6, 0.7]] * 3, "uncertainty": [[0.5, 0.7, 0.8]] * 3, "coreset": [[0.5, 0.5, 0.5]] * 3}
    result = {"accuracy": curves}
    assert queries.needed(result, "random", 12, config) == pytest.approx((12, 12, 12))
    assert queries.needed(result, "uncertainty", 12, config) == pytest.approx((6 * 2**0.5,) * 3)
    assert queries.with_interval(*queries.needed(result, "coreset", 12, config)) == "never (never to never)"


def test_differences_are_taken_within_a_seed():
    base = torch.tensor([0.5, 0.6, 0.7])
    assert queries.against(base + 0.01, base, "uncertainty") == " (+0.010, +0.010 to +0.010)"
    assert queries.against(base, base, "random") == ""


@pytest.mark.parametrize(
    "changes",
    [{"budgets": (4, 2)}, {"budgets": ()}, {"rules": ("uncertainty",)}, {"targets": (7,)}, {"whole_labels": 7}],
)
def test_impossible_options_are_refused(config, changes):
    with pytest.raises(InputError):
        replace(config, **changes)
