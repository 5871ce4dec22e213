"""What an entry of --models means, and what is told of one that means nothing."""

from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.evaluation.entries import Contestant, roster


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("sft=runs/sft", Contestant("sft", Path("runs/sft"))),
        ("a=runs/x=1", Contestant("a", Path("runs/x=1"))),
        ("a=runs@home/sft", Contestant("a", Path("runs@home/sft"))),
        ("prompted=runs/base@few-shot", Contestant("prompted", Path("runs/base"), few_shot=True)),
        ("best=runs/sft@best-of-16", Contestant("best", Path("runs/sft"), best_of=16)),
        ("cold=runs@home/sft@temperature-0.6", Contestant("cold", Path("runs@home/sft"), temperature=0.6)),
        ("sharp=runs/sft@like-ppo-kl", Contestant("sharp", Path("runs/sft"), like="ppo-kl")),
    ],
)
def test_an_entry_names_a_model_and_how_it_is_asked(entry: str, meant: Contestant) -> None:
    assert Contestant.parse(entry) == meant


@pytest.mark.parametrize(
    "modifier",
    ["few", "few-shots", "best-of-1", "best-of-x", "best-of-", "temperature-0", "temperature-inf", "temperature-warm"]
    + ["temperature--1", "like-", "like", ""],
)
def test_an_unknown_way_to_ask_is_refused_with_those_that_are_known(modifier: str) -> None:
    with pytest.raises(InputError, match=f"'@{modifier}' in .* known are @few-shot, @best-of-16, @temperature-0.6"):
        Contestant.parse(f"a=runs/sft@{modifier}")


@pytest.mark.parametrize("entry", ["runs/x", "=runs/x", "a="])
def test_an_entry_without_name_or_folder_is_refused(entry: str) -> None:
    with pytest.raises(InputError, match=f"'{entry}' is no model; write name=folder"):
        Contestant.parse(entry)


def test_names_are_taken_once() -> None:
    assert [one.name for one in roster(["a=x", "b=x@few-shot"])] == ["a", "b"]
    with pytest.raises(InputError, match="two models are called 'a'"):
        roster(["a=x", "b=y", "a=z"])
    with pytest.raises(InputError, match="no models"):
        roster([])


def test_to_be_like_another_takes_another_that_draws_at_a_known_temperature() -> None:
    assert roster(["a=x@like-b", "b=y@temperature-0.5"])[0].like == "b"
    with pytest.raises(InputError, match="'a' is to be like 'c'; known are a, b"):
        roster(["a=x@like-c", "b=y"])
    for entries in (["a=x@like-a"], ["a=x@like-b", "b=y@best-of-4"], ["a=x@like-b", "b=y@like-c", "c=z"]):
        with pytest.raises(InputError, match="name a model that draws one answer"):
            roster(entries)
