"""Model card of a run: README.md, as the Hub shows it, of what the run has recorded.

Front matter (base model, licence, library, tags), then in words what the model was trained on, and how, where its
weights are from, and how to open it. A README.md that is not ours is never overwritten.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from amenable.files import write_text
from amenable.model_folder import BASE_FOLDER, is_adapter
from amenable.models.hf_config import CONFIG
from amenable.models.pretrained import is_reward_folder
from amenable.train.origin import Origin
from amenable.train.run_options import plain_defaults, plain_values

CARD = "README.md"
MARK = "<!-- written by amenable: write your own in its place, and it stays -->"
NOT_SHOWN = ("out", "device.", "save_steps", "keep_checkpoints")
"""options that do not decide what the model is"""
SOURCES = ("model", "base", "policy")
"""inputs of a run whose weights it goes on with"""
MAX_FACTS = 6


def write_card(
    folder: Path, stage: str, config: Any, inputs: Mapping[str, Path], steps: int, facts: Mapping[str, Any]
) -> None:
    """Write a finished run's model card, and hand its model's origin on; for a run without a model nothing."""
    if not (folder / CONFIG).is_file() and not is_adapter(folder):
        return
    origin = next((origin_of(inputs[name]) for name in SOURCES if name in inputs), Origin())
    if origin != Origin():
        origin.write(folder)
    if not is_own_card(folder):
        write_text(folder / CARD, card(folder, stage, config, inputs, steps, facts, origin))


def origin_of(folder: Path) -> Origin:
    """Return a model folder's origin; without origin.json the licence that its README.md states."""
    if (origin := Origin.read(folder)) is not None:
        return origin
    try:
        text = (folder / CARD).read_text("utf-8")
        fields = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
        return Origin(license=str(fields.get("license") or ""))
    except (OSError, ValueError, AttributeError, IndexError, yaml.YAMLError):
        return Origin()


def is_own_card(folder: Path) -> bool:
    """Return True for a folder with a README.md that is the user's."""
    path = folder / CARD
    return path.exists() and MARK not in path.read_text("utf-8", errors="replace")


def card(
    folder: Path,
    stage: str,
    config: Any,
    inputs: Mapping[str, Path],
    steps: int,
    facts: Mapping[str, Any],
    origin: Origin,
) -> str:
    """Return the text of a run's model card."""
    scalar, adapter = is_reward_folder(folder), is_adapter(folder)
    kind = "classifier" if stage == "classify" else "reward model" if scalar else "language model"
    report = getattr(sys.modules.get(type(config).__module__), "REPORT", None)
    title = report.title if report is not None else stage
    tags, library = [stage, kind.replace(" ", "-")], "peft" if adapter else "transformers"
    lines = [front_matter(origin, tags, library), MARK, f"# {title}", ""]
    lines += [f"A {kind} by `amenable {stage}`. {report.summary if report is not None else ''}".rstrip(), ""]
    if inputs:
        lines += ["## What it was trained on", ""]
        lines += [*(f"- {name}: `{path}`" for name, path in inputs.items()), ""]
        lines += ["`lineage.json` has the hash of each.", ""]
    lines += ["## How", "", *command_lines(stage, config, steps, (*NOT_SHOWN, *inputs))]
    numbers = {name: value for name, value in facts.items() if isinstance(value, (int, float))}
    if numbers:
        lines += ["", "What came of it:", ""]
    lines += [f"- {name}: {value:g}" for name, value in list(numbers.items())[:MAX_FACTS]]
    lines += ["", "## Where its weights are from", "", provenance(origin, inputs), ""]
    lines += opening_lines(scalar, adapter, (folder / BASE_FOLDER).is_dir())
    return "\n".join(lines) + "\n"


def front_matter(origin: Origin, tags: list[str], library: str = "transformers") -> str:
    """Return the YAML between two lines of dashes that the Hub reads."""
    fields: dict[str, Any] = {"base_model": origin.base_model, "license": origin.license, "library_name": library}
    fields = {name: value for name, value in fields.items() if value} | {"tags": ["amenable", *tags]}
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def command_lines(stage: str, config: Any, steps: int, leave_out: tuple[str, ...]) -> list[str]:
    """Return the command that repeats a run, and the options that are not the defaults."""
    lines = ["```", f"amenable {stage} --config config.yaml --out NEW", "```", ""]
    lines += [f"{steps:,} steps. Options that are not the defaults:" if steps else "Options that are not the defaults:"]
    changed = changes(plain_values(config), plain_defaults(config))
    return [*lines, "", *(f"- `{name}`: {value}" for name, value in changed.items() if not name.startswith(leave_out))]


def gguf_card(name: str, file: str, kind: str, origin: Origin) -> str:
    """Return the text of the card beside a GGUF file."""
    bits = f" Matrices are {kind}, so it is a little off the model that it was made from." if kind == "q8_0" else ""
    source = f"Made by `amenable export` from `{name}`.{bits}"
    weights = provenance(origin, {}) if origin.base_model or origin.source else ""
    commands = ["```", f"llama-cli -m {file}", f"ollama create {name} -f Modelfile", "```"]
    lines = [front_matter(origin, ["gguf"], "gguf"), MARK, f"# {name}", "", source, *([weights] if weights else [])]
    return "\n".join([*lines, "", *commands]) + "\n"


def changes(values: Mapping[str, Any], defaults: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """Return the options that are not the defaults, those of groups by their dotted names."""
    changed = dict[str, Any]()
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            changed |= changes(value, default, f"{group}{name}.")
        elif value != default:
            changed[group + name] = " ".join(map(str, value)) if isinstance(value, list) else value
    return changed


def provenance(origin: Origin, inputs: Mapping[str, Path]) -> str:
    """Return where weights are from, in words."""
    if not origin.base_model and not origin.source:
        source = next((inputs[name] for name in SOURCES if name in inputs), None)
        return "Drawn at random, and trained here." if source is None else f"From `{source}`."
    words = f"From {origin.base_model or origin.source}"
    words += f" ({origin.source})" if origin.base_model and origin.source else ""
    return f"{words}; {origin.remark()}." if origin.remark() else f"{words}."


def opening_lines(scalar: bool, adapter: bool = False, has_base: bool = False) -> list[str]:
    """Return how to open a model, or an adapter with its base; has_base: a classifier, which is in its folder."""
    name = "AutoModelForSequenceClassification" if scalar else "AutoModelForCausalLM"
    load = f'model, tokenizer = {name}.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")'
    if adapter:
        base = '"FOLDER/base"' if has_base else '"BASE", num_labels=1' if scalar else '"BASE"'
        load = f'model = PeftModel.from_pretrained({name}.from_pretrained({base}), "FOLDER")'
    command = "amenable ppo --model POLICY --reward FOLDER" if scalar else "amenable chat --model FOLDER"
    return [
        "## How to open it",
        "",
        "```",
        command,
        "```",
        "",
        "```python",
        *(["from peft import PeftModel"] if adapter else []),
        f"from transformers import {name}" + ("" if adapter else ", AutoTokenizer"),
        "",
        load,
        "```",
    ]
