"""report.html: one file that opens anywhere, in which every figure of a demo can be looked at.

The words and tables are in report.jinja, which escapes all that a model or a user wrote; style and script go inside the
file, so that nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from amenable.recipes import answers, charts, words
from amenable.recipes.charts import Series, line_chart
from amenable.recipes.figures import Figures, judges_of, pair_of, preferred
from amenable.recipes.folders import ORDER, Stage, number

HERE = Path(__file__).parent

STEPS: dict[str, tuple[str, str, str, tuple[tuple[str, str], ...]]] = {
    "world": ("A world to learn from", "A small town is made up: its texts, requests, and the truth behind them.", "", ()),
    "tokenizer": (
        "Tokenizer",
        "Byte-level BPE on the raw text.",
        "",
        (("tokens", "vocab_size"), ("bytes a token", "bytes_per_token")),
    ),
    "pretrain": (
        "Pretraining",
        "A decoder learns to predict the next token of raw text.",
        "loss",
        (("loss", "loss"), ("bits per byte, held out", "val_bpb")),
    ),
    "sft": ("Supervised fine-tuning", "It imitates demonstrations.", "loss", (("loss, held out", "val_loss"),)),
    "sample": ("Sampling", "Several answers are drawn to every prompt.", "", (("prompts", "prompts"),)),
    "annotate": ("Annotation", "Annotators rank the answers to each prompt.", "", ()),
    "reward": (
        "Reward model",
        "A scalar head learns to order answers as annotators do.",
        "loss",
        (("accuracy", "validation.accuracy"), ("with other annotators", "heldout.accuracy")),
    ),
    "ppo": (
        "PPO",
        "The policy learns to please the reward model without leaving SFT far behind.",
        "objective/scores",
        (("score", "objective/scores"), ("KL, nats", "objective/kl")),
    ),
    "dpo": (
        "DPO",
        "The same comparisons, without a reward model.",
        "loss",
        (("accuracy", "rewards/accuracies"), ("margin", "rewards/margins")),
    ),
    "evaluate": ("Evaluation", "All models answer the same prompts that none has seen.", "", (("prompts", "prompts"),)),
}
"""command: title, what happens, the curve of its sparkline, closing figures (label, key)"""

CURVES: dict[str, tuple[tuple[str, tuple[tuple[str, str], ...]], ...]] = {
    "pretrain": (
        ("Loss, nats a token", (("loss", "training"),)),
        ("Bits per byte, held-out text", (("val_bpb", "held out"),)),
    ),
    "sft": (("Loss, nats a token", (("loss", "training"), ("val_loss", "held out"))),),
    "reward": (("Loss", (("loss", "training"),)), ("Accuracy on the step’s pairs", (("accuracy", "training"),))),
    "ppo": (
        ("Score from the reward model", (("objective/scores", "samples"), ("eval/score", "held out, greedy"))),
        ("KL to SFT, nats an answer", (("objective/kl", "KL"),)),
        ("KL coefficient", (("objective/kl_coef", "coefficient"),)),
        ("Entropy, nats an answer", (("objective/entropy", "entropy"),)),
        ("Length, tokens", (("completions/mean_length", "length"),)),
        ("Share of answers that end", (("completions/ended", "ended"),)),
        ("Clip fraction", (("policy/clipfrac_avg", "policy"),)),
        ("Explained variance of the critic", (("val/explained_variance", "critic"),)),
    ),
    "dpo": (
        ("Loss", (("loss", "training"), ("eval/loss", "held out"))),
        ("Accuracy", (("rewards/accuracies", "training"), ("eval/accuracy", "held out"))),
        ("Margin of the implicit reward", (("rewards/margins", "margin"),)),
    ),
}
"""command: charts (title, curves (key, name))"""

MEASURES = (
    ("gold", "Gold", "up", words.plain),
    ("truthful", "Truthful", "up", words.percent),
    ("hallucination", "Hallucinates", "down", words.percent),
    ("over_refusal", "Over-refuses", "down", words.percent),
    ("rude", "Rude", "down", words.percent),
    ("harmful", "Helps with harm", "down", words.percent),
    ("follows", "Follows instructions", "up", words.percent),
    ("ended", "Ends its answer", "up", words.percent),
    ("length", "Length, words", "", lambda value: words.plain(value, 1)),
    ("bpb", "Bits per byte of raw text", "down", lambda value: words.plain(value, 3)),
    ("kl", "KL to SFT, nats", "", words.plain),
    ("reward", "Reward", "up", words.plain),
)
"""key, label, which way is better, how it is written"""


def render(figures: Figures, stages: list[Stage], run: Path) -> str:
    """The whole page."""
    by_name = {stage.name: stage for stage in stages}
    after, before = pair_of(figures) or ("ppo", "sft")
    chosen = answers.cards(by_name.get("evaluate"), by_name.get("world"), after, before)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(name_of=words.name_of, plain=words.plain, percent=words.percent)
    return environment.get_template("report.jinja").render(
        figures=figures,
        summary=words.summary(figures, stages),
        tiles=tiles(figures),
        missing=missing_line(figures),
        steps=[step(stage) for stage in stages],
        tables=[model_table(figures, decoding) for decoding in words.DECODINGS] if figures["models"] else [],
        judge=words.JUDGES.get(judges_of(figures) or ""),
        matrices=[matrix for decoding in words.DECODINGS if (matrix := preference_matrix(figures, decoding))],
        kinds=kind_bars(figures),
        curves=[(title(stage), drawn) for stage in stages if (drawn := stage_curves(stage))],
        reward=reward_bars(figures, by_name.get("reward")),
        calibration=calibration(by_name.get("reward")),
        cards=chosen,
        card_kinds=answers.kinds_of(chosen),
        shown=answers.SHOWN,
        after=words.name_of(after),
        before=words.name_of(before),
        iterations=answers.iterations(by_name.get("ppo")),
        colours=colours(figures),
        duration=words.duration(figures["seconds"]),
        command=f"amenable report --run {run}",
        css=(HERE / "report.css").read_text("utf-8"),
        js=(HERE / "report.js").read_text("utf-8"),
    )


def missing_line(figures: Figures) -> str:
    """What an unfinished run lacks, and what to do about it."""
    if not figures["missing"]:
        return ""
    return f"Not done yet: {', '.join(figures['missing'])}. 'amenable demo' goes on from here."


def colours(figures: Figures) -> dict[str, int]:
    """A colour class for every model."""
    return {name: place % 7 for place, name in enumerate(figures["models"])}


def tiles(figures: Figures) -> list[dict[str, str]]:
    """The few numbers that a reader should leave with."""
    pair, judges = pair_of(figures), judges_of(figures)
    made = []
    for decoding in words.DECODINGS:
        row = preferred(figures, *pair, decoding, judges) if pair and judges else None
        if row is not None and pair is not None:
            label = f"{words.name_of(pair[0])} preferred to {words.name_of(pair[1])}, {decoding}"
            note = f"95% interval {words.span(row['low'], row['high'])}, {row['n']} prompts"
            made.append({"value": words.percent(row["wins"]), "label": label, "note": note})
    if pair is not None:
        after, before = (figures["models"][name] for name in pair)
        for decoding, new, old in (("sampled", after, before), ("greedy", after["greedy"], before["greedy"])):
            if new["gold"] is not None and old["gold"] is not None:
                value, note = words.signed(new["gold"] - old["gold"]), f"{words.plain(old['gold'])} → {words.plain(new['gold'])}"
                made.append({"value": value, "label": f"gold over {words.name_of(pair[1])}, {decoding}", "note": note})
    return made


def title(stage: Stage) -> str:
    """A stage's title, with its folder's name where that says more."""
    return STEPS[stage.command][0] + ("" if stage.name == stage.command else f" ({stage.name})")


def step(stage: Stage) -> dict[str, Any]:
    """One box of what was done."""
    _, what, key, wanted = STEPS[stage.command]
    closing = [(label, value) for label, name in wanted if (value := number(stage.finished, name)) is not None]
    rate = number(stage.finished, "tokens_per_second")
    facts = closing if wanted else plain_facts(stage.finished or {})
    if rate is not None:
        facts = [*facts, ("tokens a second", rate)]
    return {
        "place": ORDER.index(stage.command) + 1,
        "title": title(stage),
        "what": what,
        "seconds": words.duration(stage.seconds),
        "done": stage.finished is not None,
        "facts": [(label, words.amount(value)) for label, value in facts],
        "reads": reads(stage),
        "spark": charts.sparkline(stage.curve(key)) if key else None,
        "spark_name": key,
        "command": f"amenable {stage.command} --config {stage.folder / 'config.yaml'}",
    }


def plain_facts(finished: dict[str, Any], most: int = 4) -> list[tuple[str, float]]:
    """The first few numbers of finished.json, for a stage whose figures go by names of their own."""
    known = {"seconds", "tokens_per_second", "seed"}
    told = [(key, value) for key in finished if key not in known and (value := number(finished, key)) is not None]
    agreed = number(finished, "agreement.train")
    more = [("agreement", agreed)] if agreed is not None else []
    return [*((key.replace("_", " "), value) for key, value in told[:most]), *more]


def reads(stage: Stage) -> list[str]:
    """What went in: paths of the lineage, relative to the demo where they lie in it."""
    inputs = stage.lineage.get("inputs") or {}
    paths = [Path(fact["path"]) for fact in inputs.values() if isinstance(fact, dict) and "path" in fact]
    home = stage.folder.parent
    return list(dict.fromkeys(str(path.relative_to(home) if path.is_relative_to(home) else path) for path in paths))


def model_table(figures: Figures, decoding: str) -> dict[str, Any]:
    """Measures x models for one decoding; the best of a row is marked where there is one."""
    names = list(figures["models"])
    found = [figures["models"][name] if decoding == "sampled" else figures["models"][name]["greedy"] for name in names]
    rows = []
    for key, label, better, written in MEASURES:
        values = [one[key] for one in found]
        known = [value for value in values if value is not None]
        if not known:
            continue
        best = written(max(known) if better == "up" else min(known)) if better else None
        cells = [{"text": written(value), "best": value is not None and written(value) == best} for value in values]
        if all(cell["best"] for cell in cells):
            cells = [{**cell, "best": False} for cell in cells]
        if key == "gold":
            cells = [{**cell, "note": gold_interval(one)} for cell, one in zip(cells, found)]
        rows.append({"label": label, "better": better, "cells": cells})
    return {"decoding": decoding, "names": names, "rows": rows}


def gold_interval(one: Figures) -> str:
    """The half-width of gold's interval."""
    low, high = one["gold_low"], one["gold_high"]
    return "" if low is None or high is None else f"±{words.plain((high - low) / 2)}"


