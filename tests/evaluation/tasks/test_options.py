"""Options of tasks that mean nothing are refused."""

import pytest

from amenable.errors import InputError
from amenable.evaluation.tasks.options import TaskOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task_rows": -1}, "task_rows is -1"),
        ({"self_consistency": -1}, "self_consistency is -1"),
        ({"self_consistency": 1}, "one answer has no majority; give --self-consistency 2 or more"),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TaskOptions(**wrong)  # type: ignore[arg-type]
    assert TaskOptions(self_consistency=2).self_consistency == 2
