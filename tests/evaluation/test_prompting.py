"""A prefix and examples before prompts: as turns of a chat model, as a transcript of a base model."""

import json
from pathlib import Path

import pytest

from amenable.data.types import Demonstration, Message, Prompt
from amenable.errors import InputError
from amenable.evaluation.prompting import (
    Prompting,
    PromptingOptions,
    add_prefix,
    class_of,
    prefix_file,
    prepend,
    question,
    read_prefix,
)
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer

USER, SYSTEM = Message("user", "Name a red thing."), Message("system", "Be brief.")
SHOT = (Message("user", "Name a blue thing."), Message("assistant", "It swims in it: the sea."))


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Six questions by colour, answered in steps."""
    return write(
        tmp_path / "shots.jsonl",
        *(
            {"prompt": f"Name a {c} {i}.", "completion": f"Think. {c}", "category": c}
            for c in ("red", "blue")
            for i in "abc"
        ),
    )


def test_examples_are_turns_between_system_and_prompt() -> None:
    prompting = Prompting.of([SHOT], "Answer well.")
    assert prompting.apply((USER,)) == (Message("system", "Answer well."), *SHOT, USER)
    assert prompting.apply((SYSTEM, USER)) == (Message("system", "Answer well.\n\nBe brief."), *SHOT, USER)
    assert Prompting().apply((SYSTEM, USER)) == (SYSTEM, USER) == add_prefix((SYSTEM, USER), "")
    assert prepend([SHOT, SHOT], (SYSTEM, USER)) == (SYSTEM, *SHOT, *SHOT, USER)


def test_a_base_model_reads_a_transcript(base: Path) -> None:
    words = Tokenizer.load(base)
    ids = render_prompt(words, Prompting.of([SHOT], "Answers:").apply((USER,)))
    assert words.decode(ids) == (
        "Answers:\n\nUser: Name a blue thing.\n\nAssistant: It swims in it: the sea.\n\n"
        "User: Name a red thing.\n\nAssistant:"
    )


def test_a_file_of_examples_is_chosen_from(shots: Path, tmp_path: Path) -> None:
    def first_words(**options: object) -> list[str]:
        prompting = Prompting.read(PromptingOptions(shots=(shots,), **options), 0)  # type: ignore[arg-type]
        return [shot[0].content for shot in prompting.shots((Message("user", "Name a blue b"),))]

    assert len(first_words()) == 6
    assert first_words(num_shots=2) == ["Name a red a.", "Name a red b."]
    assert first_words(num_shots=1, shot_selection="similar") == ["Name a blue b."]
    colours = [text.split()[2] for text in first_words(num_shots=4, shot_selection="balanced")]
    assert sorted(colours) == ["blue", "blue", "red", "red"]
    more = write(tmp_path / "more.jsonl", {"prompt": "Last?", "completion": "Yes."})
    assert len(Prompting.read(PromptingOptions(shots=(shots, more)), 0).examples) == 7


def test_a_row_names_its_class_or_its_answer_is_it() -> None:
    assert class_of(Demonstration(SHOT)) == SHOT[-1].content
    assert class_of(Demonstration(SHOT, meta={"kind": "open", "category": 1})) == "1"
    assert question((SYSTEM, *SHOT)) == SHOT[0].content and question((*SHOT, USER)).endswith(f"sea.\n\n{USER.content}")


def test_a_prompt_among_the_examples_is_refused(shots: Path) -> None:
    prompting = Prompting.read(PromptingOptions(shots=(shots,)), 0)
    prompting.require_no_leak({"data": [Prompt((USER,))]})
    with pytest.raises(InputError, match=r"shots\.jsonl: example 5 is a row of the test 'more'"):
        prompting.require_no_leak({"data": [], "more": [Prompt((SYSTEM, Message("user", "name a BLUE b. ")))]})


def test_a_prefix_is_a_text_or_a_file_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my prefix.txt"
    file.write_text("Answer\nin steps.\n")
    assert read_prefix("my prefix.txt") == "Answer\nin steps." and prefix_file("my prefix.txt") == Path(file.name)
    assert PromptingOptions(prefix=str(file)).inputs == {"prefix": file}
    for text in ("Answer.", "Answer in steps. " * 200, "x" * 300, "", "Answer e.g. so."):
        assert read_prefix(text) == text.strip() and prefix_file(text) is None
    with pytest.raises(InputError, match=r"no such file: prefix\.txt; --prefix is a text, or a file of it"):
        read_prefix("prefix.txt")


def test_options_without_examples_and_bad_examples_are_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"num_shots": 2}, "--num-shots takes examples; give --shots FILE"),
        ({"shot_selection": "similar"}, "--shot-selection of none; give --shots FILE"),
        ({"num_shots": -1}, "num_shots is -1"),
    ):
        with pytest.raises(InputError, match=message):
            PromptingOptions(**options)  # type: ignore[arg-type]
    system = write(
        tmp_path / "s.jsonl", {"messages": [{"role": m.role, "content": m.content} for m in (SYSTEM, *SHOT)]}
    )
    with pytest.raises(InputError, match="an example has a system message; give its text as --prefix"):
        Prompting.read(PromptingOptions(shots=(system,)), 0)
    prompts = write(tmp_path / "p.jsonl", {"prompt": "No answer?"})
    with pytest.raises(InputError, match=r"p\.jsonl: no demonstration can be read"):
        Prompting.read(PromptingOptions(shots=(prompts,)), 0)
