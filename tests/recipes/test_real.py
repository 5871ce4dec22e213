"""The recipe on a chat model, over a tiny one: its prompts, its stages, its report."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from amenable.data import sources
from amenable.errors import InputError
from amenable.models import tensor_files
from amenable.recipes import real
from amenable.train import checkpoint


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def data(files: Any, tmp_path: Path) -> Path:
    """Prompts with a person's answer each."""
    rows = [{**row, "id": f"q{i}", "reference": "A lemon is yellow."} for i, row in enumerate(rows_of(files.prompts))]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_packages_questions_are_read_whole() -> None:
    prompts = real.read_prompts(real.QUESTIONS)
    assert len(prompts) == 900 and len({prompt.messages[-1].content for prompt in prompts}) == 900
    assert all(isinstance(prompt.meta["reference"], str) for prompt in prompts)


def test_prompts_are_in_one_split_and_seeds_are_evaluated_on_others(tmp_path: Path) -> None:
    prompts = real.read_prompts(real.QUESTIONS)
    tests = []
    for place in range(3):
        real.write_prompts(tmp_path / str(place), prompts, real.QUESTIONS, place)
        splits = {name: rows_of(tmp_path / str(place) / f"{name}.jsonl") for name in real.SIZES}
        ids = [row["id"] for rows in splits.values() for row in rows]
        assert {name: len(rows) for name, rows in splits.items()} == real.SIZES and len(set(ids)) == len(ids)
        tests += [row["id"] for row in splits["test"]]
    assert len(set(tests)) == 3 * real.SIZES["test"]
    assert sources.read_prompts(tmp_path / "0" / "test.jsonl").rows[0].meta["reference"]


def test_every_way_is_trained_evaluated_and_reported(
    in_turn: None, assistant: Path, data: Path, tmp_path: Path
) -> None:
    taste = tmp_path / "taste.py"
    taste.write_text("def short(completion):\n    return float(len(completion) % 2)\n")
    config = real.Config(
        model=assistant,
        taste=(f"{taste}:short",),
        instruction="Briefly.",
        data=data,
        out=tmp_path / "real",
        size="smoke",
        track=("tensorboard",),
    )
    out = real.run(config)
    assert {path.name for path in out.iterdir() if (path / "tensorboard").is_dir()} >= {"dpo", "ppo", "reward", "rloo"}
    figures = json.loads((out / "report.json").read_text())
    assert set(figures["models"]) == {
        "base",
        "prompted",
        "best of n",
        "dpo",
        "dpo prompted",
        "ppo",
        "rloo",
        "resampled",
        "distilled",
    }
    assert figures["prompts"] == 8 and figures["models"]["base"]["sampled"]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert figures["models"]["best of n"]["greedy"] is None
    assert not figures["headline"][0].startswith("The model learned to stop")
    page = (out / "report.html").read_text()
    assert "Answers drawn at random" in page and "What got worse" in page and "Briefly." in page
    before = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    assert real.run(config) == out
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == before


def test_seeds_have_folders_of_their_own() -> None:
    assert real.Config(seeds=1, seed=4).roots == {4: Path("runs/real")}
    assert real.Config(seeds=2, seed=4).roots == {4: Path("runs/real/seed-4"), 5: Path("runs/real/seed-5")}


def test_what_cannot_be_aligned_is_refused_before_any_work(assistant: Path, base: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text('{"prompt": "Why?"}\n')
    for options, problem in (
        ({"model": tmp_path / "none"}, "no such model folder.*amenable get smollm2"),
        ({"taste": ("none.py:short",)}, "none.py"),
        ({"taste": ("lenght:3-4",)}, "did you mean 'length:3-4'"),
        ({"data": few}, "has 1 prompts"),
        ({"model": base}, "has no chat template: this model continues texts, and cannot chat; give a chat model"),
        ({"track": ("absent",)}, "--track absent: it is not installed"),
    ):
        with pytest.raises(InputError, match=problem):
            real.run(real.Config(**{"model": assistant, "out": tmp_path / "out", **options}))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="kl_budget"):
        real.Config(kl_budget=0.0)


@pytest.mark.parametrize(
    ("taste", "problem"),
    [
        ("return [0.0] * len(completions)", "all answers to each of .* prompts have the same rank; give a judge"),
        ("raise ValueError('no taste')", "taste.py:short, line 2: raised ValueError: no taste"),
    ],
)
def test_a_taste_that_fails_loses_nothing(
    in_turn: None, assistant: Path, data: Path, tmp_path: Path, taste: str, problem: str
) -> None:
    file = tmp_path / "taste.py"
    file.write_text(f"def short(completions):\n    {taste}\n")
    config = real.Config(model=assistant, taste=(f"{file}:short",), data=data, out=tmp_path / "real", size="smoke")
    with pytest.raises(InputError, match=problem):
        real.run(config)
    finished = {path: path.read_bytes() for path in config.out.rglob("finished.json")}
    (failed,) = config.out.rglob("failed_rollout.jsonl")
    file.write_text("def short(completions):\n    return [float(len(text) % 2) for text in completions]\n")
    (mended,) = [run for run in map(real.shrink, real.stages(config.out, 0, config)) if run.out == failed.parent]
    mended.run()
    assert mended.is_finished and {path: path.read_bytes() for path in finished} == finished


def test_a_full_disk_in_the_middle_loses_nothing(
    in_turn: None, assistant: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = real.Config(model=assistant, taste=("length:2-5",), data=data, out=tmp_path / "real", size="smoke")
    write, full = checkpoint.write_tensors, OSError(errno.ENOSPC, "No space left on device")

    def fail(*arguments: Any) -> None:
        raise full

    monkeypatch.setattr(checkpoint, "write_tensors", fail)
    monkeypatch.setattr(tensor_files, "write_tensors", fail)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\).*make room"):
        real.run(config)
    finished = {path: path.read_bytes() for path in config.out.rglob("finished.json")}
    assert not list(config.out.rglob(".*writing*")), "nothing that is half written is left"
    monkeypatch.setattr(checkpoint, "write_tensors", write)
    monkeypatch.setattr(tensor_files, "write_tensors", write)
    begun = [path.parent for path in config.out.rglob("config.yaml") if not (path.parent / "finished.json").exists()]
    (stopped,) = [run for run in map(real.shrink, real.stages(config.out, 0, config)) if run.out in begun]
    stopped.run()
    assert stopped.is_finished and {path: path.read_bytes() for path in finished} == finished
