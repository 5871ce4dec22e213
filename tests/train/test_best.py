"""The best weights are kept as they were."""

import torch

from amenable.train.best import Best


def test_the_highest_score_wins_and_comes_back() -> None:
    module = torch.nn.Linear(1, 1)
    best = Best(module)
    for step, (value, score) in enumerate([(1.0, 0.2), (2.0, 0.9), (3.0, 0.5)], start=1):
        torch.nn.init.constant_(module.weight, value)
        assert best.offer(score, step) == (step < 3)
    best.restore()
    assert module.weight.item() == 2.0 and best.step == 2


def test_state_survives_a_checkpoint() -> None:
    module = torch.nn.Linear(1, 1)
    best = Best(module)
    torch.nn.init.constant_(module.weight, 4.0)
    best.offer(1.0, 3)
    state = best.state_dict()
    torch.nn.init.constant_(module.weight, 5.0)
    again = Best(module)
    again.load_state_dict(state)
    assert not again.offer(0.5, 4)
    again.restore()
    assert module.weight.item() == 4.0


def test_nothing_offered_changes_nothing() -> None:
    module = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(module.weight, 7.0)
    best = Best(module)
    again = Best(module)
    again.load_state_dict(best.state_dict())
    again.restore()
    assert module.weight.item() == 7.0 and again.offer(-100.0, 1)
