"""A stage that is killed goes on to the same files, to the bit: killed in a step, and between a checkpoint's files."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.feedback import ranking_files
from amenable.generation.sampling import Sampling
from amenable.stages import annotate, dpo, evaluate, ppo, pretrain, reward, sample, sft, tokenizer, world
from amenable.text.tokenizer import Tokenizer
from amenable.train import checkpoint, run
from amenable.train.log import Log
from amenable.train.optimizer import OptimizerConfig
from amenable.train.run import Run
from amenable.train.runtime import DeviceOptions
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes

MACHINE = DeviceOptions("cpu", "fp32", 1)
KILLED = 9


@dataclass(frozen=True)
class Place:
    """A function at whose nth call the process ends without a word."""

    owner: Any
    name: str
    call: int

    def arm(self) -> None:
        whole, observed = getattr(self.owner, self.name), iter(range(1, self.call))

        def ending(*arguments: Any, **options: Any) -> Any:
            if next(observed, None) is None:
                os._exit(KILLED)
            return whole(*arguments, **options)

        setattr(self.owner, self.name, ending)


IN_A_STEP = Place(Run, "record", 4)
IN_A_CHECKPOINT = Place(checkpoint, "size_and_hash", 3)
AT_THE_END = Place(run, "write_text", 3)
"""after lineage and options: the closing file"""


@pytest.fixture(scope="module")
def configs(
    files: Any, pretrain_config: pretrain.Config, sft_config: sft.Config, reward_config: reward.Config, judge: Path
) -> dict[str, tuple[Any, Any]]:
    """Each stage at its smallest, with as much of its state at work as it has."""
    policy = ppo.Config(
        model=reward_config.model,
        reward=judge,
        data=files.prompts,
        max_steps=5,
        prompts_per_step=4,
        num_mini_batches=2,
        max_new_tokens=12,
        adaptive_kl_target=2.0,
        kl_horizon=40.0,
        optimizer=OptimizerConfig(learning_rate=3e-3, eps=1e-5),
        warmup_steps=1,
        sample_steps=2,
        num_traced_prompts=1,
        save_steps=2,
        device=MACHINE,
    )
    mixed = replace(policy, ptx_coef=0.5, ptx_data=files.text, ptx_tokens=60)
    mixed = replace(mixed, keep_weights="score", validation=files.prompts, eval_steps=2, eval_prompts=3)
    preferences = dpo.Config(model=reward_config.model, data=files.rankings, epochs=1, batch_size=12, eval_steps=3)
    request = sample.Config(model=reward_config.model, data=files.prompts, num_generations=2, max_prompts=10)
    models = (f"sft={reward_config.model}", f"base={sft_config.model}", *(f"s{i}={reward_config.model}" for i in "123"))
    compared = evaluate.Config(models=models, data=files.prompts, world=None, reward=judge, lm_data=files.text)
    return {
        "pretrain": (pretrain, replace(pretrain_config, max_steps=6, eval_steps=3, save_steps=2)),
        "sft": (sft, replace(sft_config, epochs=2, batch_size=24, keep_weights="loss", save_steps=2)),
        "reward": (reward, replace(reward_config, epochs=1, prompts_per_step=12, save_steps=2)),
        "ppo-ptx": (ppo, mixed),
        "dpo": (dpo, replace(preferences, warmup_steps=1, validation_split=0.25, save_steps=2, device=MACHINE)),
        "sample": (sample, replace(request, sampling=Sampling(max_new_tokens=8), prompts_per_step=2, device=MACHINE)),
        "evaluate": (
            evaluate,
            replace(compared, max_prompts=3, max_new_tokens=6, text_tokens=100, device=MACHINE),
        ),
    }


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The runs that were never stopped, each made once."""
    built: dict[str, Path] = {}
    yield built


