"""Checks of a run against its own records: its files, its inputs, and its model's outputs.

    manifest     every file has the size and hash in manifest.json
    inputs       every input has the hash that it had when it was used
    checkpoints  of a run that has not finished: whole or torn
    probe        the model gives the numbers that it gave when it was saved
    adapter      a run's adapter on its base gives the merged model's numbers

Prints a line for each: good, bad, or unchecked where there is nothing to compare with. Exit code 2 if any is bad.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.text import Text

from amenable.claims.stage_folders import read_json
from amenable.errors import InputError
from amenable.files import MANIFEST, sha256
from amenable.model_folder import ADAPTER_CONFIG, ADAPTER_FOLDER, base_folder, is_adapter, parent_folder
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.hf_config import CONFIG, read_json_object
from amenable.models.hf_weights import shortened
from amenable.models.pretrained import is_reward_folder
from amenable.recipes import lineage
from amenable.text.tokenizer import Tokenizer
from amenable.train import checkpoint, loading, reference_logits
from amenable.train.classification import task_of
from amenable.train.lock import NAME as LOCK
from amenable.train.lock import is_held
from amenable.train.runtime import Runtime

State = Literal["good", "bad", "unchecked"]
COLOURS: dict[State, str] = {"good": "green", "bad": "bold red", "unchecked": "yellow"}
NOT_LISTED = (MANIFEST, "finished.json", "timings.jsonl", LOCK)
"""files of a run that its manifest leaves out"""

ROUNDED = 0.05
"""allowed difference of a merged model whose weights were rounded to bf16"""


@dataclass(frozen=True)
class Config:
    """Check a run against its own records."""

    run: tyro.conf.Positional[Path] = Path("runs/ppo")
    """run directory, or a model folder"""
    inputs: bool = True
    """hash the inputs again; large data takes as long as reading it"""
    transformers: bool = False
    """also open the model with transformers, which has to give the same outputs"""


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    state: State
    line: str


def run(config: Config) -> Path:
    """Print a line a check and return the folder. InputError if any is bad, or where there is nothing to check."""
    lineage.require_run(
        config.run, ("config.yaml", "lineage.json", MANIFEST, CONFIG, ADAPTER_CONFIG), "is no run and no model"
    )
    console, bad = Console(highlight=False), dict[str, None]()
    for check in checks(config):
        console.print(Text.assemble((f"{check.state:<10}", COLOURS[check.state]), check.line), soft_wrap=True)
        bad |= {check.name: None} if check.state == "bad" else {}
    if bad:
        raise InputError(f"is not what it was: {', '.join(bad)}", config.run, "its lines above say what differs")
    return config.run


def checks(config: Config) -> Iterator[Check]:
    """Yield every check of a folder, as each is made."""
    folder = config.run
    unfinished = (folder / "config.yaml").exists() and not (folder / "finished.json").exists()
    if unfinished:
        yield from check_unfinished(folder)
    else:
        yield check_manifest(folder)
    if config.inputs:
        yield from check_inputs(folder)
    if not unfinished and ((folder / CONFIG).exists() or is_adapter(folder)):
        yield from check_model(folder, config.transformers)


def check_unfinished(folder: Path) -> Iterator[Check]:
    """Check an unfinished run: its lock, and the checkpoints that it could go on from."""
    doing = "another process is at work on it" if is_held(folder) else "its command goes on with it"
    yield Check("run", "unchecked", f"run: has not finished; {doing}")
    steps = sorted(checkpoint.steps(folder), reverse=True)
    if not steps:
        yield Check("checkpoints", "unchecked", "checkpoints: none yet; it would begin again")
    for step in steps:
        name = f"checkpoint-{step}"
        whole = checkpoint.is_whole(folder / name)
        yield Check(name, "good" if whole else "bad", f"{name}: {'whole' if whole else 'torn or altered'}")


def check_manifest(folder: Path) -> Check:
    """Check every file against manifest.json."""
    try:
        listed = read_json(folder / MANIFEST)
    except (InputError, OSError):
        return Check("manifest", "bad", "manifest: manifest.json cannot be read")
    if listed is None:
        return Check("manifest", "unchecked", "manifest: has none, so nobody can say whether its files have changed")
    wrong = [f"{name} {why}" for name, fact in listed.items() if (why := difference(folder / name, fact))]
    if wrong:
        return Check("manifest", "bad", f"manifest: {shortened(wrong)}")
    checkpoints = {f"checkpoint-{step}" for step in checkpoint.steps(folder)}  # of a run that can be prolonged
    later = sorted(
        name
        for path in folder.rglob("*")
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in {*listed, *NOT_LISTED}
        if name.split("/")[0] not in checkpoints
    )
    added = f"; added since: {shortened(later)}" if later else ""
    return Check("manifest", "good", f"manifest: {len(listed)} files as they were written{added}")


def difference(path: Path, fact: Any) -> str:
    """Return how a file differs from its entry in the manifest; empty where it does not."""
    if not isinstance(fact, dict) or not {"bytes", "sha256"} <= fact.keys():
        return "has no size and hash"
    if not path.is_file():
        return "is gone"
    if path.stat().st_size != fact["bytes"]:
        return f"has {path.stat().st_size} bytes and had {fact['bytes']}"
    return "" if sha256(path) == fact["sha256"] else "has another content"


def check_inputs(folder: Path) -> Iterator[Check]:
    """Check every input: hash it again."""
    if not (folder / "lineage.json").exists():
        yield Check("lineage", "unchecked", "lineage: has none, so nobody can say what went in")
        return
    try:
        facts = read_json(folder / "lineage.json") or {}
    except InputError:
        yield Check("lineage", "bad", "lineage: lineage.json cannot be read")
        return
    hashes: dict[Path, str] = {}
    for name, path, digest in lineage.inputs_of(facts):
        source = lineage.check_source(folder, name, path, digest, hashes)
        state: State = "good" if source.state == "same" else "bad" if source.state == "changed" else "unchecked"
        yield Check(f"input {name}", state, f"input {name}: {path} {describe_source(source)}")


def describe_source(source: lineage.Source) -> str:
    """Describe the state of an input."""
    if source.location is None:
        return "is gone, so nobody can say whether it is the same"
    location = "" if source.location == Path(source.path) else f" (found at {source.location})"
    if source.state == "not hashed":
        return f"was not hashed when it was used{location}"
    return f"is the same{location}" if source.state == "same" else f"has changed since it was used{location}"


def check_model(folder: Path, transformers: bool) -> Iterator[Check]:
    """Check the model's outputs against those recorded when it was saved."""
    try:
        stored = reference_logits.read(folder)
    except InputError as error:
        yield Check("probe", "bad", f"probe: {error}")
        return
    if stored is None:
        yield Check("probe", "unchecked", "probe: has none, so nobody can say whether the model says what it said")
        return
    yield check_probe(folder, stored)
    if is_adapter(folder / ADAPTER_FOLDER):
        yield check_adapter(folder / ADAPTER_FOLDER, stored)
    if transformers:
        yield check_transformers(folder, stored)


