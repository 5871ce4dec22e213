"""Is a run what it was when it was made: its files, what went into it, and what its model says.

    manifest     every file has the size and hash that manifest.json says
    inputs       every input has the hash that it had when it was used
    checkpoints  of a run that has not finished: whole or torn
    probe        the model gives the numbers that it gave when it was saved

Prints a line for each: good, bad, or open where there is nothing to compare with. Ends with exit code 2 if any is bad.
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
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.hf_config import CONFIG, is_classifier, read_json_object
from amenable.models.hf_weights import shortened
from amenable.recipes import lineage
from amenable.text.tokenizer import Tokenizer
from amenable.train import checkpoint, loading, reference_logits
from amenable.train.lock import NAME as LOCK
from amenable.train.lock import is_held
from amenable.train.runtime import Runtime

State = Literal["good", "bad", "open"]
COLOURS: dict[State, str] = {"good": "green", "bad": "bold red", "open": "yellow"}
NOT_LISTED = (MANIFEST, "finished.json", "timings.jsonl", LOCK)
"""files of a run that its manifest leaves out"""


@dataclass(frozen=True)
class Config:
    """Check a run against what it wrote down of itself."""

    run: tyro.conf.Positional[Path] = Path("runs/ppo")
    """run directory, or a model folder"""
    inputs: bool = True
    """hash what went in again; large data takes as long as reading it"""
    transformers: bool = False
    """also open the model with transformers, which has to say the same"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    line: str


def run(config: Config) -> Path:
    """Print a line a check and return the folder. InputError if any is bad, or where there is nothing to check."""
    require_something(config.run)
    console, found = Console(highlight=False), list[Check]()
    for check in checks(config):
        console.print(Text.assemble((f"{check.state:<5}", COLOURS[check.state]), check.line), soft_wrap=True)
        found.append(check)
    bad = list(dict.fromkeys(check.name for check in found if check.state == "bad"))
    if bad:
        raise InputError(f"is not what it was: {', '.join(bad)}", config.run, "its lines above say what differs")
    return config.run


