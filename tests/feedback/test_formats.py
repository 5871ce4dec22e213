import pytest

from amenable.data.record import InvalidRow
from amenable.data.types import Message, Ranking
from amenable.feedback.formats import attempt, make_demonstration, make_ranking, name_of, prompt_field, texts_of
from amenable.feedback.hints import Hints, Unclear

PROMPT = (Message("user", "Hi"),)


@pytest.mark.parametrize(
    ("names", "answers", "asking"),
    [
        (["a", "prompt", "b"], ["a", "b"], "prompt"),
        (["b", "a", "x"], ["a", "b"], "x"),
        (["context", "question"], [], "question"),
        (["text"], [], "text"),
    ],
)
def test_the_field_that_asks(names, answers, asking):
    assert prompt_field(dict.fromkeys(names, "x"), answers, Hints()) == asking


def test_fields_are_not_guessed_by_their_order():
    for names in (["first", "second"], ["second", "first"]):
        with pytest.raises(Unclear, match=r"which field is the prompt: .*--prompt-field"):
            prompt_field(dict.fromkeys(names, "x"), [], Hints())
        assert prompt_field(dict.fromkeys(names, "x"), [], Hints(prompt_field="second")) == "second"
    with pytest.raises(InvalidRow, match="no text in the field 'third'"):
        prompt_field({"first": "x"}, [], Hints(prompt_field="third"))
    with pytest.raises(InvalidRow, match="no field with a text for the prompt"):
        prompt_field({"a": "x"}, ["a"], Hints())


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (["a"], "1 ranked answers"),
        (["a", None], "is not text"),
        ([" ", ""], "all answers are empty"),
        (["a", "a"], "all answers are the same"),
    ],
)
def test_answers_of_which_no_ranking_can_be_made(answers, why):
    with pytest.raises(InvalidRow, match=why):
        make_ranking(PROMPT, answers, [1.0] * len(answers), "x", None, {})


def test_what_is_made_keeps_what_holds_something():
    meta = {"notes": {}, "question": "rank", "other": None}
    built = make_ranking(PROMPT, ["a", ""], [1, 2], "x", "ann", meta)
    assert built == Ranking(PROMPT, ("a", ""), (1.0, 2.0), "x", "ann", {"question": "rank"})
    written = make_demonstration("Hi", "Hello.", "x", "ann", meta)
    assert [turn.content for turn in written.messages] == ["Hi", "Hello."]
    assert written.meta == {"annotator": "ann", "question": "rank"}
    with pytest.raises(InvalidRow, match="empty"):
        make_demonstration("Hi", " ", "x", None, {})


def test_names_and_texts():
    people = [3, "bo", {"id": 4, "email": "c@x.org"}, {"id": 4}, {}, None, True, "", [1]]
    assert [name_of(one) for one in people] == ["3", "bo", "c@x.org", "4", None, None, None, None, None]
    assert texts_of({"a": "x", "b": " ", "c": 1, "d": None}) == {"a": "x"}
    assert isinstance(attempt(make_demonstration, "Hi", "", "x", None, {}), InvalidRow)
