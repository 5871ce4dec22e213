"""The token inspector: traced answers of PPO, iteration by iteration, as a page and as a part of other pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from amenable.recipes.reports.charts import evenly_spaced
from amenable.recipes.reports.rendering import render

MAX_ITERATIONS = 16

QUANTITIES = {
    "rewards": ("reward", "what the token earned: the score on the last token, less the price of its KL"),
    "kl": ("KL", "log-probability over the reference’s, in nats: how much likelier than before PPO"),
    "values": ("value", "what the critic expects of the rest of the answer, before the token is drawn"),
    "advantages": ("advantage", "how much better than expected the token turned out (GAE, not standardised)"),
    "ratios": ("ratio", "its probability after this iteration’s updates over that before"),
}
"""key in traces.jsonl: name, meaning"""
MIN_LIMIT = 0.01

Row = dict[str, Any]


def page(rows: Sequence[Row], folder: Path) -> str:
    """Return the inspector as a whole page."""
    return render(
        "inspect.jinja",
        css="report.css",
        name=folder.resolve().name,
        command=f"amenable inspect {folder}",
        inspector=part(rows),
        meanings=list(quantities_in(rows).values()),
    )


def part(rows: Sequence[Row]) -> Markup:
    """Return the inspector alone, with its style and script, for another page; empty without rows."""
    if not rows:
        return Markup("")
    values = {"data": iterations_json(rows), "quantities": quantities_in(rows)}
    return Markup(render("inspector.jinja", css="inspect.css", js="inspect.js", **values))


def quantities_in(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Return the quantities that the rows hold, with name and meaning: an algorithm without a critic has no values."""
    return {key: meaning for key, meaning in QUANTITIES.items() if all(key in row for row in rows)}


def iterations_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the rows as inspect.js reads them: answers[iteration][prompt], None for an answer that is absent.

    Tokens are indices into a list of pieces, as most of them come often. Of very many iterations some are shown, the
    first and the last among them.
    """
    steps = evenly_spaced(sorted({row["step"] for row in rows}), MAX_ITERATIONS)
    prompts = {(row["id"], row["prompt"]): row["prompt_tokens"] for row in rows}
    by_key = {(row["step"], row["id"], row["prompt"]): row for row in rows}
    pieces: dict[str, int] = {}
    answers = [[compact(by_key.get((step, *prompt)), pieces) for prompt in prompts] for step in steps]
    return {
        "steps": steps,
        "last": max(row["step"] for row in rows),
        "prompts": [{"text": text.strip(), "tokens": tokens} for (_, text), tokens in prompts.items()],
        "answers": answers,
        "limits": {key: limit(key, rows) for key in quantities_in(rows)},
        "pieces": list(pieces),
    }


def compact(row: Row | None, pieces: dict[str, int]) -> Row | None:
    """Return an answer in few characters: three digits, and indices into `pieces`, to which new ones are added."""
    if row is None:
        return None

    def index(piece: str) -> int:
        return pieces.setdefault(piece, len(pieces))

    return {
        "tokens": [index(piece) for piece in row["tokens"]],
        "top": [[[index(piece), short(p)] for piece, p in alternatives] for alternatives in row["top"]],
        **{key: [short(value) for value in row[key]] for key in ("logps", *quantities_in([row]))},
        **{key: row[key] for key in ("ended", "score", "raw_score", "score_index", "kl_coef")},
    }


def short(value: float) -> float | int:
    """Round to three decimals; an int where all are zero.

    >>> short(0.12345), short(-2.0), short(-0.0001)
    (0.123, -2, 0)
    """
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def limit(key: str, rows: Iterable[Row]) -> float:
    """Return the size at which a colour is strongest, in two digits: that of 98 % of the tokens of all iterations.

    A ratio's size is that of its logarithm.
    """
    numbers = [value for row in rows for value in row[key]]
    sizes = sorted(abs(math.log(value)) if key == "ratios" else abs(value) for value in numbers if value)
    typical = sizes[int(0.98 * (len(sizes) - 1))] if sizes else 0.0
    return float(f"{max(typical, MIN_LIMIT):.2g}")
