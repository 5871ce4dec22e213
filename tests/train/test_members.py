"""Members of a run: who may be in a group, what all must have the same, and how evenly they divide a step."""

from types import SimpleNamespace

import pytest
import torch

from amenable import processes
from amenable.errors import InputError
from amenable.train import members


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process one of two that need not meet."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "join", lambda tensor_parallel: None)
    monkeypatch.setattr(processes, "size", lambda: 2)


@pytest.mark.usefixtures("group")
def test_only_stages_that_train_run_in_several_processes() -> None:
    with pytest.raises(InputError, match="'evaluate' runs in one process, and 2 were started"):
        members.join_processes("evaluate", SimpleNamespace())
    with pytest.raises(InputError, match="processes is 3 and 2 were started"):
        members.join_processes("sft", SimpleNamespace(processes=3))
    members.join_processes("sft", SimpleNamespace(processes=1))
    members.join_processes("sft", SimpleNamespace(processes=2))


@pytest.mark.usefixtures("group")
def test_processes_divide_into_groups_that_hold_one_model() -> None:
    members.join_processes("sft", SimpleNamespace(processes=2, tensor_parallel=2))
    with pytest.raises(
        InputError, match="tensor_parallel is 3 and 2 processes were started; start a multiple, such as"
    ):
        members.join_processes("sft", SimpleNamespace(processes=2, tensor_parallel=3))


def test_one_process_holds_one_model() -> None:
    with pytest.raises(InputError, match="tensor_parallel is 2 and 1 process was started; start a multiple, such as"):
        members.join_processes("sft", SimpleNamespace(processes=1, tensor_parallel=2))
    assert members.data_rank() == 0 and members.describe_products() == ""


def test_python_starts_one_process() -> None:
    with pytest.raises(InputError, match="only the command line can start"):
        members.join_processes("sft", SimpleNamespace(processes=2))


def test_shared_facts_are_code_options_and_inputs() -> None:
    facts = members.shared_facts("seed: 0", {"data": {"path": "a", "sha256": "12"}})
    assert facts.keys() == {"code", "options", "data"} and facts["data"] == "12" and len(facts["code"]) == 64


def test_weight_sums_are_of_each_matrix() -> None:
    assert members.weight_sums([{"a": torch.ones(2, 2), "b": torch.tensor([0.5])}, {}]) == [4.0, 0.5]


@pytest.mark.usefixtures("group")
def test_a_step_has_a_row_for_every_process() -> None:
    members.require_shares(2)
    with pytest.raises(InputError, match="2 processes divide the 1 row of a step; start fewer processes"):
        members.require_shares(1)


def test_the_plan_names_the_largest_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert members.describe_shares([3, 1]) == ""
    monkeypatch.setattr(processes, "size", lambda: 2)
    assert members.describe_shares([3, 1]).startswith("2 processes; the largest share")
    assert members.describe_shares([3, 1]).endswith("is 1.50 of the mean")


def test_groups_of_processes_divide_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "size", lambda: 2)
    monkeypatch.setattr(processes, "tensor_size", lambda: 4)
    assert members.describe_products() == "each product of the layers is divided among 4 processes"
    assert members.describe_shares([1, 1]).startswith("2 groups of 4 processes; ")
    with pytest.raises(InputError, match="2 groups of 4 processes divide the 1 row of a step"):
        members.require_shares(1)
