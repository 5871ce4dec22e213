"""The whole pipeline on real text, demonstrations and comparisons, scaled to the time one has.

    books, speeches -> tokenizer, pretrain;  dolly -> sft;  hh_rlhf -> reward, prompts for ppo;  all of it -> evaluate

A model trained for minutes on a laptop can't be an assistant. The report has its bits per byte of held-out text, the
reward model's accuracy beside "the longer answer wins", and the answers themselves.

Reads a folder with <set>/train.jsonl(.gz) and <set>/test.jsonl(.gz) for the sets named above.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from amenable.data import sources
from amenable.errors import InputError
from amenable.files import sha256
from amenable.models.decoder import Decoder
from amenable.models.presets import preset
from amenable.recipes import report
from amenable.recipes.pipeline import StageRun, run_all, stage_runs, with_trackers
from amenable.stages import dpo, evaluate, ppo, pretrain, reward, sft, tokenizer
from amenable.train.examples import text_row
from amenable.train.objective import NextToken, accumulate
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import write_text
from amenable.train.runtime import DeviceOptions, start_runtime
from amenable.train.trackers import TrackerName, require_installed

SHARES = {"pretrain": 0.50, "sft": 0.10, "reward": 0.10, "ppo": 0.14, "dpo": 0.10}
"""of the time, by stage; the rest is for reading, evaluation and the report"""
SFT_BATCH = 16


@dataclass(frozen=True)
class Config:
    """Run every stage on real data within a given time."""

    data: Path = Path("data")
    """folder with books, speeches, dolly, hh_rlhf and (for bits per byte) wikitext2"""
    out: Path = Path("runs/from-scratch")
    minutes: float = 15.0
    """time to use; the number of steps of each stage follows from the speed measured here"""
    model: str = "tiny"
    """a preset, as for pretrain"""
    vocab_size: int = 4096
    context: int = 256
    seed: int = 0
    track: tuple[TrackerName, ...] = ()
    """trackers of the stages that train: tensorboard, wandb, trackio"""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise InputError(f"minutes is {self.minutes}", how="give it more than 0")


@dataclass(frozen=True)
class Files:
    """Paths of the data sets."""

    text: tuple[Path, ...]
    held_out_text: Path
    demonstrations: Path
    validation_demonstrations: Path
    comparisons: Path
    test_comparisons: Path


def run(config: Config) -> Path:
    """Run every stage and return the folder that holds them."""
    require_installed(config.track)
    files = find(config.data)
    text = gather_text(config, files)
    speed = measured_speed(config)
    steps = steps_for(config, speed, files)
    run_all(with_trackers(plan(config, files, text, steps), config.track))
    return report.renew(config.out)


def find(folder: Path) -> Files:
    """Return the paths of the sets in the folder. InputError for a missing one, before any work."""
    if not folder.is_dir():
        raise InputError("no such folder", folder, "give --data the folder that holds books, dolly, hh_rlhf ...")

    def existing(name: str) -> list[Path]:
        return [path for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if path.exists()]

    def required(*names: str) -> Path:
        for name in names:
            if paths := existing(name):
                return paths[0]
        raise InputError(f"lacks {names[0]}.jsonl", folder, "see 'Your own data' in the README for the layout")

    return Files(
        text=(required("books/train"), *existing("speeches/train")),
        held_out_text=required("wikitext2/validation", "books/test"),
        demonstrations=required("dolly/train"),
        validation_demonstrations=required("dolly/test"),
        comparisons=required("hh_rlhf/train"),
        test_comparisons=required("hh_rlhf/test"),
    )


def gather_text(config: Config, files: Files) -> Path:
    """Write all raw text as one file of the run, so that every stage reads the same; returns its path."""

    def texts() -> Iterator[dict[str, Any]]:
        return ({"text": text.text} for file in files.text for text in sources.read_texts(file).rows)

    return write_once(config.out / "text" / "train.jsonl", files.text, 0, texts)


def write_once(target: Path, read: Sequence[Path], count: int, rows: Callable[[], Iterator[dict[str, Any]]]) -> Path:
    """Write a file of the run from rows of others, once; a run that goes on leaves it as it is.

    InputError where the files that are read, or the `count` of rows taken from them, have changed.
    """
    facts = {"sha256": [sha256(path) for path in read], "count": count}
    record = target.with_suffix(".made_of.json")
    if target.exists():
        if record.exists() and json.loads(record.read_text("utf-8")) != facts:
            names = ", ".join(map(str, read))
            raise InputError(f"was made of other rows of {names}", target, "repeat with those, or give another --out")
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(record, json.dumps(facts))
    write_text(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()))
    return target


def measured_speed(config: Config) -> float:
    """Measure tokens a second of pretraining on this machine, once: a resumed run reads the number of the first."""
    record = config.out / "speed.json"
    if record.exists():
        return float(json.loads(record.read_text("utf-8"))["tokens_per_second"])
    runtime = start_runtime(DeviceOptions())
    generator = torch.Generator().manual_seed(config.seed)
    decoder = Decoder(preset(config.model, config.vocab_size)).to(runtime.device)
    decoder.init_weights(generator)
    optimizer = Optimizer([decoder], OptimizerConfig(learning_rate=3e-4, muon_learning_rate=0.01))
    ids = torch.randint(6, config.vocab_size, (16, config.context), generator=generator).tolist()
    rows = [text_row(row) for row in ids]
    rates = []
    for _ in range(4):
        begun = time.monotonic()
        accumulate(NextToken(decoder), rows, runtime, 8192)
        optimizer.step()
        rates.append(16 * config.context / (time.monotonic() - begun))
    speed = sorted(rates)[-2]  # the first pass warms up; the median of the others
    write_text(record, json.dumps({"tokens_per_second": speed}))
    return speed


def steps_for(config: Config, speed: float, files: Files) -> dict[str, int]:
    """Return the steps of each stage, from its share of the time and its tokens a step."""
    seconds = {name: share * config.minutes * 60 for name, share in SHARES.items()}
    demonstrations = len(sources.read_demonstrations(files.demonstrations).rows)
    comparisons = len(sources.read_rankings(files.comparisons).rows)
    conversation, pair = 180, 2 * 180  # tokens, about, once cut to the context
    epochs = max(1, min(4, int(seconds["sft"] * speed / (demonstrations * conversation))))
    return {
        "pretrain": max(20, int(seconds["pretrain"] * speed / 4096)),
        "sft_epochs": epochs,
        "sft_warmup": min(10, demonstrations * epochs // (5 * SFT_BATCH)),
        "reward": max(32, min(comparisons, int(seconds["reward"] * speed / pair))),
        "ppo": max(3, int(seconds["ppo"] * speed / (64 * 220 * 5))),  # sampling, three frozen passes, two trained ones
        "dpo": max(32, min(comparisons, int(seconds["dpo"] * speed / (pair * 1.5)))),
    }


def plan(config: Config, files: Files, text: Path, steps: dict[str, int]) -> list[StageRun]:
    """Return the stages in order."""
    root = config.out
    models = {"base": "pretrain", "sft": "sft", "ppo": "ppo", "dpo": "dpo"}
    configs = {
        "tokenizer": tokenizer.Config(data=text, demonstrations=files.demonstrations, vocab_size=config.vocab_size),
        "pretrain": pretrain.Config(
            data=text,
            validation=files.held_out_text,
            tokenizer=root / "tokenizer",
            model=config.model,
            context=config.context,
            tokens_per_step=4096,
            max_steps=steps["pretrain"],
            optimizer=OptimizerConfig(learning_rate=2e-3, muon_learning_rate=0.02, weight_decay=0.01),
            warmup_steps=min(20, steps["pretrain"] // 5),
        ),
        "sft": sft.Config(
            model=root / "pretrain",
            data=files.demonstrations,
            validation=files.validation_demonstrations,
            epochs=steps["sft_epochs"],
            batch_size=SFT_BATCH,
            optimizer=OptimizerConfig(learning_rate=3e-4),
            dropout=0.1,
            warmup_steps=steps["sft_warmup"],
        ),
        "reward": reward.Config(
            model=root / "sft",
            data=first_rows(files.comparisons, root / "comparisons.jsonl", steps["reward"]),
            heldout_annotators=files.test_comparisons,
            demonstrations=files.demonstrations,
            prompts_per_step=16,
            optimizer=OptimizerConfig(learning_rate=2e-4),
            warmup_steps=min(1, steps["reward"] // 64),
        ),
        "ppo": ppo.Config(
            model=root / "sft",
            reward=(str(root / "reward"),),
            data=files.comparisons,
            max_steps=steps["ppo"],
            prompts_per_step=64,
            max_new_tokens=config.context // 4,
            optimizer=OptimizerConfig(learning_rate=1e-4, eps=1e-5),
            critic_learning_rate=2e-4,
            temperature=0.7,
            kl_coef=0.3,
            adaptive_kl_target=3.0,
            warmup_steps=1,
        ),
        "dpo": dpo.Config(
            model=root / "sft",
            data=first_rows(files.comparisons, root / "pairs.jsonl", steps["dpo"]),
            optimizer=OptimizerConfig(learning_rate=5e-5),
            warmup_steps=min(1, steps["dpo"] // 64),
        ),
        "evaluate": evaluate.Config(
            models=tuple(f"{name}={root / stage}" for name, stage in models.items()),
            data=files.test_comparisons,
            world=None,
            reward=(str(root / "reward"),),
            lm_data=files.held_out_text,
            max_prompts=100,
            max_new_tokens=config.context // 4,
        ),
    }
    return stage_runs(root, config.seed, configs)


def first_rows(source: Path, target: Path, count: int) -> Path:
    """Write the first `count` comparisons as a file of the run: as many as there is time for."""

    def comparisons() -> Iterator[dict[str, Any]]:
        for row in sources.read_rankings(source, limit=count).rows:
            prompt = [{"role": m.role, "content": m.content} for m in row.prompt]
            values = {"prompt": prompt, "completions": list(row.completions), "ranking": list(row.ranks), "id": row.id}
            yield values | ({} if row.margin is None else {"margin": row.margin})

    return write_once(target, [source], count, comparisons)
