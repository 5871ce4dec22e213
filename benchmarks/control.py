"""PPO in environments, steps a second: ours beside stable-baselines3's, with the same settings.

    make bench-control
    python -m benchmarks.control --envs CartPole-v1 HalfCheetah-v5 --steps 20480 --repeats 3

Each side is a process of its own; the sides take turns. Both collect with 8 copies in one process, normalise
observations and rewards, and take the same minibatches through networks of the same size. The first rollout is not
timed. The peer runs with one thread and with two, and its better median counts. Seconds of the clock depend on what
else the machine does, those of the processor less: the table has both ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from amenable.control.environments import Environments
from amenable.control.options import AgentOptions, fill
from amenable.control.ppo import PPO
from amenable.control.training import Training, one_thread

ROOT = Path(__file__).parent.parent
PEER = ROOT / ".venv-peers-control" / "bin" / "python"
TARGET = 1.5
"""times the peer's steps a second"""
SETTINGS = {
    "num_envs": 8,
    "num_steps": 256,
    "minibatch_size": 64,
    "num_epochs": 10,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "lam": 0.95,
}


def ours(work: dict[str, Any]) -> dict[str, Any]:
    """Train as the peer does; return seconds, processor seconds and steps after the first rollout, and the return."""
    environments = Environments(work["env"], work["num_envs"], work["seed"])
    options = fill(AgentOptions(num_envs=work["num_envs"], final_lr_frac=1.0), PPO.defaults)
    assert {name: getattr(options, name) for name in ("num_steps", "minibatch_size", "num_epochs", "gamma", "lam")} == {
        name: work[name] for name in ("num_steps", "minibatch_size", "num_epochs", "gamma", "lam")
    }
    training = Training(PPO(environments.spaces, options, work["seed"]), environments, work["steps"])
    with one_thread():
        training.step(1)
        begun, processor = time.perf_counter(), time.process_time()
        for iteration in range(2, training.iterations + 1):
            _, metrics = training.step(iteration)
        seconds, processor = time.perf_counter() - begun, time.process_time() - processor
    steps = (training.iterations - 1) * work["num_envs"] * work["num_steps"]
    return {"seconds": seconds, "processor": processor, "steps": steps, "return": metrics.get("episode/return")}


def measure(command: list[str], work: dict[str, Any]) -> dict[str, Any]:
    """Run one side in a process of its own and return what it prints."""
    done = subprocess.run([*command, json.dumps(work)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(env: str, steps: int, repeats: int) -> dict[str, Any]:
    """Return medians of steps a second, by the clock and by the processor, of both sides on one environment."""
    sides = {
        "ours": ([sys.executable, "-m", "benchmarks.control", "--side"], 1),
        "peer, 1 thread": ([str(PEER), "benchmarks/peer_control.py"], 1),
        "peer, 2 threads": ([str(PEER), "benchmarks/peer_control.py"], 2),
    }
    rates: dict[str, dict[str, list[float]]] = {name: {"clock": [], "processor": []} for name in sides}
    for repeat in range(repeats):
        for name, (command, threads) in sides.items():
            work = {**SETTINGS, "env": env, "steps": steps, "seed": repeat, "threads": threads}
            result = measure(command, work)
            rates[name]["clock"].append(result["steps"] / result["seconds"])
            rates[name]["processor"].append(result["steps"] / result["processor"])
    medians = {name: {kind: statistics.median(values) for kind, values in by.items()} for name, by in rates.items()}
    best = {kind: max(medians[name][kind] for name in sides if name != "ours") for kind in ("clock", "processor")}
    return {"env": env, "ours": medians["ours"], "peer": best, "medians": medians}


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    numbers = [row[side][kind] for kind in ("clock", "processor") for side in ("ours", "peer")]
    ratios = [numbers[0] / numbers[1], numbers[2] / numbers[3]]
    reached = "yes" if ratios[0] >= TARGET else "no"
    return f"| {row['env']} | {numbers[0]:,.0f} | {numbers[1]:,.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {reached} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=["CartPole-v1", "Pendulum-v1", "Hopper-v5", "HalfCheetah-v5"])
    parser.add_argument("--steps", type=int, default=20480)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", help="used by this script itself: measure ours")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(ours(json.loads(arguments.side))))
        return
    if not PEER.exists():
        raise SystemExit(f"{PEER} is missing: make bench-control")
    print(f"| environment | ours, steps/s | peer | ratio | of processor time | {TARGET} reached |")
    print("|---|--:|--:|--:|--:|---|")
    for env in arguments.envs:
        print(line(compare(env, arguments.steps, arguments.repeats)), flush=True)


if __name__ == "__main__":
    main()
