"""An annotator's labels that contradict each other: pairs preferred both ways, and cycles."""

from typing import Any

from amenable.feedback.consistency import Contradiction, cyclic, split_contradictory


def ranking(prompt: str, answers: str, ranks: tuple[int, ...], annotator: str = "Ann") -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completions": list(answers),
        "ranking": list(ranks),
        "annotator": annotator,
    }


def test_a_pair_preferred_both_ways_is_left_out_with_both_its_labels() -> None:
    rows = [
        ranking("What?", "ab", (1, 2)),
        ranking("Why?", "ab", (1, 2)),
        ranking("What?", "ba", (1, 2)),
        ranking("Why?", "ba", (2, 1)),
    ]
    stored, contradictions = split_contradictory(rows)
    assert stored == [rows[1], rows[3]]
    assert contradictions == [Contradiction("Ann", "What?", ("a", "b"))]


def test_other_people_other_prompts_and_ties_contradict_nothing() -> None:
    rows = [
        ranking("What?", "ab", (1, 2)),
        ranking("What?", "ab", (2, 1), "Bo"),
        ranking("Why?", "ab", (2, 1)),
        ranking("What?", "ab", (1, 1)),
    ]
    assert split_contradictory(rows) == (rows, [])


def test_a_cycle_of_three_contradicts_itself_and_what_lies_outside_it_does_not() -> None:
    cycle = [ranking("What?", "ab", (1, 2)), ranking("What?", "bc", (1, 2)), ranking("What?", "ca", (1, 2))]
    outside = ranking("What?", "ad", (1, 2))
    stored, contradictions = split_contradictory([*cycle, outside])
    assert stored == [outside]
    assert {pair.answers for pair in contradictions} == {("a", "b"), ("b", "c"), ("a", "c")}
    assert cyclic([outside, cycle[0]]) == set()
