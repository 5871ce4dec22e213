"""An algorithm in one new file of stages/ is a command with all that commands have, and a function of the library."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

ALGORITHM = '''"""REINFORCE with the mean score of a step as its baseline."""

from dataclasses import dataclass
from pathlib import Path

from amenable.rl.algorithm import policy_logprobs
from amenable.rl.improve import improve
from amenable.rl.models import inputs, load_models
from amenable.rl.options import OnlineOptions
from amenable.train import defaults
from amenable.train.optimizer import Optimizer
from amenable.train.run import Run
from amenable.train.runtime import start_runtime


@dataclass(frozen=True)
class Config(OnlineOptions):
    """Train a policy by REINFORCE."""

    out: Path = Path("runs/invented")
    sharpness: float = 1.0
    """multiplies the advantages"""


def run(config):
    config, by_default = defaults.online(config, defaults.traits(config.model))
    run = Run(config.out, "invented", config, inputs(config), config.max_kl)
    if run.skip_finished():
        return run.out
    models = load_models(config, start_runtime(config.device))
    return improve(Reinforce(models, config), models, config, run, [by_default])


class Reinforce:
    mean_over, standardize_advantages, group = "tokens", False, 1

    def __init__(self, models, config):
        self.policy, self.runtime, self.config = models.policy, models.runtime, config
        self.models, self.losses = {"policy": models.policy}, (self.loss,)
        self.optimizers = {"policy": Optimizer([models.policy], config.optimizer)}

    def compute_values(self, experience, bars):
        pass

    def compute_advantages(self, experience, kl_coef):
        advantages = self.config.sharpness * (experience.scores - experience.scores.mean())
        experience.columns["advantages"] = advantages[:, None] * experience.rollout.mask

    def loss(self, batch, old):
        logps, _, old, stats = policy_logprobs(self.policy, batch, old, self.runtime, self.config)
        loss = -(logps * old["advantages"]).mean()
        return loss, {**stats, "loss/policy_avg": loss.detach()}
'''

DRIVER = """
import json, os, signal, sys
import torch
import amenable as am
from amenable import cli
from amenable.train.run import Run

torch.set_num_threads(1)
options, home = json.loads(sys.argv[1]), sys.argv[2]

def command(out, *more):
    return cli.main(["invented", *options, "--out", f"{home}/{out}", *more])

print("whole", command("whole", "--max-steps", "4"))
record = Run.record
def interrupting(run, step, *rest, **values):
    if step == 2:
        Run.record = record
        os.kill(os.getpid(), signal.SIGINT)
    record(run, step, *rest, **values)
Run.record = interrupting
print("stopped", command("parted", "--max-steps", "4"))
print("resumed", command("parted", "--max-steps", "4"))
print("guarded", command("guarded", "--max-steps", "4", "--max-kl", "1e-9", "--optimizer.learning-rate", "0.05"))
print("misspelt", command("other", "--sharpnes", "2"))
print("inspect", cli.main(["inspect", "--run", f"{home}/whole"]))
print("report", cli.main(["report", "--run", home]))
result = am.invented(sys.argv[3], data=sys.argv[4], reward="ends", sharpness=2.0, max_steps=1, prompts_per_step=4,
                     num_mini_batches=1, max_new_tokens=4, device="cpu", precision="fp32", threads=1)
print("library", len(result.metrics["objective/scores"]))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has one file more."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "amenable", folder / "amenable", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "amenable" / "stages" / "invented.py").write_text(ALGORITHM, "utf-8")
    return folder


@pytest.fixture(scope="module")
def runs(home: Path, assistant: Path, judge: Path, files: Any) -> Path:
    """Runs of the new command."""
    options = {"--model": assistant, "--reward": judge, "--data": files.prompts, "--prompts-per-step": 8}
    options |= {"--num-mini-batches": 2, "--max-new-tokens": 12, "--sample-steps": 2, "--save-steps": 1}
    options |= {"--device": "cpu", "--precision": "fp32", "--threads": 1, "--optimizer.learning-rate": 1e-3}
    (home / "driver.py").write_text(DRIVER, "utf-8")
    words = json.dumps([str(word) for pair in options.items() for word in pair])
    command = [sys.executable, "driver.py", words, "runs", str(assistant), str(files.prompts)]
    environment = {"PYTHONPATH": str(home), "PATH": "", "HOME": str(home)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    (home / "out").write_text(done.stdout, "utf-8")
    (home / "err").write_text(done.stderr, "utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    return home / "runs"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_it_is_short() -> None:
    assert len([line for line in ALGORITHM.splitlines() if line.strip()]) < 50


def test_the_command_line_lists_it_with_every_common_option(home: Path) -> None:
    environment = {"PYTHONPATH": str(home), "PATH": ""}
    show = [sys.executable, "-m", "amenable"]
    overview = subprocess.check_output([*show, "--help"], cwd=home, env=environment, text=True)
    assert "invented      REINFORCE with the mean score of a step as its baseline." in overview
    options = subprocess.check_output([*show, "invented", "--help"], cwd=home, env=environment, text=True)
    assert {"--sharpness", "--reward", "--kl-coef", "--seed", "--device", "--max-kl"} <= set(options.split())


def test_it_runs_goes_on_after_a_stop_and_is_guarded(runs: Path) -> None:
    codes = dict(line.split() for line in (runs.parent / "out").read_text().splitlines() if len(line.split()) == 2)
    expected = {"whole": "0", "stopped": "130", "resumed": "0", "guarded": "2", "misspelt": "2"}
    assert codes.items() >= expected.items()
    assert (runs / "whole" / "model.safetensors").read_bytes() == (runs / "parted" / "model.safetensors").read_bytes()
    assert lines_of(runs / "whole" / "metrics.jsonl") == lines_of(runs / "parted" / "metrics.jsonl")
    stopped = json.loads((runs / "guarded" / "stopped.json").read_text("utf-8"))
    assert "KL" in stopped["what"] or "kl" in stopped["what"]
    assert "did you mean --sharpness?" in (runs.parent / "err").read_text("utf-8")


def test_its_traces_and_its_report_are_there(runs: Path) -> None:
    trace = lines_of(runs / "whole" / "traces.jsonl")[0]
    assert "advantages" in trace and "values" not in trace
    assert "policy/approxkl_avg" in lines_of(runs / "whole" / "metrics.jsonl")[0]
    html = (runs / "report.html").read_text("utf-8")
    assert "REINFORCE with the mean score" in html


def test_the_library_has_it(runs: Path) -> None:
    assert "library 1" in (runs.parent / "out").read_text("utf-8")
