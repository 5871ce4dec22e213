"""The policy's answers as it trains: by the weights as they are, or a step ahead from those before."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.files import matches_manifest
from amenable.generation.requests import Completion, SampleRequest
from amenable.generation.rollout import collect
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions
from amenable.rl.models import Models, load_models
from amenable.rl.options import OnlineOptions
from amenable.rl.policy_sampler import PolicySampler, make_sampler, require_sampler
from amenable.seeds import derive_seed
from amenable.stages import rloo
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime
from tests.conftest import RequestByRequest, running_api

PROMPTS = [[1, 30, 40], [1, 50], [1, 60, 70, 80]]
BESIDE = {"max_staleness": 1, "sampler_correction": "truncate"}


@pytest.fixture
def options(online_options: OnlineOptions) -> OnlineOptions:
    return replace(online_options, max_steps=3, prompts_per_step=3, max_new_tokens=8, kl_coef=0.05)


@pytest.fixture
def models(options: OnlineOptions, runtime: Runtime) -> Models:
    return load_models(options, runtime)


def answers(models: Models, purpose: tuple[object, ...], policy: Decoder | None = None) -> list[list[int]]:
    """The completions of two samples by our engine."""
    sampling = Sampling(temperature=0.7, max_new_tokens=8)
    seeds = [derive_seed(0, *purpose, i) for i in range(len(PROMPTS))]
    stops = models.tokenizer.stop_ids
    rollout = collect(policy or models.policy, PROMPTS, sampling, eos_id=stops, seeds=seeds, samples=2)
    return rollout.completions


def move(policy: Decoder) -> None:
    """An update that changes what is sampled."""
    with torch.no_grad():
        policy.token_embedding.weight *= 1.5


def test_without_staleness_answers_are_the_policys_as_it_is(models: Models, options: OnlineOptions) -> None:
    source = PolicySampler(models, options)
    for step in (1, 2):
        source.prepare(step, lambda step: PROMPTS)
        rollout, staleness = source.rollout(PROMPTS, ("rollout", step), 2)
        assert staleness == 0 and rollout.completions == answers(models, ("rollout", step))
        move(models.policy)
    assert threading.active_count() == 1 or not source.ready


def test_a_step_ahead_answers_are_those_of_the_weights_before_the_update(
    models: Models, options: OnlineOptions
) -> None:
    source = PolicySampler(models, replace(options, **BESIDE))
    source.prepare(1, lambda step: PROMPTS)
    first, second = answers(models, ("rollout", 1)), answers(models, ("rollout", 2))
    rollout, staleness = source.rollout(PROMPTS, ("rollout", 1), 2)
    assert (rollout.completions, staleness) == (first, 0)
    move(models.policy)
    source.version = 1
    assert answers(models, ("rollout", 2)) != second
    source.prepare(2, lambda step: PROMPTS)
    rollout, staleness = source.rollout(PROMPTS, ("rollout", 2), 2)
    assert (rollout.completions, staleness) == (second, 1)
    held_out, staleness = source.rollout(PROMPTS, ("held out",), 2)
    assert (held_out.completions, staleness) == (answers(models, ("held out",)), 0)
    source.prepare(3, lambda step: PROMPTS)
    assert source.pending is None, "the last step has none after it"
    source.close()


def test_a_checkpoint_has_the_answers_that_are_being_sampled(models: Models, options: OnlineOptions) -> None:
    source = PolicySampler(models, replace(options, **BESIDE))
    source.prepare(1, lambda step: PROMPTS)
    move(models.policy)
    state = source.state_dict()
    resumed = PolicySampler(models, replace(options, **BESIDE))
    resumed.load_state_dict(state)
    source.prepare(2, lambda step: PROMPTS)
    resumed.prepare(2, lambda step: PROMPTS)
    (one, stale), (other, other_stale) = (each.rollout(PROMPTS, ("rollout", 2), 2) for each in (source, resumed))
    assert stale == other_stale == 1 and one.completions == other.completions and torch.equal(one.logps, other.logps)
    source.close()
    resumed.close()


def test_an_error_while_sampling_ahead_is_the_runs(
    models: Models, options: OnlineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PolicySampler(models, replace(options, **BESIDE), RequestByRequest(models.policy))

    def end(*arguments: Any) -> None:
        raise InputError("has ended", "http://there")

    source.ready[1] = source.rollout(PROMPTS, ("rollout", 1), 2)
    monkeypatch.setattr(source.sampler, "complete", end)
    source.prepare(1, lambda step: PROMPTS)
    with pytest.raises(InputError, match="http://there: has ended"):
        source.prepare(2, lambda step: PROMPTS)


def test_closing_ends_what_is_being_sampled(models: Models, options: OnlineOptions) -> None:
    source = PolicySampler(models, replace(options, **BESIDE, max_new_tokens=40))
    source.prepare(1, lambda step: PROMPTS * 20)
    assert source.pending is not None
    source.close()
    assert not source.pending.thread.is_alive()


def test_a_sampler_takes_the_weights_once_for_each_version(models: Models, options: OnlineOptions) -> None:
    loads: list[int] = []

    class Counting:
        def load(self, policy: Decoder) -> None:
            loads.append(1)

        def close(self) -> None:
            """Nothing was written."""

        def complete(
            self, requests: Sequence[SampleRequest], sampling: Sampling, eos_ids: Sequence[int], progress: Any = None
        ) -> list[Completion]:
            assert sampling.temperature == 0.7 and list(eos_ids) == list(models.tokenizer.stop_ids)
            return [Completion([5], [-1.0], "length", None) for _ in requests]

    source = PolicySampler(models, options, Counting())
    for step in (1, 2):
        source.prepare(step, lambda step: PROMPTS)
        source.rollout(PROMPTS, ("rollout", step), 2)
        source.rollout(PROMPTS, ("watched",), 2)
        assert len(loads) == step
        source.version = step


def test_our_engine_needs_nothing_else(models: Models, options: OnlineOptions, tmp_path: Path) -> None:
    require_sampler(options)
    assert make_sampler(models, options, tmp_path) is None


def test_what_vllm_needs_is_required_before_anything_is_loaded(options: OnlineOptions, assistant: Path) -> None:
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9: cannot be reached"):
        require_sampler(replace(options, sampler="vllm", sampler_url=("http://127.0.0.1:9",)))


@pytest.mark.parametrize("adapters", [LoraOptions(), LoraOptions(rank=2)], ids=["weights", "adapters"])
def test_a_run_on_a_server_learns_as_on_our_engine(
    adapters: LoraOptions, vllm_api: Any, options: OnlineOptions, tmp_path: Path, rows_of: Any
) -> None:
    """The server samples as ours does, so that answers are the same, and numbers up to rounding."""
    given = {**vars(options), "max_steps": 2, "lora": adapters, "save_steps": 0, "num_traced_prompts": 1}
    here = rloo.Config(**{**given, "out": tmp_path / "here"})
    there = replace(here, out=tmp_path / "there", sampler="vllm", sampler_url=(vllm_api.url,))
    rows = [rows_of(rloo.run(config)) for config in (here, there)]
    texts = [(config.out / "samples.jsonl").read_text("utf-8").splitlines() for config in (here, there)]
    ours, servers = ([json.loads(line)["completion"] for line in each] for each in texts)
    assert ours == servers
    assert rows[0][1]["loss/policy_avg"] == pytest.approx(rows[1][1]["loss/policy_avg"], abs=1e-4)
    assert rows[1][1]["sampling/logp_difference"] < 1e-4
    loads = [path for path, _ in vllm_api.commands if path != "/reset_prefix_cache"]
    assert loads == ["/v1/load_lora_adapter" if adapters.rank else "/collective_rpc"] * 2
    assert not (there.out / "sampler").exists() and matches_manifest(there.out)


@pytest.mark.parametrize("adapters", [LoraOptions(), LoraOptions(rank=2)], ids=["weights", "adapters"])
def test_a_server_that_is_lost_is_replaced_with_the_weights_of_the_step(
    adapters: LoraOptions,
    vllm_api: Any,
    options: OnlineOptions,
    assistant: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends while it samples the second step's answers; those of the run are the same as without."""
    file, answered = tmp_path / "samplers", list[Any]()
    file.write_text(vllm_api.url, "utf-8")
    given = {**vars(options), "lora": adapters, "save_steps": 0, "num_traced_prompts": 0}
    given |= {"sampler": "vllm", "sampler_url": (str(file),)}
    calm = rloo.run(rloo.Config(**{**given, "out": tmp_path / "calm"}))
    loads = len(vllm_api.commands)
    with running_api(assistant) as first, running_api(assistant) as second:
        complete = first.complete

        def end(body: Any) -> Any:
            answered.append(body)
            if len(answered) < 10:
                return complete(body)
            first.http.shutdown()
            first.http.server_close()
            file.write_text(second.url, "utf-8")
            raise ConnectionError

        file.write_text(first.url, "utf-8")
        monkeypatch.setattr(first, "complete", end)
        lost = rloo.run(rloo.Config(**{**given, "out": tmp_path / "lost"}))
        commands = len(first.commands), len(second.commands)
    for name in ("samples.jsonl", "model.safetensors"):
        assert (calm / name).read_bytes() == (lost / name).read_bytes()
    assert loads == 6 and commands == (4, 4), "the second has the weights of the second step and of the third"


