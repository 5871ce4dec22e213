"""Over-optimization over a tiny demo: the reward models, wrong labels, what stands in its report."""

import json
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes import overopt


@pytest.fixture
def config(small_demo: Path, tmp_path: Path) -> overopt.Config:
    return overopt.Config(
        base_run=small_demo, out=tmp_path / "overopt", prompts=4, best_of=4, max_steps=3, quick=True, size="smoke"
    )


@pytest.mark.slow
def test_every_curve_is_measured_on_the_same_prompts(in_turn: None, config: overopt.Config) -> None:
    out = overopt.run(config)
    figures = json.loads((out / "overopt.json").read_text())
    rewards = ["centre", "labels-4", "flipped"]
    others = {"ppo-priced", "rloo", "grpo", "rloo-ensemble", "grpo-ensemble"}
    assert figures["rewards"] == rewards and figures["prompts"] == 4
    both = {f"{kind}-{name}" for kind in ("best of n", "ppo") for name in (*rewards, "ensemble")}
    assert set(figures["curves"]) == both | others
    starts = {row["points"][0]["gold"] for row in figures["curves"].values()}
    assert starts == {0.0} and [row["name"] for row in figures["dpo"]] == ["dpo-0.03", "dpo-0.1", "dpo-0.3"]
    best = figures["curves"]["best of n-centre"]["points"]
    assert [point["reward"] for point in best] == sorted(point["reward"] for point in best)
    assert "How far a reward model can be trusted" in (out / "overopt.html").read_text()
    before = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    assert overopt.run(config) == out
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == before


def test_a_quarter_of_the_rankings_is_turned_round(config: overopt.Config) -> None:
    count = overopt.write_flipped(config)
    rankings = [json.loads(line) for line in (config.labels / "train.jsonl").read_text().splitlines()]
    turned = [json.loads(line) for line in (config.out / "flipped" / "train.jsonl").read_text().splitlines()]
    changed = [(a["ranking"], b["ranking"]) for a, b in zip(rankings, turned) if a != b]
    assert len(turned) == count and len(changed) == round(overopt.FLIPPED * count) > 0
    for before, after in changed:
        assert sorted(range(len(before)), key=lambda i: before[i]) == sorted(range(len(after)), key=lambda i: -after[i])


def test_six_reward_models_vary_one_factor_each() -> None:
    config = overopt.Config()
    models = overopt.reward_models(config, 160)
    assert len(models) == 6 and [models[f"reward-labels-{part}"].max_prompts for part in (4, 16)] == [40, 10]
    assert models["reward-small"].model == config.out / "body-small"
    assert {each.model for name, each in models.items() if name not in ("reward-small", "reward-large")} == {
        config.base_run / "pretrain"
    }
    assert {each.model for each in overopt.bodies(config).values()} == {"pico", "micro"}


def test_gold_may_be_another_reward(config: overopt.Config, judge: Path) -> None:
    samples = [sample for _, sample in overopt.read_samples(config.base_run / "sample" / "samples.jsonl")][:2]
    rule = overopt.Config(base_run=config.base_run, gold=("length:1-3",))
    assert rule.labels == rule.out / "annotate"
    scores = overopt.gold_of(rule)(samples)
    expected = [[float(1 <= len(text.split()) <= 3) for text in row.completions] for row in samples]
    assert scores == expected
    truth = overopt.gold_of(config)(samples)
    assert truth[0] is not None and len(truth[0]) == len(samples[0].completions)


def test_what_cannot_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no finished world.*amenable demo"):
        overopt.run(overopt.Config(base_run=tmp_path, out=tmp_path / "out"))
    with pytest.raises(InputError, match="best_of"):
        overopt.Config(best_of=1)
