"""The report of a race: gains paired over prompts and pooled over seeds, gold at equal seconds, the sentences."""

import json
from pathlib import Path
from typing import Any

import pytest

from amenable.recipes.reports import race_page


def answer(gold: float, kl: float = 0.0) -> dict[str, Any]:
    return {"gold": gold, "reward": gold / 2, "kl": kl, "tokens": 5}


def rows(lift: float) -> list[dict[str, Any]]:
    """Four prompts, on each of which the policy's gold is `lift` above the SFT model's."""
    models = {"sft": lambda i: answer(float(i)), "rloo": lambda i: answer(i + lift, kl=2.0)}
    return [{"answers": {name: {"sampled": of(i), "greedy": of(i)} for name, of in models.items()}} for i in range(4)]


def test_a_gain_is_paired_and_pooled_over_seeds() -> None:
    gain = race_page.change([rows(0.5), rows(1.0)], "rloo", "sampled", "gold")
    assert gain["value"] == pytest.approx(0.75) and gain["seeds"] == pytest.approx([0.5, 1.0])
    assert gain["low"] == pytest.approx(0.75) == gain["high"]  # every prompt gains alike
    spread = rows(0.0)
    spread[0]["answers"]["rloo"]["greedy"] = answer(4.0)
    gain = race_page.change([spread, spread, spread], "rloo", "greedy", "gold")
    # gains of 4, 0, 0 and 0, three times the same: four prompts, not twelve
    assert gain["value"] == 1.0 and gain["high"] - 1.0 == pytest.approx(3.1824 * 2.0 / 2)
    assert race_page.means([rows(0.5)], "rloo") == {"gold": 2.0, "reward": 1.0, "kl": 2.0, "tokens": 5.0}


def test_gold_at_equal_seconds_lies_between_two_steps() -> None:
    curve = [{"share": share, "gold": gold} for share, gold in ((0.0, 0.0), (0.5, 2.0), (1.0, 3.0))]
    assert race_page.at_seconds({"seconds": 100.0, "curve": curve}, 25.0) == pytest.approx(1.0)
    assert race_page.at_seconds({"seconds": 100.0, "curve": curve}, 100.0) == pytest.approx(3.0)
    assert race_page.at_seconds({"seconds": 100.0, "curve": []}, 25.0) is None


def row(gold: float, reward: float = 1.0, seeds: tuple[float, ...] = ()) -> dict[str, Any]:
    """An algorithm whose gains have intervals of 0.2 to either side."""
    gains = [
        {"value": value, "low": value - 0.2, "high": value + 0.2, "seeds": seeds or (value,)}
        for value in (gold, reward)
    ]
    return {"gain": gains[0], "gain_greedy": gains[0], "reward_gain_greedy": gains[1]}


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        (row(0.3), "beats it"),
        (row(0.3, seeds=(0.7, -0.1)), "does not with every seed"),
        (row(0.1, 0.1), "does not: nor does its reward rise"),
        (row(-0.3), "does not: its reward rises, gold falls"),
        (row(0.1), "does not: its reward rises, gold does not beyond chance"),
    ],
)
def test_a_verdict_has_a_reason(figures: dict[str, Any], text: str) -> None:
    assert race_page.verdict(figures) == text


def test_the_sentences_name_who_does_not_beat_the_sft_model() -> None:
    figures = {"sft": {"gold": 0.5}, "algorithms": {"ppo": row(0.3), "kto": row(0.1, 0.1)}}
    assert race_page.headline(figures) == [
        "ppo gains most gold: +0.30 (0.10 to 0.50) over the SFT model's 0.50.",
        "Greedy against greedy, 1 of 2 beat the SFT model beyond chance: ppo.",
        "kto does not: nor does its reward rise (+0.10).",
    ]
    figures["algorithms"] |= {"trpo": row(-0.3), "dpo": row(0.05, 0.1), "ppo": row(-0.4)}
    assert race_page.headline(figures)[1:] == [
        "Greedy against greedy, 0 of 4 beat the SFT model beyond chance.",
        "ppo, trpo do not: their rewards rise, gold falls (−0.40, −0.30).",
        "kto, dpo do not: nor do their rewards rise (+0.10, +0.05).",
    ]


def test_memory_is_that_of_the_largest_process(tmp_path: Path) -> None:
    assert race_page.peak_of(tmp_path) is None
    timings = [{"step": 1, "peak_bytes": 5}, {"step": 2, "peak_bytes": 9}, {"step": 3, "peak_bytes": None}]
    (tmp_path / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in timings))
    assert race_page.peak_of(tmp_path) == 9


@pytest.mark.parametrize(("tried", "remark"), [(2560, True), (5120, False)])
def test_a_tuning_that_was_shorter_than_the_comparison_says_what_it_misses(tried: int, remark: bool) -> None:
    tuning = {"ppo": {"0.0001": 0.5, "0.0003": 0.25}}
    grid = race_page.tuning_grid({"answers": 5120, "tuning_answers": tried, "tuning": tuning})
    assert grid.rows == [("ppo", "0.50", "0.25")]
    assert f"after {tried} answers" in grid.note and ("--tuning-share 1" in grid.note) == remark
