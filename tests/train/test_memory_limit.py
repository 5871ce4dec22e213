"""Runs that do not fit the memory: refused before training, with options whose plan fits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.lora import LoraOptions, add_adapters
from amenable.stages import ppo, pretrain, sft
from amenable.train import loading, memory, memory_limit
from amenable.train.memory_limit import Choice, alternatives, require_memory, system_bytes
from amenable.train.optimizer import OptimizerConfig
from amenable.train.passes import Pass
from amenable.train.runtime import DeviceOptions, Runtime

CPU = Runtime(torch.device("cpu"), bf16=False, threads=1)
GIB = 2**30


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(memory_limit, "available_bytes", lambda device: None if size < 0 else int(size))


def peak(choice: Choice) -> int:
    """8 GiB, an eighth of it held: halved by fewer tokens, by layers computed again, and less with adapters."""
    passes = 7 * GIB * choice.max_tokens_per_pass // 8192
    return (GIB // 4 if choice.rank else GIB) + (passes // 2 if choice.checkpoint_activations else passes)


@pytest.mark.parametrize(
    ("size", "adaptable", "hint"),
    [
        (6, True, "--checkpoint-activations needs 4.5 GiB; --max-tokens-per-pass 4096 needs 4.5 GiB; --ignore"),
        (
            4,
            True,
            "; --max-tokens-per-pass 2048 needs 2.8 GiB; --lora.rank 16 --checkpoint-activations needs 3.8 GiB; --i",
        ),
        (4, False, "; --max-tokens-per-pass 2048 needs 2.8 GiB; --ignore"),
        (1.3, False, "; --max-tokens-per-pass 256 needs 1.2 GiB; --ignore"),
        (1.2, False, "; --checkpoint-activations --max-tokens-per-pass 256 needs 1.1 GiB; --ignore"),
        (1.0, True, "; --lora.rank 16 --max-tokens-per-pass 512 needs 704 MiB; --ignore"),
        (0.5, False, "; use a smaller model; --ignore-memory goes on all the same"),
    ],
)
def test_only_what_fits_is_proposed(size: float, adaptable: bool, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, size * GIB)
    with pytest.raises(InputError, match=re.escape(hint)) as raised:
        require_memory(peak, Choice(8192), CPU, 0, 100, adaptable)
    assert f"needs about 8 GiB of memory, and {memory_limit.gibibytes(size * GIB)} are free" in str(raised.value)
    for options in re.findall(r"(--(?:lora|max|check)\S+(?: \d+)?(?: --\S+(?: \d+)?)*) needs", str(raised.value)):
        tokens = re.search(r"pass (\d+)", options)
        choice = Choice(int(tokens[1]) if tokens else 8192, "--check" in options, 16 if "--lora" in options else 0)
        assert peak(choice) <= size * GIB


def test_it_is_refused_by_a_margin_and_warned_of_below(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {9: "", 8: "warning: the run needs about 8 GiB of memory, and 8 GiB are free"}
    for size, line in outcomes.items():
        free(monkeypatch, size * GIB)
        assert require_memory(peak, Choice(8192), CPU, 0, 100, True) == line
    free(monkeypatch, 6 * GIB)
    assert require_memory(peak, Choice(8192), CPU, loaded=3 * GIB, longest=100, adaptable=True) == ""
    assert require_memory(peak, Choice(8192), replace(CPU, ignore_memory=True), 0, 100, True).startswith("warning: ")
    free(monkeypatch, -1)
    assert require_memory(peak, Choice(8192), CPU, 0, 100, True) == "", "a system that does not tell"


def test_passes_are_not_made_smaller_than_the_longest_element_and_nothing_is_taken_back() -> None:
    smaller = alternatives(Choice(8192), longest=3000, adaptable=False)[frozenset({"tokens"})]
    assert smaller == [Choice(4096), Choice(2048)]
    others = [other for some in alternatives(Choice(1024, True), 100, True).values() for other in some]
    assert all(other.checkpoint_activations for other in others) and Choice(1024, True) not in others
    assert alternatives(Choice(256, True), 100, False) == {}


def system(folder: Path, available: int, group: str = "", **files: dict[str, str]) -> Path:
    """A file system with Linux's facts on memory."""
    facts = {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable:   {available >> 10} kB\n", "proc/self/cgroup": group}
    for base, inner in files.items():
        facts |= {f"sys/fs/cgroup/{base.replace('__', '/')}/{name}": text for name, text in inner.items()}
    for name, text in facts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_a_control_group_leaves_counts_of_either_version(tmp_path: Path) -> None:
    assert system_bytes(tmp_path / "none") is None
    assert system_bytes(system(tmp_path / "plain", 5 * GIB)) == 5 * GIB
    second = {"memory.max": f"{4 * GIB}\n", "memory.current": f"{3 * GIB}\n", "memory.stat": f"inactive_file {GIB}\n"}
    folder = system(tmp_path / "v2", 5 * GIB, "0::/job/step\n", job=second, job__step={"memory.max": "max\n"})
    assert system_bytes(folder) == 2 * GIB
    first = {"memory.limit_in_bytes": f"{2 * GIB}", "memory.usage_in_bytes": f"{GIB}"}
    group = "5:cpu:/other\n7:memory:/job\n"
    assert system_bytes(system(tmp_path / "v1", 5 * GIB, group, memory__job=first)) == GIB


@pytest.mark.parametrize("bf16", [False, True])
def test_the_plan_with_adapters_is_that_of_a_model_that_has_them(bf16: bool) -> None:
    runtime, optimizer, work = replace(CPU, bf16=bf16), OptimizerConfig(1e-3), Pass(900, 900, 900, 9)
    shape = DecoderConfig(100, context_length=64, num_layers=2, hidden_size=32, num_heads=2)
    plain, adapted = Decoder(shape), Decoder(shape)
    planned = memory.training_peak(plain, optimizer, work, runtime, choice=Choice(8192, False, 8))
    add_adapters(adapted, LoraOptions(rank=8), seed=0)
    if bf16:
        loading.cast_layers(adapted, torch.bfloat16)
    assert planned == pytest.approx(memory.training_peak(adapted, optimizer, work, runtime), rel=1e-3)
    again = memory.training_peak(plain, optimizer, work, runtime, choice=Choice(8192, True))
    assert again < memory.training_peak(plain, optimizer, work, runtime)


def test_a_run_is_refused_before_it_has_a_folder_and_goes_on_with_what_is_proposed(
    sft_config: sft.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = replace(sft_config, out=tmp_path / "run", epochs=1, batch_size=24)
    planned = []
    monkeypatch.setattr(memory, "describe", lambda size, *_: planned.append(size) or "planned")
    sft.run(replace(config, out=tmp_path / "other"))
    free(monkeypatch, planned[0] / 1.3)
    monkeypatch.setattr(loading, "require_room", lambda *_: None)
    with pytest.raises(InputError, match=r"the run needs about .* of memory, and .*--ignore-memory goes on"):
        sft.run(config)
    assert not config.out.exists()
    device = replace(config.device, ignore_memory=True)
    assert (sft.run(replace(config, device=device)) / "finished.json").exists()
    assert "warning: the run needs about" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pretrain", "ppo"])
def test_new_models_and_online_runs_are_refused_too(
    name: str,
    pretrain_config: pretrain.Config,
    assistant: Path,
    judge: Path,
    files: Any,
    monkeypatch: Any,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(loading, "require_room", lambda *_: None)
    free(monkeypatch, 0)
    online = ppo.Config(model=assistant, reward=judge, data=files.prompts, out=tmp_path / "run", max_steps=2)
    stage: Any = {"pretrain": pretrain, "ppo": ppo}[name]
    config = {"pretrain": replace(pretrain_config, out=tmp_path / "run"), "ppo": online}[name]
    with pytest.raises(InputError, match="the run needs about") as raised:
        stage.run(replace(config, device=DeviceOptions("cpu", "fp32", 1)))
    assert "--lora" not in str(raised.value) and not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded(
    assistant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 10_000)
    with pytest.raises(InputError, match=r"its weights need .* of memory, and 0 MiB are free"):
        loading.load_policy(assistant, CPU)
    loading.load_policy(assistant, replace(CPU, ignore_memory=True))
