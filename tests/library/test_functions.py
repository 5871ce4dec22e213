"""The library: its documentation runs, keywords are options, models and rows are inputs, files are temporary."""

import datetime
import gc
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import amenable as am
from amenable import cli
from amenable.library import functions
from amenable.models.decoder import Decoder
from amenable.train import loading, runtime

ROOT = Path(__file__).parent.parent.parent
SMALL: dict[str, Any] = {
    "max_steps": 2,
    "prompts_per_step": 4,
    "max_new_tokens": 8,
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
}
SFT: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_documented_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "fast_bf16", lambda device: False)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text("utf-8"), re.S):
        exec(block, names)
    assert len(names["sft"].metrics["loss"]) == names["sft"].metrics["step"][-1] and names["sft"].metrics["eval/loss"]
    assert len(names["rloo"].metrics["rewards/brief/mean"]) == 2
    assert len(names["answers"]) == 4 and {len(row["completions"]) for row in names["answers"]} == {2}
    assert set(names["report"].samples[0]) >= {"prompt", "id"} and names["report"].facts
    assert (tmp_path / "my-assistant" / "model.safetensors").exists()


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import amenable as am, sys; dir(am); print('torch' in sys.modules, len(sys.modules) < 200)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "True"]


def test_the_surface_is_the_stages_and_a_few_words() -> None:
    surface = {"load", "tokenizer", "pretrain", "sft", "sample", "reward", "ppo", "rloo", "dpo", "evaluate", "chat"}
    assert surface <= set(functions.names()) <= set(dir(am))
    assert "world" not in functions.names(), "a package of this name is in the way"
    with pytest.raises(AttributeError, match="did you mean 'rloo'"):
        _ = am.rlo
    assert not hasattr(am, "anything")


def test_a_function_knows_its_options() -> None:
    import inspect

    signature = inspect.signature(am.ppo)
    assert list(signature.parameters)[:2] == ["model", "out"] and signature.parameters["out"].default is None
    assert signature.parameters["cliprange"].default == 0.2 and "clipped" in am.ppo.__doc__


def test_it_is_the_command_with_the_same_options(
    base: Path, files: Any, tmp_path: Path, outcome: Any, capsys: pytest.CaptureFixture
) -> None:
    result = am.sft(str(base), data=rows_of(files.demonstrations), out=tmp_path / "library", **SFT)
    options = "--epochs 1 --batch-size 16 --optimizer.learning-rate 1e-3 --device cpu --precision fp32 --threads 1"
    paths = ["--model", base, "--data", tmp_path / "library.inputs" / "data.jsonl", "--out", tmp_path / "command"]
    assert cli.main(["sft", *map(str, paths), *options.split()]) == 0
    assert outcome(tmp_path / "library") == outcome(tmp_path / "command")
    assert result.facts["stage"] == "sft" and result.metrics["step"] == list(range(1, len(result.rows) + 1))
    capsys.readouterr()
    am.sft(base, data=rows_of(files.demonstrations), out=str(tmp_path / "library"), **SFT)
    assert "already done" in capsys.readouterr().err
    with pytest.raises(am.InputError, match="was begun with other"):
        am.sft(base, data=rows_of(files.demonstrations)[:50], out=tmp_path / "library", **SFT)


def test_without_out_the_files_go_with_the_result(base: Path, files: Any) -> None:
    result = am.sft(base, data=files.demonstrations, **SFT)
    folder = result.folder
    assert folder.parent.name.startswith("amenable-") and (folder / "finished.json").exists()
    del result
    gc.collect()
    assert not folder.parent.exists()