def killed(stage: Any, config: Any, place: Place) -> bool:
    """Run a stage in a process that ends at a place. Whether it came there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads do no work of ours
        child = os.fork()
    if child == 0:
        try:
            place.arm()
            stage.run(config)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == KILLED


def built(folder: Path) -> dict[str, Any]:
    """Hashes of all that a run has made, and its closing figures; its options name its folder and are left out."""
    files = json.loads((folder / "manifest.json").read_text())
    closing = json.loads((folder / "finished.json").read_text())
    figures = {name: fact for name, fact in closing.items() if name not in ("seconds", "tokens_per_second")}
    return {"figures": figures, **{name: fact for name, fact in files.items() if name not in ("config.yaml",)}}


def left(folder: Path) -> list[str]:
    """What no finished run should hold."""
    return [path.name for path in folder.iterdir() if "writing" in path.name or path.name.startswith("checkpoint")]


STEPPED = ("pretrain", "sft", "reward", "ppo-ptx", "dpo", "sample", "evaluate")


@pytest.mark.parametrize("place", [IN_A_STEP, IN_A_CHECKPOINT], ids=["in a step", "in a checkpoint"])
@pytest.mark.parametrize("name", STEPPED)
def test_a_killed_run_goes_on_to_the_bit(
    name: str,
    place: Place,
    configs: dict[str, tuple[Any, Any]],
    wholes: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> None:
    stage, config = configs[name]
    if name not in wholes:
        wholes[name] = stage.run(replace(config, out=tmp_path_factory.mktemp(name) / "run"))
    config = replace(config, out=tmp_path / "run")
    assert killed(stage, config, place)
    assert len(checkpoint.steps(config.out)) >= 1 and not (config.out / "finished.json").exists()
    assert built(stage.run(config)) == built(wholes[name])
    assert not left(config.out)


def small_world(out: Path) -> world.Config:
    return world.Config(out=out, sizes=Sizes(6, 20, 4, 20, 4, 60, 4, 4, 40, 6, 6, 2, 20))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.run(small_world(tmp_path_factory.mktemp("town") / "run"))


@pytest.fixture(scope="module")
def samples(town: Path) -> Path:
    """To every prompt of the town a good answer and two bad ones, one of them with a strange end of line."""
    judge, file = ClosedWorld.load(town), town.parent / "samples.jsonl"
    rows = [json.loads(line) for line in (town / "prompts" / "reward.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        row["completions"] = [judge.best_answer(row["id"]), "You fool.", "It\u2028is\x85so"]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return file


@pytest.mark.parametrize("place", [Place(run, "write_text", 2), AT_THE_END], ids=["half begun", "at the end"])
def test_a_world_killed_while_it_begins_or_ends_is_made_again(place: Place, town: Path, tmp_path: Path) -> None:
    config = small_world(tmp_path / "run")
    assert killed(world, config, place)
    assert built(world.run(config)) == built(town)


def test_a_world_killed_between_its_files_is_made_again(town: Path, tmp_path: Path) -> None:
    config = small_world(tmp_path / "run")
    assert killed(world, config, Place(Path, "write_bytes", 12))
    with pytest.raises(InputError, match="the run that makes this data has not finished"):
        tokenizer.run(tokenizer.Config(data=config.out / "text" / "train.jsonl", out=tmp_path / "tokenizer"))
    assert built(world.run(config)) == built(town) and not left(config.out)


@pytest.mark.parametrize("place", [Place(Tokenizer, "save", 1), AT_THE_END], ids=["before", "at the end"])
def test_a_killed_tokenizer_is_made_again(place: Place, files: Any, tokenizer_folder: Path, tmp_path: Path) -> None:
    config = tokenizer.Config(files.text, files.demonstrations, tmp_path / "run", vocab_size=320)
    assert killed(tokenizer, config, place)
    assert built(tokenizer.run(config)) == built(tokenizer_folder)


@pytest.mark.parametrize(
    "place",
    [Place(ranking_files, "commit_file", 1), Place(annotate, "write_rankings", 2)],
    ids=["in the labels", "in the files"],
)
def test_killed_annotators_begin_again(place: Place, samples: Path, town: Path, tmp_path: Path) -> None:
    config = annotate.Config(samples, town, out=tmp_path / "run", validation_split=0.25)
    whole = annotate.run(replace(config, out=tmp_path / "whole"))
    assert killed(annotate, config, place)
    assert built(annotate.run(config)) == built(whole) and not left(config.out)


def test_a_stop_in_the_last_step_and_a_kill_after_it_double_no_row(
    configs: dict[str, tuple[Any, Any]], stop_at: Callable[[int], None], tmp_path: Path
) -> None:
    """The last checkpoint is behind all steps, so that what follows them is done twice."""
    _, config = configs["evaluate"]
    config = replace(config, models=config.models[:2], out=tmp_path / "run")
    whole = evaluate.run(replace(config, out=tmp_path / "whole"))
    stop_at(2)
    with pytest.raises(Exception, match="saved at step 2"):
        evaluate.run(config)
    assert killed(evaluate, config, Place(run.Run, "finish", 1))
    assert built(evaluate.run(config)) == built(whole)


def test_rows_torn_in_a_character_are_made_again(configs: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    _, config = configs["sample"]
    whole = sample.run(replace(config, out=tmp_path / "whole"))
    config = replace(config, out=tmp_path / "run")
    assert killed(sample, config, Place(Log, "row", 3))
    with (config.out / "samples.jsonl").open("ab") as file:
        file.write('{"step": 3, "completions": ["é'.encode()[:-1])
    assert built(sample.run(config)) == built(whole)
