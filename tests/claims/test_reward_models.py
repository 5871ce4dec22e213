import pytest

from amenable.claims.reward_models import held_out_people, pairs_together
from amenable.claims.verdicts import FAILS, HOLDS


def test_accuracy_falls_from_own_to_held_out_annotators(measured: type) -> None:
    drop = held_out_people([measured()]).parts[2]
    assert drop.seeds[0].value == pytest.approx(0.03) and drop.verdict == HOLDS
    assert held_out_people([measured(sign=-1)]).parts[2].verdict == FAILS


def test_shuffled_pairs_cost_loss(measured: type) -> None:
    loss, accuracy = pairs_together([measured()]).parts
    assert loss.seeds[0].value == pytest.approx(0.2) and accuracy.seeds[0].value == 0.0 and not accuracy.decides
