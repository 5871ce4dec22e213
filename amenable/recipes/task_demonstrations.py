"""Write rows of tasks as demonstrations, so that `amenable sft` tunes a model on public tasks, as FLAN and T0 were.

    task files -> instructions in varied wordings, with their answers -> `amenable sft` -> a row of `amenable evaluate`

Such a model is a baseline for people's demonstrations and preferences (Ouyang et al., 2022, section 4.1). Reads files
of tests (`evaluate --tasks`) and of labelled texts (`classify`); writes a .jsonl for each, which sft reads as a folder,
or by weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.data.readers import list_files
from amenable.errors import InputError
from amenable.evaluation.tasks.demonstrations import parse_spec, read_instructions
from amenable.files import disk_errors, write_text
from amenable.seeds import derive_seed
from amenable.train import plan
from amenable.train.log import as_lines


@dataclass(frozen=True)
class Config:
    """Write rows of tasks as instructions with answers, to tune a model on public tasks."""

    tasks: tuple[str, ...] = ()
    """files of tests or labelled texts, FILE or FORM:FILE, or folders of them"""
    labels: tuple[str, ...] = ()
    """names of the labels, where they are numbers, in their order; of all files of labelled texts"""
    max_rows: int = 0
    """take only so many rows of each file, the first; 0 takes all (FLAN took 30,000)"""
    out: Path = Path("runs/task-demonstrations")
    seed: int = 0
    """of the wordings"""

    def __post_init__(self) -> None:
        plan.require_at_least(0, self, "max_rows")


def run(config: Config) -> Path:
    """Write the files and return their folder. InputError where it holds others of these names."""
    plan.forbid(not config.tasks, "no tasks are given", "give --tasks FILE, of tests or labelled texts")
    texts: dict[Path, str] = {}
    for spec in config.tasks:
        form, path = parse_spec(spec)
        for file in list_files(path):
            target = config.out / f"{Path(file).name.partition('.')[0]}.jsonl"
            if target in texts:
                raise InputError(f"two files are called '{target.stem}'", file, "rename a file")
            texts[target] = as_lines(demonstrations(Path(file), form, config))
    for target, text in texts.items():
        if target.exists() and target.read_text("utf-8") != text:
            raise InputError("holds other demonstrations", target, "choose another --out")
    with disk_errors(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    for target, text in texts.items():
        write_text(target, text)
        print(f"{text.count(chr(10)):>8} demonstrations   {target}")
    return config.out


def demonstrations(file: Path, form: str | None, config: Config) -> list[dict[str, Any]]:
    """Return the demonstrations of a file; the wording of a row is a function of the seed, the file's name and the
    row's number."""
    instructions = read_instructions(file, form, config.labels, config.max_rows)
    return [each.render(derive_seed(config.seed, "wording", file.name, i)) for i, each in enumerate(instructions)]
