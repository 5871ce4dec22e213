"""Kill every stage at random moments, run it again until it is done, and compare what it has made, file by file.

    python -m benchmarks.crash --kills 100
    python -m benchmarks.crash --kills 30 --stage ppo-ptx

Each stage, and each of two recipes, runs once undisturbed; then again and again as a process that is killed (SIGKILL)
at a moment drawn by the seed, half of the time with checkpoints that are written slowly, so that kills fall between
their files too. Models are tiny; everything else is as in a real run. Prints a line a stage and ends with exit code 1
if any file differs. The last lines give the share of a stage's time that its checkpoints take, at the usual model and
the usual interval.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from amenable.control.people_labels import NAME
from amenable.errors import InputError
from amenable.files import manifest_of
from amenable.models import presets
from amenable.models.config import DecoderConfig
from amenable.models.lora import LoraOptions
from amenable.recipes import compare_peft, quality
from amenable.stages import (
    a2c,
    annotate,
    classify,
    control,
    distill_context,
    dpo,
    evaluate,
    expert_iteration,
    grpo,
    kto,
    ngram,
    online_dpo,
    ppo,
    pretrain,
    reinforce,
    resample,
    reward,
    rloo,
    sample,
    sft,
    tokenizer,
    trpo,
    world,
)
from amenable.stages.sample import SamplingOptions
from amenable.train import checkpoint
from amenable.train.optimizer import OptimizerConfig
from amenable.train.run import Run
from amenable.train.runtime import DeviceOptions
from amenable.world.settings import Sizes
from benchmarks import crash_people

TINY = DecoderConfig(
    320,
    128,
    num_layers=2,
    hidden_size=32,
    num_heads=2,
    positions="rope",
    norm="rms",
    activation="swiglu",
    bias=False,
    qk_norm=True,
)
MACHINE = DeviceOptions("cpu", "fp32", 1)
OWN_FILES = (
    *("config.yaml", "README.md", "lineage.json", "finished.json", "manifest.json", "timings.jsonl", ".lock"),
    NAME,
)
"""files in which two runs of the same options may differ: their folder's name, seconds, hashes of these, and the name
of comparisons in a database"""
OF_RECIPES = (*OWN_FILES, "plan", "peft.json", "peft.html")
"""such entries at any depth of a recipe's folder"""
AT_MOST = 6
"""kills of one run, before it may end"""
SLOWLY = 0.15
"""seconds between the files of a slow checkpoint"""


@dataclass(frozen=True)
class Options:
    """Stages to kill, and numbers of kills."""

    kills: int = 100
    """shared among the stages"""
    stage: str | None = None
    """only this one (ppo-ptx is one); the stages before it run undisturbed"""
    seed: int = 0
    cost: bool = True
    """also measure what checkpoints cost"""

    def __post_init__(self) -> None:
        if self.kills < 1:
            raise InputError(f"kills is {self.kills}", how="it must be 1 or more")


@dataclass
class Tally:
    """Kills of a stage, and their outcome."""

    kills: int = 0
    in_checkpoints: int = 0
    """kills that left a checkpoint half-written"""
    resumes: int = 0
    """runs that went on from a checkpoint"""
    runs: int = 0
    """runs that came to their end and were compared"""
    differing: set[str] = field(default_factory=set)

    def line(self, name: str, seconds: float) -> str:
        verdict = f"DIFFERS in {', '.join(sorted(self.differing))}" if self.differing else "exact"
        return (
            f"{name:<10} {self.kills:>4} kills ({self.in_checkpoints} in a checkpoint), {self.resumes:>3} resumes, "
            f"{self.runs:>3} runs compared: {verdict}   {seconds:.0f} s"
        )


