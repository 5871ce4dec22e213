"""Every instruction of IFEval that is checked: an answer that follows it, and one that does not, by hand."""

from typing import Any

import pytest

from amenable.evaluation.tasks.instructions import CHECKERS, follows, relation, sentences

LESS, LEAST = "less than", "at least"
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["rose", "a.b"]}, "Roses of a.b", "Roses of a-b"),
    ("keywords:frequency", {"keyword": "red", "frequency": 2, "relation": LEAST}, "Red, reddish", "red"),
    ("keywords:forbidden_words", {"forbidden_words": ["art"]}, "a party", "An Art."),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": LESS}, "one", "Eel"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LEAST}, "One. Two!", "Dr. No is 3.5"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***", "a\n***\n***\nb"),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, "two words", "three words, yes"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "a\n\n'then, b",
        "a\n\nnow",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [town]", "[name] (town)"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Dear.\nP. S. more", "Dear. PS more"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "p.p.s more", "P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n- c"),
    ("detectable_format:constrained_response", {}, "So: My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and * *"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION 2\nb",
        "SECTION 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<On roses>>\nRed.", "<< >>\nRed."),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say A."}, " say a. A", "A"),
    ("startend:end_checker", {"end_phrase": "The end."}, 'It is the END."', "The end. Or not"),
    ("startend:quotation", {}, ' "all of it" ', '"'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LEAST},
        "A WELL-KNOWN rose",
        "A rose",
    ),
    ("change_case:english_capital", {}, "ALL 3.", "ALL of it"),
    ("change_case:english_lowercase", {}, "all 3.", "All"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES, ids=lambda value: str(value)[:40])
def test_an_answer_follows_or_does_not(name: str, arguments: dict[str, Any], right: str, wrong: str) -> None:
    assert follows(name, right, arguments) and not follows(name, wrong, arguments)


def test_every_checker_has_a_case_and_no_empty_answer_follows() -> None:
    assert {name for name, *_ in CASES} == set(CHECKERS)
    assert not any(follows(name, " ", arguments) for name, arguments, *_ in CASES)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One", 1),
        ("One. Two? Three!", 3),
        ("It is 3.5 m.", 1),
        ("Mr. X came. \u201cYes.\u201d", 2),
        ("Wait...", 1),
    ],
)
def test_sentences_are_counted_by_their_ends(text: str, count: int) -> None:
    assert sentences(text) == count


def test_relations_are_two() -> None:
    assert relation(2, 3, LESS) and not relation(3, 3, LESS) and relation(3, 3, LEAST)
    with pytest.raises(ValueError, match="unknown relation 'more'"):
        relation(1, 1, "more")
