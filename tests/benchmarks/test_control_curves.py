"""Tasks of the learning curves are commands that exist, and rows have intervals over seeds."""

from benchmarks import control_curves
from benchmarks.control_curves import DEFAULT, TASKS


def test_a_row() -> None:
    assert control_curves.line("ppo-cartpole", [480.0, 500.0, 490.0]).startswith(
        "| ppo-cartpole | 500,000 | 490.0 (465.2 to 514.8) | 490.04 ± 6.12 | episode/return; cleanrl"
    )
    assert "(" not in control_curves.line("ppo-hopper", [2000.0]).split("|")[3]


def test_tasks_are_named_by_algorithm_and_environment() -> None:
    for name, task in TASKS.items():
        algorithm, env = name.split("-")
        assert task.config.algorithm == algorithm and task.config.env.lower().startswith(env)
    assert set(DEFAULT) < set(TASKS) and len(DEFAULT) == 9