def preference_matrix(figures: Figures, decoding: str) -> dict[str, Any] | None:
    """How often the row's model is preferred to the column's. A cell's tint is its distance from one half."""
    names, judges = list(figures["models"]), judges_of(figures)
    if judges is None:
        return None
    rows = []
    for a in names:
        cells: list[dict[str, Any] | None] = []
        for b in names:
            row = preferred(figures, a, b, decoding, judges)
            cells.append(None if row is None else matrix_cell(row))
        rows.append((a, cells))
    count = next((row["n"] for row in figures["preference"] if row["decoding"] == decoding), None)
    return {"decoding": decoding, "names": names, "rows": rows, "n": count}


def matrix_cell(row: Figures) -> dict[str, Any]:
    return {
        "wins": words.percent(row["wins"]),
        "span": words.span(row["low"], row["high"]),
        "clear": row["low"] > 0.5 or row["high"] < 0.5,
        "side": "good" if row["wins"] >= 0.5 else "bad",
        "tint": round(min(1.0, abs(row["wins"] - 0.5) / 0.4) * 70),
    }


def kind_bars(figures: Figures) -> list[dict[str, Any]]:
    """Gold by kind of prompt: for each decoding, for each kind, a bar a model on one common scale."""
    made = []
    for decoding in words.DECODINGS:
        by_model = {
            name: (one if decoding == "sampled" else one["greedy"])["gold_by_kind"] or {}
            for name, one in figures["models"].items()
        }
        kinds = sorted({kind for found in by_model.values() for kind in found})
        values = [value for found in by_model.values() for value in found.values() if value is not None]
        if not values:
            continue
        low, high = min(0.0, *values), max(0.0, *values)
        panels = [
            (kind, [bar(words.name_of(name), found.get(kind), low, high, place % 7) for place, (name, found) in enumerate(by_model.items())])
            for kind in kinds
        ]
        made.append({"decoding": decoding, "panels": panels})
    return made


