"""Placement by Ray: the line where it is missing; and, where it is installed, runs that lose trainers and servers.

.venv-peers-ray/bin/python -m pytest -m slow tests/cluster/test_ray_placement.py
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from amenable.cluster.placement import KILLED
from amenable.cluster.ray_placement import ray_placement, require_ray
from amenable.cluster.resources import Share
from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model

ROOT = Path(__file__).parent.parent.parent
VLLM = ROOT / ".venv-peers-vllm" / "bin" / "python"
SAMPLER = """#!{python}
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.conftest import VllmAPI
options = dict(zip(sys.argv, sys.argv[1:]))
api = VllmAPI(Path(options["--model"]), int(options["--port"]))
complete = api.complete
def slowly(body):
    time.sleep(0.2)
    return complete(body)
api.complete = slowly
api.http.serve_forever(0.01)
"""
"""a server with vLLM's routes, in place of the interpreter that has vLLM"""


def test_without_ray_a_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^--cluster ray needs Ray; pip install 'amenable\[ray\]'$"):
        require_ray()


with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@with_ray
@pytest.mark.slow
def test_an_actor_holds_a_process(tmp_path: Path) -> None:
    with ray_placement([{"CPU": 0.5}] * 2, "") as placement:
        members = [placement.spawn(bundle, Share(cpus=0.5)) for bundle in range(2)]
        assert len({member.node() for member in members}) == 1 and placement.local
        code = "import os, time; print(' '.join([str(os.getppid()), os.environ['A']])); time.sleep(60)"
        members[0].start([sys.executable, "-u", "-c", code], {"A": "b"}, str(tmp_path))
        members[1].start([sys.executable, "-c", "import sys; sys.exit('no')"], {}, str(tmp_path))
        members[1].wait()
        assert members[1].returncode == 1
        assert b"".join(text for number, text in members[1].printed() if number == 2) == b"no\n"
        printed: list[tuple[int, bytes]] = []
        while not printed:
            assert members[0].poll() is None
            printed = members[0].printed()
        actor, variable = printed[0][1].split()
        assert variable == b"b"
        os.kill(int(actor), signal.SIGKILL)
        members[0].wait()
        assert members[0].returncode == KILLED


@with_ray
@pytest.mark.slow
def test_a_run_that_needs_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amenable.cluster.ray_placement.RESERVE_SECONDS", 1.0)
    problem = r"the run needs 4000 CPUs, 0 GPUs, and Ray has \d+ CPUs, 0 GPUs for all; lower"
    with pytest.raises(InputError, match=problem), ray_placement([{"CPU": 4000.0}], ""):
        pass


@with_ray
@pytest.mark.slow
def test_no_cluster_at_an_address() -> None:
    with (
        pytest.raises(InputError, match=r"^127\.0\.0\.1:9: cannot be reached: .*ray start --head"),
        ray_placement([{"CPU": 1.0}], "127.0.0.1:9"),
    ):
        pass