def require_something(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError("no such folder", folder, "name a run directory or a model folder")
    if not any((folder / name).exists() for name in ("config.yaml", "lineage.json", MANIFEST, CONFIG)):
        inner = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
        how = f"name one of the runs in it: {shortened(inner)}" if inner else "name one that a stage wrote"
        raise InputError("is no run and no model", folder, how)


def checks(config: Config) -> Iterator[Check]:
    """Every check of a folder, as each is made."""
    folder = config.run
    unfinished = (folder / "config.yaml").exists() and not (folder / "finished.json").exists()
    if unfinished:
        yield from of_unfinished(folder)
    else:
        yield of_manifest(folder)
    if config.inputs:
        yield from of_inputs(folder)
    if not unfinished and (folder / CONFIG).exists():
        yield from of_model(folder, config.transformers)


def of_unfinished(folder: Path) -> Iterator[Check]:
    """Whether anybody is at work, and which checkpoints the run could go on from."""
    doing = "another process is at work on it" if is_held(folder) else "its command goes on with it"
    yield Check("run", "open", f"run: has not finished; {doing}")
    steps = sorted(checkpoint.steps(folder), reverse=True)
    if not steps:
        yield Check("checkpoints", "open", "checkpoints: none yet; it would begin again")
    for step in steps:
        name = f"checkpoint-{step}"
        whole = checkpoint.is_whole(folder / name)
        yield Check(name, "good" if whole else "bad", f"{name}: {'whole' if whole else 'torn or altered'}")


def of_manifest(folder: Path) -> Check:
    """Every file against manifest.json."""
    try:
        listed = read_json(folder / MANIFEST)
    except (InputError, OSError):
        return Check("manifest", "bad", "manifest: manifest.json cannot be read")
    if listed is None:
        return Check("manifest", "open", "manifest: has none, so nobody can say whether its files have changed")
    wrong = [f"{name} {why}" for name, fact in listed.items() if (why := difference(folder / name, fact))]
    if wrong:
        return Check("manifest", "bad", f"manifest: {shortened(wrong)}")
    kept = {f"checkpoint-{step}" for step in checkpoint.steps(folder)}  # of a run that can be prolonged
    later = sorted(
        name
        for path in folder.rglob("*")
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in {*listed, *NOT_LISTED}
        if name.split("/")[0] not in kept
    )
    added = f"; added since: {shortened(later)}" if later else ""
    return Check("manifest", "good", f"manifest: {len(listed)} files as they were written{added}")


def difference(path: Path, fact: Any) -> str:
    """How a file differs from its entry in the manifest; nothing where it does not."""
    if not isinstance(fact, dict) or not {"bytes", "sha256"} <= fact.keys():
        return "has no size and hash"
    if not path.is_file():
        return "is gone"
    if path.stat().st_size != fact["bytes"]:
        return f"has {path.stat().st_size} bytes and had {fact['bytes']}"
    return "" if sha256(path) == fact["sha256"] else "has another content"


def of_inputs(folder: Path) -> Iterator[Check]:
    """Every input, hashed again."""
    if not (folder / "lineage.json").exists():
        yield Check("lineage", "open", "lineage: has none, so nobody can say what went in")
        return
    try:
        facts = read_json(folder / "lineage.json") or {}
    except InputError:
        yield Check("lineage", "bad", "lineage: lineage.json cannot be read")
        return
    hashes: dict[Path, str] = {}
    for name, path, digest in lineage.inputs_of(facts):
        one = lineage.looked_up(folder, name, path, digest, hashes)
        state: State = "good" if one.state == "same" else "bad" if one.state == "changed" else "open"
        yield Check(f"input {name}", state, f"input {name}: {path} {told(one)}")


def told(one: lineage.Source) -> str:
    """What has become of an input."""
    if one.found is None:
        return "is gone, so nobody can say whether it is the same"
    place = "" if one.found == Path(one.path) else f" (found at {one.found})"
    if one.state == "not hashed":
        return f"was not hashed when it was used{place}"
    return f"is the same{place}" if one.state == "same" else f"has changed since it was used{place}"


def of_model(folder: Path, transformers: bool) -> Iterator[Check]:
    """What the model says, against what it said when it was saved."""
    try:
        stored = reference_logits.read(folder)
    except InputError as error:
        yield Check("probe", "bad", f"probe: {error}")
        return
    if stored is None:
        yield Check("probe", "open", "probe: has none, so nobody can say whether the model says what it said")
        return
    yield of_probe(folder, stored)
    if transformers:
        yield of_transformers(folder, stored)


def of_probe(folder: Path, stored: reference_logits.Probe) -> Check:
    """Load the model as any user would and ask it the same: equal to the bit where all that we know decides the last
    bits is as it was, else near."""
    try:
        with same_threads(stored.environment):
            now = reference_logits.replay(stored, load(folder, stored.environment))
    except (ValueError, IndexError) as error:
        return Check("probe", "bad", f"probe: the model cannot be asked ({error})")
    what = f"{len(stored.lengths)} {'rewards' if stored.values.dim() == 1 else 'rows of logits'}"
    apart = f"{reference_logits.difference(stored.values, now.values):.1e} apart, as a share of the largest"
    near = reference_logits.difference(stored.values, now.values) <= reference_logits.TOLERANCE
    elsewhere = [
        f"{key} is {here} and was {stored.environment.get(key)}"
        for key, here in now.environment.items()
        if here != stored.environment.get(key)
    ]
    if torch.equal(stored.values, now.values) and near:
        return Check("probe", "good", f"probe: {what} equal to the bit those of when it was saved")
    if not elsewhere:
        return Check("probe", "bad", f"probe: {what} are {apart}; they should be equal to the bit on this machine")
    allowed = f"{reference_logits.TOLERANCE:.0e} is allowed, since {', '.join(elsewhere)}"
    return Check("probe", "good" if near else "bad", f"probe: {what} are {apart}; {allowed}")


@contextmanager
def same_threads(place: dict[str, Any]) -> Iterator[None]:
    """As many threads as when the model was saved: their number decides the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(place.get("threads") or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(folder: Path, place: dict[str, Any]) -> Decoder | ScalarModel:
    """A language or reward model with its tokenizer, in fp32, on the kind of device where it was saved if there is one
    here."""
    here = place.get("device") == "cuda" and torch.cuda.is_available()
    runtime = Runtime(torch.device("cuda" if here else "cpu"), False, torch.get_num_threads())
    if is_classifier(read_json_object(folder / CONFIG)):
        return loading.load_reward_model(folder, runtime, Tokenizer.load(folder))
    return loading.load_policy(folder, runtime)[0]


def of_transformers(folder: Path, stored: reference_logits.Probe) -> Check:
    """Ask the model as transformers opens it; its sums are ordered otherwise, so it can only be near."""
    if importlib.util.find_spec("transformers") is None:
        return Check("transformers", "open", "transformers: is not installed")
    try:
        values = said_by_transformers(folder, stored)
    except Exception as error:  # whatever another library raises is the finding
        return Check("transformers", "bad", f"transformers: cannot open it ({type(error).__name__}: {error})")
    apart = reference_logits.difference(stored.values, values)
    told = f"{apart:.1e} apart, as a share of the largest; {reference_logits.TOLERANCE:.0e} is allowed"
    return Check(
        "transformers",
        "good" if apart <= reference_logits.TOLERANCE else "bad",
        f"transformers: its numbers are {told}",
    )


@torch.inference_mode()
def said_by_transformers(folder: Path, stored: reference_logits.Probe) -> torch.Tensor:
    """Logits [B, V], or rewards [B]: a classifier's head has no bias there, ours is in config.json."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    facts = read_json_object(folder / CONFIG)
    if is_classifier(facts):
        judge = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        scores = [judge(row[None]).logits[0, 0] for row in stored.rows()]
        return torch.stack(scores) + float(facts.get("score_bias", 0.0))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return torch.stack([model(row[None]).logits[0, -1] for row in stored.rows()])
