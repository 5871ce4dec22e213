"""The demo's plan: every stage, in order, each fed by the ones before it."""

from dataclasses import fields
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes import demo


def test_every_stage_is_there_in_order() -> None:
    groups = demo.plan(demo.Config())
    names = [[call.stage for call in group] for group in groups]
    alone = [[name] for name in ("world", "tokenizer", "pretrain", "sft", "sample", "annotate", "reward")]
    assert names == [*alone, ["ppo", "dpo"], ["evaluate"]]


def test_each_input_is_some_earlier_output(tmp_path: Path) -> None:
    made: list[Path] = []
    for group in demo.plan(demo.Config(out=tmp_path)):
        for call in group:
            for field in fields(call.config):
                value = getattr(call.config, field.name)
                if isinstance(value, Path) and field.name != "out":
                    assert any(value.is_relative_to(out) for out in made), f"{call.stage}.{field.name}: {value}"
        made += [call.config.out for call in group]


def test_the_seed_reaches_every_stage() -> None:
    for group in demo.plan(demo.Config(seed=3)):
        for call in group:
            assert getattr(call.config, "seed", 3) == 3


def test_training_never_sees_the_test_prompts_or_the_truth() -> None:
    for group in demo.plan(demo.Config()):
        for call in group:
            if call.stage not in ("evaluate", "annotate"):
                values = [str(getattr(call.config, field.name)) for field in fields(call.config)]
                assert not [value for value in values if "test.jsonl" in value or "truths" in value]


def test_the_small_plan_keeps_the_stages() -> None:
    groups = demo.plan(demo.Config())
    small = demo.shrink(groups)
    assert [[call.stage for call in group] for group in small] == [[call.stage for call in group] for group in groups]


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed is -1"):
        demo.Config(seed=-1)
