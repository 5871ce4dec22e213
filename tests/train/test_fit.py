"""The loop of offline stages: elements in their order, metrics of every step, best weights in the end."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amenable.data.lazy import Lazy
from amenable.data.orders import EpochBatches
from amenable.models.decoder import Decoder
from amenable.train import checkpoint, first_batch, plan
from amenable.train.best import BestWeights
from amenable.train.fit import Training, fit, tokens_of
from amenable.train.objective import NextToken
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import Run
from amenable.train.run_options import TrainingOptions
from amenable.train.runtime import DeviceOptions, Runtime

OPTIONS = TrainingOptions(device=DeviceOptions("cpu", "fp32", 1), save_steps=0)


@pytest.fixture
def task(make_decoder: Callable[..., Decoder], words: Any) -> Training:
    decoder = make_decoder()
    rows = [([words.bos_id, 40 + i, 50 + i, 60], [False] + [True] * 3) for i in range(6)]
    steps = EpochBatches(len(rows), 4, 2, 0)
    return Training(
        objective=NextToken(decoder),
        elements=Lazy(rows.__getitem__, np.full(6, 4)),
        batches=steps,
        model=decoder,
        optimizers={"": Optimizer([decoder], OptimizerConfig(learning_rate=1e-2))},
        schedule=plan.cosine_with_warmup(len(steps), 0, 0.1),
        check=first_batch.check_chunks([rows[i] for i in steps[0]], words),
        plan=["six rows"],
    )


def a_run(folder: Path, options: TrainingOptions = OPTIONS) -> Run:
    run = Run(folder / "out", "fit", options)
    assert not run.skip_finished()
    return run


def test_every_step_has_its_elements_and_its_metrics(
    task: Training, runtime: Runtime, tmp_path: Path, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    run, given = a_run(tmp_path), list[list[int]]()

    def statistics(step: int, elements: list[Any], stats: dict[str, Any]) -> dict[str, Any]:
        given.append([task.elements.index(element) for element in elements])
        return {**stats, "own": step}

    assert fit(run, task, OPTIONS, runtime, lambda step: {"eval/loss": 1.0} if step == 4 else {}, statistics)
    assert given == list(task.batches) and [len(rows) for rows in given] == [4, 2, 4, 2]
    rows = rows_of(run.out)
    assert [row["own"] for row in rows] == [1, 2, 3, 4] and rows[-1]["loss"] < rows[0]["loss"]
    assert {"loss", "grad_norm", "lr"} <= set(rows[0]) and "eval/loss" not in rows[0] and "eval/loss" in rows[3]


def test_the_best_weights_come_back(task: Training, runtime: Runtime, tmp_path: Path) -> None:
    held = list[torch.Tensor]()

    def evaluate(step: int) -> dict[str, float]:
        held.append(task.model.token_embedding.weight.detach().clone())  # type: ignore[union-attr, operator]
        return {"eval/loss": [4.0, 1.0, 2.0, 3.0][step - 1]}

    best = BestWeights(task.model, "eval/loss", lowest=True)
    assert fit(a_run(tmp_path), replace(task, best=best), OPTIONS, runtime, evaluate)
    assert best.step == 2 and torch.equal(task.model.token_embedding.weight, held[1])  # type: ignore[union-attr, arg-type]


def test_checkpoints_of_a_run_that_keeps_the_last_weights_hold_no_others(
    task: Training, runtime: Runtime, tmp_path: Path
) -> None:
    options = replace(OPTIONS, save_steps=2)
    names = {}
    for best in (None, BestWeights(task.model, "eval/loss", lowest=True)):
        run = a_run(tmp_path / str(best is None), options)
        assert fit(run, replace(task, best=best), options, runtime, lambda step: {"eval/loss": 1.0})
        saved = checkpoint.newest(run.out)
        assert saved is not None and saved[0] == 2
        names[best is None] = set(saved[1]["state"])
    assert names == {True: {"model", "optimizer"}, False: {"model", "optimizer", "best"}}


def test_a_first_batch_can_be_looked_at_without_training(task: Training, runtime: Runtime, tmp_path: Path) -> None:
    before = task.model.token_embedding.weight.detach().clone()  # type: ignore[union-attr, operator]
    options = replace(OPTIONS, inspect_batch=True)
    assert not fit(a_run(tmp_path, options), task, options, runtime)
    assert (tmp_path / "out" / "first_batch.html").exists()
    assert torch.equal(task.model.token_embedding.weight, before)  # type: ignore[union-attr, arg-type]


def test_dropout_is_on_only_where_a_stage_says_so(task: Training, runtime: Runtime, tmp_path: Path) -> None:
    modes = list[bool]()
    task.model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    assert fit(a_run(tmp_path), task, OPTIONS, runtime)
    assert modes and not any(modes)
    modes.clear()
    assert fit(a_run(tmp_path / "on"), replace(task, train_mode=True), OPTIONS, runtime)
    assert modes and all(modes)


def test_tokens_of_elements_count_a_shared_context_once(task: Training) -> None:
    assert tokens_of(task.objective, task.elements[:2]) == 8
