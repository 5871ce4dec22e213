"""What an entry of --models means, and what is told of one that means nothing."""

from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.evaluation.entries import (
    ModelEntry,
    default_models,
    parse_entries,
    parse_suites,
    reference_folder,
    require_options,
)


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("sft=runs/sft", ModelEntry("sft", Path("runs/sft"))),
        ("a=runs/x=1", ModelEntry("a", Path("runs/x=1"))),
        ("a=runs@home/sft", ModelEntry("a", Path("runs@home/sft"))),
        ("prompted=runs/base@few-shot", ModelEntry("prompted", Path("runs/base"), few_shot=True)),
        ("brief=runs/sft@instructed", ModelEntry("brief", Path("runs/sft"), instructed=True)),
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
    with pytest.raises(
        InputError, match=f"'@{modifier}' in .* known are @few-shot, @instructed, @best-of-16, @temperature-0.6"
    ):
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


def test_default_models_are_those_that_have_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="no models to evaluate: none are named, and runs/ holds none; write name=folder"
    ):
        default_models()
    for name in ("pretrain", "ppo", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "ppo" / "finished.json").write_text("{}")
    assert default_models() == ("ppo=runs/ppo",)


def test_a_reference_is_an_entry_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entries = parse_entries(["sft=runs/a"])
    assert reference_folder("sft", entries) == Path("runs/a") and reference_folder("runs/b", entries) == Path("runs/b")
    assert reference_folder("here", entries) is None and reference_folder("", entries) is None
    (tmp_path / "here").mkdir()
    assert reference_folder("here", entries) == Path("here")


def test_suites_have_names_of_their_own() -> None:
    assert parse_suites(Path("p"), ["a=x", "b=y=z"]) == {"test": Path("p"), "a": Path("x"), "b": Path("y=z")}
    for texts, message in ((["a"], "not a suite: 'a'"), (["=x"], "not a suite: '=x'"), (["a=x", "a=y"], "two suites")):
        with pytest.raises(InputError, match=message):
            parse_suites(Path("p"), texts)


@pytest.mark.parametrize(
    ("modifier", "problem"),
    [
        ("best-of-4", "a: nobody can tell the best of 4; name a --reward"),
        ("few-shot", "a: a model @few-shot needs examples; give --shots FILE, or --prefix"),
        ("instructed", 'a: a model @instructed needs an instruction; give --instruction "..."'),
    ],
)
def test_an_entry_needs_the_option_of_its_modifier(modifier: str, problem: str) -> None:
    entries = parse_entries([f"a=x@{modifier}"])
    with pytest.raises(InputError) as error:
        require_options(entries, (), False, " ")
    assert str(error.value) == problem
    few_shot = [*entries, *parse_entries(["b=y@few-shot"])]
    require_options(few_shot, ("ends",), True, "Be brief.")
    require_options(entries[:0], (), True, "", ("arc.jsonl",))
    with pytest.raises(InputError, match="nothing reads --shots and --prefix; compare a model @few-shot, or give --ta"):
        require_options(parse_entries(["a=x"]), (), True, "")


def test_tasks_alone_have_no_suites() -> None:
    assert parse_suites(None, (), ("arc.jsonl",)) == {}
    assert parse_suites(None, ()) == {"test": Path("runs/world/prompts/test.jsonl")}
    assert list(parse_suites(None, ("more=x",), ("arc.jsonl",))) == ["test", "more"]
    assert parse_suites(Path("p"), (), ("arc.jsonl",)) == {"test": Path("p")}
