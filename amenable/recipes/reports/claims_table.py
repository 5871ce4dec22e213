"""The papers' claims beside what was measured: each verdict in a word, every interval as a bar on its own axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from amenable.claims.stage_folders import Stage, find_stage, number
from amenable.recipes.reports.formatting import in_unit

VERDICTS = {
    "holds": ("holds", "hold", "✓", "good"),
    "does not hold": ("does not hold", "do not hold", "✗", "bad"),
    "undecided": ("undecided", "undecided", "≈", "open"),
    "not measured": ("not measured", "not measured", "–", "none"),
}
"""verdict: singular, plural, sign, class of the badge"""

WIDTH, HEIGHT, LINE = 260, 40, 14
"""of an axis, and the y of its line"""
LEFT, RIGHT = 8, 252


def table(claims: Sequence[dict[str, Any]], stages: Sequence[Stage], run: Path) -> list[dict[str, Any]]:
    """Return a row a claim, as report.jinja lays it out."""
    rows = []
    for claim in claims:
        parts, needs = claim.get("parts") or [], claim.get("needs") or []
        first: dict[str, Any] = next(iter(parts), {})
        settling = next((part for part in parts if part.get("what") == claim.get("what")), first)
        row = {
            **verdict_row({"wanted": settling.get("wanted"), **claim}),
            "id": claim.get("id", ""),
            "words": claim.get("claim", ""),
            "note": claim.get("note") or "",
            "what": settling.get("what", ""),
            "parts": [
                {**verdict_row(part), "words": part.get("what", ""), "decides": part.get("decides", True)}
                for part in (parts if len(parts) > 1 else [])
            ],
            "sources": [name for name in needs if find_stage(stages, name) is not None],
            "commands": commands(needs, stages, run) if claim.get("verdict") == "not measured" else [],
        }
        rows.append(row)
    return rows


def verdict_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the cells that a claim and a part have in common: verdict, the paper's figure, ours in words, the axis."""
    unit = str(row.get("unit") or "")
    verdict, _, sign, kind = VERDICTS.get(str(row.get("verdict")), VERDICTS["not measured"])
    measured, low, high = (number(row, key) for key in ("measured", "low", "high"))
    interval = "" if low is None or high is None else f"{in_unit(low, unit)} to {in_unit(high, unit)}"
    paper = row.get("paper")
    return {
        "verdict": verdict,
        "sign": sign,
        "kind": kind,
        "paper": in_unit(number(row, "paper"), unit) if isinstance(paper, (int, float)) else str(paper or ""),
        "measured": "" if measured is None else in_unit(measured, unit),
        "interval": interval,
        "unit": "" if unit in ("share", "accuracy") else unit,
        "axis": axis(row, unit),
    }


def axis(row: dict[str, Any], unit: str) -> Markup | None:
    """Draw measured value, interval, null value, the paper's and each seed's on one line; None if not measured."""
    measured, low, high, null, paper = (number(row, key) for key in ("measured", "low", "high", "null", "paper"))
    if measured is None:
        return None
    seeds = [float(value) for value in row.get("seeds") or [] if isinstance(value, (int, float))]
    values = [value for value in (measured, low, high, null, paper, *seeds) if value is not None]
    least, most = min(values), max(values)
    margin = 0.12 * (most - least) or 0.1 * abs(most) or 1.0
    least, most = least - margin, most + margin

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - least) / (most - least)

    shapes = [f'<path class="rule" d="M{LEFT} {LINE}H{RIGHT}"/>']
    if null is not None and row.get("wanted") in ("above", "below"):
        start, end = (x(null), RIGHT) if row["wanted"] == "above" else (LEFT, x(null))
        shapes.insert(0, f'<rect class="wanted" x="{start:.1f}" y="2" width="{end - start:.1f}" height="24" rx="3"/>')
    if null is not None:
        shapes.append(f'<path class="null" d="M{x(null):.1f} 3V{LINE + 11}"/>')
        label = escape(in_unit(null, unit))
        shapes.append(f'<text x="{x(null):.1f}" y="{HEIGHT - 3}" text-anchor="middle">{label}</text>')
    if low is not None and high is not None:
        shapes.append(f'<path class="interval" d="M{x(low):.1f} {LINE}H{x(high):.1f}"/>')
    if paper is not None:
        diamond = f"M{x(paper):.1f} {LINE - 6}l6 6l-6 6l-6 -6z"
        shapes.append(f'<path class="paper" d="{diamond}"><title>the paper’s</title></path>')
    for i, value in enumerate(seeds if len(seeds) > 1 else []):
        title = f"<title>seed {i}: {escape(in_unit(value, unit))}</title>"
        shapes.append(f'<circle class="seed" cx="{x(value):.1f}" cy="{LINE + 9}" r="2.4">{title}</circle>')
    shapes.append(f'<circle class="measured" cx="{x(measured):.1f}" cy="{LINE}" r="4.6"/>')
    name = f"measured {in_unit(measured, unit)}"
    name += "" if null is None else f", to be compared with {in_unit(null, unit)}"
    svg = f'<svg class="axis" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">'
    return Markup(f"{svg}{''.join(shapes)}</svg>")


def commands(needs: Sequence[str], stages: Sequence[Stage], run: Path) -> list[str]:
    """Return the commands that measure a claim: the planned stages it still needs, or else a full run."""
    needed = [find_stage(stages, name) for name in needs]
    waiting = [stage for stage in needed if stage is not None and stage.finished is None]
    if None in needed or not waiting:
        return ["amenable demo --full"]
    return [f"amenable {stage.command} --config {run / 'plan' / (stage.name + '.yaml')}" for stage in waiting]


def tally(claims: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count the claims by verdict, in the order of VERDICTS; verdicts that no claim has are left out."""
    counts = {verdict: sum(claim.get("verdict") == verdict for claim in claims) for verdict in VERDICTS}
    return [
        {"count": count, "verdict": VERDICTS[verdict][count > 1], "kind": VERDICTS[verdict][3]}
        for verdict, count in counts.items()
        if count
    ]
