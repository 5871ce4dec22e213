"""Report of a run of `amenable control`: its curves, the reward learned beside the true one, and episodes that play.

Episodes are drawn by the script of the labelling page (serve/pages/clip.js), which is put into the page.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

import amenable
from amenable.claims.stage_folders import Stage, read_stage
from amenable.control.preference_training import PROBES
from amenable.control.recorded_episodes import EPISODES
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.recipes.reports.charts import Series, line_chart, scatter_chart
from amenable.recipes.reports.formatting import decimal, duration
from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.stage_cards import card, report_of
from amenable.recipes.reports.terminal import Grid

MOMENTS = ("before", "midway", "after")
SCRIPTS = ("elements.js", "clip.js")
"""modules of the labelling page that draw a clip"""


def is_control(folder: Path) -> bool:
    """Return True for the run directory of `amenable control`, finished or not."""
    stage = read_stage(folder)
    return stage is not None and stage.command == "control"


def write(folder: Path) -> Path:
    """Write report.json and report.html of a run, print its returns, and return the folder. InputError for a folder
    without a run of `amenable control`."""
    stage = read_stage(folder)
    if stage is None or stage.command != "control":
        raise InputError("holds no run of amenable control", folder, "name its --out")
    figures = collect(stage)
    return publish(folder, "report", figures, page(stage, figures), table(figures))


def collect(stage: Stage) -> dict[str, Any]:
    """Return what the page shows: task, headline, facts, the recorded episodes, and the clips' returns by learned and
    true reward where the reward was learned."""
    facts = {name: value for name, value in card(stage)["facts"]}
    probes = stage.folder / PROBES
    returns = json.loads(probes.read_text("utf-8")) if probes.exists() else None
    episodes = sorted(read_json_lines(stage.folder / EPISODES), key=lambda row: MOMENTS.index(row["moment"]))
    figures = {"task": stage.config["env"], "algorithm": stage.config["algorithm"], "facts": facts}
    figures |= {"learned_from": stage.config["learn_from"], "episodes": episodes, "probes": returns}
    return {**figures, "headline": headline(stage, figures)}


def headline(stage: Stage, figures: dict[str, Any]) -> list[str]:
    """Return the result in sentences."""
    done = stage.finished
    source = f"from comparisons of clips, judge: {stage.config['judge']}"
    learned = source if figures["learned_from"] == "comparisons" else "from its reward"
    lines = [f"{figures['algorithm'].upper()} learned to act in {figures['task']} {learned}."]
    if done is None:
        return [*lines, "The run is not finished: the command that began it goes on with it."]
    lines.append(f"It took {done['timesteps']:,} steps and {duration(done['seconds'])}.")
    if "eval/rotation" in done:
        turns, share = decimal(done["eval/rotation"]), done["eval/full_turn"]
        lines.append(
            f"An episode by the likeliest actions turns {turns} times backwards; {share:.0%} have a full turn."
        )
    elif "eval/return" in done:
        span = f"({decimal(done['eval/return_low'], 1)} to {decimal(done['eval/return_high'], 1)})"
        lines.append(f"The return of an episode by the likeliest actions is {decimal(done['eval/return'], 1)} {span}.")
    if figures["probes"] is not None and "eval_rm/spearman" in done:
        correlation = decimal(done["eval_rm/spearman"], 3)
        words = "rank correlation of learned and true returns of clips"
        lines.append(f"After {done['labels']:,} answers the {words} is {correlation}.")
    return lines


def table(figures: dict[str, Any]) -> Grid:
    """Return the recorded episodes: steps of training before each, its return and length."""
    rows = [
        (row["moment"], f"{row['timesteps']:,}", decimal(row["return"], 1), str(row["length"]))
        for row in figures["episodes"]
    ]
    return Grid("Episodes of the policy", ("", "steps of training", "return", "length"), rows)


def curves(stage: Stage) -> list[Markup]:
    """Draw the stage's curves over steps in the environment."""
    steps = {row["step"]: row["timesteps"] for row in stage.metrics if "timesteps" in row}
    charts = []
    for title, keys in report_of("control").curves:
        series = [
            Series(label, [(steps[step], value) for step, value in stage.curve(key) if step in steps], colour)
            for colour, (key, label) in enumerate(keys, start=1)
        ]
        charts.append(line_chart(title, series, "steps"))
    return [chart for chart in charts if chart is not None]


def scatter(probes: dict[str, list[float]] | None) -> Markup | None:
    """Draw the returns of clips by the learned reward against those by the true one; None where that does not vary."""
    if probes is None or len(set(probes["true"])) < 2:
        return None
    return scatter_chart("Learned against true return of clips", list(zip(probes["true"], probes["learned"])))


def clip_script() -> Markup:
    """Return the script that plays clips: the labelling page's modules, as one function's body."""
    folder = Path(amenable.__path__[0]) / "serve" / "pages"
    texts = [(folder / name).read_text("utf-8") for name in SCRIPTS]
    body = "\n".join(re.sub(r"^import .*\n", "", text, flags=re.MULTILINE).replace("export ", "") for text in texts)
    start = """
for (const place of document.querySelectorAll(".episode")) place.prepend(clip(place.dataset.clip, place.dataset.label));
"""
    return Markup("(() => {\n" + body + start + "})();")


def page(stage: Stage, figures: dict[str, Any]) -> str:
    """Return the whole page; nothing in it is fetched from anywhere."""
    clips = [json.dumps(row["clip"], separators=(",", ":")) for row in figures["episodes"]]
    return render(
        "control.jinja",
        css="report.css",
        js="report.js",
        figures=figures,
        episodes=list(zip(figures["episodes"], clips)),
        charts=curves(stage),
        scatter=scatter(figures["probes"]),
        options=card(stage)["options"],
        script=clip_script(),
        decimal=decimal,
        command=f"amenable report --run {stage.folder}",
    )
