"""Several processes have the result of one: every loss, advantages, KL control, evaluation; and they end together."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import amenable
from amenable import launcher, processes
from amenable.cli import main
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.models import presets
from amenable.models.lora import LoraOptions
from amenable.ranks import STORE
from amenable.serve import serve
from amenable.stages import (
    a2c,
    classify,
    distill_context,
    dpo,
    expert_iteration,
    grpo,
    kto,
    online_dpo,
    ppo,
    pretrain,
    reinforce,
    reward,
    rloo,
    sft,
    trpo,
)
from amenable.train.optimizer import OptimizerConfig
from amenable.train.run_options import plain_values
from amenable.train.runtime import DeviceOptions
from tests.serve.conftest import running

FP32 = DeviceOptions("cpu", "fp32", 1)
RUN_ALL = """
import json, sys
from amenable.cli import main
from amenable.models import presets
from amenable.models.config import DecoderConfig
from amenable.ranks import end_at_once
presets.PRESETS["two-layers"] = DecoderConfig(**json.loads(sys.argv[1]))
end_at_once(next((code for code in map(main, json.loads(sys.argv[2])) if code), 0))
"""
"""runs commands one after another in this process: its group is joined once"""


def configs(files: Any, pretrained: pretrain.Config, assistant: Path, judge: Path) -> dict[str, Any]:
    """Return short runs of stages, by name: passes of few tokens, so that a step takes several in one process too."""
    train: dict[str, Any] = {
        "device": FP32,
        "warmup_steps": 1,
        "optimizer": OptimizerConfig(learning_rate=3e-3),
        "save_steps": 0,
    }
    adamw = {"optimizer": train["optimizer"]}  # Muon's products are in bf16, which makes much of a little rounding
    online = train | {
        "model": assistant,
        "reward": (str(judge),),
        "data": files.prompts,
        "validation": files.prompts,
        "max_steps": 3,
        "eval_steps": 2,
        "eval_prompts": 5,
        "sample_steps": 1,
        "temperature": 0.7,
        "max_new_tokens": 16,
        "max_tokens_per_pass": 300,
    }
    grouped = online | {"prompts_per_step": 4, "num_generations": 3}
    pairs = train | {
        "model": assistant,
        "data": files.pairs,
        "validation": files.pairs,
        "epochs": 1,
        "batch_size": 24,
        "eval_steps": 2,
        "eval_prompts": 4,
        "max_new_tokens": 12,
        "max_tokens_per_pass": 400,
    }
    unpaired = files.pairs.with_name("unpaired.jsonl")
    rows = [json.loads(line) for line in files.pairs.read_text("utf-8").splitlines()]
    with unpaired.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            answer = {"completion": row["chosen" if number % 2 else "rejected"], "label": bool(number % 2)}
            file.write(json.dumps({"prompt": row["prompt"], **answer}) + "\n")
    labelled = files.pairs.with_name("labelled.jsonl")
    texts = [{"text": f"{('Bad', 'Good')[i % 2]}, I say {i}.", "label": i % 2} for i in range(40)]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in texts), "utf-8")
    return {
        "pretrain": replace(
            pretrained, data=(files.text,), max_steps=4, eval_steps=2, max_tokens_per_pass=200, **adamw
        ),
        "sft": sft.Config(model=assistant, data=files.demonstrations, **train, epochs=1, batch_size=24, dropout=0.0),
        "reward": reward.Config(
            model=assistant, data=files.rankings, **train, epochs=1, prompts_per_step=24, center_rewards_coefficient=0.1
        ),
        "dpo": dpo.Config(**pairs),
        "dpo-aot": dpo.Config(**pairs, loss=("aot",)),
        "kto": kto.Config(**pairs | {"data": unpaired, "validation": unpaired}),
        "ppo": ppo.Config(**online, prompts_per_step=12, num_mini_batches=2, ptx_coef=1.0, ptx_data=files.text),
        "rloo": rloo.Config(**grouped),
        "grpo": grpo.Config(**grouped, dynamic_sampling=1),
        "online-dpo": online_dpo.Config(**grouped),
        "trpo": trpo.Config(**online, prompts_per_step=12),
        "a2c": a2c.Config(**online, prompts_per_step=12),
        "reinforce": reinforce.Config(**grouped, baseline="running"),
        "expert-iteration": expert_iteration.Config(**grouped, num_mini_batches=1),
        "distill-context": distill_context.Config(
            **pairs | {"data": files.prompts, "validation": files.prompts}, context_text="You are terse."
        ),
        "classify": classify.Config(
            **train, model=pretrained.out, data=labelled, epochs=2, batch_size=12, dropout=0.0, max_tokens_per_pass=200
        ),
    }


def command_of(name: str, config: Any, out: Path) -> list[str]:
    """Write a run's options and return its command."""
    stage = type(config).__module__.rpartition(".")[2].replace("_", "-")
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(plain_values(config)), "utf-8")
    return [stage, "--config", str(file), "--out", str(out)]


