"""Launch on a cluster: what is started with which options, and mistakes before Ray is."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.cli import main
from amenable.cluster import launch
from amenable.cluster.launch import launch_on_ray, run_plan, shared_folder
from amenable.cluster.resources import ReferenceShare, Resources, RewardShare, SamplerShare, TrainerShare
from amenable.errors import InputError
from amenable.generation.vllm_worker import WORKER
from amenable.models.lora import LoraOptions
from amenable.rewards.remote import SERVED
from amenable.stages import ppo, sft
from amenable.train.members import join_processes
from amenable.train.run_options import ClusterOptions
from amenable.train.runtime import DeviceOptions
from amenable.yaml_options import from_yaml

RAY = ClusterOptions("ray")
FP32 = DeviceOptions("cpu", "fp32", 1)


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "require_ray", lambda: None)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], ClusterOptions]:
    """write(text): options with a file of resources."""

    def write(text: str) -> ClusterOptions:
        (tmp_path / "resources.yaml").write_text(text, "utf-8")
        return ClusterOptions("ray", tmp_path / "resources.yaml")

    return write


def test_without_ray_one_line_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "runs" / "sft"
    assert main(["sft", "--cluster", "ray", "--out", str(out)]) == 2
    assert capsys.readouterr().err == "amenable: --cluster ray needs Ray; pip install 'amenable[ray]'\n"
    assert not out.parent.exists()


def test_trainers_get_the_options_of_the_command(tmp_path: Path) -> None:
    config = sft.Config(out=tmp_path / "run", processes=2, placement=RAY, epochs=3)
    plan = run_plan("sft", config, Resources(restarts=1), 2, tmp_path)
    assert plan.command == [sys.executable, "-m", "amenable", "sft", "--config", str(tmp_path / "config.yaml")]
    assert from_yaml(sft.Config, tmp_path / "config.yaml") == replace(config, processes=1, placement=ClusterOptions())
    assert (plan.workers, plan.servers, plan.environment([]), plan.restarts) == (2, [], {}, 1)


def test_samplers_are_vllm_servers_of_the_policys_model(tmp_path: Path) -> None:
    config = ppo.Config(model=Path("runs/sft"), sampler="vllm", lora=LoraOptions(rank=10), device=FP32)
    samplers = SamplerShare(count=2, python="other/python", options=("--max-model-len", "64"))
    plan = run_plan("ppo", config, Resources(samplers=samplers), 3, tmp_path)
    assert from_yaml(ppo.Config, tmp_path / "config.yaml").sampler_url == (str(tmp_path / "samplers"),)
    assert [(server.name, server.bundle, server.addresses) for server in plan.servers] == [
        ("sampler 0", 3, tmp_path / "samplers"),
        ("sampler 1", 4, tmp_path / "samplers"),
    ]
    command = " ".join(plan.servers[0].command("127.0.0.1", 8100))
    assert command == (
        "other/python -m vllm.entrypoints.openai.api_server --model runs/sft --host 127.0.0.1 --port 8100 "
        f"--dtype float32 --logprobs-mode processed_logprobs --worker-extension-cls {WORKER} "
        "--enable-lora --max-lora-rank 16 --max-model-len 64"
    )
    assert plan.servers[0].environment["VLLM_SERVER_DEV_MODE"] == "1"


def test_reward_models_are_served_and_known_by_their_folders(tmp_path: Path) -> None:
    config = ppo.Config(reward=("runs/reward=2", "length:1-4"), eval_reward_model=("runs/gold",), device=FP32)
    rewards = (RewardShare(model="runs/gold"), RewardShare(model="runs/reward"))
    plan = run_plan("ppo", config, Resources(rewards=rewards), 1, tmp_path)
    addresses = json.loads(plan.environment(["http://127.0.0.1:1", "http://127.0.0.1:2"])[SERVED])
    assert addresses == {"runs/gold": "http://127.0.0.1:1", "runs/reward": "http://127.0.0.1:2"}
    assert all(
        (server.bundle, server.path, server.addresses) == (0, "/rewards/reward", None) for server in plan.servers
    )
    command = plan.servers[1].command("127.0.0.1", 8200)
    assert command[:6] == [sys.executable, "-m", "amenable", "serve", "--reward-models", "reward=runs/reward"]
    assert command[6:10] == ["--host", "127.0.0.1", "--port", "8200"] and command[-4:] == [
        *("--precision", "fp32", "--threads", "1")
    ]


def test_references_are_servers_of_the_model_that_kl_is_measured_from(tmp_path: Path) -> None:
    config = ppo.Config(model=Path("runs/brief"), reference_model=Path("runs/sft"), device=FP32)
    rewards, references = (RewardShare(model="runs/reward"),), ReferenceShare(count=2)
    plan = run_plan("ppo", config, Resources(rewards=rewards, references=references), 1, tmp_path)
    assert from_yaml(ppo.Config, tmp_path / "config.yaml").reference_url == (str(tmp_path / "references"),)
    assert list(json.loads(plan.environment(["a", "b", "c"])[SERVED]).items()) == [("runs/reward", "a")]
    own = {"bundle": 0, "path": "/logprobs/reference", "addresses": tmp_path / "references"}
    for number, server in enumerate(plan.servers[1:]):
        assert {**vars(server), **own, "name": f"reference {number}"} == vars(server)
    commands = [server.command("127.0.0.1", 8300) for server in plan.servers[1:]]
    assert commands[0][3:6] == ["serve", "--models", "reference=runs/sft"] and commands[0] != commands[1]


@pytest.mark.usefixtures("with_ray")
@pytest.mark.parametrize(
    ("stage", "text", "options", "problem"),
    [
        ("sft", "trainer: {workers: 3}", {"processes": 2}, "processes is 2, and the resources name 3 workers"),
        ("sft", "samplers: {count: 1}", {}, "the resources name samplers; 'sft' samples no answers"),
        ("ppo", "samplers: {count: 1}", {}, "the resources name samplers; add --sampler vllm"),
        (
            "ppo",
            "samplers: {count: 1}",
            {"sampler": "vllm", "sampler_url": ("http://127.0.0.1:1",)},
            "the resources name samplers, and --sampler-url others",
        ),
        ("sft", "references: {count: 1}", {}, "the resources name servers of a reference; 'sft' has none"),
        (
            "ppo",
            "references: {count: 1}",
            {"reference_url": ("http://127.0.0.1:1",)},
            "the resources name servers of a reference, and --reference-url others",
        ),
        ("ppo", "rewards: [{model: runs/other}]", {}, "runs/other: the resources name a reward that --reward does not"),
        ("sft", "rewards: [{model: runs/other}]", {}, "runs/other: the resources name a reward that --reward does not"),
    ],
)
def test_resources_that_do_not_fit_the_command(
    stage: str, text: str, options: dict[str, Any], problem: str, write: Any, tmp_path: Path
) -> None:
    config = {"sft": sft, "ppo": ppo}[stage].Config(out=tmp_path / "runs" / "run", placement=write(text), **options)
    with pytest.raises(InputError, match=problem):
        launch_on_ray(stage, config)
    assert not (tmp_path / "runs").exists()


def test_the_shared_folder_is_beside_the_runs_and_removed(tmp_path: Path) -> None:
    with shared_folder(tmp_path / "runs" / "ppo") as folder:
        assert folder.parent == tmp_path / "runs" and folder.name.startswith("ppo.") and folder.is_dir()
    assert not list((tmp_path / "runs").iterdir())


def test_options_of_a_cluster_need_it() -> None:
    with pytest.raises(InputError, match=r"cluster_resources is r\.yaml, without a cluster; add --cluster ray"):
        ClusterOptions(cluster_resources=Path("r.yaml"))
    with pytest.raises(InputError, match="cluster_address is auto, without a cluster"):
        ClusterOptions(cluster_address="auto")


def test_only_the_command_line_starts_a_cluster() -> None:
    with pytest.raises(InputError, match="cluster is ray, which only the command line can start"):
        join_processes("sft", sft.Config(placement=RAY))


def test_the_number_of_workers_is_that_of_the_resources_or_processes() -> None:
    assert launch.number_of_workers(Resources(), 2) == 2
    assert launch.number_of_workers(Resources(TrainerShare(workers=3)), 1) == 3
