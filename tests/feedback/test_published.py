from amenable.data.record import InvalidRow, Record
from amenable.feedback.hints import Hints
from amenable.feedback.published import comparison_labels

ALPACA = {
    "instruction": "Why?", "output_1": "Because.", "generator_1": "north", "output_2": "Since.", "generator_2": "south",
    "dataset": "helpful", "annotator": "judge", "preference": 2.0, "raw_completion": "The second is better.",
}  # fmt: skip
SIDES = {
    f"conversation_{side}": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": f"{side}."}]
    for side in "ab"
}
ARENA = {"question_id": "q1", "model_a": "north", "model_b": "south", "judge": "cy", "language": "English", **SIDES}


def read(row):
    (label,) = comparison_labels(Record(row), "file:1", Hints())
    return label


def test_a_label_is_a_ranking_with_both_models_and_all_other_columns():
    label = read({**ARENA, "winner": "model_b"})
    assert (label.ranks, label.completions, label.meta["models"]) == ((2.0, 1.0), ("a.", "b."), ["north", "south"])
    assert (label.annotator, label.id, label.meta["language"]) == ("cy", "q1", "English")
    alpaca = read({**ALPACA, "preference": 1.4})
    assert (alpaca.annotator, alpaca.ranks, alpaca.meta["preference"]) == ("judge", (1.0, 2.0), 1.4)
    assert alpaca.meta["raw_completion"] == "The second is better." and alpaca.id == "file:1"


def test_ties_are_labels_and_both_bad_is_kept():
    assert read({**ARENA, "winner": "both_bad"}).meta["both_bad"] is True
    tie = read({**ARENA, "winner": "tie"})
    assert tie.ranks == (1.0, 1.0) and "both_bad" not in tie.meta


def test_a_row_that_compares_nothing_is_rejected_with_the_reason():
    label = read({"model_a": "x", "model_b": "y", "winner": "tie"})
    assert isinstance(label, InvalidRow) and "no texts of the two answers" in str(label)
