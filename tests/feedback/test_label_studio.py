import pytest

from amenable.data.record import InvalidRow, Record
from amenable.data.types import Demonstration, Ranking
from amenable.feedback.hints import Hints, Layout, Unclear
from amenable.feedback.label_studio import is_minimal, is_task, minimal_labels, task_labels

ITEMS = [{"id": "1", "title": "first"}, {"id": 2, "title": "-", "body": "second"}, {"id": "3", "html": "third"}]


def task(data, *results, **about):
    return {"id": 7, "data": data, "annotations": [{"completed_by": 3, "result": list(results), **about}]}


def pairwise(selected, to_name="answer1,answer2", **more):
    return {"type": "pairwise", "from_name": "pw", "to_name": to_name, "value": {"selected": selected}, **more}


def ranker(columns, to_name="items"):
    return {"type": "ranker", "from_name": "rank", "to_name": to_name, "value": {"ranker": columns}}


def read(row, hints=None, labels=task_labels):
    return list(labels(Record(row), "file:1", hints or Hints()))


def only(row, hints=None, labels=task_labels):
    (outcome,) = read(row, hints, labels)
    return outcome


@pytest.mark.parametrize("order", [["prompt", "answer1", "answer2"], ["answer2", "answer1", "prompt"]])
@pytest.mark.parametrize(("to_name", "left"), [("answer1,answer2", "answer1"), ("answer2, answer1", "answer2")])
@pytest.mark.parametrize("selected", ["left", "right"])
def test_left_is_the_first_tag_whatever_the_order_of_the_columns(order, to_name, left, selected):
    texts = {"prompt": "Which?", "answer1": "Red.", "answer2": "Blue."}
    outcome = only(task({name: texts[name] for name in order}, pairwise(selected, to_name)))
    right = "answer2" if left == "answer1" else "answer1"
    assert outcome.completions == (texts[left], texts[right]) and outcome.prompt[0].content == "Which?"
    assert outcome.ranks == ((1.0, 2.0) if selected == "left" else (2.0, 1.0))
    assert (outcome.id, outcome.annotator, outcome.meta["answers"]) == ("7", "3", [left, right])


DATA = {"answer1": "Red.", "answer2": "Blue.", "prompt": "Which?", "source": "web"}


def test_tags_that_are_not_called_as_fields_need_an_answer():
    row = task(DATA, pairwise("left", "txt-1,txt-2"))
    with pytest.raises(Unclear, match=r"'txt-1' \(left\) and 'txt-2' \(right\).*--left-field.*--label-config"):
        read(row)
    layout = Layout(fields={"txt-1": "answer2", "txt-2": "answer1"})
    for hints in (Hints(layout=layout), Hints(left_field="answer2", right_field="answer1")):
        outcome = only(row, hints)
        assert outcome.completions == ("Blue.", "Red.") and outcome.ranks == (1.0, 2.0)
        assert outcome.meta["fields"] == {"source": "web"}
    with pytest.raises(Unclear, match="are not two of"):
        read(row, Hints(left_field="answer2", right_field="nowhere"))


def test_a_configuration_goes_before_the_names_of_tags():
    """Tags may be called as each other's fields."""
    layout = Layout(fields={"answer1": "answer2", "answer2": "answer1"})
    assert only(task(DATA, pairwise("left")), Hints(layout=layout)).completions == ("Blue.", "Red.")


def test_the_prompt_is_not_guessed_by_the_order_of_the_columns():
    data = {"answer1": "Red.", "answer2": "Blue.", "shown": "Which?", "source": "web"}
    with pytest.raises(Unclear, match="which field is the prompt: shown, source"):
        read(task(data, pairwise("left")))
    assert only(task(data, pairwise("left")), Hints(prompt_field="shown")).prompt[0].content == "Which?"


def test_an_order_of_items():
    outcome = only(task({"prompt": "Order", "items": ITEMS}, ranker({"rank": ["2", "3", "1"]})))
    assert (outcome.completions, outcome.ranks) == (("second", "third", "first"), (1.0, 2.0, 3.0))
    assert outcome.meta["answers"] == ["2", "3", "1"]


@pytest.mark.parametrize("hints", [Hints(buckets=("good", "so-so", "bad")),
                                   Hints(layout=Layout(buckets={"rank": ("good", "so-so", "bad")}))])  # fmt: skip
def test_buckets_in_their_order_their_items_tied(hints):
    row = task({"prompt": "Order", "items": ITEMS}, ranker({"bad": [2], "so-so": [], "_": [], "good": ["3", "1"]}))
    outcome = only(row, hints)
    assert (outcome.completions, outcome.ranks) == (("third", "first", "second"), (1.0, 1.0, 3.0))