def check_probe(folder: Path, stored: reference_logits.Probe) -> Check:
    """Load the model as any user would and replay the probe: equal to the bit in the same environment, else near."""
    try:
        with same_threads(stored.environment):
            now = reference_logits.replay(stored, load(folder, stored.environment))
    except (ValueError, IndexError) as error:
        return Check("probe", "bad", f"probe: the model cannot be asked ({error})")
    outputs = f"{len(stored.lengths)} {'rewards' if stored.values.dim() == 1 else 'rows of logits'}"
    difference = reference_logits.difference(stored.values, now.values)
    near = difference <= reference_logits.TOLERANCE
    changes = [
        f"{key} is {value} and was {stored.environment.get(key)}"
        for key, value in now.environment.items()
        if value != stored.environment.get(key)
    ]
    if torch.equal(stored.values, now.values) and near:
        return Check("probe", "good", f"probe: {outputs} equal to the bit those of when it was saved")
    line = f"probe: {outputs} are {difference:.1e} apart, as a share of the largest"
    if not changes:
        return Check("probe", "bad", f"{line}; they should be equal to the bit on this machine")
    allowed = f"{reference_logits.TOLERANCE:.0e} is allowed, since {', '.join(changes)}"
    return Check("probe", "good" if near else "bad", f"{line}; {allowed}")


