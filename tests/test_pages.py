"""The commands on the pages of docs/ run, with small files and models under the names that the pages use."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from amenable import cli
from amenable.data import sources
from amenable.feedback.store import Store
from amenable.recipes import compare_peft
from amenable.stages import classify
from tests.conftest import ONE_THREAD, write_rows

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "docs" / "README.md",
    ROOT / "docs" / "coming_from.md",
    *sorted((ROOT / "docs" / "stages").glob("*.md")),
]
CODE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = {"csv": "prompts.csv", "python": "my_rewards.py"}
"""files that the first page shows, by the language of their block"""
TINY: dict[str, dict[str, str]] = {
    "tokenizer": {"vocab-size": "300"},
    "ngram": {"order": "3"},
    "pretrain": {"max-steps": "1", "tokens-per-step": "256", "context": "32"},
    "sft": {"epochs": "1", "batch-size": "32"},
    "sample": {"max-prompts": "4", "num-generations": "2", "sampling.max-new-tokens": "6"},
    "annotate": {"empty-share": "0"},
    "reward": {"epochs": "1", "prompts-per-step": "32"},
    "classify": {"epochs": "1"},
    "classify-ablations": {"epochs": "1"},
    "compare-peft": {"epochs": "1", "seeds": "1"},
    "kto": {"epochs": "1", "batch-size": "32", "eval-prompts": "4", "max-new-tokens": "6"},
    "dpo": {"epochs": "1", "batch-size": "32", "eval-prompts": "4", "max-new-tokens": "6"},
    "distill-context": {"epochs": "1", "batch-size": "32", "eval-prompts": "4", "max-new-tokens": "6"},
    "ppo": {"max-steps": "1", "prompts-per-step": "4", "max-new-tokens": "6", "eval-prompts": "4"},
    "rloo": {"max-steps": "1", "prompts-per-step": "4", "max-new-tokens": "6"},
    **{
        name: {"max-steps": "1", "prompts-per-step": "4", "num-generations": "2", "max-new-tokens": "6"}
        for name in ("grpo", "reinforce", "a2c", "trpo", "expert-iteration", "online-dpo")
    },
    "evaluate": {"max-prompts": "3", "max-new-tokens": "6"},
    "compare": {"max-prompts": "3", "max-new-tokens": "6"},
    "quality": {"max-rows": "1", "num-samples": "0", "max-new-tokens": "6"},
}
"""by command, options that make it quick"""
TALK = {
    "chat",
    "serve",
    "label",
    "arena",
    "annotators",
    "export-labels",
    "inspect",
    "world",
    "demo",
    "real",
    "doctor",
    "get",
}
"""commands that wait for people, or read what no page has made: test_documents.py parses them"""


def commands(page: Path) -> list[list[str]]:
    """The commands in the code blocks of a page, as words."""
    blocks = [block for language, block in CODE.findall(page.read_text("utf-8")) if not language]
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines() if line.startswith("amenable ")]
    return [words for words in map(shlex.split, lines) if words[1] not in TALK and not words[1].startswith("-")]


TASKS: dict[str, list[dict[str, Any]]] = {
    "reviews": [{"text": f"{('Bad', 'Good')[i % 2]}, I say {i}.", "label": i % 2} for i in range(24)],
    "nli": [{"premise": f"It is {i}.", "hypothesis": f"It is {i + i % 2}.", "label": i % 2} for i in range(24)],
    "wordings": [{"paraphrases": ["Name a red thing.", "What is red?"], "answers": ["rose"]}],
    "choices": [{"context": f"{i}?", "choices": ["so", "as"], "answer": i % 2} for i in range(24)],
}
"""rows of files of tasks, by name"""


@pytest.fixture(scope="module")
def sentiment(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of two labels."""
    folder = tmp_path_factory.mktemp("sentiment")
    data = write_rows(folder / "reviews.jsonl", TASKS["reviews"])
    return classify.run(
        classify.Config(
            model=base,
            data=(data,),
            labels=("negative", "positive"),
            epochs=1,
            out=folder / "run",
            device=ONE_THREAD,
        )
    )