def test_buckets_whose_order_is_not_said_need_an_answer():
    row = task({"prompt": "Order", "items": ITEMS}, ranker({"bad": ["2"], "_": ["1"], "good": ["3"]}))
    with pytest.raises(Unclear, match=r"which of the buckets bad, good is the best.*--buckets"):
        read(row)
    with pytest.raises(Unclear):
        read(row, Hints(buckets=("good",)))
    # what nobody moved has no place in the order, unless it is given one
    assert only(row, Hints(buckets=("good", "bad"))).completions == ("third", "second")
    assert only(row, Hints(buckets=("good", "_", "bad"))).completions == ("third", "first", "second")


def test_which_list_is_ranked():
    two = {"prompt": "Order", "others": [{"id": "1", "body": "no"}], "things": ITEMS}
    with pytest.raises(Unclear, match="which field is the list that the tag 'results' shows"):
        read(task(two, ranker({"rank": ["1", "2"]}, "results")))
    layout = Layout(fields={"results": "things"})
    assert only(task(two, ranker({"rank": ["1", "2"]}, "results")), Hints(layout=layout)).completions == (
        "first",
        "second",
    )
    assert (
        only(task({"prompt": "x", "things": ITEMS}, ranker({"rank": ["1", "3"]}, "results"))).completions[1] == "third"
    )


def test_written_answers_choices_and_cancelled_annotations():
    text = {"type": "textarea", "from_name": "t", "value": {"text": ["An", "answer."]}}
    choice = {"type": "choices", "from_name": "sure", "value": {"choices": ["very"]}}
    row = task({"prompt": "Write"}, text, choice, lead_time=12.5)
    outcome = only(row)
    assert isinstance(outcome, Demonstration) and outcome.messages[1].content == "An\nanswer."
    assert outcome.meta == {"annotator": "3", "lead_time": 12.5, "notes": {"sure": {"choices": ["very"]}}}
    assert read(task(DATA, pairwise("left"), was_cancelled=True)) == []
    assert "type 'rectangle'" in str(only(task(DATA, {"type": "rectangle", "value": {}})))


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (pairwise("none"), "selected is none"),
        ({**pairwise("left"), "value": 3}, "the value of a label is a number"),
        (ranker({"rank": ["1", "9"]}), "no item '9'"),
        (ranker({"rank": ["1", "1"]}), "ranked twice"),
        (ranker({"rank": "1"}), "not lists of items"),
        ({"type": "textarea", "value": {"text": [1]}}, "the written text is a list"),
        (7, "type 'a number'"),
    ],
)
def test_labels_that_are_none_say_why(result, why):
    outcome = only(task({**DATA, "items": ITEMS}, result))
    assert isinstance(outcome, InvalidRow) and why in str(outcome)


def minimal(**columns):
    about = {"annotator": 3, "annotation_id": 11, "created_at": "2026", "updated_at": "2026", "lead_time": 2.5}
    return {"id": 7, **DATA, **columns, **about}


def test_an_annotation_of_json_min():
    row = minimal(pw=[{"selected": "right"}], sure="very")
    assert is_minimal(row) and not is_task(row) and is_task(task(DATA))
    with pytest.raises(Unclear, match=r"which fields are compared .*--left-field"):
        read(row, labels=minimal_labels)
    layout = Layout(
        fields={"a": "answer1", "b": "answer2"},
        types={"pw": "pairwise", "sure": "choices"},
        shows={"pw": "b,a", "sure": "a"},
    )
    outcome = only(row, Hints(layout=layout), minimal_labels)
    assert isinstance(outcome, Ranking) and outcome.completions == ("Blue.", "Red.") and outcome.ranks == (2.0, 1.0)
    assert (outcome.id, outcome.annotator, outcome.meta["lead_time"]) == ("7", "3", 2.5)
    assert outcome.meta["notes"] == {"sure": {"choices": "very"}}
    hinted = only(row, Hints(left_field="answer1", right_field="answer2"), minimal_labels)
    assert (hinted.completions, hinted.ranks) == (("Red.", "Blue."), (2.0, 1.0))


def test_orders_and_written_answers_of_json_min():
    ordered = {**minimal(rank=[{"ranker": {"rank": ["3", "1"]}}], items=ITEMS)}
    assert only(ordered, labels=minimal_labels).completions == ("third", "first")
    row = {"prompt": "Write", "answer": "So.", "annotator": 3, "annotation_id": 1, "lead_time": 2}
    assert "--label-config" in str(only(row, labels=minimal_labels))
    layout = Layout(types={"answer": "textarea"}, shows={"answer": "t"})
    assert only(row, Hints(layout=layout), minimal_labels).messages[1].content == "So."
