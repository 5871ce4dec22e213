"""Run tasks in lm_eval's hf backend: figures and seconds of each, as JSON; called in .venv-lm-eval."""

from __future__ import annotations

import json
import sys
import time

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager


def main(folder: str, tasks: str, names: str, batch_size: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    model = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=int(batch_size))
    manager = TaskManager(include_path=tasks)
    report = {}
    for name in names.split(","):
        start = time.perf_counter()
        results = lm_eval.simple_evaluate(model, tasks=[name], task_manager=manager, bootstrap_iters=0)["results"][name]
        seconds = time.perf_counter() - start
        numbers = {key: value for key, value in results.items() if isinstance(value, float)}
        figures = numbers | {key.partition(",")[0]: value for key, value in numbers.items()}
        report[name] = {"seconds": seconds, "figures": figures}
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