@pytest.fixture
def desk(
    tmp_path: Path, files: Any, base: Path, assistant: Path, judge: Path, tokenizer_folder: Path, sentiment: Path
) -> Path:
    """A folder with the files and models that pages name."""
    (tmp_path / "models").mkdir()
    (tmp_path / "runs" / "sample").mkdir(parents=True)
    shutil.copytree(assistant, tmp_path / "models" / "smollm2")
    runs = {"pretrain": base, "sft": assistant, "ppo": assistant, "brief": assistant, "tokenizer": tokenizer_folder}
    runs |= {"reward": judge, "reward-2": judge, "sentiment": sentiment}
    for name, folder in runs.items():
        shutil.copytree(folder, tmp_path / "runs" / name)
    names = {"text": files.text, "demonstrations": files.demonstrations, "comparisons": files.pairs}
    for name, own in TASKS.items():
        write_rows(tmp_path / f"{name}.jsonl", own)
    for name in ("tasks", "resample"):
        (tmp_path / "runs" / name).mkdir()
        shutil.copy(files.demonstrations, tmp_path / "runs" / name)
    labelled = [
        json.dumps({"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}) + "\n"
        for row in map(json.loads, files.pairs.read_text("utf-8").splitlines())
        for name in ("chosen", "rejected")
    ]
    names |= {"rankings": files.rankings, "held_out": files.prompts}
    (tmp_path / "labelled.jsonl").write_text("".join(labelled[:24]), "utf-8")
    for name, file in names.items():
        rows = file.read_text("utf-8").splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(rows[:24]), "utf-8")
    held_out = [json.loads(line) for line in files.rankings.read_text("utf-8").splitlines()[24:48]]
    rows = [json.dumps({**row, "country": ("Chile", "Ghana")[i % 2]}) + "\n" for i, row in enumerate(held_out)]
    (tmp_path / "heldout.jsonl").write_text("".join(rows), "utf-8")
    with Store(tmp_path / "runs" / "labels.db") as store:
        store.add_rankings(sources.read_rankings(tmp_path / "heldout.jsonl").rows)
    samples = [
        {
            "prompt": [{"role": "user", "content": f"Name a {colour} thing."}],
            "completions": ["A rose.", "It is the sea."],
        }
        for colour in ("red", "green", "blue", "white")
    ]
    (tmp_path / "runs/sample/samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples), "utf-8")
    for language, block in CODE.findall(PAGES[0].read_text("utf-8")):
        if language in SHOWN:
            (tmp_path / SHOWN[language]).write_text(block, "utf-8")
    with (tmp_path / "prompts.csv").open(encoding="utf-8", newline="") as table:
        prompts = list(csv.DictReader(table))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts), "utf-8")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_of_a_page_runs(page: Path, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setattr(compare_peft, "run_all", lambda runs, parallel: [each.run() for each in runs])
    for number, (_, name, *options) in enumerate(commands(page)):
        given = dict.fromkeys(option.removeprefix("--") for option in options if option.startswith("--"))
        machine = {} if name in ("tokenizer", "task-demonstrations") else {"threads": "1", "precision": "fp32"}
        quick = {**machine, **TINY.get(name, {}), "out": f"out/{number}"}
        if "num-generations" in given and name == "rloo":
            quick["num-mini-batches"] = "2"
        arguments = drop(options, set(quick))
        added = [word for option, value in quick.items() for word in (f"--{option}", value)]
        assert cli.main([name, *arguments, *added]) == 0, f"{page.name}: amenable {name} {' '.join(options)}"


def drop(options: list[str], names: set[str]) -> list[str]:
    """Return options without those of these names, and without their values."""
    stored, dropping = [], False
    for word in options:
        dropping = word.removeprefix("--") in names if word.startswith("--") else dropping
        stored += [] if dropping else [word]
    return stored
