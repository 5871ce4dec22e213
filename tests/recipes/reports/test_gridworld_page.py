"""The gridworld's page: every position of the sliders is the exact solution."""

import json
import re

import numpy as np
import pytest

from amenable.control.dynamic_programming import value_iteration
from amenable.control.gridworld import DEFAULT_MAP, world_of
from amenable.control.gridworld_preferences import LearnedRewards
from amenable.recipes.reports import gridworld_page
from amenable.recipes.reports.gridworld_page import DISCOUNTS, SLIPS


def test_the_page_holds_the_solutions() -> None:
    page = gridworld_page.page(["SBM"], "amenable gridworld --page x.html", 0.25, 0.5)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["rows"] == ["SBM"] and data["start"] == 0
    sober = data["solutions"][SLIPS.index(0.0)][DISCOUNTS.index(0.5)]
    assert data["slips"] == [0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0] and data["discounts"] == list(DISCOUNTS)
    assert re.search(r'id="slip"[^>]* value="3"', page) and re.search(r'id="discount"[^>]* value="0"', page)
    assert sober["values"] == [49, 100, 0] and sober["actions"][:2] == [[1], [1]]
    assert sober["random"] == pytest.approx(6.34) and sober["walks"][0] == {"states": [0, 1, 2], "return": 49}
    assert "amenable gridworld --page x.html" in page and "http" not in page.replace("http-equiv", "")


def test_solutions_are_those_of_value_iteration() -> None:
    solution = gridworld_page.solution(DEFAULT_MAP, 0.2, 0.9)
    values, _ = value_iteration(world_of(DEFAULT_MAP, 0.2), 0.9)
    assert np.abs(values - solution["values"]).max() <= 0.005 + 1e-9 and solution["random"] < values[0]
    assert all(walk["states"][0] == 0 and len(walk["states"]) <= 81 for walk in solution["walks"])


def test_learned_rewards_stand_beside_the_true_ones() -> None:
    world = world_of(["SBM"])
    learned = LearnedRewards(np.array([0.0, 3.0, -5.0]), [(20, 0.5)], np.array([0.0, 60.0, -100.0]))
    compared = gridworld_page.comparison(["SBM"], world, 0.5, learned)
    (_, true), (name, own) = compared["maps"]
    assert [cell["reward"] for cell in true] == [0, -1, 100] and [cell["reward"] for cell in own] == [0, 60, -100]
    assert true[0]["arrows"] == "→" and own[1]["arrows"] != "→" and own[1]["wrong"] and own[2]["arrows"] == ""
    page = gridworld_page.page(["SBM"], "amenable gridworld --comparisons 20", 0.0, 0.5, compared)
    assert name == "learned from 20 comparisons" in page and "-100.0" in page and "50 %" in page