def main(options: Options, folder: Path) -> bool:
    """Kill every stage. Returns True if each wrote the same files as undisturbed."""
    torch.set_num_threads(1)
    presets.PRESETS["two-layers"] = TINY
    calls = plan(folder / "whole")
    if options.stage is not None and options.stage not in calls:
        raise InputError(f"unknown stage: {options.stage}", "--stage", f"choose from {', '.join(calls)}")
    chosen = [options.stage] if options.stage else list(calls)
    shares = {name: len(range(i, options.kills, len(chosen))) for i, name in enumerate(chosen)}
    exact = True
    for name, (stage, config) in calls.items():
        begun = time.monotonic()
        code = wait(start(lambda stage=stage, config=config: stage.run(config)))
        if code != 0:
            raise InputError(f"'{name}' does not run undisturbed (exit code {code})", folder)
        if name in shares:
            draw = random.Random(f"{options.seed}/{name}")
            tally = torture(stage, config, folder / name, shares[name], time.monotonic() - begun, draw)
            print(tally.line(name, time.monotonic() - begun), flush=True)
            exact = exact and not tally.differing
        if name == options.stage:
            break
    return exact


def plan(root: Path) -> dict[str, tuple[Any, Any]]:
    """Return every stage with its options, by name; each reads the stages before it."""
    quick = OptimizerConfig(learning_rate=3e-3)
    town, labels = root / "world", root / "annotate"
    text, shown = town / "text" / "train.jsonl", town / "demonstrations" / "train.jsonl"
    base = pretrain.Config(
        data=text,
        tokenizer=root / "tokenizer",
        out=root / "pretrain",
        model="two-layers",
        context=128,
        tokens_per_step=512,
        max_steps=12,
        warmup_steps=2,
        validation_split=0.1,
        eval_steps=4,
        save_steps=2,
        optimizer=replace(quick, muon_learning_rate=0.03),
        device=MACHINE,
    )
    tuned = sft.Config(
        model=base.out,
        data=shown,
        out=root / "sft",
        epochs=2,
        batch_size=4,
        validation_split=0.1,
        keep_weights="loss",
        save_steps=2,
        async_save=True,
    )
    sampled = sample.Config(
        model=tuned.out, data=town / "prompts" / "reward.jsonl", out=root / "sample", num_generations=3, max_prompts=24
    )
    ranked = annotate.Config(data=sampled.out / "samples.jsonl", world=town, out=labels, validation_split=0.2)
    judge = reward.Config(
        model=tuned.out,
        data=labels / "train.jsonl",
        validation=labels / "validation.jsonl",
        heldout_annotators=labels / "heldout.jsonl",
        demonstrations=shown,
        out=root / "reward",
        prompts_per_step=2,
        warmup_steps=1,
        save_steps=2,
        device=MACHINE,
    )
    policy = ppo.Config(
        model=tuned.out,
        reward=judge.out,
        data=town / "prompts" / "ppo.jsonl",
        out=root / "ppo",
        max_steps=8,
        prompts_per_step=4,
        num_mini_batches=2,
        max_new_tokens=12,
        warmup_steps=1,
        adaptive_kl_target=2.0,
        kl_horizon=40.0,
        max_kl=0.0,  # a model of random weights may go anywhere: only what it costs, and that it goes on, is looked at
        sample_steps=2,
        num_traced_prompts=2,
        save_steps=2,
        device=MACHINE,
    )
    mixed = replace(policy, ptx_coef=0.5, ptx_data=text, ptx_tokens=100, out=root / "ppo-ptx")
    mixed = replace(
        mixed, keep_weights="score", validation=town / "prompts" / "validation.jsonl", eval_steps=2, eval_prompts=3
    )
    grouped = rloo.Config(
        model=tuned.out,
        reward=(str(judge.out), "ends=0.5"),
        data=policy.data,
        out=root / "rloo",
        max_steps=6,
        prompts_per_step=4,
        num_generations=2,
        max_new_tokens=12,
        warmup_steps=1,
        max_kl=0.0,
        sample_steps=2,
        save_steps=2,
        device=MACHINE,
    )
    sizes = ("model", "reward", "data", "max_steps", "prompts_per_step", "num_generations", "max_new_tokens")
    limits = ("warmup_steps", "max_kl", "sample_steps", "save_steps", "device")
    online = {name: getattr(grouped, name) for name in (*sizes, *limits)}
    labelled = kto.Config(
        model=tuned.out,
        data=labelled_rows(root / "labelled.jsonl"),
        validation_split=0.25,
        out=root / "kto",
        batch_size=4,
        warmup_steps=1,
        eval_steps=3,
        save_steps=2,
        device=MACHINE,
    )
    classified = classify.Config(
        model=base.out,
        data=labelled_texts(root / "texts.jsonl"),
        task="entailment",
        validation_split=0.25,
        out=root / "classify",
        batch_size=4,
        dropout=0.1,
        lora=LoraOptions(rank=2),
        keep_weights="loss",
        warmup_steps=1,
        save_steps=2,
        device=MACHINE,
    )
    distilled = distill_context.Config(
        model=tuned.out,
        data=policy.data,
        validation=town / "prompts" / "validation.jsonl",
        context_text="Answer in one word.",
        out=root / "distill_context",
        batch_size=4,
        max_new_tokens=12,
        warmup_steps=1,
        eval_steps=3,
        save_steps=2,
        device=MACHINE,
    )
    paired = dpo.Config(
        model=tuned.out,
        data=labels / "train.jsonl",
        validation=labels / "validation.jsonl",
        out=root / "dpo",
        batch_size=4,
        warmup_steps=1,
        eval_steps=3,
        save_steps=2,
        device=MACHINE,
    )
    compared = evaluate.Config(
        models=(f"sft={tuned.out}", f"ppo={policy.out}", f"dpo={paired.out}", f"base={base.out}"),
        data=town / "prompts" / "test.jsonl",
        world=town,
        reward=(str(judge.out),),
        lm_data=town / "text" / "validation.jsonl",
        out=root / "evaluate",
        max_prompts=6,
        max_new_tokens=8,
        text_tokens=300,
        device=MACHINE,
    )
    acting = control.Config(
        env="amenable/Gridworld-v0",
        num_envs=2,
        num_steps=32,
        total_timesteps=1024,
        eval_episodes=2,
        save_steps=2,
        out=root / "control",
    )
    comparing = replace(
        acting,
        env="Pendulum-v1",
        learn_from="comparisons",
        max_labels=60,
        reward_updates=5,
        clip_steps=10,
        out=root / "control-comparisons",
    )
    brief = SamplingOptions(temperature=1.0, max_new_tokens=12)
    return {
        "control": (control, acting),
        "control-comparisons": (control, comparing),
        "control-people": (
            crash_people,
            replace(comparing, judge="people", label_lag=5, out=root / "control-people"),
        ),
        "world": (world, world.Config(out=town, sizes=Sizes(6, 60, 6, 40, 6, 60, 24, 6, 40))),
        "tokenizer": (tokenizer, tokenizer.Config(data=text, demonstrations=shown, out=base.tokenizer, vocab_size=320)),
        "ngram": (ngram, ngram.Config(data=(text,), tokenizer=base.tokenizer, out=root / "ngram", device=MACHINE)),
        "pretrain": (pretrain, base),
        "sft": (sft, replace(tuned, optimizer=quick, warmup_steps=1, device=MACHINE)),
        "sft-prefix": (
            sft,
            replace(tuned, out=root / "sft-prefix", prefix_tuning=4, keep_weights="last", device=MACHINE),
        ),
        "compare-peft": (
            compare_peft,
            compare_peft.Config(
                base_run=root,
                out=root / "compare-peft",
                stages=("sft",),
                ways=("full", "prefix"),
                virtual_tokens=4,
                epochs=1,
                seeds=1,
                device=MACHINE,
            ),
        ),
        "classify": (classify, replace(classified, optimizer=quick)),
        "sample": (sample, replace(sampled, sampling=brief, prompts_per_step=4, device=MACHINE)),
        "annotate": (annotate, ranked),
        "resample": (
            resample,
            resample.Config(
                model=tuned.out,
                data=sampled.out / "samples.jsonl",
                reward=("length:1-30",),
                out=root / "resample",
                device=MACHINE,
            ),
        ),
        "reward": (reward, replace(judge, optimizer=quick)),
        "ppo": (ppo, replace(policy, optimizer=quick)),
        "ppo-ptx": (ppo, replace(mixed, optimizer=quick)),
        "rloo": (rloo, replace(grouped, optimizer=quick)),
        **{
            stage.__name__.rpartition(".")[2]: (
                stage,
                stage.Config(**online, out=root / stage.__name__.rpartition(".")[2], optimizer=quick),
            )
            for stage in (grpo, reinforce, a2c, trpo, expert_iteration, online_dpo)
        },
        "kto": (kto, replace(labelled, optimizer=quick)),
        "distill_context": (distill_context, replace(distilled, optimizer=quick)),
        "dpo": (dpo, replace(paired, optimizer=quick)),
        "evaluate": (evaluate, compared),
        "quality": (
            quality,
            quality.Config(
                models=(f"base={base.out}", f"sft={tuned.out}"),
                world=town,
                world_rows=3,
                num_samples=2,
                max_new_tokens=8,
                out=root / "quality",
                device=MACHINE,
            ),
        ),
    }


