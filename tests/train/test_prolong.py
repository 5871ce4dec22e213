"""Prolonging: which options make a run longer, and when its past is that of a longer run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import InputError
from amenable.train import checkpoint, prolong
from amenable.train.plan import Schedule, cosine_with_warmup

ONCE = {"epochs": 1, "max_steps": 40, "seed": 0}


@pytest.mark.parametrize(
    ("changes", "raised"),
    [
        ({"max_steps": 41}, True),
        ({"epochs": 2.5}, True),
        ({"max_steps": 39}, False),
        ({"max_steps": 0, "epochs": 3}, True),  # epochs decide
        ({"max_steps": 41, "seed": 1}, False),
        ({}, False),
    ],
)
def test_a_run_is_longer_by_its_length_alone(changes: dict[str, float], raised: bool) -> None:
    now = ONCE | changes
    assert prolong.is_raised(ONCE, now, [key for key in now if now[key] != ONCE[key]]) is raised
    assert not prolong.is_raised({}, now, ["max_steps"]), "a run that did not know the option"


def keep(out: Path, step: int, schedule: Schedule | None) -> None:
    facts: dict[str, Any] = {"seconds": 1.0, "state": {"weights": torch.ones(2)}}
    checkpoint.save(out, step, {**facts, prolong.SCHEDULE: prolong.facts_of(schedule)}, keep=9)


@settings(max_examples=40)
@given(
    total=st.integers(2, 60),
    more=st.integers(1, 60),
    warmup=st.one_of(st.none(), st.integers(0, 20)),
    floor=st.sampled_from([0.0, 0.1, 1.0]),
    data=st.data(),
)
def test_it_goes_on_exactly_where_a_longer_run_would_have_had_the_same_rates(
    tmp_path_factory: pytest.TempPathFactory,
    total: int,
    more: int,
    warmup: int | None,
    floor: float,
    data: st.DataObject,
) -> None:
    out = tmp_path_factory.mktemp("run")
    step = data.draw(st.integers(1, total - 1))
    old, new = (cosine_with_warmup(steps, warmup, floor) for steps in (total, total + more))
    keep(out, step, old)
    if all(old(number) == new(number) for number in range(1, step + 1)):
        prolong.require_same_past(out, "ppo", new, finished=False)
    else:
        with pytest.raises(InputError, match=rf"cannot be prolonged from {total} to {total + more} steps: in step"):
            prolong.require_same_past(out, "ppo", new, finished=False)
    if floor == 1 and old.warmup_steps == new.warmup_steps:
        prolong.require_same_past(out, "ppo", new, finished=True)


def test_the_checkpoint_that_is_kept_is_the_one_before_the_last_step() -> None:
    constant = Schedule(40, 5, 1.0)
    assert prolong.checkpoint_to_keep(constant, save_steps=10) == 39
    assert prolong.checkpoint_to_keep(constant, save_steps=0) == 0, "none is wanted"
    assert prolong.checkpoint_to_keep(Schedule(40, 5, 0.1), 10) == prolong.checkpoint_to_keep(None, 10) == 0


def test_the_past_is_the_newest_whole_checkpoint_before_the_end(tmp_path: Path) -> None:
    schedule = Schedule(4, 1, 1.0)
    assert prolong.resumable(tmp_path) is None
    for step in (2, 3, 4):
        keep(tmp_path, step, schedule)
    assert prolong.resumable(tmp_path) == (3, schedule)
    (tmp_path / "checkpoint-3" / "state.safetensors").write_bytes(b"torn")
    assert prolong.resumable(tmp_path) == (2, schedule)
    prolong.drop_last_step(tmp_path)
    assert checkpoint.steps(tmp_path) == [2]
    keep(tmp_path, 3, None)  # of a stage without a schedule
    assert prolong.resumable(tmp_path) == (2, schedule)


def test_what_cannot_be_prolonged_says_why_and_what_to_do(tmp_path: Path) -> None:
    cosine, constant = Schedule(80, 5, 0.1), Schedule(80, 5, 1.0)
    with pytest.raises(InputError, match=r"cosine .* has ended.* start anew from its result: --model .* --out NEW"):
        prolong.require_same_past(tmp_path, "ppo", cosine, finished=True)
    with pytest.raises(
        InputError, match=r"cosine .* has ended: it cannot be prolonged; give another --out \(a run with"
    ):
        prolong.require_same_past(tmp_path, "reward", cosine, finished=True)
    with pytest.raises(InputError, match="kept no checkpoint"):
        prolong.require_same_past(tmp_path, "ppo", constant, finished=True)
    prolong.require_same_past(tmp_path, "ppo", cosine, finished=False)  # nothing was done yet
    keep(tmp_path, 79, constant)
    with pytest.raises(InputError, match="has 80 steps, and with these options 80: it is not made longer"):
        prolong.require_same_past(tmp_path, "ppo", constant, finished=True)


@pytest.mark.parametrize(("text", "step"), [('{"checkpoint": 39}', 39), ("{}", 0), ("[1]", 0), ("{", 0), (None, 0)])
def test_a_finished_run_says_what_it_has_kept(tmp_path: Path, text: str | None, step: int) -> None:
    file = tmp_path / "finished.json"
    if text is not None:
        file.write_text(text)
    assert prolong.kept_checkpoint(file) == step
