"""The same numbers on every device: each test runs on the processor in the suite, and on CUDA with `-m cuda`.

A device sums in another order, so it is compared within a tolerance; the processor is compared with itself exactly
where a run is repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.batches import collate, shared_prefix_lengths
from amenable.generation.engine import generate
from amenable.generation.rollout import collect
from amenable.generation.sampling import Sampling, sample
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.stages import ppo, sft
from amenable.train import forward
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime, start_runtime

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
)
PROMPT = list(range(20, 40))
ANSWERS = ([5, 40, 9], [300, 7, 8, 41, 6], [11], [12, 13, 14, 15])


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["fp32", "bf16"])
def machine(device: str, request: pytest.FixtureRequest) -> Runtime:
    return start_runtime(DeviceOptions(device, request.param, 1))


def answer_rows() -> list[forward.Row]:
    """Four answers to one prompt, and one to another."""
    rows = [(PROMPT + answer, [False] * len(PROMPT) + [True] * len(answer)) for answer in ANSWERS]
    return [*rows, ([50, 51, 52, 53, 54], [False, False, True, True, True])]


def gradients(decoder: Decoder, machine: Runtime, share: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return log-probabilities of the trained tokens, and the gradient of their sum, on the processor."""
    decoder.zero_grad()
    batch = collate(answer_rows(), shared_prefix_lengths(answer_rows()) if share else ()).to(machine.device)
    with machine.autocast():
        logps, _ = forward.masked_logprobs(decoder, batch)
    logps.sum().backward()
    return logps.detach().cpu(), [p.grad.float().cpu() for p in decoder.parameters() if p.grad is not None]


def test_shared_prefixes_change_nothing(make_decoder: Callable[..., Decoder], machine: Runtime) -> None:
    """Log-probabilities and gradients, with the prompt computed once and computed in each row, and on a processor."""
    exact = Runtime(torch.device("cpu"), bf16=False, threads=1)
    expected, slopes = gradients(make_decoder(), exact, share=False)
    decoder = make_decoder().to(machine.device)
    tolerance = 0.03 if machine.bf16 else 1e-4
    for share in (True, False):
        logps, grads = gradients(decoder, machine, share)
        torch.testing.assert_close(logps, expected, rtol=0, atol=tolerance)
        for ours, theirs in zip(grads, slopes, strict=True):
            assert (ours - theirs).norm() <= tolerance * max(1.0, float(theirs.norm()))