def test_after_an_error_nothing_is_left(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(am.InputError, match="column"):
        am.sft(base, data=[{"nothing": 1}], **SFT)
    assert not list(tmp_path.iterdir())


def test_a_stopped_run_keeps_its_temporary_folder(
    base: Path, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: Any
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stop_at(2)
    with pytest.raises(Exception, match="saved at step 2") as stop:
        am.sft(base, data=files.demonstrations, **SFT)
    assert (stop.value.out / "checkpoint-2").exists()
    assert am.sft(base, data=files.demonstrations, out=stop.value.out, **SFT).facts


def test_a_run_that_a_guard_stopped_keeps_its_temporary_folder(
    assistant: Path, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    options = {**SMALL, "max_steps": 6, "learning_rate": 0.05, "max_kl": 1e-9, "num_generations": 2}
    with pytest.raises(am.InputError, match="stopped in step"):
        am.rloo(assistant, data=files.prompts, reward="ends", **options)
    (stopped,) = tmp_path.glob("amenable-*/rloo/stopped.json")
    assert "objective/kl" in json.loads(stopped.read_text("utf-8"))["what"]


def test_models_functions_and_words_are_rewards(assistant: Path, judge: Path, files: Any) -> None:
    observed = []

    def named(prompts: Any, completions: list[str], town: list[str]) -> list[float]:
        observed.extend(town)
        return [float(len(text)) for text in completions]

    prompts = [{**row, "town": f"town {place}"} for place, row in enumerate(rows_of(files.prompts))]
    rm = am.load(judge, device="cpu", precision="fp32")
    result = am.rloo(assistant, data=iter(prompts), reward=[rm, named, "ends=0.5"], num_generations=2, **SMALL)
    assert {"rewards/named/mean", "rewards/ends/mean", f"rewards/{judge}/mean"} <= set(result.metrics)
    assert len(result.metrics["objective/scores"]) == 2 and "town 0" in observed
    config = (result.folder / "config.yaml").read_text("utf-8")
    assert ".named" in config and "ends=0.5" in config
    alone = am.ppo(assistant, data=prompts, reward=named, num_mini_batches=1, **SMALL)
    assert alone.metrics["objective/scores"][0] > 0 and alone.metrics["value/explained_variance"]


def test_a_model_whose_weights_were_changed_is_used_as_it_is_now(base: Path, files: Any) -> None:
    model = am.load(base, device="cpu", precision="fp32")
    first = am.sft(model, data=files.demonstrations, **SFT).metrics["loss"][0]
    for parameter in model.decoder.parameters():
        parameter.detach().mul_(0.5)
    assert am.sft(model, data=files.demonstrations, **SFT).metrics["loss"][0] != pytest.approx(first, abs=1e-3)


def test_several_models_are_evaluated_by_name(assistant: Path, judge: Path, files: Any, base: Path) -> None:
    small = {"data": files.prompts, "reward": judge, "max_prompts": 2, "max_new_tokens": 4, "device": "cpu"}
    by_name = am.evaluate({"one": assistant, "two": am.load(assistant)}, reference="one", **small)
    assert {"one", "two"} <= set(json.dumps(by_name.samples[0]).replace('"', " ").split())
    single = am.evaluate(am.load(assistant), **small)
    assert single.samples


class Dataset:
    """What a datasets.Dataset is to whoever goes over it."""

    def __init__(self, rows: list[dict[str, Any]]):
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def test_a_dataset_is_rows(base: Path, files: Any) -> None:
    rows = rows_of(files.demonstrations)
    results = [am.sft(base, data=data, **SFT).rows for data in (Dataset(rows), rows, files.demonstrations)]
    assert results[0] == results[1] == results[2]
    mixed = am.sft(base, data=[Dataset(rows[:48]), rows[48:]], **SFT)
    assert {"loss/data-0", "loss/data-1"} <= mixed.rows[0].keys()


def test_rows_of_a_table_and_values_that_json_lacks(tmp_path: Path) -> None:
    class NAType:
        """pandas' mark of a missing value."""

    class DataFrame:
        """As pandas' class, as far as it is read."""

        iloc = None

        def __iter__(self) -> Iterator[str]:
            return iter(["prompt", "when", "score"])

        def to_dict(self, orient: str) -> list[dict[str, Any]]:
            assert orient == "records"
            when = datetime.date(2026, 1, 2)
            return [
                {"prompt": "Who?", "when": when, "score": float("nan")},
                {"prompt": NAType(), "when": None, "score": torch.tensor([1, 2])},
            ]

    file = functions.file_of(DataFrame(), tmp_path / "data.jsonl", "am.sft")
    assert rows_of(file) == [
        {"prompt": "Who?", "when": "2026-01-02", "score": None},
        {"prompt": None, "when": None, "score": [1, 2]},
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 1}, "am.sft: unknown option 'epoch'; did you mean 'epochs'"),
        ({"select": "loss"}, "am.sft: unknown option 'select'; the option is called 'keep_weights' now"),
        ({"epochs": "two"}, "'epochs' is 'two', not int"),
        ({"train_on": "some"}, "'train_on' is 'some'.*one of all, exchange, last"),
        ({"learning_rate": "fast"}, "'learning_rate' is 'fast', not float"),
        ({"optimizer": {"learning_rat": 1.0}}, "unknown option 'learning_rat'; did you mean 'learning_rate'"),
        ({"model": "elsewhere"}, "'model' is given twice"),
        ({"data": 3}, "'data' is int; give a path, or rows"),
        ({"data": [{"text": "a"}, "a text"]}, "row 2 of 'data' is str; rows are mappings"),
        ({"data": ["nowhere.jsonl"]}, "nowhere.jsonl"),
        ({"data": {"a.jsonl": 0}}, "'a.jsonl=0' has the weight 0"),
        ({"data": [{"text": {1, 2}}]}, "row 1 of 'data' is no JSON"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "fp7"}, "'precision' is 'fp7'.*one of auto, fp32, bf16"),
    ],
)
def test_bad_options_say_what_is_wrong(base: Path, files: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(am.InputError, match=message):
        am.sft(base, **{"data": files.demonstrations, **options})


def test_a_group_of_options_may_be_given_whole(base: Path, files: Any) -> None:
    from amenable.train.optimizer import OptimizerConfig

    rest = {key: value for key, value in SFT.items() if key != "learning_rate"}
    flat, mapping, whole = (
        am.sft(base, data=files.demonstrations, **rest, **options).metrics["lr"]
        for options in (
            {"learning_rate": 2e-3},
            {"optimizer": {"learning_rate": 2e-3}},
            {"optimizer": OptimizerConfig(2e-3)},
        )
    )
    assert flat == mapping == whole


def test_it_runs_in_a_thread(base: Path, files: Any) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(am.sft(base, data=files.demonstrations, **SFT)))
    thread.start()
    thread.join()
    assert results and results[0].facts


def test_chat_takes_a_folder_or_a_model(assistant: Path) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0}
    answer = am.chat(am.load(assistant, device="cpu", precision="fp32"), "Ann asks: name a red thing.", **options)
    assert isinstance(answer, str) and answer
    with pytest.raises(am.InputError, match="no such model folder"):
        am.chat("nowhere", "Hello")


def test_a_saved_model_is_the_model(make_decoder: Any, words: Any, tmp_path: Path) -> None:
    decoder: Decoder = make_decoder(vocab_size=words.vocab_size)
    loading.save_model(tmp_path / "model", decoder, words)
    assert am.load(tmp_path / "model").path() == tmp_path / "model"
