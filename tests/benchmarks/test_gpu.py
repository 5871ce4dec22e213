"""The command for a CUDA device, on a processor: every part runs, and one that fails loses nothing of the others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch

from amenable.models.cache import Cache
from amenable.models.decoder import Decoder
from amenable.train.runtime import DeviceOptions
from benchmarks import gpu, gpu_parts, workloads
from benchmarks.gpu_parts import Figure, Part, Setting
from tests.conftest import ONE_THREAD


def good(setting: Setting) -> Iterator[Figure]:
    yield Figure("processes", os.getpid(), "")


def broken(setting: Setting) -> Iterator[Figure]:
    yield Figure("before", 1.0, "")
    raise ValueError("no such kernel")


def killed(setting: Setting) -> Iterator[Figure]:
    os._exit(9)
    yield


@pytest.mark.slow
def test_every_part_runs_on_a_processor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--tiny", "--threads", "1", "--seconds", "300", "--out", str(out)]
    code = gpu.main(arguments)
    parts = json.loads(out.read_text("utf-8"))["parts"]
    assert not [part["error"] for part in parts if part["error"]] and code == 0
    assert [part["part"] for part in parts] == [part.name for part in gpu_parts.PARTS]
    values = {(part["part"], figure["name"]): figure["value"] for part in parts for figure in part["figures"]}
    assert all(value > 0 for (part, _), value in values.items() if part != "tests")
    assert values["tests", "failed"] == 0 and values["tests", "skipped"] + values["tests", "passed"] >= 2
    assert {name for part, name in values if part == "demo"} == {"world", "tokenizer", "pretrain", "sft"}
    printed = capsys.readouterr().out
    assert all(f"| {part} | {name} |" in printed for part, name in values)


@pytest.mark.slow
def test_a_killed_part_loses_no_other() -> None:
    parts = [Part("first", good, 60), Part("killed", killed, 60), Part("last", good, 60)]
    first, dead, last = gpu.run_parts(parts, ONE_THREAD, True, 200)
    assert not first.error and not last.error
    assert first.figures[0].value != last.figures[0].value  # a new process after a failure
    assert "killed" in dead.error and dead.figures == []


def test_a_part_that_fails_keeps_its_figures() -> None:
    receiver, sender = Pipe(duplex=False)
    gpu.work([Part("broken", broken, 60), Part("last", good, 60)], ONE_THREAD, True, sender)
    failed = gpu.follow("broken", receiver, 60)
    assert (failed.error, failed.figures) == ("ValueError: no such kernel", [Figure("before", 1.0, "")])
    assert not receiver.poll(), "the last part belongs to a new process"
    assert "| broken | failed | | ValueError: no such kernel |" in gpu.table([failed])


def test_a_part_ends_at_its_limit() -> None:
    receiver, sender = Pipe(duplex=False)
    sender.send(Figure("before", 2.0, ""))
    slow = gpu.follow("slow", receiver, 0.2)
    assert slow.error == "stopped at its limit of 0.2 s" and slow.figures == [Figure("before", 2.0, "")]
    assert 0.2 <= slow.seconds < 5


def test_no_part_begins_after_the_limit_of_the_command() -> None:
    (result,) = gpu.run_parts([Part("first", good, 60)], ONE_THREAD, True, 0)
    assert result.error == "stopped at its limit of 0 s" and result.figures == []


def test_the_limit_of_a_decoding_step_by_hand() -> None:
    """Two bytes for each weight of the layers and of the unembedding, and for 2 x 28 x 8 x 128 numbers a token."""
    runtime = gpu_parts.Setting(gpu.start_runtime(DeviceOptions("cpu", "bf16", 1)), True).runtime
    shape = gpu_parts.SMALL_QWEN
    attention = 1024 * 128 * (16 + 8 + 8 + 16) + 2 * 128
    layers = 28 * (attention + 3 * 1024 * 3072 + 2 * 1024)
    cache = 2 * 28 * 8 * 128 * 256 * 160
    assert gpu_parts.step_bytes(shape, 256, 160, runtime) == 2 * (layers + 151_936 * 1024 + cache)


def test_a_step_that_is_replayed_is_one_of_decoding() -> None:
    setting = Setting(gpu.start_runtime(ONE_THREAD), True)
    decoder, caches = Decoder(gpu_parts.TINY).eval(), [Cache(gpu_parts.TINY, 4, 9) for _ in range(2)]
    decoder.init_weights(torch.Generator().manual_seed(0))
    ids = torch.tensor([5, 6, 7, 8])
    with torch.inference_mode():
        for cache in caches:
            decoder.step(ids, cache)
        lengths = caches[0].lengths.clone()
        replay = gpu_parts.graph_of(
            setting, lambda: gpu_parts.fixed_step(decoder, decoder.logits, ids, caches[0], lengths)
        )
        for _ in range(2):
            replayed = replay()
        assert torch.equal(replayed, gpu_parts.whole_step(decoder, decoder.logits, ids, caches[1]))
        assert caches[0].lengths.tolist() == [1] * 4 and caches[1].lengths.tolist() == [2] * 4


@pytest.mark.slow
def test_a_profile_counts_what_the_host_reads() -> None:
    setting, numbers = Setting(gpu.start_runtime(ONE_THREAD), True), torch.ones(9)
    seconds, waits = gpu_parts.profile_of(setting, lambda: [float(each) for each in numbers])
    assert waits == 9 and 0 < seconds < 1


def test_the_data_sheet_names_the_longest_match(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(gpu.start_runtime(ONE_THREAD), True)
    monkeypatch.setattr(Setting, "device", property(lambda _: torch.device("cuda")))
    for name, flops in (("NVIDIA H200", 989e12), ("NVIDIA L40S", 362e12), ("NVIDIA H100 PCIe", 756e12)):
        monkeypatch.setattr(gpu_parts, "device_name", lambda _, name=name: name)
        assert setting.limits()[0] == flops


def test_a_mistake_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--device", "cpu", "--only", "rlhf"])
    assert "unknown part: rlhf" in capsys.readouterr().err
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="2"):
            gpu.main([])
        assert "no CUDA device" in capsys.readouterr().err
    assert workloads.SIZES["smoke"].shape == gpu_parts.TINY