QUICK = ("reward", "dpo-aot", "ppo")
THOROUGH = (*QUICK, "pretrain", "sft", "grpo", "dpo", "kto", "rloo", "online-dpo", "trpo")
THOROUGH += ("a2c", "reinforce", "expert-iteration", "distill-context", "classify")
Both = Callable[[str], tuple[Path, Path]]


def run_both(names: Sequence[str], count: int, runs: Mapping[str, Any], folder: Path, *options: str) -> Both:
    """Run stages in this process and, with further options, in `count`; return a function of a stage's name: the
    folders of its runs."""
    folders = folder / "alone", folder / "together"
    for each in folders:
        each.mkdir()
    alone, together = ([command_of(name, runs[name], each / name) for name in names] for each in folders)
    assert [main(command) for command in alone] == [0] * len(alone)
    commands = json.dumps([[*command, *options] for command in together])
    shape = json.dumps(asdict(presets.PRESETS["two-layers"]))
    assert launcher.launch([sys.executable, "-c", RUN_ALL, shape, commands], count) == 0
    return lambda name: (folders[0] / name, folders[1] / name)


@pytest.fixture(scope="module")
def runs(files: Any, pretrain_config: pretrain.Config, base: Path, assistant: Path, judge: Path) -> dict[str, Any]:
    return configs(files, pretrain_config, assistant, judge)


@pytest.fixture(scope="module")
def both(runs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Both:
    return run_both(QUICK, 2, runs, tmp_path_factory.mktemp("both"))


PASS_MEANS = ("policy/", "sampling/")
"""metrics that are means over a pass's tokens: where a loss is a mean over answers they depend on how passes divide"""


def close(first: Any, second: Any, tolerance: float = 1e-2) -> bool:
    """Return True for the same values, numbers up to rounding in fp32, which AdamW makes more of where a
    gradient is nearly 0."""
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(close, first, second))
    if isinstance(first, float):
        return math.isclose(first, second, rel_tol=tolerance, abs_tol=2e-4)
    return bool(first == second)


def compared(row: Mapping[str, Any]) -> list[str]:
    """Return the metrics that are compared: not the accuracy of a policy that is its reference, as rounding alone
    decides ties."""
    ties = {"rewards/accuracies"} if abs(row.get("rewards/margins", 1.0)) < 1e-6 else set()
    return [key for key in row if key not in ties | {"health"}]


def require_equal(folders: tuple[Path, Path]) -> None:
    """Require the same weights, metrics, and completions of two runs, up to rounding."""
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    size = max(float(value.abs().max()) for value in first.values())
    assert max(float((first[key] - second[key]).abs().max()) for key in first) < 1e-4 * size
    for name in ("metrics", "samples", "answers"):
        old, new = (read_json_lines(folder / f"{name}.jsonl") for folder in folders)
        assert [row.keys() for row in old] == [row.keys() for row in new]
        assert [row.get("completion") for row in old] == [row.get("completion") for row in new]
        pairs = [(key, row[key], other[key]) for row, other in zip(old, new) for key in compared(row)]
        limits = [3e-2 if key.startswith(PASS_MEANS) else 1e-2 for key, _, _ in pairs]
        assert not [pair for pair, limit in zip(pairs, limits) if not close(*pair[1:], limit)]


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_have_the_result_of_one(both: Both, name: str) -> None:
    require_equal(both(name))


def test_the_record_of_a_run_names_its_processes(both: Both) -> None:
    first, second = (read_json_lines(folder / "environments.jsonl") for folder in both("ppo"))
    assert "processes" not in first[0] and second[0]["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_stage_has_the_result_of_one_process(runs: dict[str, Any], tmp_path: Path, count: int) -> None:
    folders = run_both(THOROUGH, count, runs, tmp_path)
    for name in THOROUGH:
        require_equal(folders(name))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_weights_divided_among_processes_have_the_result_of_one(
    runs: dict[str, Any], tmp_path: Path, count: int
) -> None:
    names = [name for name in THOROUGH if name != "trpo"]
    folders = run_both(names, count, runs, tmp_path, "--optimizer.fsdp")
    for name in names:
        require_equal(folders(name))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "options"), [(2, ()), (4, ()), (4, ("--optimizer.fsdp",))])
