"""How a run looks after itself: sensible numbers only."""

import pytest

from amenable.errors import InputError
from amenable.train.run_options import Options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0; it must be 1 or more"),
        ({"keep_checkpoints": -1}, "keep_checkpoints is -1"),
        ({"max_bad_rows": -0.1}, "max_bad_rows is -0.1; it is a share"),
        ({"max_bad_rows": 1.5}, "max_bad_rows is 1.5"),
        ({"max_bad_rows": float("nan")}, "max_bad_rows is nan"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Options(**options)


def test_the_ends_of_the_range_are_allowed() -> None:
    assert Options(keep_checkpoints=1, max_bad_rows=0.0).keep_checkpoints == 1
    assert Options(max_bad_rows=1.0).max_bad_rows == 1.0
