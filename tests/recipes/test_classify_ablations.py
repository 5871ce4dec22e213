"""Ablations of a classifier: each runs once, on the same examples, beside a bag of words."""

import json
from dataclasses import replace

import pytest
import torch

from amenable.recipes import classify_ablations
from amenable.recipes.classify_ablations import AS_IS, NO_LM, NO_PRETRAINING, WORDS
from amenable.train import loading
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions
from tests.conftest import MANNERS, THINGS, say, write_rows


@pytest.fixture
def config(base, tmp_path):
    rows = [
        {"text": f"{say(colour, thing, manner)} {i}", "label": manner}
        for i in range(3)
        for colour, things in THINGS.items()
        for thing in things[:2]
        for manner in MANNERS
    ]
    return classify_ablations.Config(
        model=base,
        data=(write_rows(tmp_path / "rows.jsonl", rows),),
        out=tmp_path / "ablations",
        epochs=1,
        batch_size=12,
        optimizer=OptimizerConfig(learning_rate=3e-3),
        validation_split=0.25,
        device=DeviceOptions("cpu", "fp32", 1),
    )


def test_one_table_of_all(config, runtime, capsys):
    pytest.importorskip("sklearn")
    out = classify_ablations.run(config)
    figures = json.loads((out / "ablations.json").read_text("utf-8"))
    assert list(figures["classifiers"]) == [AS_IS, NO_LM, NO_PRETRAINING, WORDS]
    assert {row["n"] for row in figures["classifiers"].values()} == {12}
    assert figures["classifiers"][WORDS]["accuracy"]["value"] == 1.0, "a word tells these texts apart"
    assert set(figures["differences"]) == {NO_LM, NO_PRETRAINING, WORDS}
    assert all(
        0 <= row["p"] <= 1 and row["low"] <= row["value"] <= row["high"] for row in figures["differences"].values()
    )
    page, shown = (out / "ablations.html").read_text("utf-8"), capsys.readouterr().err
    assert "no auxiliary loss" in page and "Gladly" in page and "bag of words" in shown
    trained, fresh = (loading.load_policy(folder, runtime)[0] for folder in (config.model, out / "fresh"))
    assert fresh.config == trained.config and not torch.equal(fresh.unembedding, trained.unembedding)
    before = (out / "no-pretraining" / "finished.json").stat().st_mtime_ns
    classify_ablations.run(config)
    assert (out / "no-pretraining" / "finished.json").stat().st_mtime_ns == before, "what has finished stays"


def test_each_changes_one_thing(config):
    assert [*classify_ablations.variants_of(replace(config, ablations=()))] == [AS_IS]
    variants = classify_ablations.variants_of(config)
    assert variants[NO_LM].lm_coef == 0 and variants[NO_LM].model == variants[AS_IS].model
    assert variants[NO_PRETRAINING].lm_coef == 0.5 and variants[NO_PRETRAINING].model == config.out / "fresh"
    assert len({options.out for options in variants.values()}) == 3
    virtual = classify_ablations.variants_of(replace(config, prefix_tuning=4))
    assert virtual[AS_IS].prefix_tuning == 4 and virtual[NO_PRETRAINING].virtual_tokens == 0