def check_adapter(folder: Path, stored: reference_logits.Probe) -> Check:
    """Load the run's adapter on its base, and replay the probe of the merged model."""
    try:
        now = reference_logits.replay(stored, load(folder, stored.environment))
    except InputError as error:
        return Check("adapter", "unchecked", f"adapter: {error}")
    difference = reference_logits.difference(stored.values, now.values)
    facts = read_json_object(folder.parent / CONFIG)
    rounded = "bfloat16" in (facts.get("dtype"), facts.get("torch_dtype"))
    allowed = ROUNDED if rounded else reference_logits.TOLERANCE
    line = f"adapter: on its base {difference:.1e} apart from the merged model, as a share of the largest"
    return Check("adapter", "good" if difference <= allowed else "bad", f"{line}; {allowed:.0e} is allowed")


@contextmanager
def same_threads(environment: dict[str, Any]) -> Iterator[None]:
    """Use as many threads as when the model was saved: their number decides the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(environment.get("threads") or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(folder: Path, environment: dict[str, Any]) -> Decoder | ScalarModel:
    """Load a language or reward model in fp32, on the kind of device where it was saved if there is one here."""
    on_gpu = environment.get("device") == "cuda" and torch.cuda.is_available()
    runtime = Runtime(torch.device("cuda" if on_gpu else "cpu"), False, torch.get_num_threads())
    if task_of(folder) is not None:
        return loading.load_classifier(folder, runtime)[0]
    if is_reward_folder(folder):
        return loading.load_reward_model(folder, runtime, Tokenizer.load(folder))
    return loading.load_policy(folder, runtime)[0]


def check_transformers(folder: Path, stored: reference_logits.Probe) -> Check:
    """Check the outputs of the model as transformers opens it: near ones, as its sums are ordered otherwise."""
    for name in ("transformers", *(["peft"] if is_adapter(folder) else [])):
        if importlib.util.find_spec(name) is None:
            return Check("transformers", "unchecked", f"{name}: is not installed")
    try:
        values = transformers_outputs(folder, stored)
    except Exception as error:  # whatever another library raises is the finding
        return Check("transformers", "bad", f"transformers: cannot open it ({type(error).__name__}: {error})")
    difference, allowed = reference_logits.difference(stored.values, values), reference_logits.TOLERANCE
    line = f"transformers: its numbers are {difference:.1e} apart, as a share of the largest; {allowed:.0e} is allowed"
    return Check("transformers", "good" if difference <= allowed else "bad", line)


@torch.inference_mode()
def transformers_outputs(folder: Path, stored: reference_logits.Probe) -> torch.Tensor:
    """Compute logits [B, V], rewards [B] or the logits of labels [B, K]: a classifier's head has no bias there, ours is
    in the configuration. An adapter is put on its base by peft."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    adapter, scalar = is_adapter(folder), is_reward_folder(folder)
    source = parent_folder(folder) if adapter else folder
    if scalar:
        labels = {} if is_reward_folder(source) else {"num_labels": 1}
        model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32, **labels)
    else:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    logits = [model.eval()(input_ids=row[None]).logits[0] for row in stored.rows()]
    outputs = torch.stack(logits).squeeze(1) if scalar else torch.stack([each[-1] for each in logits])
    facts = read_json_object(base_folder(folder) / CONFIG)
    facts |= read_json_object(folder / ADAPTER_CONFIG) if adapter else {}
    return outputs + float(facts.get("score_bias", 0.0)) if scalar else outputs
