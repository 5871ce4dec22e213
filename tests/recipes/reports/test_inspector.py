"""The token inspector: which iterations, how strong a colour, a part of another page."""

import json
import random
import re

import pytest

from amenable.recipes.reports import inspector, rendering

SCRIPT = "</script><script>alert('a model said this')</script>"
WORDS = ["Gladly", " I", " can", " name", " the", " river", ".", "\n", " porridge", " Tuesday", "é", "<|eos|>"]


def a_row(step: int, place: int, tokens: int = 8, seed: int = 0) -> dict:
    """A row of traces.jsonl as `ppo` writes it, with numbers at random."""
    draw = random.Random(f"{seed},{step},{place}")

    def numbers(low: float, high: float) -> list[float]:
        return [round(draw.uniform(low, high), 4) for _ in range(tokens)]

    return {
        "step": step,
        "id": f"p{place}",
        "prompt": f"What is {place}?",
        "prompt_tokens": ["<|bos|>", "<|user|>", f"What is {place}?", "<|assistant|>"],
        "tokens": [draw.choice(WORDS) for _ in range(tokens)],
        "ended": True,
        "score": 1.25,
        "raw_score": 1.25,
        "score_index": tokens - 1,
        "kl_coef": 0.3,
        "logps": numbers(-3, 0),
        "ref_logps": numbers(-3, 0),
        "kl": numbers(-1, 1),
        "values": numbers(-4, 4),
        "rewards": numbers(-0.2, 0.2),
        "advantages": numbers(-2, 2),
        "returns": numbers(-2, 2),
        "ratios": numbers(0.5, 2),
        "top": [[[draw.choice(WORDS), round(draw.random(), 4)] for _ in range(5)] for _ in range(tokens)],
    }


def data_of(html: str) -> dict:
    """What the page's script reads."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def test_of_many_iterations_some_are_kept() -> None:
    film = inspector.film([a_row(step, 0) for step in range(1, 101)])
    assert len(film["steps"]) == len(film["answers"]) == inspector.MOST_ITERATIONS
    assert film["steps"][0] == 1 and film["steps"][-1] == film["last"] == 100
    assert film["answers"][1][0]["kl"] == pytest.approx(a_row(film["steps"][1], 0)["kl"], abs=5.1e-4)


def test_the_strongest_colour_is_that_of_nearly_all_tokens() -> None:
    rows = [{"kl": [0.1 * i - 5 for i in range(101)], "ratios": [0.5, 1.0, 2.0], "values": [0.0]}]
    assert inspector.limit("kl", rows) == 4.9  # |kl| is 0 to 5 in steps of 0.1, twice each; zero says nothing
    rows[0]["kl"][50] = 1000.0
    assert inspector.limit("kl", rows) < 6, "one token out of line does not pale the others"
    assert inspector.limit("ratios", rows) == 0.69  # log 2, above as below
    assert inspector.limit("values", rows) == inspector.SMALLEST_LIMIT


def test_a_part_goes_into_another_page() -> None:
    html = inspector.part([a_row(1, 0), a_row(5, 0)])
    assert html.startswith('<section class="inspector"') and html.rstrip().endswith("</section>")
    assert html.__html__() == str(html), "a template takes it as it is"
    assert data_of(html)["steps"] == [1, 5]
    assert inspector.part([]) == ""
    selectors = re.findall(r"^\s*([^@}\n][^{]*)\{", (rendering.FOLDER / "inspect.css").read_text(), re.MULTILINE)
    assert selectors and all(
        one.strip().startswith(".inspector") for selector in selectors for one in selector.split(",")
    )
