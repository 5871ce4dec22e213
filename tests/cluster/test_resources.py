"""Resources of a run on a cluster: the YAML file, what Ray reserves, and mistakes."""

from pathlib import Path

import pytest

from amenable.cluster.resources import (
    ReferenceShare,
    Resources,
    RewardShare,
    SamplerShare,
    TrainerShare,
    read_resources,
)
from amenable.errors import InputError

TEXT = """
trainer: {workers: 2, cpus: 0.5}
samplers: {count: 2, gpus: 1, python: .venv-vllm/bin/python, options: [--max-model-len, "512"]}
rewards:
- {model: runs/reward, cpus: 0.5, gpus: 1}
references: {count: 2, cpus: 0.25}
restarts: 5
"""


def read(tmp_path: Path, text: str) -> Resources:
    (tmp_path / "resources.yaml").write_text(text, "utf-8")
    return read_resources(tmp_path / "resources.yaml")


def test_the_file_is_read(tmp_path: Path) -> None:
    resources = read(tmp_path, TEXT)
    assert resources == Resources(
        TrainerShare(cpus=0.5, workers=2),
        SamplerShare(1.0, 1.0, 2, ".venv-vllm/bin/python", ("--max-model-len", "512")),
        (RewardShare(0.5, 1.0, "runs/reward"),),
        ReferenceShare(0.25, count=2),
        5,
    )
    assert read_resources(None) == read(tmp_path, "") == Resources()


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "scale.md"
    resources = read(tmp_path, page.read_text("utf-8").split("```yaml\n")[1].split("```")[0])
    assert (resources.trainer.workers, resources.samplers.count, len(resources.rewards)) == (2, 1, 1)


def test_servers_of_rewards_and_references_are_on_the_first_trainers_node(tmp_path: Path) -> None:
    bundles = read(tmp_path, TEXT).bundles(2)
    assert bundles == [{"CPU": 1.5, "GPU": 1.0}, {"CPU": 0.5}, *[{"CPU": 1.0, "GPU": 1.0}] * 2]
    assert Resources().bundles(1) == [{"CPU": 1.0}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trainer: {worker: 2}", r"resources\.yaml: unknown option 'trainer\.worker'; did you mean 'trainer\.workers'"),
        ("trainer: {workers: -1}", r"resources\.yaml: workers is -1; it must be 0 to 4,096"),
        ("trainer: {cpus: .nan}", "cpus is nan"),
        ("trainer: {cpus: 0}", "neither CPUs nor GPUs; give a part"),
        ("trainer: {gpus: 0.5}", r"gpus is 0\.5; it must be a whole number"),
        ("samplers: {count: 1.5}", "'samplers.count' is 1.5, not int"),
        ("rewards: [{cpus: 1}]", "a reward server has no model; write model: FOLDER"),
        ("rewards: [{model: a}, {model: a}]", "the reward server of a is given twice"),
        ("references: {count: -1}", "count is -1"),
        ("restarts: -1", "restarts is -1"),
        ("samplers: [", "not readable as YAML"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file; name a YAML file"):
        read_resources(tmp_path / "none.yaml")
