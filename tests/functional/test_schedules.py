import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional.schedules import constant, cosine, linear, warmup


def test_warmup_by_hand():
    assert [warmup(step, 4) for step in (1, 2, 3, 4, 5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warmup(1, 0) == 1.0


def test_linear_and_cosine_by_hand():
    assert [linear(step, 4) for step in (0, 1, 2, 4, 9)] == [1.0, 0.75, 0.5, 0.0, 0.0]
    assert linear(2, 4, floor=0.5) == 0.75
    assert cosine(0, 10) == pytest.approx(1.0)
    assert cosine(5, 10) == pytest.approx(0.55)  # half way between 1 and 0.1
    assert cosine(10, 30, floor=0.0) == pytest.approx(0.75)  # (1 + cos 60 degrees) / 2
    assert cosine(10, 10) == pytest.approx(0.1) == cosine(99, 10)
    assert constant(3, 10) == 1.0


@given(st.sampled_from([linear, cosine, constant]), st.integers(1, 50), st.integers(0, 60), st.floats(0, 1))
def test_never_rises_and_stays_above_its_floor(schedule, total, step, floor):
    arguments = () if schedule is constant else (floor,)
    now, later = schedule(step, total, *arguments), schedule(step + 1, total, *arguments)
    assert later <= now + 1e-12 and floor - 1e-12 <= now <= 1 + 1e-12


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_a_schedule_over_no_steps_is_refused(schedule):
    with pytest.raises(ValueError, match="0 steps"):
        schedule(0, 0)
