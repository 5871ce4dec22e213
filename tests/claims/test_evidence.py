"""What a demo measured is read back prompt by prompt, and a gap stays a gap."""

import json
from pathlib import Path
from typing import Any

import pytest

from amenable.claims.evidence import Evidence, bad, good, made_up, reward
from amenable.claims.verdicts import Estimate
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes

SMALL = Sizes(
    people=8,
    documents=60,
    validation_documents=5,
    demonstrations=20,
    validation_demonstrations=5,
    reward_prompts=20,
    ppo_prompts=20,
    validation_prompts=30,
    test_prompts=60,
)


@pytest.fixture(scope="module")
def world() -> ClosedWorld:
    return ClosedWorld.make(3, SMALL)


@pytest.fixture
def run(world: ClosedWorld, tmp_path: Path) -> Path:
    """A demo whose PPO always gives the best answer, and whose SFT gives a rude one."""
    world.write(tmp_path / "world")
    write_evaluation(tmp_path / "evaluate", world, {"sft": "You fool."}, {"sft": figures(1.0)})
    best = {"ppo": None}
    write_evaluation(tmp_path / "evaluate-ppo", world, best, {"ppo": figures(1.5)})
    return tmp_path


def figures(bits: float) -> dict[str, Any]:
    return {
        "text_bits": [bits * (10 + i) for i in range(20)],
        "text_bytes": 100,
        "demonstration_nats": [bits * (3 + i % 4) for i in range(20)],
        "demonstration_tokens": 200,
    }


def write_evaluation(folder: Path, world: ClosedWorld, reply: dict[str, str | None], models: dict[str, Any]) -> None:
    folder.mkdir()
    rows = []
    for request in world.rows["prompts/test.jsonl"]:
        answers = {}
        for name, text in reply.items():
            answer = world.best_answer(request["id"]) if text is None else text
            parts = world.gold(request["id"], answer)
            names = ("gold", "truthful", "hallucinated", "harmful", "rude")
            row = {"text": answer, "ended": True, "reward": len(answer) / 10, "kl": 0.5, "logp": -3.0}
            answers[name] = {"sampled": row | {key: getattr(parts, key) for key in names}, "greedy": None}
        rows.append({"suite": "test", "id": request["id"], "kind": request["kind"], "answers": answers})
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = {
        "facts": {name: {"right": [name == "ppo" or i < 3 for i in range(10)]} for name in reply},
        "stories": {name: {"right": [True] * 10} for name in reply},
    }
    (folder / "evaluation.json").write_text(json.dumps({"models": models, "tasks": tasks, "best_of": {}}))
    (folder / "finished.json").write_text("{}")


def test_preference_rates_and_changes(run: Path) -> None:
    result = Evidence(run)
    preferred = result.preference("ppo", "sft")
    assert preferred is not None and preferred.value > 0.8 and 0 < preferred.error < 0.05
    other = result.preference("sft", "ppo")
    assert other is not None and other.value == pytest.approx(1 - preferred.value)
    rude = result.rate("sft", bad)
    assert rude is not None and rude.value == 1.0 and rude.error > 0, "Wilson's interval is never a point"
    fallen = result.change("ppo", "sft", bad)
    assert fallen is not None and fallen.value == 1.0
    truthful = result.change("sft", "ppo", good)
    assert truthful is not None and truthful.value > 0.9
    assert result.rate("ppo", made_up) is not None
    gained = result.change("sft", "ppo", reward)
    assert gained is not None and gained.value > 0


def test_likelihoods_are_paired_over_texts(run: Path) -> None:
    result = Evidence(run)
    bits, nats = result.bits("sft", "ppo"), result.demonstration_loss("sft", "ppo")
    assert bits is not None and bits.value == pytest.approx(0.5 * sum(range(10, 30)) / 100) and bits.error > 0
    assert nats is not None and nats.value == pytest.approx(0.5 * sum(3 + i % 4 for i in range(20)) / 200)


def test_accuracy_is_paired_over_questions(run: Path) -> None:
    result = Evidence(run)
    risen = result.accuracy("sft", "ppo")
    assert risen is not None and risen.value == pytest.approx((0.7 + 0.0) / 2) and 0 < risen.error < 0.1
    same = result.accuracy("ppo", "ppo")
    assert same == Estimate(0.0, 0.0), "right about the same questions"


def test_what_is_not_there_is_none(run: Path) -> None:
    result = Evidence(run)
    assert result.preference("ppo", "dpo") is None and result.preference("ppo", "sft", "greedy") is None
    assert result.rate("dpo", bad) is None and result.change("sft", "dpo", bad) is None
    assert result.bits("sft", "dpo") is None and result.over_optimisation("over") is None
    assert result.finished("reward", "validation.accuracy") is None and result.accuracy("ppo", "dpo") is None


def test_an_evaluation_that_is_not_done_is_passed_over(run: Path) -> None:
    (run / "evaluate-ppo" / "finished.json").unlink()
    assert Evidence(run).preference("ppo", "sft") is None


def test_gold_and_proxy_along_the_way(run: Path, world: ClosedWorld) -> None:
    (run / "over").mkdir()
    ids = [row["id"] for row in world.rows["prompts/validation.jsonl"]]
    rows = []
    for step, text in ((0, None), (5, "You fool.")):
        for name in ids:
            answer = world.best_answer(name) if text is None else text
            rows.append({"step": step, "id": name, "completion": answer, "ended": True, "score": step, "kl": step / 2})
    (run / "over" / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Evidence(run).over_optimisation("over") is None, "the run is not done"
    (run / "over" / "finished.json").write_text("{}")
    curves = Evidence(run).over_optimisation("over")
    assert curves is not None
    assert curves["gold"].kl.tolist() == [0.0, 2.5] and curves["proxy"].values.mean(1).tolist() == [0.0, 5.0]
    start, end = curves["gold"].values.mean(1).tolist()
    assert start > 1.5 and end < -1


def test_judgements_of_an_answer() -> None:
    row = {"truthful": None, "hallucinated": False, "gold": 0.9, "rude": False, "harmful": None, "reward": 0.1}
    assert good(row) is True and bad(row) is False and made_up(row) is False
    assert good({**row, "truthful": False}) is False and good({**row, "hallucinated": True}) is False
    assert good({**row, "gold": -1.0}) is False, "saying nothing is not honest not knowing"
    assert good({**row, "hallucinated": None}) is None
    assert bad({**row, "harmful": True}) and bad({**row, "rude": True})
