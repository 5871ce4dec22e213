import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional.schedules import cosine, warmup


def test_warmup_by_hand():
    assert [warmup(step, 4) for step in (1, 2, 3, 4, 5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warmup(1, 0) == 1.0


def test_cosine_by_hand():
    assert cosine(0, 10) == pytest.approx(1.0)
    assert cosine(5, 10) == pytest.approx(0.55)  # half way between 1 and 0.1
    assert cosine(10, 30, floor=0.0) == pytest.approx(0.75)  # (1 + cos 60 degrees) / 2
    assert cosine(10, 10) == pytest.approx(0.1) == cosine(99, 10)


@given(st.integers(1, 50), st.integers(0, 60), st.floats(0, 1))
def test_never_rises_and_stays_above_its_floor(total, step, floor):
    now, later = cosine(step, total, floor), cosine(step + 1, total, floor)
    assert later <= now + 1e-12 and floor - 1e-12 <= now <= 1 + 1e-12


def test_a_schedule_over_no_steps_is_refused():
    with pytest.raises(ValueError, match="0 steps"):
        cosine(0, 0)
