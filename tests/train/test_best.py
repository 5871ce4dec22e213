"""The best weights are kept as they were."""

import torch

from amenable.train.best import BestWeights


def linear(value: float) -> torch.nn.Linear:
    module = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(module.weight, value)
    return module


def test_the_highest_score_wins_and_comes_back() -> None:
    module = linear(0.0)
    best = BestWeights(module, "eval/score")
    for step, (value, score) in enumerate([(1.0, 0.2), (2.0, 0.9), (3.0, 0.5)], start=1):
        torch.nn.init.constant_(module.weight, value)
        assert best.update({"eval/score": score}, step) == (step < 3)
    best.restore()
    assert module.weight.item() == 2.0 and best.step == 2


def test_the_lowest_loss_wins_where_it_is_a_loss() -> None:
    best = BestWeights(linear(1.0), "eval/loss", lowest=True)
    assert best.update({"eval/loss": 2.0}, 1) and best.update({"eval/loss": 1.0}, 2)
    assert not best.update({"eval/loss": 1.5}, 3) and best.step == 2


def test_steps_without_the_metric_cost_nothing() -> None:
    best = BestWeights(linear(1.0), "eval/score")
    assert not best.update({"loss": 1.0}, 1)
    assert best.weights == {} and best.state_dict() == {"score": None, "step": 0, "weights": {}}


def test_state_survives_a_checkpoint() -> None:
    module = linear(4.0)
    best = BestWeights(module, "eval/score")
    best.update({"eval/score": 1.0}, 3)
    state = best.state_dict()
    torch.nn.init.constant_(module.weight, 5.0)
    again = BestWeights(module, "eval/score")
    again.load_state_dict(state)
    assert not again.update({"eval/score": 0.5}, 4)
    again.restore()
    assert module.weight.item() == 4.0


def test_nothing_measured_changes_nothing() -> None:
    module = linear(7.0)
    again = BestWeights(module, "eval/score")
    again.load_state_dict(BestWeights(module, "eval/score").state_dict())
    again.restore()
    assert module.weight.item() == 7.0 and again.update({"eval/score": -100.0}, 1)


def test_weights_beyond_the_kl_budget_are_not_kept() -> None:
    module = linear(1.0)
    best = BestWeights(module, "eval/score", kl="eval/kl", kl_budget=2.0)
    for step, (value, score, kl) in enumerate([(2.0, 0.2, 1.0), (3.0, 0.9, 2.1), (4.0, 0.3, 1.9)], start=1):
        torch.nn.init.constant_(module.weight, value)
        metrics = {"eval/score": score, "eval/kl": kl}
        assert best.update(metrics, step) == (step != 2)
        assert (best.end_line(metrics) is not None) == (step == 2)
    best.restore()
    assert module.weight.item() == 4.0 and best.step == 3


def test_the_first_weights_are_kept_where_no_evaluation_is_within_the_budget() -> None:
    module = linear(1.0)
    best = BestWeights(module, "eval/score", kl="eval/kl", kl_budget=2.0)
    torch.nn.init.constant_(module.weight, 5.0)
    metrics = {"eval/score": 1.0, "eval/kl": 2.5}
    assert not best.update(metrics, 4)
    assert "eval/kl is 2.5 nats, above --kl-budget 2: training ends; no evaluation was" in str(best.end_line(metrics))
    best.restore()
    assert module.weight.item() == 1.0
