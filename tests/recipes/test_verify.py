"""A run against what it wrote down of itself: nothing to say of a sound one, and every change is found."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from amenable import cli
from amenable.errors import Interrupted
from amenable.models.decoder import Decoder
from amenable.stages import sft
from amenable.text.tokenizer import Tokenizer
from amenable.train import checkpoint, loading, reference_logits
from amenable.train.run import Run


@pytest.fixture
def a_copy(tmp_path: Path) -> Callable[[Path], Path]:
    """A run that may be spoilt."""
    return lambda folder: shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def verified(capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, dict[str, str], str]]:
    """Exit code, the state by what was looked at, and all that was printed."""

    def verify(folder: Path, *options: str) -> tuple[int, dict[str, str], str]:
        code = cli.main(["verify", str(folder), *options])
        report = capsys.readouterr()
        lines = [line.partition(" ") for line in report.out.splitlines()]
        states = {rest.strip().partition(":")[0]: state for state, _, rest in lines}
        return code, states, report.out + report.err

    return verify


def respell(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the largest tensor of a file of weights, its names and shapes as they were."""
    tensors = load_file(path)
    name = max(tensors, key=lambda key: tensors[key].numel())
    save_file({**tensors, name: change(tensors[name])}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["base", "assistant", "judge"])
def test_a_sound_run(name: str, request: pytest.FixtureRequest, verified: Callable) -> None:
    code, states, text = verified(request.getfixturevalue(name))
    assert code == 0 and set(states.values()) == {"good"}, text
    assert {"manifest", "probe", "input data"} <= states.keys()
    assert "equal to the bit" in text and "as they were written" in text and "has changed" not in text


def test_a_run_without_a_model(tokenizer_folder: Path, verified: Callable) -> None:
    code, states, _ = verified(tokenizer_folder)
    assert code == 0 and states == dict.fromkeys(["manifest", "input data", "input demonstrations"], "good")


def test_the_number_of_threads_is_that_of_then(assistant: Path, verified: Callable) -> None:
    torch.set_num_threads(2)
    try:
        code, _, text = verified(assistant)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert code == 0 and "equal to the bit" in text