def labelled_rows(file: Path) -> Path:
    """Write completions with a label each, for kto; return their file."""
    rows = [{"prompt": f"Who is {i}?", "completion": f"{i} is {i}.", "label": i % 2 == 0} for i in range(32)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def labelled_texts(file: Path) -> Path:
    """Write pairs of texts with a label each, for classify; return their file."""
    rows = [{"premise": f"{i} is {i}.", "hypothesis": f"It is {i % 3}.", "label": i % 2} for i in range(32)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def torture(stage: Any, config: Any, folder: Path, kills: int, seconds: float, draw: random.Random) -> Tally:
    """Kill a stage `kills` times, in as many runs as that takes; each run is finished and compared.

    seconds: of an undisturbed run; kills fall within that, or a little later.
    """
    tally, wanted = Tally(), compared_files(stage, config.out)
    while tally.kills < kills:
        again = replace(config, out=folder / f"run-{tally.runs}")
        for _ in range(min(AT_MOST, kills - tally.kills)):
            slowly = draw.random() < 0.5
            code = attempt(stage, again, draw.uniform(0, seconds * (2 if slowly else 1)), slowly, tally)
            if code == 0:
                break
            tally.kills += 1
            tally.in_checkpoints += any(again.out.glob(".checkpoint-*.writing"))
        attempt(stage, again, None, False, tally)
        tally.runs += 1
        written = compared_files(stage, again.out)
        tally.differing |= {name for name in {*wanted, *written} if wanted.get(name) != written.get(name)}
        shutil.rmtree(again.out)
    return tally


def compared_files(stage: Any, out: Path) -> dict[str, Any]:
    """Return sizes and hashes of the files that two runs of the same options have alike, by path."""
    if stage not in (compare_peft, quality):
        return manifest_of(out, OWN_FILES)
    return {name: file for name, file in manifest_of(out).items() if not {*Path(name).parts} & {*OF_RECIPES}}


def attempt(stage: Any, config: Any, moment: float | None, slowly: bool, tally: Tally) -> int:
    """Run a stage and kill it after `moment` seconds, unless it has ended. Returns its exit code; -9 is our kill."""
    finished = (config.out / "finished.json").exists()
    tally.resumes += not finished and checkpoint.newest(config.out) is not None

    def work() -> None:
        if slowly:
            write_slowly()
        stage.run(config)

    code = wait(start(work), moment)
    if code not in (0, -signal.SIGKILL):
        raise InputError(f"ended with exit code {code} after a kill", config.out)
    return code


def write_slowly() -> None:
    """Write this process's checkpoints with pauses between their files."""
    for name in ("write_tensors", "size_and_hash", "write_text", "sync_folder", "drop_others"):
        setattr(checkpoint, name, paused(getattr(checkpoint, name)))


def paused(work: Callable[..., Any]) -> Callable[..., Any]:
    def pausing(*arguments: Any, **options: Any) -> Any:
        time.sleep(SLOWLY)
        result = work(*arguments, **options)
        time.sleep(SLOWLY)
        return result

    return pausing


def start(work: Callable[[], object]) -> int:
    """Do work in a silent process of its own. Returns the process id."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        with tempfile.TemporaryFile() as output:
            complaint = os.dup(2)
            os.dup2(output.fileno(), 2)
            os.dup2(output.fileno(), 1)
            try:
                work()
                code = 0
            except BaseException as error:
                os.write(complaint, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def wait(child: int, moment: float | None = None) -> int:
    """Wait for a process to end, or `moment` seconds and kill it. Returns its exit code, -9 if it was killed."""
    end = None if moment is None else time.monotonic() + moment
    while True:
        ended, status = os.waitpid(child, 0 if end is None else os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.002)


def usual(root: Path) -> dict[str, tuple[Any, Any]]:
    """Return the stages of `plan` at the usual model, batch and interval, for as many steps as a median needs."""
    calls = plan(root)
    sizes = {"model": pretrain.Config().model, "tokens_per_step": pretrain.Config().tokens_per_step}
    few = {"max_steps": 5, "save_steps": 2, "context": pretrain.Config().context}
    calls["world"] = (world, world.Config(out=root / "world"))
    calls["tokenizer"] = (tokenizer, replace(calls["tokenizer"][1], vocab_size=tokenizer.Config().vocab_size))
    calls["pretrain"] = (pretrain, replace(calls["pretrain"][1], **sizes, **few))
    calls["sft"] = (sft, replace(calls["sft"][1], epochs=1, batch_size=sft.Config().batch_size))
    standard = ppo.Config()
    step = {"prompts_per_step": standard.prompts_per_step, "num_mini_batches": standard.num_mini_batches}
    calls["ppo"] = (ppo, replace(calls["ppo"][1], max_steps=4, **step, max_new_tokens=standard.max_new_tokens))
    return calls


def costs(folder: Path, calls: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """Yield a line a stage: the share of its time that checkpoints take, at its default interval."""
    for name in ("world", "tokenizer", "pretrain", "sft", "sample", "annotate", "reward", "ppo"):
        stage, config = calls[name]
        if hasattr(config, "async_save"):
            config = replace(config, async_save=False)  # the time of a save is that of its writing
        file = folder / f"{name}.json"
        if wait(start(lambda stage=stage, config=config, file=file: timed(stage, config, file))) != 0:
            raise InputError(f"'{name}' does not run at its usual size", folder)
        if name in ("pretrain", "sft", "reward", "ppo"):
            median, every = json.loads(file.read_text()), importlib.import_module(stage.__name__).Config().save_steps
            share = median["save"] / (median["save"] + every * median["step"])
            yield (
                f"{name:<10} a checkpoint of {median['bytes'] / 2**20:.0f} MiB takes {median['save']:.2f} s, a step "
                f"{median['step']:.2f} s: every {every} steps, {share:.1%} of the time"
            )


def timed(stage: Any, config: Any, file: Path) -> None:
    """Run a stage; write the median seconds of its steps and its checkpoints, and the checkpoint's size, to a file."""
    steps, saves, sizes, last = list[float](), list[float](), [0], [time.monotonic()]
    record, save = Run.record, Run.save

    def recording(run: Run, *arguments: Any, **values: Any) -> None:
        record(run, *arguments, **values)
        steps.append(time.monotonic() - last[0])
        last[0] = time.monotonic()

    def saving(run: Run, *arguments: Any) -> None:
        begun = time.monotonic()
        save(run, *arguments)
        last[0] = time.monotonic()
        saves.append(last[0] - begun)
        sizes.append(checkpoint.bytes_on_disk(run.out) // len(checkpoint.steps(run.out)))

    Run.record, Run.save = recording, saving  # type: ignore[method-assign]
    stage.run(config)
    middle = {"step": sorted(steps[1:] or [0.0]), "save": sorted(saves or [0.0])}
    medians = {name: values[len(values) // 2] for name, values in middle.items()}
    file.write_text(json.dumps({**medians, "bytes": sizes[-1]}))


if __name__ == "__main__":
    chosen = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        begun = time.monotonic()
        exact = main(chosen, Path(folder))
        for line in costs(Path(folder), usual(Path(folder) / "cost")) if chosen.cost else ():
            print(line, flush=True)
        print(f"{'all exact' if exact else 'NOT EXACT'}, {time.monotonic() - begun:.0f} s")
    sys.exit(0 if exact else 1)