def bar(
    name: str,
    value: float | None,
    low: float,
    high: float,
    colour: int,
    interval: tuple[float | None, float | None] = (None, None),
    share: bool = False,
) -> dict[str, Any]:
    """A horizontal bar from zero, as percentages of the scale [low, high]."""
    across = 100 / ((high - low) or 1.0)
    zero = -low * across
    end = zero if value is None else (value - low) * across
    whisker = [round((side - low) * across, 1) for side in interval if side is not None]
    return {
        "name": name,
        "text": words.percent(value) if share else words.plain(value),
        "left": round(min(zero, end), 1),
        "width": round(abs(end - zero), 1),
        "zero": round(zero, 1),
        "colour": colour,
        "whisker": whisker if len(whisker) == 2 else None,
        "note": words.span(*interval) if share else "",
    }


def stage_curves(stage: Stage) -> list[Any]:
    """The charts of a stage that has something to draw."""
    wanted = CURVES.get(stage.command, ())
    drawn = [
        line_chart(name, [Series(label, stage.curve(key), 1 + place) for place, (key, label) in enumerate(keys)])
        for name, keys in wanted
    ]
    return [chart for chart in drawn if chart is not None]


def reward_bars(figures: Figures, stage: Stage | None) -> list[dict[str, Any]]:
    """Panels of bars: training annotators, held-out annotators, and each annotator."""
    found, panels = figures["reward_model"], []
    for key, short, name in (
        ("train_annotators", "train", "Annotators it was trained on, other prompts"),
        ("heldout_annotators", "heldout", "Annotators it never met"),
    ):
        if found[f"accuracy_{key}"] is None:
            continue
        interval = (found[f"accuracy_{key}_low"], found[f"accuracy_{key}_high"])
        bars = [
            bar("reward model", found[f"accuracy_{key}"], 0, 1, 2, interval, share=True),
            bar("one annotator with another", found["agreement"][short], 0, 1, 1, share=True),
            bar("the longer answer wins", found[f"longer_wins_{key}"], 0, 1, 0, share=True),
        ]
        panels.append({"name": name, "note": pairs_note(found[f"pairs_{key}"]), "bars": bars})
    for short, name in (("validation", "By annotator, trained on"), ("heldout", "By annotator, never met")):
        each = ((stage.finished or {}).get(short) or {}).get("by_annotator") if stage is not None else None
        bars = [
            bar(who, number(one, "accuracy"), 0, 1, 2, share=True) for who, one in sorted((each or {}).items()) if who
        ]
        if bars:
            panels.append({"name": name, "note": "", "bars": bars})
    return panels


def pairs_note(pairs: float | None) -> str:
    return "" if pairs is None else f"{pairs:,.0f} pairs"


def calibration(stage: Stage | None) -> Any:
    """The calibration chart of both sets of annotators, or None."""
    finished = (stage.finished or {}) if stage is not None else {}
    groups: Sequence[tuple[str, list[dict[str, float]], int]] = [
        (name, (finished.get(key) or {}).get("calibration") or [], colour)
        for name, key, colour in (("trained on", "validation", 1), ("never met", "heldout", 2))
    ]
    return charts.calibration_chart("Calibration: predicted against actual", groups)
