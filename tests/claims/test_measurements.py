from amenable.claims.measurements import per_seed, win_rate
from amenable.claims.verdicts import Estimate


def test_a_quantity_is_measured_on_every_seed_or_on_none(measured: type) -> None:
    runs = [measured(), measured()]
    assert per_seed(runs, lambda run: run.bits("base", "ppo")) == (Estimate(0.3, 0.01),) * 2
    assert per_seed([measured(), measured(lacking=True)], lambda run: run.bits("base", "ppo")) == ()


def test_a_win_rate_names_its_models_and_decoding(measured: type) -> None:
    part = win_rate([measured()], "ppo", "sft", decoding="greedy")
    assert (part.quantity, part.null, part.seeds[0].value) == ("ppo preferred to sft, greedy", 0.5, 0.7)