def test_divided_products_have_the_result_of_one_process(
    runs: dict[str, Any], tmp_path: Path, count: int, options: tuple[str, ...]
) -> None:
    names = [name for name in THOROUGH if name != "trpo"]
    folders = run_both(names, count, runs, tmp_path, "--tensor-parallel", "2", *options)
    for name in names:
        require_equal(folders(name))


GPT2 = {"positions": "learned", "norm": "layer", "activation": "gelu", "bias": True, "qk_norm": False}
LLAMA = {"num_heads": 4, "num_kv_heads": 2, "tie_embeddings": False}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [GPT2, LLAMA])
def test_divided_products_of_other_shapes(
    runs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setitem(presets.PRESETS, "two-layers", replace(presets.PRESETS["two-layers"], **changes))
    require_equal(run_both(("pretrain",), 2, runs, tmp_path, "--tensor-parallel", "2")("pretrain"))


@pytest.mark.slow
def test_divided_products_with_other_options(runs: dict[str, Any], tmp_path: Path) -> None:
    dropout = {"dropout": replace(runs["sft"], dropout=0.1)}
    again = {"again": replace(runs["dpo"], checkpoint_activations=True)}
    bf16 = {"bf16": replace(runs["ppo"], device=DeviceOptions("cpu", "bf16", 1))}
    ahead = {"ahead": replace(runs["rloo"], max_staleness=1, sampler_correction="truncate")}
    changed = dropout | again | bf16 | ahead
    folders = run_both(list(changed), 2, changed, tmp_path, "--tensor-parallel", "2", "--async-save")
    for name in ("dropout", "again", "ahead"):
        require_equal(folders(name))
    first, second = (read_json_lines(folder / "metrics.jsonl") for folder in folders("bf16"))
    assert first[0]["objective/scores"] == pytest.approx(second[0]["objective/scores"], abs=0.05)
    assert abs(second[0]["sampling/logp_difference"]) < 0.01


@pytest.mark.slow
def test_divided_weights_with_adapters_or_layers_computed_again(runs: dict[str, Any], tmp_path: Path) -> None:
    adapted = {"adapters": replace(runs["rloo"], lora=LoraOptions(rank=2))}
    again = {"again": replace(runs["dpo"], checkpoint_activations=True)}
    bf16 = {"bf16": replace(runs["ppo"], device=DeviceOptions("cpu", "bf16", 1))}
    folders = run_both(("adapters", "again", "bf16"), 2, adapted | again | bf16, tmp_path, "--optimizer.fsdp")
    require_equal(folders("adapters"))
    require_equal(folders("again"))
    first, second = (read_json_lines(folder / "metrics.jsonl")[0] for folder in folders("bf16"))
    assert first["objective/scores"] == pytest.approx(second["objective/scores"], abs=0.05)


@pytest.mark.slow
def test_a_reference_on_a_server_has_the_result_of_one_in_memory(runs: dict[str, Any], tmp_path: Path) -> None:
    """In the memory of one process, and on a server that two processes use."""
    config = serve.Config(models=(f"a={runs['ppo'].model}",), labels_db=tmp_path / "served.db", device=FP32)
    with running(config) as server:
        served = replace(runs["ppo"], reference_url=(f"{server.url}/logprobs/a",))
        together = run_both(("ppo",), 2, {"ppo": served}, tmp_path)("ppo")[1]
    alone = tmp_path / "memory"
    assert main(command_of("ppo", runs["ppo"], alone)) == 0
    require_equal((alone, together))


@pytest.mark.slow
def test_divided_weights_in_the_processors_memory(runs: dict[str, Any], tmp_path: Path) -> None:
    """On a processor they are there in any case: the policy changes nothing."""
    folders = run_both(QUICK, 2, runs, tmp_path, "--optimizer.fsdp", "--optimizer.fsdp-offload")
    for name in QUICK:
        require_equal(folders(name))


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_have_the_result_of_one(runs: dict[str, Any], tmp_path: Path) -> None:
    cuda = DeviceOptions("cuda", "fp32", 1)
    on_gpus = {name: replace(runs[name], device=cuda) for name in QUICK}
    folders = run_both(QUICK, 2, on_gpus, tmp_path, "--optimizer.fsdp")
    for name in QUICK:
        require_equal(folders(name))


def started(command: Sequence[str], *options: str) -> subprocess.Popen[str]:
    """Start `amenable` in two processes."""
    program = [sys.executable, "-m", "amenable", *command, "--processes", "2", *options]
    return subprocess.Popen(program, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("--optimizer.fsdp",), marks=pytest.mark.slow),
        pytest.param(("--optimizer.fsdp", "--optimizer.fsdp-offload"), marks=pytest.mark.slow),
        pytest.param(("--tensor-parallel", "2"), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_stopped_goes_on_in_one_process(
    both: Both, runs: dict[str, Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    out = tmp_path / "stopped"
    command = command_of("ppo", runs["ppo"], out)
    process = started(command, *options)
    wait_for(lambda: len(read_json_lines(out / "metrics.jsonl")) > 0)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.count("is saved at step")) == (130, 1), errors
    assert main(command) == 0
    require_equal((both("ppo")[0], out))


@pytest.mark.slow
def test_torchrun_starts_the_same_group(both: Both, runs: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "torchrun"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run([*torchrun, "amenable", *command_of("ppo", runs["ppo"], out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    require_equal((both("ppo")[1], out))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--tensor-parallel", "2")])
def test_the_group_ends_with_the_process_that_is_killed(
    runs: dict[str, Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    out = tmp_path / "killed"
    process = started(command_of("grpo", replace(runs["grpo"], max_steps=100, save_steps=1), out), *options)
    wait_for(lambda: (out / "checkpoint-1").exists())
    members = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(members) == 2
    subprocess.run(["kill", "-9", members[1]])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "process 1 of 2 was killed by signal 9; repeat the command" in errors
    assert "Traceback" not in errors


def on_nodes(command: Sequence[str], folders: Sequence[Path], **environments: Sequence[str]) -> list[str]:
    """Run a command in a process of a group for each folder, as on nodes of their own; return what each printed."""
    shared = {**os.environ, "WORLD_SIZE": str(len(folders)), STORE: str(folders[0].with_name("store"))}
    members = []
    for number, folder in enumerate(folders):
        own = {"RANK": str(number), **{name: values[number] for name, values in environments.items()}}
        program = [sys.executable, "-m", "amenable", *command]
        member = subprocess.Popen(program, env={**shared, **own}, cwd=folder, stderr=subprocess.PIPE, text=True)
        members.append(member)
    errors = [member.communicate(timeout=120)[1] for member in members]
    assert [member.returncode for member in members] == [2] * len(members), errors
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("differs", ["data", "code", "--beta"])
def test_nodes_with_other_data_code_or_options_are_one_line(
    differs: str, files: Any, assistant: Path, tmp_path: Path
) -> None:
    """Before a model is loaded, and nothing is written."""
    folders = [tmp_path / name for name in ("first", "second")]
    root = str(Path(amenable.__file__).parent.parent)
    paths, out = [root, root], tmp_path / "out"
    for number, folder in enumerate(folders):
        folder.mkdir()
        text = files.pairs.read_text("utf-8")
        (folder / "pairs.jsonl").write_text(text + text.splitlines(True)[0] * (number * (differs == "data")), "utf-8")
        (folder / "options.yaml").write_text(f"beta: {0.1 + 0.1 * number * (differs == '--beta')}\n", "utf-8")
    if differs == "code":
        shutil.copytree(Path(root) / "amenable", folders[1] / "amenable")
        with (folders[1] / "amenable" / "errors.py").open("a") as file:
            file.write("# a line more\n")
        paths = [root, str(folders[1])]
    command = ["dpo", "--config", "options.yaml", "--model", str(assistant), "--data", "pairs.jsonl", "--out", str(out)]
    errors = on_nodes([*command, "--device", "cpu", "--threads", "1"], folders, PYTHONPATH=paths)
    assert errors[0].startswith(f"amenable: the processes have different {differs}: ") and errors[0].count("\n") == 1
    assert errors[0].endswith("give every process the same code, options and data\n") and not out.exists()


def test_a_port_in_use_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        group = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**group, "MASTER_PORT": str(server.getsockname()[1])}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=r"cannot reach each other .*in use.*; free the port, or give torchrun"):
            processes.join()


@pytest.mark.slow
def test_wrong_input_is_one_line_from_one_process(runs: dict[str, Any], tmp_path: Path) -> None:
    process = started(command_of("sft", runs["sft"], tmp_path / "wrong"), "--batch-size", "1")
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.count("amenable: ")) == (2, 1), errors
    assert "2 processes divide the 1 row of a step; start fewer processes, or raise the batch size" in errors