def test_rewards_and_values_are_the_processors(make_scalar_model: Callable[..., ScalarModel], machine: Runtime) -> None:
    exact, tolerance = Runtime(torch.device("cpu"), bf16=False, threads=1), 0.03 if machine.bf16 else 1e-4
    model, there = make_scalar_model(), make_scalar_model().to(machine.device)
    expected = forward.compute_rewards(model, answer_rows(), exact, 64)
    assert expected.std() > 0.01, "equal rewards would compare nothing"
    torch.testing.assert_close(
        forward.compute_rewards(there, answer_rows(), machine, 64), expected, rtol=0, atol=tolerance
    )
    for ours, theirs in zip(
        forward.compute_values(there, answer_rows(), machine, 64),
        forward.compute_values(model, answer_rows(), exact, 64),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_a_sampler_draws_the_same_tokens(device: str) -> None:
    """One uniform number decides a token: on another device it is another token only at a rounding error."""
    generator = torch.Generator().manual_seed(1)
    logits, uniforms = torch.randn(4000, 500, generator=generator), torch.rand(4000, generator=generator)
    for sampling in (Sampling(), Sampling(temperature=0.7, top_p=0.9), Sampling(top_k=20), Sampling(temperature=0)):
        tokens, logps = sample(logits.to(device), uniforms.to(device), sampling)
        expected, expected_logps = sample(logits, uniforms, sampling)
        same = tokens.cpu() == expected
        assert same.float().mean() > 0.999 and len(set(expected.tolist())) > 100
        torch.testing.assert_close(logps.cpu()[same], expected_logps[same], rtol=0, atol=1e-4)


def test_samplers_logprobs_are_the_trainers(make_decoder: Callable[..., Decoder], machine: Runtime) -> None:
    """Through the cache, with completions of different lengths and slots that are filled again."""
    decoder = make_decoder().to(machine.device)
    prompts = [PROMPT[: 3 + i % 5] for i in range(12)]
    with machine.autocast():
        rollout = collect(
            decoder, prompts, Sampling(max_new_tokens=16), eos_id=7, seeds=list(range(12)), samples=3, max_batch_size=8
        )
    assert len(rollout.completions) == 36 and len({len(ids) for ids in rollout.completions}) > 1
    logps = torch.cat(forward.compute_logprobs(decoder, rollout.rows(), machine, 256))
    gap = (logps - rollout.logps.cpu()[rollout.mask.cpu()]).abs()
    assert gap.mean() < machine.tolerance and gap.max() < 20 * machine.tolerance


def test_greedy_decoding_takes_the_most_probable_token(make_decoder: Callable[..., Decoder], machine: Runtime) -> None:
    decoder = make_decoder().to(machine.device)
    with machine.autocast():
        (group,) = generate(decoder, [PROMPT], Sampling(temperature=0, max_new_tokens=12), eos_id=None)
    ids = PROMPT + group[0].ids
    with torch.no_grad(), machine.autocast():
        states = decoder(torch.tensor(ids, device=machine.device), Layout.of([len(ids)], machine.device))
        logits = decoder.logits(states).float().cpu()
    taken = logits[len(PROMPT) - 1 : -1].gather(1, torch.tensor(group[0].ids)[:, None])[:, 0]
    best = logits[len(PROMPT) - 1 : -1].max(-1).values
    assert len(group[0].ids) == 12 and (best - taken).max() < (0.05 if machine.bf16 else 1e-4)


def test_a_ppo_step_learns_on_the_device(
    assistant: Path, judge: Path, files: Any, device: str, tmp_path: Path, rows_of: Callable[[Path], list[dict]]
) -> None:
    """The first minibatch has a ratio of 1 and no KL; the updates raise the score."""
    config = ppo.Config(
        model=assistant,
        reward=judge,
        data=files.prompts,
        out=tmp_path / "ppo",
        max_steps=5,
        prompts_per_step=24,
        num_mini_batches=2,
        temperature=0.7,
        kl_coef=0.05,
        adaptive_kl_target=0.0,
        max_new_tokens=20,
        optimizer=OptimizerConfig(learning_rate=3e-3, eps=1e-5),
        critic_learning_rate=5e-3,
        warmup_steps=1,
        num_traced_prompts=2,
        save_steps=0,
        device=DeviceOptions(device, "fp32", 1),
    )
    rows = rows_of(ppo.run(config))
    assert len(rows) == 5
    assert abs(rows[0]["objective/kl"]) < 0.01 and rows[0]["sampling/logp_difference"] < 0.001
    assert all(value == value and abs(value) != float("inf") for row in rows for value in numbers(row))
    assert rows[-1]["objective/scores"] > rows[0]["objective/scores"]
    assert rows[-1]["objective/kl"] > 0.01


def numbers(row: dict[str, Any]) -> list[float]:
    """Return the numbers of a row of metrics."""
    return [value for value in row.values() if isinstance(value, (int, float))]


def test_a_stopped_run_goes_on_on_the_device(
    sft_config: sft.Config,
    device: str,
    tmp_path: Path,
    run_in_two: Callable[[Any, Any, int], Path],
    rows_of: Callable[[Path], list[dict]],
    outcome: Callable[[Path], dict[str, Any]],
) -> None:
    """To the bit on a processor; on another device as close as its sums, whose order is not fixed."""
    options = DeviceOptions(device, "fp32", 1)
    config = replace(sft_config, epochs=1, batch_size=16, dropout=0.2, device=options, out=tmp_path / "whole")
    whole, parts = sft.run(config), run_in_two(sft, replace(config, out=tmp_path / "parts"), 3)
    if device == "cpu":
        assert outcome(whole) == outcome(parts)
    losses = [[row["loss"] for row in rows_of(run)] for run in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and len(losses[0]) == 5
    saved = json.loads((parts / "finished.json").read_text("utf-8"))
    assert saved["eval/loss"] == pytest.approx(rows_of(whole)[-1]["eval/loss"], rel=1e-3)
