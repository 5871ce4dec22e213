"""Each stage of a demo as the report tells it: what happens in it, what went in and came out, and its command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.claims.stage_folders import Stage, number, paths_of
from amenable.recipes.reports import charts, words
from amenable.train.guards import told_warning


@dataclass(frozen=True)
class Step:
    """What is told of a command."""

    title: str
    what: str
    spark: str = ""
    """metric of its sparkline, if it has one"""
    facts: tuple[tuple[str, str], ...] = ()
    """(label, key) of its closing figures, the most telling first; without any, the first few numbers there are"""


STEPS = {
    "world": Step("World", "A small town is made up: its texts, requests, and the truth behind them."),
    "tokenizer": Step(
        "Tokenizer",
        "Byte-level BPE on the raw text.",
        facts=(("tokens", "vocab_size"), ("bytes a token", "bytes_per_token")),
    ),
    "pretrain": Step(
        "Pretraining",
        "A decoder learns to predict the next token of raw text.",
        "loss",
        (("bits per byte", "eval/bpb"), ("loss", "loss")),
    ),
    "sft": Step(
        "Fine-tuning",
        "It imitates demonstrations.",
        "loss",
        (("held-out loss", "eval/loss"), ("step kept", "selected_step")),
    ),
    "sample": Step("Sampling", "Several answers are drawn to every prompt.", facts=(("prompts", "prompts"),)),
    "annotate": Step(
        "Annotation",
        "Annotators rank the answers to each prompt.",
        facts=(
            ("rankings", "train"),
            ("kept for validation", "validation"),
            ("by annotators apart", "heldout"),
            ("two annotators agree", "agreement.train"),
        ),
    ),
    "reward": Step(
        "Reward model",
        "A scalar head learns to order answers as annotators do.",
        "loss",
        (("accuracy", "validation.accuracy"), ("with other annotators", "heldout.accuracy")),
    ),
    "ppo": Step(
        "PPO",
        "The policy learns to please the reward model without leaving SFT far behind.",
        "objective/scores",
        (("score", "objective/scores"), ("KL, nats", "objective/kl"), ("step kept", "selected_step")),
    ),
    "dpo": Step(
        "DPO",
        "The same comparisons, without a reward model.",
        "loss",
        (("accuracy", "rewards/accuracies"), ("margin", "rewards/margins"), ("KL, nats", "objective/kl")),
    ),
    "evaluate": Step(
        "Evaluation", "Models answer the same prompts, which none of them has seen.", facts=(("prompts", "prompts"),)
    ),
}
"""by command"""


def step(stage: Stage) -> dict[str, Any]:
    """One stage for report.jinja: its box in the drawing, and what opens from it."""
    told = STEPS[stage.command]
    facts = [(label, value) for label, key in told.facts if (value := number(stage.finished, key)) is not None]
    facts = facts or plain_facts(stage.finished or {})
    if rate := number(stage.finished, "tokens_per_second"):
        facts = [*facts, ("tokens a second", rate)]
    health = (stage.finished or {}).get("health") or {"fine": [], "warnings": []}
    return {
        "name": stage.name,
        "title": told.title if stage.name == stage.command else words.name_of(stage.name),
        "command_title": "" if stage.name == stage.command else told.title,
        "what": told.what,
        "state": state(stage),
        "seconds": words.duration(stage.seconds) if stage.finished is not None else state(stage),
        "facts": [(label, words.amount(value)) for label, value in facts],
        "reads": reads(stage),
        "warnings": [told_warning(warning) for warning in health["warnings"]],
        "fine": ", ".join(health["fine"]),
        "spark": charts.sparkline(stage.curve(told.spark)) if told.spark else None,
        "spark_name": told.spark,
        "options": options(stage.config),
        "command": f"amenable {stage.command} --config {source(stage)}",
    }


def state(stage: Stage) -> str:
    """done, begun, or still to come."""
    return "done" if stage.finished is not None else "not finished" if stage.folder.is_dir() else "to come"


def source(stage: Stage) -> Path:
    """The file that repeats a stage: its own options, or those of the plan where it has not begun."""
    own = stage.folder / "config.yaml"
    return own if own.is_file() or not stage.planned else stage.folder.parent / "plan" / f"{stage.name}.yaml"


def plain_facts(finished: dict[str, Any], most: int = 4) -> list[tuple[str, float]]:
    """The first few numbers of finished.json, for a stage whose figures go by names of their own."""
    known = {"seconds", "tokens_per_second", "seed"}
    told = [(key, value) for key in finished if key not in known and (value := number(finished, key)) is not None]
    return [(key.replace("_", " "), value) for key, value in told[:most]]


def reads(stage: Stage) -> list[str]:
    """What goes in: the paths of the options, relative to the demo where they lie in it."""
    home = Path(str(stage.config.get("out", stage.folder))).parent
    told = {key: value for key, value in stage.config.items() if key != "out"}
    paths = [Path(path) for path in paths_of(told)]
    return list(dict.fromkeys(str(path.relative_to(home) if path.is_relative_to(home) else path) for path in paths))


def options(config: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Every option that was set, by dotted name; paths and what the machine decides are told elsewhere."""
    found: list[tuple[str, str]] = []
    for key, value in config.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            found += options(value, f"{name}.")
        elif name != "command" and value is not None and not paths_of(value) and not name.startswith("device."):
            found.append((name, ", ".join(map(str, value)) if isinstance(value, list) else f"{value}"))
    return found
