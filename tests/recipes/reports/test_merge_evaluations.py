import json
from pathlib import Path

import torch

from amenable.claims.evidence import Evidence
from amenable.claims.stage_folders import read_stages
from amenable.evaluation.preference import GoldCache
from amenable.recipes.reports import merge_evaluations


def add(run: Path, name: str, evaluation: dict) -> None:
    (run / name).mkdir()
    (run / name / "config.yaml").write_text("command: evaluate\n")
    (run / name / "evaluation.json").write_text(json.dumps(evaluation))


def test_models_of_several_folders_stand_side_by_side(demo_run: Path) -> None:
    row = {"a": "best16", "b": "mine", "decoding": "sampled", "judges": "heldout"}
    add(
        demo_run,
        "evaluate-sft",
        {
            "models": {"mine": {"gold": 1}, "best16": {"gold": 2}, "sft": {"gold": 9}},
            "suites": {"respect": {"best16": {"rude": 0.1}}, "closed": {"mine": {}}},
            "tasks": {"facts": {"mine": {"accuracy": 0.5}}},
            "preference": [row],
        },
    )
    result = merge_evaluations.merge(read_stages(demo_run))
    assert list(result["models"]) == ["base", "sft", "best16", "dpo", "ppo", "mine"]
    assert result["models"]["sft"]["gold"] == -0.5, "a model told twice is taken from the first folder"
    assert list(result["suites"]["respect"]) == ["sft", "best16", "ppo"] and list(result["suites"]) == [
        "respect",
        "closed",
    ]
    assert list(result["tasks"]["facts"]) == ["base", "sft", "dpo", "ppo", "mine"]
    assert result["preference"][-1] == row and "sft" in result["best_of"]


def test_nothing_evaluated_is_empty() -> None:
    assert merge_evaluations.merge([]) == {"models": {}, "suites": {}, "tasks": {}, "best_of": {}, "preference": []}


class Town:
    """A world whose held-out annotators prefer the longer answer, each pair by three of four."""

    def gold(self, prompt_id: str, text: str, ended: bool) -> int:
        return len(text)

    def votes(self, first: list[int], second: list[int], generator: torch.Generator, held_out: bool) -> torch.Tensor:
        assert held_out
        return torch.tensor([0.75 if a > b else 0.25 for a, b in zip(first, second)])


def evidence(run: Path, town: Town | None) -> Evidence:
    """Evidence of a run, in a world of our own."""
    result = Evidence(run)
    vars(result).update(gold=GoldCache(town) if town else None, seed=0)
    return result


def test_only_pairs_of_different_folders_are_judged_anew(demo_run: Path) -> None:
    add(demo_run, "evaluate-best", {"models": {"best16": {}}})
    (demo_run / "evaluate-best" / "finished.json").write_text("{}")
    reply = {"best16": {"sampled": {"text": "x" * 60, "ended": True}, "greedy": None}}
    rows = [{"id": f"p{i}", "prompt": "?", "answers": reply} for i in range(8)]
    (demo_run / "evaluate-best" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = merge_evaluations.merge(read_stages(demo_run))
    result = merge_evaluations.preference_across(evidence(demo_run, Town()), evaluation)
    assert [(row["a"], row["b"], row["decoding"]) for row in result] == [
        ("base", "best16", "sampled"),
        ("sft", "best16", "sampled"),
        ("best16", "dpo", "sampled"),
        ("best16", "ppo", "sampled"),
    ], "the others were compared in their own folder; best of n has no greedy answers"
    # the best of 16 say 60 characters: more than base (59), PPO and DPO, less than SFT
    assert [row["wins"] for row in result] == [0.25, 0.75, 0.75, 0.75]
    assert {(row["n"], row["judges"]) for row in result} == {(8, "heldout")}
    assert all(0 <= row["low"] < row["wins"] < row["high"] <= 1 for row in result)


def test_without_a_world_nobody_can_judge(demo_run: Path) -> None:
    add(demo_run, "evaluate-best", {"models": {"best16": {}}})
    evaluation = merge_evaluations.merge(read_stages(demo_run))
    assert merge_evaluations.preference_across(evidence(demo_run, None), evaluation) == []
