"""Rewards on the same held-out rankings."""

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback.store import Store
from amenable.models.heads import ScalarModel
from amenable.recipes.reports import compare_reward_models
from amenable.rewards.spec import Reward, load_reward
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.runtime import Runtime

PROMPT = (Message("user", "name a rose"),)


@pytest.fixture
def load(runtime: Runtime) -> Callable[..., dict[str, Reward]]:
    """Loads rewards by name."""
    return lambda **specs: {name: load_reward(spec, runtime, 2000) for name, spec in specs.items()}


@pytest.fixture
def untrained(make_scalar_model: Callable[..., ScalarModel], words: Tokenizer, tmp_path: Path) -> Path:
    """A reward model that has learned nothing, of the session's tokenizer."""
    save_model(tmp_path / "untrained", make_scalar_model(seed=3, vocab_size=words.vocab_size), words)
    return tmp_path / "untrained"


def by_length(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [float(len(completion)) for completion in completions]


def shortest(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [-float(len(completion)) for completion in completions]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_trained_model_predicts_best_and_is_measured_in_pairs(
    load: Callable[..., dict[str, Reward]], untrained: Path, judge: Path, files: Any
) -> None:
    compared = compare_reward_models.compare(load(untrained=untrained, judge=judge, long=by_length), files.rankings, 0)
    models = compared["models"]
    assert compared["best"] == "judge" and (compared["rankings"], compared["pairs"], compared["left_out"]) == (
        96,
        192,
        0,
    )
    assert models["judge"]["accuracy"] > 0.95 > 0.75 > models["untrained"]["accuracy"]
    assert models["judge"]["loss"] < models["untrained"]["loss"] and models["judge"]["brier"] < 0.25
    for name in ("untrained", "long"):
        gap = models[name]["difference"]
        assert gap["value"] == pytest.approx(models[name]["accuracy"] - models["judge"]["accuracy"])
        assert gap["high"] < 0
    assert "difference" not in models["judge"] and set(models["judge"]["by_annotator"]) == {"a", "b"}
    assert models["long"]["accuracy_longer"] == 1.0 and models["long"]["accuracy_shorter"] == 0.0
    assert compared["agreement"][0]["a"] == "untrained" and compared["agreement"][0]["b"] == "judge"
    json.dumps(compared, allow_nan=False)


def test_figures_by_hand_and_the_worst_group_is_named(load: Callable[..., dict[str, Reward]], tmp_path: Path) -> None:
    """Of 20 pairs the people of one country prefer the longer answer, those of another the shorter."""
    rows = [
        {"prompt": f"name {i}", "chosen": pair[0], "rejected": pair[1], "country": country, "annotator": f"w{i % 4}"}
        for i in range(20)
        for country, pair in (("north", ("a long one", "one")), ("south", ("one", "a long one")))
    ]
    data = write(tmp_path / "rows.jsonl", rows)
    compared = compare_reward_models.compare(load(long=by_length, short=shortest), data, 0, group_by="country")
    groups = compared["models"]["long"]["by_group"]
    assert groups["north"]["accuracy"] == 1.0 and groups["south"]["accuracy"] == 0.0 and groups["south"]["pairs"] == 20
    assert compared["models"]["long"]["by_section"] == {}, "countries are no subsets"
    assert compared["models"]["long"]["worst"] == "south" and compared["models"]["short"]["worst"] == "north"
    assert compared["models"]["short"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert compared["agreement"] == [
        {"a": "long", "b": "short", "value": 0.0, "low": 0.0, "high": pytest.approx(0.161, abs=1e-3)}
    ]
    assert [row["strength"] for row in compared["disputes"]] == [7.0] * 6
    with pytest.raises(InputError, match="no ranking has the column 'land' of --group-by; columns are: country"):
        compare_reward_models.compare(load(long=by_length, short=shortest), data, 0, group_by="land")


def test_blocks_change_nothing(
    load: Callable[..., dict[str, Reward]], judge: Path, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = load(judge=judge, long=by_length)
    whole = compare_reward_models.compare(rewards, files.rankings, 0)
    monkeypatch.setattr(compare_reward_models, "BLOCK", 7)
    parts = compare_reward_models.compare(rewards, files.rankings, 0)
    for name, figures in whole["models"].items():
        for key in ("accuracy", "low", "high", "loss", "loss_low", "brier", "ece", "pairs", "accuracy_shorter"):
            assert parts["models"][name][key] == pytest.approx(figures[key], abs=1e-5), key
    assert [row["id"] for row in parts["disputes"]] == [row["id"] for row in whole["disputes"]]
    assert compare_reward_models.compare(rewards, files.rankings, 0, limit=10)["rankings"] == 10


def test_a_store_of_labels_is_data_too(load: Callable[..., dict[str, Reward]], tmp_path: Path) -> None:
    rewards = load(long=by_length, short=shortest)
    with Store(tmp_path / "labels.db") as store:
        with pytest.raises(InputError, match="there is no label to compare with"):
            compare_reward_models.compare(rewards, store.path, 0)
        answers = ("a rose", "a red rose")
        store.add_rankings([Ranking(PROMPT, answers, (2.0, 1.0), "r", name) for name in ("Ann", "Bo")])
        store.add_rankings([Ranking(PROMPT, answers, (1.0, 1.0), "r", "Cy")])  # a tie
    compared = compare_reward_models.compare(rewards, tmp_path / "labels.db", 0)
    assert compared["best"] == "long" and compared["models"]["short"]["accuracy"] == 0.0
    assert set(compared["models"]["long"]["by_annotator"]) == {"Ann", "Bo"}
    assert compared["models"]["short"]["difference"]["low"] is None, "a single prompt has no interval"


def test_models_of_different_tokenizers_and_rankings_that_do_not_fit(
    load: Callable[..., dict[str, Reward]], judge: Path, other_judge: Path, files: Any, tmp_path: Path
) -> None:
    rewards = load(judge=judge, other=other_judge)
    compared = compare_reward_models.compare(rewards, files.pairs, 0)
    assert 0 < compared["rankings"] <= 96 and compared["left_out"] == 96 - compared["rankings"]
    assert compared["models"]["judge"]["accuracy"] > compared["models"]["other"]["accuracy"]
    long = {"prompt": "name a rose", "chosen": "a rose " * 60, "rejected": "lime"}
    short = {"prompt": "name a leaf", "chosen": "a leaf", "rejected": "lime"}
    rewards = load(judge=judge, again=f"{judge}=2")
    compared = compare_reward_models.compare(rewards, write(tmp_path / "two.jsonl", [long, short]), 0)
    assert (compared["rankings"], compared["left_out"]) == (1, 1)
    with pytest.raises(InputError, match="no ranking fits"):
        compare_reward_models.compare(rewards, write(tmp_path / "one.jsonl", [long]), 0)


def test_what_a_reward_lacks_stops_it_before_any_score(
    load: Callable[..., dict[str, Reward]], assistant: Path, files: Any
) -> None:
    with pytest.raises(InputError, match=r"run: .*reward"):
        load(judge=assistant)
    with pytest.raises(InputError, match="needs the column 'answer'"):
        compare_reward_models.compare(load(a="match:answer", b=by_length), files.pairs, 0)
    with pytest.raises(InputError, match="counts tokens"):
        compare_reward_models.compare(load(a="tokens:1-9", b=by_length), files.pairs, 0)


def test_a_prompt_that_several_people_judged_is_one_cluster() -> None:
    scored = compare_reward_models.ScoredPairs([array("d")])
    ranking = Ranking(PROMPT, ("a", "b", "c"), (1.0, 2.0, 2.0), "r", "Ann")
    scored.add(ranking, [[3.0, 1.0, 0.0]], 4, "north")
    assert list(scored.gaps[0]) == [2.0, 3.0] and list(scored.prompts) == [4, 4] and scored.groups == ["north"] * 2
    assert list(scored.lengths) == [1, 1, 1, 1] and scored.rankings == 1
    values, prompts = torch.tensor([1.0] * 50 + [0.0] * 50), torch.tensor([0] * 50 + [1] * 50)
    gap = compare_reward_models.mean_difference(values, prompts, 0)
    assert gap == {"value": 0.5, "low": None, "high": None}, "two prompts have no interval, however many pairs"
    gap = compare_reward_models.mean_difference(values, prompts * 10 + torch.arange(100) % 10, 0)
    assert gap["low"] < 0.35 and gap["high"] > 0.65, "twenty values, not a hundred"


def test_a_group_of_few_pairs_is_not_the_worst() -> None:
    groups = {
        "a": {"accuracy": 0.7, "pairs": 50},
        "b": {"accuracy": 0.6, "pairs": 20},
        "c": {"accuracy": 0, "pairs": 3},
    }
    assert compare_reward_models.worst_group(groups) == "b"
    assert compare_reward_models.worst_group({name: groups[name] for name in "ac"}) is None


def test_the_pair_that_divides_the_rewards_most() -> None:
    ranking = Ranking(PROMPT, ("a", "b", "c"), (1.0, 2.0, 3.0), "r", "Ann")
    (row,) = compare_reward_models.disagreement(ranking, {"x": [3, 2, 0], "y": [1, 2, 9], "z": [0, 0, 0]})
    assert row["strength"] == 3 and [answer["text"] for answer in row["answers"]] == ["a", "c"]
    assert row["answers"][1]["scores"] == {"x": 0, "y": 9, "z": 0}
    assert compare_reward_models.disagreement(ranking, {"x": [3, 2, 1], "y": [9, 1, 0]}) == []
