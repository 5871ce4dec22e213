"""The table of an evaluation: what was measured, and nothing else."""

import io
from typing import Any

from rich.console import Console

from amenable.evaluation.table import preference_lines, table_of, task_table


def vote(a: str, b: str, wins: float, judges: str = "heldout", decoding: str = "sampled") -> dict[str, Any]:
    return {"a": a, "b": b, "decoding": decoding, "judges": judges, "wins": wins, "low": 0.6, "high": 0.7, "n": 40}


SFT = {
    "gold": -0.24,
    "reward": 0.061,
    "kl": 0.0,
    "perplexity": 5.23,
    "length": 14.02,
    "ended": 1.0,
    "bpb": 0.59,
    "text_bits": [1, 2],
}
PPO = {"gold": None, "reward": 1.0, "kl": None, "length": 10.0, "ended": 0.5, "bpb": 0.6}
EVALUATION = {
    "models": {"sft": {**SFT, "greedy": {**SFT, "reward": 0.2}}, "ppo": {**PPO, "greedy": None}},
    "preference": [vote("sft", "ppo", 0.65), vote("sft", "ppo", 0.1, "training"), vote("dpo", "ppo", 0.3)],
}


def rows(evaluation: dict[str, Any]) -> list[list[str]]:
    report = io.StringIO()
    Console(file=report, width=130).print(table_of(evaluation))
    return [line.split() for line in report.getvalue().splitlines() if line.strip() and "─" not in line]


def test_every_model_has_a_row_a_decoding_and_every_measure_a_column() -> None:
    assert rows(EVALUATION) == [
        ["model", "answers", "gold", "reward", "KL", "ppl", "words", "ended", "bits/byte"],
        ["sft", "sampled", "-0.24", "0.06", "0.00", "5.2", "14.0", "100%", "0.590"],
        ["ppo", "sampled", "–", "1.00", "–", "–", "10.0", "50%", "0.600"],
        ["sft", "greedy", "-0.24", "0.20", "0.00", "5.2", "14.0", "100%", "0.590"],
    ]


def test_models_are_compared_with_the_reference_either_way_round() -> None:
    assert list(preference_lines(EVALUATION, "sft")) == [
        "ppo preferred to sft, sampled: 35% (30% to 40%, 40 prompts, judges: heldout)"
    ]
    assert list(preference_lines(EVALUATION, "ppo")) == [
        "sft preferred to ppo, sampled: 65% (60% to 70%, 40 prompts, judges: heldout)",
        "dpo preferred to ppo, sampled: 30% (60% to 70%, 40 prompts, judges: heldout)",
    ]
    assert list(preference_lines(EVALUATION, "runs/elsewhere")) == list(preference_lines(EVALUATION, "sft"))


def test_a_win_rate_at_equal_length_stands_beside() -> None:
    row = {**vote("sft", "ppo", 0.65, "judge"), "length_controlled": {"wins": 0.5, "low": 0.4, "high": 0.55}}
    evaluation = {**EVALUATION, "preference": [row]}
    assert list(preference_lines(evaluation, "sft")) == [
        "ppo preferred to sft, sampled: 35% (30% to 40%, 40 prompts, judges: judge); at equal length 50% (45% to 60%)"
    ]


def test_nobody_judges() -> None:
    assert list(preference_lines({**EVALUATION, "preference": []}, "sft")) == []


def test_tasks_show_every_metric_with_its_interval() -> None:
    metrics = {"acc": (0.5, 0.25, 0.75), "perplexity": (9.0, 8.0, 10.5)}
    table = task_table({"words": {"base": {"n": 4, "metrics": metrics}}})
    assert (
        next(iter(task_table({"w": {"b": {"n": 4, "metrics": metrics, "cut": 3}}}).columns[1].cells))
        == "4 (3 prompts cut)"
    )
    cells = [list(column.cells) for column in table.columns]
    assert cells == [
        ["words", ""],
        ["4", "4"],
        ["acc", "perplexity"],
        ["0.500 [0.250, 0.750]", "9.000 [8.000, 10.500]"],
    ]