@pytest.mark.parametrize(
    ("spoil", "report"),
    [
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl is gone"),
        (lambda run: (run / "config.yaml").open("a").write("\n"), "bytes and had"),
        (lambda run: (run / "config.json").write_text((run / "config.json").read_text().replace("1", "2")), "another"),
        (lambda run: (run / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda run: (run / "manifest.json").write_text('{"a": 3}'), "a has no size and hash"),
    ],
)
def test_a_changed_file_is_named(
    assistant: Path, a_copy: Callable, verified: Callable, spoil: Callable[[Path], Any], report: str
) -> None:
    run = a_copy(assistant)
    spoil(run)
    code, states, text = verified(run)
    assert code == 2 and states["manifest"] == "bad" and report in text
    assert text.splitlines()[-1].startswith(f"amenable: {run}: is not what it was: manifest")


def test_files_that_came_later_are_told_and_no_fault(assistant: Path, a_copy: Callable, verified: Callable) -> None:
    run = a_copy(assistant)
    (run / "inspect.html").write_text("a page")
    code, _, text = verified(run)
    assert code == 0 and "added since: inspect.html" in text


def test_the_checkpoint_from_which_a_run_can_be_prolonged_is_its_own(
    assistant: Path, a_copy: Callable, verified: Callable
) -> None:
    folder = a_copy(assistant)
    checkpoint.save(folder, 35, {"seconds": 1.0, "state": {}})
    assert "added since" not in verified(folder)[2]


def test_other_weights_are_found_without_the_manifest(assistant: Path, a_copy: Callable, verified: Callable) -> None:
    run = a_copy(assistant)
    (run / "manifest.json").unlink()
    respell(run / "model.safetensors", lambda weights: weights * (1 + 1e-6))
    code, states, text = verified(run)
    assert code == 2 and (states["manifest"], states["probe"]) == ("unchecked", "bad")
    assert "should be equal to the bit on this machine" in text


@pytest.mark.parametrize(("factor", "state"), [(1 + 1e-6, "good"), (1.01, "bad"), (float("nan"), "bad")])
def test_another_machine_may_differ_a_little(
    assistant: Path, a_copy: Callable, verified: Callable, factor: float, state: str
) -> None:
    run = a_copy(assistant)
    stored = reference_logits.read(run)
    assert stored is not None
    reference_logits.write(
        run,
        replace(stored, values=stored.values * factor, environment={**stored.environment, "processor": "an abacus"}),
    )
    _, states, text = verified(run)
    assert states["probe"] == state and "1e-04 is allowed, since processor is" in text and "was an abacus" in text


def test_a_model_that_cannot_be_opened_or_asked(assistant: Path, a_copy: Callable, verified: Callable) -> None:
    run = a_copy(assistant)
    stored = reference_logits.read(run)
    assert stored is not None
    reference_logits.write(run, replace(stored, ids=stored.ids + 100_000))
    assert verified(run)[1]["probe"] == "bad"
    reference_logits.write(run, replace(stored, lengths=(1, 2, 3, 4)))
    assert verified(run)[1]["probe"] == "bad"
    (run / reference_logits.NAME).write_bytes(b"torn")
    assert verified(run)[1]["probe"] == "bad"
    reference_logits.write(run, stored)
    (run / "model.safetensors").write_bytes(b"torn")
    code, states, text = verified(run)
    assert code == 2 and states["probe"] == "bad" and "not a whole safetensors file" in text
    (run / reference_logits.NAME).unlink()
    assert verified(run)[1]["probe"] == "unchecked"


def test_inputs_that_changed_or_are_gone(
    files: Any, assistant: Path, a_copy: Callable, verified: Callable, tmp_path: Path
) -> None:
    run, own = a_copy(assistant), tmp_path / "own.jsonl"
    shutil.copy(files.demonstrations, own)
    facts = json.loads((run / "lineage.json").read_text())
    facts["inputs"]["data"]["path"] = str(own)
    (run / "lineage.json").write_text(json.dumps(facts))
    assert verified(run)[1]["input data"] == "good"
    own.write_text("{}\n")
    code, states, text = verified(run)
    assert code == 2 and states["input data"] == "bad" and f"{own} has changed since it was used" in text
    assert "input data" not in verified(run, "--no-inputs")[1]
    own.unlink()
    assert verified(run)[1]["input data"] == "unchecked"
    (run / "lineage.json").write_text("{")
    assert verified(run)[1]["lineage"] == "bad"


def test_an_unfinished_run_tells_which_checkpoints_are_whole(
    sft_config: sft.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verified: Callable
) -> None:
    record = Run.record

    def recording(run: Run, step: int, *rest: Any, **values: Any) -> None:
        record(run, step, *rest, **values)
        if step == 4:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Run, "record", recording)
    config = replace(sft_config, out=tmp_path / "run", batch_size=24, epochs=3, save_steps=2)
    with pytest.raises(Interrupted):
        sft.run(config)
    code, states, text = verified(config.out)
    assert code == 0 and (states["checkpoint-2"], states["checkpoint-4"]) == ("good", "good")
    assert "has not finished; its command goes on with it" in text and "probe" not in states
    with (config.out / "checkpoint-4" / "state.safetensors").open("r+b") as file:
        file.truncate(1000)
    code, states, text = verified(config.out)
    assert code == 2 and (states["checkpoint-2"], states["checkpoint-4"]) == ("good", "bad")


@pytest.mark.parametrize("name", ["assistant", "judge"])
def test_transformers_says_the_same(name: str, request: pytest.FixtureRequest, verified: Callable) -> None:
    pytest.importorskip("transformers")
    code, states, text = verified(request.getfixturevalue(name), "--transformers")
    assert code == 0 and states["transformers"] == "good", text


def test_a_bare_model_folder(
    make_decoder: Callable[..., Decoder], words: Tokenizer, tmp_path: Path, verified: Callable
) -> None:
    loading.save_model(tmp_path / "m", make_decoder(vocab_size=words.vocab_size), words)
    code, states, _ = verified(tmp_path / "m")
    assert code == 0 and states == {"manifest": "unchecked", "lineage": "unchecked", "probe": "good"}


def test_what_is_no_run_is_refused(tmp_path: Path, assistant: Path, verified: Callable) -> None:
    assert verified(tmp_path / "none")[2].endswith("no such folder; name one that a stage wrote, such as runs/ppo\n")
    (tmp_path / "empty").mkdir()
    code, _, text = verified(tmp_path / "empty")
    assert code == 2 and "is no run and no model; name one that a stage wrote" in text
    assert "name one of the runs in it" in verified(assistant.parent)[2]
