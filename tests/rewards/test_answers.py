r"""Answers are compared as the evaluations of GSM8K and MATH compare them."""

import pytest

from amenable.rewards.answers import extract_answer, last_boxed, last_number, matches, normalize, same_number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{never closed", r"\boxed{never closed"),
        ("6 * 7 = 42\n#### 42", "42"),
        ("<think>41?</think><answer>\n42\n</answer>", "42"),
        ("The answer is 42", "42"),
        ("First answer: 3.\nFinal Answer: **B**", "B"),
        ("  Paris ", "Paris"),
    ],
)
def test_the_answer_that_a_text_marks(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


def test_the_last_box_that_closes() -> None:
    assert last_boxed(r"\boxed{a{b}c} \boxed{open") == "a{b}c" and last_boxed("no box") is None


@pytest.mark.parametrize(
    "same",
    [
        ("Paris.", " paris"),
        ("$1,234", "1234", "1,234."),
        (r"\dfrac12", r"\frac{1}{2}", "1/2", r"\tfrac{1}{2}"),
        ("-3/4", r"-\frac{3}{4}"),
        (r"90^\circ", "90", r"90^{\circ}"),
        (r"5\text{ cm}", "5", r"5 \text{miles}"),
        (".5", "0.5"),
        (r"x = \left(1, 2\right)", "(1,2)"),
        (r"50\%", "50%", "50"),
        (r"\text{Monday}", "monday"),
    ],
)
def test_forms_of_one_answer_are_one(same: tuple[str, ...]) -> None:
    assert len({normalize(text) for text in same}) == 1


def test_other_answers_are_others() -> None:
    assert len({normalize(text) for text in ("1", "-1", "12", "1/2", "1.2", "(1,2)", "x")}) == 7
    assert matches(r"It is \boxed{\frac{1}{2}}", "... so 1/2 \n#### 1/2") and not matches("It is 3", "4")
    assert not matches("", "") and not matches("3", None)
    assert matches("3", 3)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The total is 1,234.50 dollars.", 1234.5),
        ("5-3", 3),
        ("x=-7", -7),
        ("(\u22124)", -4),
        (r"\frac{3}{4}", 0.75),
        ("1 / 4", 0.25),
        ("1e-3.", 0.001),
        ("3 apples and .5", 0.5),
        ("H2O", None),
        ("none", None),
        ("1/0", None),
    ],
)
def test_the_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


def test_numbers_within_a_tolerance() -> None:
    assert same_number("It is 3.14", 3.14159, 1e-2) and not same_number("It is 3.14", 3.14159, 1e-6)
    assert same_number("#### 72 clips", "48 + 24\n#### 72", 1e-6)
    assert same_number("7 apples. The answer is seven", 7, 1e-6)  # a marked answer without a number
    assert same_number("-0.0", 0, 1e-6) and not same_number("1", True, 1e-6) and not same_number("1", None, 1e-6)
