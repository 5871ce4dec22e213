"""The claims of the paper beside what was measured: a verdict in a word, every interval as a bar on its own axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from amenable.claims.stage_folders import Stage, named, number
from amenable.recipes.reports import words

VERDICTS = {
    "holds": ("holds", "hold", "✓", "good"),
    "does not hold": ("does not hold", "do not hold", "✗", "bad"),
    "undecided": ("undecided", "undecided", "≈", "open"),
    "not measured": ("not measured", "not measured", "–", "none"),
}
"""verdict: how it is written of one claim and of several, its sign, the class of its badge"""

WIDTH, HEIGHT, LINE = 260, 40, 14
"""of an axis, and how far down its line lies"""
LEFT, RIGHT = 8, 252


def table(claims: Sequence[dict[str, Any]], stages: Sequence[Stage], run: Path) -> list[dict[str, Any]]:
    """A row a claim, as report.jinja lays it out."""
    return [
        {
            **shown({"wanted": beside(claim).get("wanted"), **claim}),
            "id": claim.get("id", ""),
            "words": claim.get("claim", ""),
            "note": claim.get("note") or "",
            "what": beside(claim).get("what", ""),
            "parts": [part_of(part) for part in parts] if len(parts := claim.get("parts") or []) > 1 else [],
            "sources": [name for name in claim.get("needs") or [] if named(list(stages), name) is not None],
            "commands": commands(claim.get("needs") or [], stages, run)
            if claim.get("verdict") == "not measured"
            else [],
        }
        for claim in claims
    ]


def beside(claim: dict[str, Any]) -> dict[str, Any]:
    """The measurement that stands beside the claim: the one that settles it, else the first."""
    parts = claim.get("parts") or []
    return next((part for part in parts if part.get("what") == claim.get("what")), next(iter(parts), {}))


def part_of(part: dict[str, Any]) -> dict[str, Any]:
    return {**shown(part), "words": part.get("what", ""), "decides": part.get("decides", True)}


def shown(one: dict[str, Any]) -> dict[str, Any]:
    """What a claim and one of its parts have in common: verdict, the paper's figure, ours in words and on an axis."""
    unit = str(one.get("unit") or "")
    verdict, _, sign, kind = VERDICTS.get(str(one.get("verdict")), VERDICTS["not measured"])
    measured, low, high = (number(one, key) for key in ("measured", "low", "high"))
    interval = "" if low is None or high is None else f"{words.in_unit(low, unit)} to {words.in_unit(high, unit)}"
    paper = one.get("paper")
    return {
        "verdict": verdict,
        "sign": sign,
        "kind": kind,
        "paper": words.in_unit(number(one, "paper"), unit) if isinstance(paper, (int, float)) else str(paper or ""),
        "measured": "" if measured is None else words.in_unit(measured, unit),
        "interval": interval,
        "unit": "" if unit in ("share", "accuracy") else unit,
        "axis": axis(one, unit),
    }


def axis(one: dict[str, Any], unit: str) -> Markup | None:
    """Measured value, interval, null value, the paper's and each seed's on one line; None where none was measured."""
    measured, low, high, null = (number(one, key) for key in ("measured", "low", "high", "null"))
    if measured is None:
        return None
    seeds = [float(value) for value in one.get("seeds") or [] if isinstance(value, (int, float))]
    paper = number(one, "paper")
    known = [value for value in (measured, low, high, null, paper, *seeds) if value is not None]
    least, most = min(known), max(known)
    room = 0.12 * (most - least) or 0.1 * abs(most) or 1.0
    least, most = least - room, most + room

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - least) / (most - least)

    shapes = [f'<path class="rule" d="M{LEFT} {LINE}H{RIGHT}"/>']
    if null is not None and one.get("wanted") in ("above", "below"):
        start, end = (x(null), RIGHT) if one["wanted"] == "above" else (LEFT, x(null))
        shapes.insert(0, f'<rect class="wanted" x="{start:.1f}" y="2" width="{end - start:.1f}" height="24" rx="3"/>')
    if null is not None:
        told = words.in_unit(null, unit)
        shapes.append(f'<path class="null" d="M{x(null):.1f} 3V{LINE + 11}"/>')
        shapes.append(f'<text x="{x(null):.1f}" y="{HEIGHT - 3}" text-anchor="middle">{escape(told)}</text>')
    if low is not None and high is not None:
        shapes.append(f'<path class="interval" d="M{x(low):.1f} {LINE}H{x(high):.1f}"/>')
    if paper is not None:
        shapes.append(
            f'<path class="paper" d="M{x(paper):.1f} {LINE - 6}l6 6l-6 6l-6 -6z"><title>the paper’s</title></path>'
        )
    shapes += [
        f'<circle class="seed" cx="{x(value):.1f}" cy="{LINE + 9}" r="2.4"><title>seed {place}: '
        f"{escape(words.in_unit(value, unit))}</title></circle>"
        for place, value in enumerate(seeds if len(seeds) > 1 else [])
    ]
    shapes.append(f'<circle class="measured" cx="{x(measured):.1f}" cy="{LINE}" r="4.6"/>')
    label = f"measured {words.in_unit(measured, unit)}" + (
        "" if null is None else f", to be compared with {words.in_unit(null, unit)}"
    )
    picture = f'<svg class="axis" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{picture}{''.join(shapes)}</svg>")


def commands(needs: Sequence[str], stages: Sequence[Stage], run: Path) -> list[str]:
    """What would measure a claim: the planned stages it still needs, or else a full run."""
    waiting = [stage for name in needs if (stage := named(list(stages), name)) is not None and stage.finished is None]
    absent = [name for name in needs if named(list(stages), name) is None]
    if absent or not waiting:
        return ["amenable demo --full"]
    return [f"amenable {stage.command} --config {run / 'plan' / (stage.name + '.yaml')}" for stage in waiting]


def tally(claims: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many claims came to each verdict, in the order of VERDICTS; verdicts that none came to are left out."""
    counts = {verdict: sum(claim.get("verdict") == verdict for claim in claims) for verdict in VERDICTS}
    return [
        {"count": count, "verdict": VERDICTS[verdict][count > 1], "kind": VERDICTS[verdict][3]}
        for verdict, count in counts.items()
        if count
    ]
