"""Agents that learn from comparisons of clips: ours beside imitation's preference comparisons, at equal labels.

    make bench-imitation
    python -m benchmarks.control_imitation --steps 49152 --labels 250 --seeds 3

Both sides take the same steps in the same environments (episodes of 200 steps, whose end says nothing: a state in which
the task ends absorbs), show clips of the same length, and get the same number of labels from a judge who goes by the
true return without errors. Learning rate, discount and minibatches are the same: the peer's tutorial's for Pendulum,
ours for CartPole. Else each has its own settings: ours those of benchmarks/control_preferences.py, the peer's those of
its tutorial with 10 % of the labels before training. The return is the environment's, of episodes by the likeliest
actions. Each side is a process of its own; the sides take turns, and a run that is stopped and started again goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from amenable.stages import control
from benchmarks.control import ROOT, measure
from benchmarks.control_preferences import TASKS, interval

PEER = ROOT / ".venv-peers-imitation" / "bin" / "python"
SETTINGS = {
    "cartpole": {"env": "CartPole-v1", "clip_steps": 20, "gamma": 0.99, "learning_rate": 3e-4, "minibatch_size": 256},
    "pendulum": {"env": "Pendulum-v1", "clip_steps": 20, "gamma": 0.97, "learning_rate": 2e-3, "minibatch_size": 64},
}
"""of both sides"""
COMMON = {"num_envs": 8, "num_steps": 256, "episode_steps": 200, "episodes": 50}
SIDES = ("ours", "imitation")


def ours(work: dict[str, Any]) -> dict[str, Any]:
    """Train ours as the peer does; return the mean true return, labels, steps and seconds."""
    config = replace(
        TASKS[work["task"]],
        learn_from="comparisons",
        env_options=(f"max_episode_steps={work['episode_steps']}",),
        clip_steps=work["clip_steps"],
        gamma=work["gamma"],
        learning_rate=work["learning_rate"],
        minibatch_size=work["minibatch_size"],
        max_labels=work["labels"],
        total_timesteps=work["steps"],
        eval_episodes=work["episodes"],
        seed=work["seed"],
        save_steps=0,
        out=Path(work["out"]),
    )
    begun, processor = time.perf_counter(), time.process_time()
    done = json.loads((control.run(config) / "finished.json").read_text("utf-8"))
    seconds, processor = time.perf_counter() - begun, time.process_time() - processor
    facts = {"return": done["eval/return"], "labels": done["labels"], "steps": done["timesteps"]}
    return {**facts, "seconds": seconds, "processor": processor}


def result(side: str, task: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one side once, unless it has been, and return its figures."""
    file = arguments.out / task / side / f"{seed}.json"
    if file.exists():
        return json.loads(file.read_text("utf-8"))
    work = {
        **COMMON,
        **SETTINGS[task],
        "task": task,
        "seed": seed,
        "steps": arguments.steps,
        "labels": arguments.labels,
    }
    if side == "ours":
        command = [sys.executable, "-m", "benchmarks.control_imitation", "--side"]
        work["out"] = str(arguments.out / task / "runs" / str(seed))
    else:
        command = [str(PEER), "benchmarks/peer_imitation.py"]
    figures = measure(command, work)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures), "utf-8")
    return figures


def line(task: str, side: str, figures: list[dict[str, Any]]) -> str:
    """Return a row of the table: mean return with its interval, each seed's return, labels, steps, seconds."""
    returns = [each["return"] for each in figures]
    each = ", ".join(f"{value:,.0f}" for value in returns)
    labels, steps = figures[0]["labels"], figures[0]["steps"]
    seconds = interval([run["processor"] for run in figures])
    return f"| {task} | {side} | {interval(returns)} | {each} | {labels:,} | {steps:,} | {seconds} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=49_152)
    parser.add_argument("--labels", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/control-imitation"))
    parser.add_argument("--side", help="used by this script itself: measure ours")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(ours(json.loads(arguments.side))))
        return
    if not PEER.exists():
        raise SystemExit(f"{PEER} is missing: make bench-imitation")
    figures = {(task, side): list[dict[str, Any]]() for task in arguments.tasks for side in SIDES}
    for seed in range(arguments.seeds):
        for (task, side), runs in figures.items():
            runs.append(result(side, task, seed, arguments))
    print("| task | side | true return | of each seed | labels | steps | processor seconds |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for (task, side), runs in figures.items():
        print(line(task, side, runs))


if __name__ == "__main__":
    main()
