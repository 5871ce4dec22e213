"""An option's old name leads to its new one, on the command line and in a YAML file."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from amenable import cli
from amenable.errors import InputError
from amenable.renamed_options import NEW_NAMES, STILL_ACCEPTED, accept_old_name, new_name
from amenable.train.runtime import Device, DeviceOptions


@dataclass(frozen=True)
class Config:
    adaptive_kl_target: float = 6.0
    steps: int = 1


def test_new_name_is_among_those_the_command_knows() -> None:
    assert new_name("kl-target", ["adaptive_kl_target"]) == "adaptive_kl_target"
    assert new_name("machine.threads", ["device", "threads"]) == "threads"
    assert new_name("terms.length-controlled", ["rating.k", "rating.length_controlled"]) == "rating.length_controlled"
    assert new_name("adaptive_kl_target", ["steps"]) is None and new_name("steps", ["steps"]) is None


def test_command_line_and_yaml_name_the_new_option(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the option is called --adaptive-kl-target now"):
        cli.parse(Config, ["--kl-target", "3"], "amenable x", "")
    (tmp_path / "c.yaml").write_text("kl_target: 3\n")
    with pytest.raises(InputError, match="the option is called 'adaptive_kl_target' now"):
        cli.parse(Config, ["--config", str(tmp_path / "c.yaml")], "amenable x", "")


@dataclass(frozen=True)
class Rating:
    k: float = 1.0


@dataclass(frozen=True)
class Grouped:
    device: Device = field(default_factory=DeviceOptions)
    rating: Rating = field(default_factory=Rating)


@pytest.mark.parametrize(("old", "new"), [("machine.threads", "threads"), ("terms.k", "rating.k")])
def test_options_of_renamed_groups_lead_to_the_new_ones(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the option is called --{new} now"):
        cli.parse(Grouped, [f"--{old}", "2"], "amenable x", "")
    (tmp_path / "c.yaml").write_text(f"{old.split('.')[0]}:\n  {old.split('.')[1]}: 2\n")
    with pytest.raises(InputError, match=f"the option is called '{'device' if new == 'threads' else 'rating'}' now"):
        cli.parse(Grouped, ["--config", str(tmp_path / "c.yaml")], "amenable x", "")


def test_no_old_name_leads_to_itself() -> None:
    assert not [old for old, new in NEW_NAMES.items() if old in new]


@dataclass(frozen=True)
class Judged:
    judge: tuple[str, ...] = ()


def test_some_old_names_still_work_on_the_command_line() -> None:
    assert NEW_NAMES.keys() >= STILL_ACCEPTED
    assert cli.parse(Judged, ["--reward-model", "runs/a"], "amenable x", "").judge == ("runs/a",)
    assert cli.parse(Judged, ["--reward_model=runs/a"], "amenable x", "").judge == ("runs/a",)
    assert accept_old_name("--reward-model", ["reward_model", "judge"]) == "--reward-model"
    assert accept_old_name("--reward-model", ["steps"]) == "--reward-model"
    assert accept_old_name("reward-model", ["judge"]) == "reward-model"
    assert accept_old_name("--kl-target", ["adaptive_kl_target"]) == "--kl-target"
