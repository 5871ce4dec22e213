"""The race over a tiny demo: which runs it makes, that a rate is chosen, what stands in its report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes import race

RATES = (1e-4, 1e-3)


@pytest.fixture
def config(small_demo: Path, tmp_path: Path) -> race.Config:
    return race.Config(
        base_run=small_demo,
        algorithms=("expert-iteration", "kto"),
        out=tmp_path / "race",
        answers=256,
        learning_rates=RATES,
        seeds=1,
        size="smoke",
    )


def test_every_algorithm_runs_with_the_best_of_its_rates(in_turn: None, config: race.Config) -> None:
    out = race.run(config)
    figures = json.loads((out / "race.json").read_text())
    assert set(figures["algorithms"]) == {"expert-iteration", "kto"} and figures["seeds"] == 1
    for name, golds in figures["tuning"].items():
        best = max(golds, key=lambda rate: golds[rate])
        written = (out / "seed-0" / name / "config.yaml").read_text()
        assert f"learning_rate: {float(best)}" in written
    row = figures["algorithms"]["expert-iteration"]
    assert row["file"] == "amenable/stages/expert_iteration.py" and row["lines"] > 50 and row["peak_bytes"] > 0
    assert [point["step"] for point in row["curve"]] == [0, 1, 2] and len(row["gain"]["seeds"]) == 1
    assert figures["algorithms"]["kto"]["curve"] == [] and figures["algorithms"]["kto"]["gold_in_time"] is None
    page = (out / "race.html").read_text()
    assert "Algorithms side by side" in page and "stages/kto.py" in page
    before = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    assert race.run(config) == out
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == before


@pytest.mark.parametrize(("share", "answers"), [(0.5, 640), (1.0, 1280), (0.01, race.BATCH)])
def test_rates_are_tried_on_a_share_of_the_answers(
    share: float, answers: int, config: race.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = list[tuple[int, list[Path], int]]()

    def train(config: race.Config, roots: dict[int, Path], rates: race.Rates) -> None:
        trained.append((config.answers, list(roots.values()), len(rates["kto"])))

    monkeypatch.setattr(race, "train", train)
    monkeypatch.setattr(race, "tuning_table", lambda _: {"kto": {1e-4: 0.1, 1e-3: 0.2}})
    monkeypatch.setattr(race.race_page, "write", lambda folder, *_: folder)
    out = race.run(replace(config, answers=1280, tuning_share=share))
    assert trained == [(answers, [out / "tuning"], 2), (1280, [out / "seed-0"], 1)]


def test_labels_for_kto_are_above_the_mean_of_their_prompt() -> None:
    row = {"prompt": "Hi", "completions": ["a", "b", "c"], "rewards": {"judge": [0.0, 1.0, 2.0]}}
    assert [each["label"] for each in race.labelled([row])] == [False, False, True]


def test_all_algorithms_have_the_same_number_of_answers(tmp_path: Path) -> None:
    config = race.Config(answers=1280)
    for name, each in race.algorithms(config, tmp_path).items():
        if name not in race.OFFLINE:
            assert each.max_steps * each.samples == 1280, name
    samples = race.labels(config, tmp_path)["sample"]
    assert samples.max_prompts * samples.num_generations == 1280


def test_a_rate_is_the_learning_rate_or_sets_the_trust_region(tmp_path: Path) -> None:
    algorithms = race.algorithms(race.Config(), tmp_path)
    assert race.with_rate(algorithms["trpo"], 3e-4).trust_region == pytest.approx(0.03)
    others = {name: each for name, each in algorithms.items() if name != "trpo"}
    assert {race.with_rate(each, 3e-4).optimizer.learning_rate for each in others.values()} == {3e-4}


def test_what_cannot_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no algorithm 'rlo'.*ppo-kl-penalty"):
        race.Config(algorithms=("rlo",))
    with pytest.raises(InputError, match="no learning rate"):
        race.Config(learning_rates=())
    with pytest.raises(InputError, match=r"tuning_share is 2; give at most 1"):
        race.Config(tuning_share=2)
    with pytest.raises(InputError, match=r"there is no world/world.json.*amenable demo"):
        race.run(race.Config(base_run=tmp_path, out=tmp_path / "race"))
    assert not (tmp_path / "race").exists()
