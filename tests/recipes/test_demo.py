"""The demo's plan: every stage fed by others of the plan, and only those that the claims need."""

import importlib
import shlex
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import pytest

from amenable import cli
from amenable.claims import claims
from amenable.errors import InputError
from amenable.recipes import demo
from amenable.recipes.pipeline import paths_of


def names(config: demo.Config) -> list[str]:
    calls = demo.plan(config.out, config.seed)
    return [call.out.name for call in demo.needed(calls, config)]


def test_every_input_is_some_other_stages_output(tmp_path: Path) -> None:
    calls = demo.plan(tmp_path, 0)
    for call in calls:
        options = [getattr(call.config, field.name) for field in fields(call.config) if field.name != "out"]
        for path in paths_of(options):
            assert any(path.is_relative_to(other.out) for other in calls if other is not call), f"{call.out}: {path}"


def test_the_brief_demo_leaves_out_what_only_other_claims_need() -> None:
    brief, full = names(demo.Config()), names(demo.Config(full=True))
    assert set(brief) < set(full) and len(full) == len(demo.plan(Path("x"), 0))
    assert {"ppo", "dpo", "public", "evaluate-best"} <= set(brief)
    assert not {"large", "over", "reward-pairs", "sft-16", "ppo-ptx"} & set(brief)


def test_a_claim_alone_runs_its_stages_and_those_they_read() -> None:
    assert names(demo.Config(claims=("j",))) == [
        *("world", "tokenizer", "pretrain", "sft", "sample", "annotate"),
        *("reward", "reward-pairs"),
    ]


def test_every_claim_names_stages_of_the_plan() -> None:
    built = {call.out.name for call in demo.plan(Path("x"), 0)}
    for letter in claims.LETTERS:
        assert claims.needs(letter) and set(claims.needs(letter)) <= built


def test_the_seed_reaches_every_stage() -> None:
    for call in demo.plan(Path("x"), 3):
        assert getattr(call.config, "seed", 3) == 3


def test_a_full_demo_has_three_seeds() -> None:
    config = demo.Config(full=True, seed=5)
    assert config.roots == {seed: Path(f"runs/demo/seed-{seed}") for seed in (5, 6, 7)}


def test_training_never_sees_the_test_prompts_or_the_truth() -> None:
    for call in demo.plan(Path("x"), 0):
        if call.stage not in ("evaluate", "annotate"):
            values = [str(getattr(call.config, field.name)) for field in fields(call.config)]
            assert not [value for value in values if "test.jsonl" in value or "truths" in value or "suites" in value]


def test_the_small_plan_keeps_the_stages() -> None:
    calls = demo.plan(Path("x"), 0)
    assert [demo.shrink(call).out for call in calls] == [call.out for call in calls]


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="seed is -1"):
        demo.Config(seed=-1)
    with pytest.raises(InputError, match="no claim 'z'"):
        demo.Config(claims=("z",))


def test_what_it_offers_next_can_be_typed(capsys: pytest.CaptureFixture) -> None:
    demo.print_next_commands(Path("runs/mine"))
    offered = [shlex.split(line) for line in capsys.readouterr().err.splitlines() if line.startswith("  amenable")]
    assert [words[1] for words in offered] == ["chat", "serve", "arena", "label", "rounds"]
    for _, command, *options in offered:
        package = "recipes" if command == "rounds" else "serve"
        module = importlib.import_module(f"amenable.{package}.{command}")
        config = cli.parse(module.Config, options, command, "")
        assert any(path.is_relative_to("runs/mine") for path in paths_of(config))


NANO = {
    "pretrain": {
        "optimizer.learning_rate": 4e-3,
        "optimizer.muon_learning_rate": 0.02,
        "optimizer.weight_decay": 0.01,
        "warmup_steps": 20,
        "dropout": 0.0,
        "context": 256,
    },
    "sft": {"optimizer.learning_rate": 5e-4, "dropout": 0.1, "warmup_steps": 10, "max_new_tokens": 64},
    "reward": {"optimizer.learning_rate": 5e-4, "warmup_steps": 10},
    "dpo": {"optimizer.learning_rate": 2e-4, "warmup_steps": 10, "beta": 0.1},
    "ppo": {
        "optimizer.learning_rate": 2e-4,
        "optimizer.eps": 1e-5,
        "critic_learning_rate": 4e-4,
        "warmup_steps": 5,
        "temperature": 0.7,
        "max_new_tokens": 64,
    },
    "sample": {"sampling.temperature": 0.7, "sampling.max_new_tokens": 64},
    "evaluate": {"temperature": 1.0, "max_new_tokens": 64},
}
"""what the closed world's small models are trained and asked with"""


@pytest.mark.parametrize("stage", NANO)
def test_the_closed_worlds_options_are_its_own(stage: str) -> None:
    """They are given: what other models get by default does not move the demo."""
    for call in demo.plan(Path("x"), 0):
        if call.stage == stage:
            for option, value in NANO[stage].items():
                assert attrgetter(option)(call.config) == value, f"{call.out.name}: {option}"
