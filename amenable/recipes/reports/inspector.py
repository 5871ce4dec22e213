"""The token inspector: watched answers of PPO, iteration by iteration, as a page and as a part of other pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from amenable.recipes.reports.rendering import render

MOST_ITERATIONS = 16

QUANTITIES = {
    "rewards": ("reward", "what the token earned: the score on the last token, less the price of its KL"),
    "kl": ("KL", "log-probability over the reference’s, in nats: how much likelier than before PPO"),
    "values": ("value", "what the critic expects of the rest of the answer, before the token is drawn"),
    "advantages": ("advantage", "how much better than expected the token turned out (GAE, not standardised)"),
    "ratios": ("ratio", "its probability after this iteration’s updates over that before"),
}
"""key in traces.jsonl: name, what it means"""
SMALLEST_LIMIT = 0.01

Row = dict[str, Any]


def page(rows: Sequence[Row], folder: Path) -> str:
    """Return the whole page of a run."""
    return render(
        "inspect.jinja",
        css="report.css",
        name=folder.resolve().name,
        command=f"amenable inspect {folder}",
        inspector=part(rows),
        meanings=list(quantities_in(rows).values()),
    )


def part(rows: Sequence[Row]) -> Markup:
    """The inspector alone, with its style and script, for another page to hold; nothing where there are no rows."""
    if not rows:
        return Markup("")
    html = render(
        "inspector.jinja", css="inspect.css", js="inspect.js", film=film(rows), quantities=quantities_in(rows)
    )
    return Markup(html)


def quantities_in(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Return the quantities that the rows hold, with name and meaning: an algorithm without a critic has no values."""
    return {key: meaning for key, meaning in QUANTITIES.items() if all(key in row for row in rows)}


def film(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as the page's script wants them: answers[iteration][prompt], None where that answer is not there.

    Tokens are numbers of a list of pieces, as most of them come often. Of very many iterations some are kept, the first
    and the last among them.
    """
    steps = some(sorted({row["step"] for row in rows}), MOST_ITERATIONS)
    prompts = {(row["id"], row["prompt"]): row["prompt_tokens"] for row in rows}
    by_place = {(row["step"], row["id"], row["prompt"]): row for row in rows}
    pieces: dict[str, int] = {}
    answers = [[compact(by_place.get((step, *prompt)), pieces) for prompt in prompts] for step in steps]
    return {
        "steps": steps,
        "last": max(row["step"] for row in rows),
        "prompts": [{"text": text.strip(), "tokens": tokens} for (_, text), tokens in prompts.items()],
        "answers": answers,
        "limits": {key: limit(key, rows) for key in quantities_in(rows)},
        "pieces": list(pieces),
    }


def some(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` of the steps at even distances, the first and the last among them.

    >>> some([1, 5, 10, 15, 20, 25], 3)
    [1, 10, 25]
    """
    if len(steps) <= most:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]


def compact(row: Row | None, pieces: dict[str, int]) -> Row | None:
    """An answer in few characters: three digits, and numbers for pieces, to which new ones are added."""
    if row is None:
        return None

    def place(piece: str) -> int:
        return pieces.setdefault(piece, len(pieces))

    return {
        "tokens": [place(piece) for piece in row["tokens"]],
        "top": [[[place(piece), short(p)] for piece, p in alternatives] for alternatives in row["top"]],
        **{key: [short(value) for value in row[key]] for key in ("logps", *quantities_in([row]))},
        **{key: row[key] for key in ("ended", "score", "raw_score", "score_index", "kl_coef")},
    }


def short(value: float) -> float | int:
    """Three digits after the point, and no point where it says nothing.

    >>> short(0.12345), short(-2.0), short(-0.0001)
    (0.123, -2, 0)
    """
    rounded = round(value, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def limit(key: str, rows: Iterable[Row]) -> float:
    """The size at which a colour is at its strongest: 98 % of the tokens of all iterations are within it.

    Two digits; a ratio's size is that of its logarithm.
    """
    numbers = [value for row in rows for value in row[key]]
    sizes = sorted(abs(math.log(value)) if key == "ratios" else abs(value) for value in numbers if value)
    typical = sizes[int(0.98 * (len(sizes) - 1))] if sizes else 0.0
    return float(f"{max(typical, SMALLEST_LIMIT):.2g}")