def test_a_server_whose_probabilities_are_off_stops_the_run(
    vllm_api: Any, options: OnlineOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = vllm_api.complete

    def off(body: Any) -> Any:
        choice = complete(body)
        if body.get("stop_token_ids"):
            choice["logprobs"]["token_logprobs"] = [logp - 0.03 for logp in choice["logprobs"]["token_logprobs"]]
        return choice

    monkeypatch.setattr(vllm_api, "complete", off)
    given = {**vars(options), "max_steps": 1, "sampler": "vllm", "sampler_url": (vllm_api.url,)}
    with pytest.raises(InputError, match=r"differ from the trainer's by 0\.03 nats.*--sampler-correction truncate"):
        rloo.run(rloo.Config(**{**given, "out": tmp_path / "run"}))
    corrected = rloo.Config(**{**given, "out": tmp_path / "corrected", "sampler_correction": "truncate"})
    assert (rloo.run(corrected) / "finished.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [LoraOptions(), LoraOptions(rank=4)], ids=["weights", "adapters"])
def test_a_run_learns_from_answers_of_vllm_in_its_process(
    adapters: LoraOptions,
    words: Tokenizer,
    make_decoder: Callable[..., Decoder],
    files: Any,
    tmp_path: Path,
    rows_of: Any,
) -> None:
    """In each step vLLM has the weights of the step: its log-probabilities are the trainer's."""
    pytest.importorskip("vllm")
    save_model(tmp_path / "model", make_decoder(1, vocab_size=words.vocab_size, hidden_size=128, num_heads=2), words)
    config = rloo.Config(
        model=tmp_path / "model",
        reward=("length:1-4",),
        data=files.prompts,
        out=tmp_path / "run",
        sampler="vllm",
        lora=adapters,
        max_steps=3,
        prompts_per_step=4,
        num_generations=2,
        num_mini_batches=1,
        max_new_tokens=8,
        temperature=0.7,
        optimizer=OptimizerConfig(learning_rate=1e-2),
        num_traced_prompts=1,
        save_steps=0,
        device=DeviceOptions("cpu", "fp32", 1),
    )
    rows = rows_of(rloo.run(config))
    assert [row["sampling/logp_difference"] < 1e-4 for row in rows] == [True] * 3
    assert rows[2]["objective/kl"] > rows[0]["objective/kl"], "the policy has moved, and its samples with it"
