"""Templates: what is put in is escaped, and nothing may be left out."""

import pytest
from jinja2 import UndefinedError

from amenable.recipes.reports.rendering import FOLDER, render, shown_answer, stacked


def test_what_is_put_in_is_escaped_and_the_style_is_inside():
    html = render("inspect.jinja", css="report.css", name="<b>", command="x", inspector="<i>", meanings=[("a", "b")])
    assert "<b>" not in html and "&lt;b&gt;" in html and "&lt;i&gt;" in html
    assert (FOLDER / "report.css").read_text("utf-8").splitlines()[0] in html


def test_a_value_left_out_is_an_error():
    with pytest.raises(UndefinedError):
        render("inspect.jinja", css="report.css", name="n", command="x", inspector="")


def test_an_answer_that_says_nothing_is_said_to():
    assert shown_answer(" <b> \n") == "<b>" and "(says nothing)" in shown_answer(" \n")


def test_an_interval_stands_below_its_value():
    assert stacked("+0.5 (0.4 to 0.6)") == "+0.5<small>0.4 to 0.6</small>" and stacked("<b>") == "&lt;b&gt;"
    assert stacked("a (b) c") == "a (b) c"
