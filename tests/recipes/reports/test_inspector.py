"""The token inspector: which iterations, how strong a colour, a part of another page."""

import re
from collections.abc import Callable

import pytest

from amenable.recipes.reports import inspector, rendering


def test_of_many_iterations_some_are_kept(a_row: Callable) -> None:
    film = inspector.iterations_json([a_row(step, 0) for step in range(1, 101)])
    assert len(film["steps"]) == len(film["answers"]) == inspector.MAX_ITERATIONS
    assert film["steps"][0] == 1 and film["steps"][-1] == film["last"] == 100
    assert film["answers"][1][0]["kl"] == pytest.approx(a_row(film["steps"][1], 0)["kl"], abs=5.1e-4)


def test_the_strongest_colour_is_that_of_nearly_all_tokens() -> None:
    rows = [{"kl": [0.1 * i - 5 for i in range(101)], "ratios": [0.5, 1.0, 2.0], "values": [0.0]}]
    assert inspector.limit("kl", rows) == 4.9  # |kl| is 0 to 5 in steps of 0.1, twice each; zero says nothing
    rows[0]["kl"][50] = 1000.0
    assert inspector.limit("kl", rows) < 6, "one token out of line does not pale the others"
    assert inspector.limit("ratios", rows) == 0.69  # log 2, above as below
    assert inspector.limit("values", rows) == inspector.MIN_LIMIT


def test_a_part_goes_into_another_page(a_row: Callable, data_of: Callable) -> None:
    html = inspector.part([a_row(1, 0), a_row(5, 0)])
    assert html.startswith('<section class="inspector"') and html.rstrip().endswith("</section>")
    assert html.__html__() == str(html), "a template takes it as it is"
    assert data_of(html)["steps"] == [1, 5]
    assert inspector.part([]) == ""
    selectors = re.findall(r"^\s*([^@}\n][^{]*)\{", (rendering.FOLDER / "inspect.css").read_text(), re.MULTILINE)
    assert selectors and all(
        one.strip().startswith(".inspector") for selector in selectors for one in selector.split(",")
    )
