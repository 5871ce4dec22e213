"""What an entry of --models means, and what is told of one that means nothing."""

from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.evaluation.entries import ModelEntry, parse_entries


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("sft=runs/sft", ModelEntry("sft", Path("runs/sft"))),
        ("a=runs/x=1", ModelEntry("a", Path("runs/x=1"))),
        ("a=runs@home/sft", ModelEntry("a", Path("runs@home/sft"))),
        ("prompted=runs/base@few-shot", ModelEntry("prompted", Path("runs/base"), few_shot=True)),
        ("best=runs/sft@best-of-16", ModelEntry("best", Path("runs/sft"), best_of=16)),
        ("cold=runs@home/sft@temperature-0.6", ModelEntry("cold", Path("runs@home/sft"), temperature=0.6)),
        ("sharp=runs/sft@entropy-of-ppo-kl", ModelEntry("sharp", Path("runs/sft"), entropy_of="ppo-kl")),
    ],
)
def test_an_entry_names_a_model_and_how_it_is_asked(entry: str, meant: ModelEntry) -> None:
    assert ModelEntry.parse(entry) == meant


@pytest.mark.parametrize(
    "modifier",
    ["few", "few-shots", "best-of-1", "best-of-x", "best-of-", "temperature-0", "temperature-inf", "temperature-warm"]
    + ["temperature--1", "entropy-of-", "entropy", "like-", ""],
)
def test_an_unknown_way_to_ask_is_refused_with_those_that_are_known(modifier: str) -> None:
    with pytest.raises(InputError, match=f"'@{modifier}' in .* known are @few-shot, @best-of-16, @temperature-0.6"):
        ModelEntry.parse(f"a=runs/sft@{modifier}")


def test_the_former_modifier_is_answered_with_the_present_one() -> None:
    with pytest.raises(InputError, match=r"unknown modifier '@like-ppo-kl' in .*; write @entropy-of-ppo-kl"):
        ModelEntry.parse("a=runs/sft@like-ppo-kl")


@pytest.mark.parametrize("entry", ["runs/x", "=runs/x", "a="])
def test_an_entry_without_name_or_folder_is_refused(entry: str) -> None:
    with pytest.raises(InputError, match=f"not a model: '{entry}'; write name=folder"):
        ModelEntry.parse(entry)


def test_names_are_taken_once() -> None:
    assert [one.name for one in parse_entries(["a=x", "b=x@few-shot"])] == ["a", "b"]
    with pytest.raises(InputError, match="two models are called 'a'"):
        parse_entries(["a=x", "b=y", "a=z"])
    with pytest.raises(InputError, match="no models"):
        parse_entries([])


def test_to_be_like_another_takes_another_that_draws_at_a_known_temperature() -> None:
    assert parse_entries(["a=x@entropy-of-b", "b=y@temperature-0.5"])[0].entropy_of == "b"
    with pytest.raises(InputError, match="'a' cannot have the entropy of 'c'; known are a, b"):
        parse_entries(["a=x@entropy-of-c", "b=y"])
    for entries in (
        ["a=x@entropy-of-a"],
        ["a=x@entropy-of-b", "b=y@best-of-4"],
        ["a=x@entropy-of-b", "b=y@entropy-of-c", "c=z"],
    ):
        with pytest.raises(InputError, match="name a model that draws one answer"):
            parse_entries(entries)
