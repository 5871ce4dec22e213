"""report.html: one file that opens anywhere, in which every figure of a demo can be looked at.

The words and tables are in report.jinja, which escapes all that a model or a user wrote; style and script go inside the
file, so that nothing is ever fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from amenable.recipes import answers, charts, tables, words
from amenable.recipes.charts import Series, line_chart
from amenable.recipes.figures import Figures, judges_of, pair_of, preferred
from amenable.recipes.folders import ORDER, Stage, number

HERE = Path(__file__).parent

STEPS: dict[str, tuple[str, str, str, tuple[tuple[str, str], ...]]] = {
    "world": (
        "A world to learn from",
        "A small town is made up: its texts, requests, and the truth behind them.",
        "",
        (),
    ),
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
    "annotate": (
        "Annotation",
        "Annotators rank the answers to each prompt.",
        "",
        (
            ("rankings to learn from", "train"),
            ("kept for validation", "validation"),
            ("by annotators apart", "heldout"),
            ("two annotators agree", "agreement.train"),
        ),
    ),
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


def render(figures: Figures, stages: list[Stage], run: Path) -> str:
    """The whole page."""
    by_name = {stage.name: stage for stage in stages}
    after, before = pair_of(figures) or ("ppo", "sft")
    chosen = answers.cards(by_name.get("evaluate"), by_name.get("world"), after, before)
    headline, details = words.summary(figures, stages)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(name_of=words.name_of, plain=words.plain, percent=words.percent)
    return environment.get_template("report.jinja").render(
        figures=figures,
        headline=headline,
        details=details,
        tiles=tiles(figures),
        missing=missing_line(figures),
        steps=[step(stage) for stage in stages],
        tables=[tables.model_table(figures, decoding) for decoding in words.DECODINGS] if figures["models"] else [],
        judge=words.JUDGES.get(judges_of(figures) or ""),
        matrices=[matrix for decoding in words.DECODINGS if (matrix := tables.preference_matrix(figures, decoding))],
        kinds=tables.kind_bars(figures),
        curves=[(title(stage), drawn) for stage in stages if (drawn := stage_curves(stage))],
        reward=tables.reward_bars(figures, by_name.get("reward")),
        calibration=tables.calibration(by_name.get("reward")),
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
    told = []
    if figures["unfinished"]:
        told.append(
            f"Not done yet: {', '.join(figures['unfinished'])}. The command that began this run goes on with it."
        )
    absent = [name for name in figures["missing"] if name not in figures["unfinished"]]
    if absent:
        told.append(f"Not in this folder: {', '.join(absent)}.")
    return " ".join(told)


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
                value, note = (
                    words.signed(new["gold"] - old["gold"]),
                    f"{words.plain(old['gold'])} → {words.plain(new['gold'])}",
                )
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
    if rate:
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
    return [(key.replace("_", " "), value) for key, value in told[:most]]


def reads(stage: Stage) -> list[str]:
    """What went in: paths of the lineage, relative to the demo where they lie in it."""
    inputs = stage.lineage.get("inputs") or {}
    paths = [Path(fact["path"]) for fact in inputs.values() if isinstance(fact, dict) and "path" in fact]
    home = stage.folder.parent
    return list(dict.fromkeys(str(path.relative_to(home) if path.is_relative_to(home) else path) for path in paths))


def stage_curves(stage: Stage) -> list[Any]:
    """The charts of a stage that has something to draw."""
    wanted = CURVES.get(stage.command, ())
    drawn = [
        line_chart(name, [Series(label, stage.curve(key), 1 + place) for place, (key, label) in enumerate(keys)])
        for name, keys in wanted
    ]
    return [chart for chart in drawn if chart is not None]