def launch(folder: Path, options: str, resources: dict[str, Any], name: str) -> "subprocess.Popen[str]":
    """Start a run by Ray in runs/NAME of a folder."""
    (folder / "resources.yaml").write_text(json.dumps(resources), "utf-8")
    command = [sys.executable, "-m", "amenable", *options.split(), "--out", f"runs/{name}"]
    command += ["--cluster", "ray", "--cluster-resources", "resources.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> Start:
    """start(name): a PPO of two trainers, with servers of samples, rewards and the reference by Ray, in runs/NAME."""
    sampler = tmp_path / "sampler"
    sampler.write_text(SAMPLER.format(python=sys.executable, root=str(ROOT)), "utf-8")
    sampler.chmod(0o755)
    resources = {
        "trainer": {"workers": 2, "cpus": 0.5},
        "samplers": {"count": 1, "cpus": 0.5, "python": str(sampler)},
        "rewards": [{"model": str(judge), "cpus": 0.25}],
        "references": {"count": 1, "cpus": 0.25},
    }
    options = f"""ppo --model {assistant} --reward {judge} --data {files.prompts} --sampler vllm --max-steps 6
        --prompts-per-step 4 --num-mini-batches 1 --kl-coef 0.05 --max-new-tokens 8 --temperature 0.7 --save-steps 1
        --num-traced-prompts 0 --device cpu --precision fp32 --threads 1"""
    return partial(launch, tmp_path, options, resources)


def running(*words: str) -> list[Path]:
    """The folders in /proc of the processes whose command has all of these words."""
    matching = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_text().replace("\0", " ")
            if all(word in command for word in words):
                matching.append(process)
    return matching


def trainers(folder: Path, name: str) -> list[int]:
    """The numbers of the trainers of a run, by their ranks."""
    ranks: dict[str, int] = {}
    for process in running("--config", str(folder / f"runs/{name}.")):
        variables = dict(line.split("=", 1) for line in (process / "environ").read_text().split("\0") if line)
        ranks[variables["RANK"]] = int(process.name)
    return [ranks[rank] for rank in sorted(ranks)]


def sampler_of(model: Path) -> int:
    """The number of the server that samples by a model."""
    (process,) = running("vllm.entrypoints", f"--model {model}")
    return int(process.name)


def parent(number: int) -> int:
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for_steps(folder: Path, name: str, count: int) -> None:
    metrics = folder / "runs" / name / "metrics.jsonl"
    until = time.monotonic() + 300
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


@with_ray
@pytest.mark.slow
def test_a_run_that_loses_servers_and_trainers_has_the_same_result(
    start: Start, assistant: Path, judge: Path, tmp_path: Path
) -> None:
    """By actors and by processes that are killed, one after another."""
    calm = start("calm")
    _, err = calm.communicate(timeout=400)
    assert calm.returncode == 0, err
    lossy = start("lossy")
    wait_for_steps(tmp_path, "lossy", 1)
    os.kill(parent(sampler_of(assistant)), signal.SIGKILL)
    wait_for_steps(tmp_path, "lossy", 2)
    for model in (judge, assistant):
        (server,) = running("amenable serve", f"={model}")
        os.kill(int(server.name), signal.SIGKILL)
    wait_for_steps(tmp_path, "lossy", 3)
    os.kill(parent(trainers(tmp_path, "lossy")[1]), signal.SIGKILL)
    wait_for_steps(tmp_path, "lossy", 5)
    os.kill(trainers(tmp_path, "lossy")[0], signal.SIGKILL)
    _, err = lossy.communicate(timeout=400)
    assert lossy.returncode == 0, err
    for name in ("sampler 0", f"the server of {judge}", "reference 0"):
        assert f"{name} was lost (signal 9); it is started again (1 of 3 times)" in err
    for line in ("trainer 1 of 2 was lost (signal 9); all go on", "trainer 0 of 2 was lost (signal 9); all go on"):
        assert line in err
    for name in ("model.safetensors", "samples.jsonl"):
        assert (tmp_path / "runs/calm" / name).read_bytes() == (tmp_path / "runs/lossy" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["calm", "lossy"]


@with_ray
@pytest.mark.slow
def test_a_node_that_is_lost(assistant: Path, judge: Path, files: Any, tmp_path: Path) -> None:
    """Two nodes of a cluster, a trainer each; one is gone, and another comes: the result is that of --processes 2."""
    from ray.cluster_utils import Cluster

    options = f"""ppo --model {assistant} --reward {judge} --data {files.prompts} --max-steps 8 --prompts-per-step 12
        --num-mini-batches 1 --kl-coef 0.05 --max-new-tokens 16 --temperature 0.7 --save-steps 1 --num-traced-prompts 0
        --device cpu --precision fp32 --threads 1"""
    calm = [sys.executable, "-m", "amenable", *options.split(), "--out", "runs/calm", "--processes", "2"]
    subprocess.run(calm, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        address = f"{options} --cluster-address {cluster.address}"
        lossy = launch(tmp_path, address, {"trainer": {"workers": 2, "cpus": 1}}, "lossy")
        wait_for_steps(tmp_path, "lossy", 3)
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        _, err = lossy.communicate(timeout=400)
    finally:
        cluster.shutdown()
    assert lossy.returncode == 0 and "all go on from the last checkpoint (1 of 3 times)" in err, err
    for name in ("model.safetensors", "samples.jsonl"):
        assert (tmp_path / "runs/calm" / name).read_bytes() == (tmp_path / "runs/lossy" / name).read_bytes()


@with_ray
@pytest.mark.slow
@pytest.mark.skipif(not VLLM.exists(), reason="make bench-vllm makes the environment that has vLLM")
def test_a_server_of_vllm_that_is_lost_gets_the_weights_of_the_step(
    words: Tokenizer, make_decoder: Callable[..., Decoder], files: Any, tmp_path: Path, rows_of: Any
) -> None:
    """Its log-probabilities are the trainer's in every step, and answers are those of the run without a loss."""
    model = tmp_path / "model"
    save_model(model, make_decoder(1, vocab_size=words.vocab_size, hidden_size=128, num_heads=2), words)
    options = f"""rloo --model {model} --reward length:1-4 --data {files.prompts} --sampler vllm --max-steps 5
        --prompts-per-step 4 --num-generations 2 --num-mini-batches 1 --max-new-tokens 8 --temperature 0.7 --threads 1
        --optimizer.learning-rate 0.01 --save-steps 0 --num-traced-prompts 0 --device cpu --precision fp32"""
    resources = {"trainer": {"cpus": 0.5}, "samplers": {"count": 1, "cpus": 1, "python": str(VLLM)}}
    calm = launch(tmp_path, options, resources, "calm")
    assert calm.communicate(timeout=400)[1] is not None and calm.returncode == 0
    lossy = launch(tmp_path, options, resources, "lossy")
    wait_for_steps(tmp_path, "lossy", 1)
    os.kill(parent(sampler_of(model)), signal.SIGKILL)
    _, err = lossy.communicate(timeout=400)
    assert lossy.returncode == 0 and "sampler 0 was lost" in err, err
    rows = rows_of(tmp_path / "runs" / "lossy")
    assert all(row["sampling/logp_difference"] < 1e-4 for row in rows)
    texts = [(tmp_path / "runs" / name / "samples.jsonl").read_text("utf-8") for name in ("calm", "lossy")]
    assert texts[0] == texts[1]
    assert not running("vllm", str(model))


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_nothing(
    number: signal.Signals, start: Start, assistant: Path, tmp_path: Path
) -> None:
    run = start("stopped")
    wait_for_steps(tmp_path, "stopped", 2)
    started = [*trainers(tmp_path, "stopped"), sampler_of(assistant)]
    started += [parent(process) for process in started]
    assert len(started) == 6
    run.send_signal(number)
    _, err = run.communicate(timeout=120)
    if number != signal.SIGKILL:
        assert run.returncode == 130 and "is saved at step" in err
    until = time.monotonic() + 60
    while any(Path(f"/proc/{process}").exists() for process in started):
        assert time.monotonic() < until
        time.sleep(0.1)
    shutil.rmtree(tmp_path / "runs")


@with_ray
@pytest.mark.slow
def test_an_error_of_a_trainer_is_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "file").touch()
    run = start("taken")
    _, err = run.communicate(timeout=400)
    lines = [line for line in err.splitlines() if not line.startswith("cluster ")]
    assert run.returncode == 2 and lines == [
        "amenable: runs/taken: holds something that is not a run; give --out another folder"
    ]
