"""Answers of the policy as it trains: by our engine or by vLLM; with max_staleness 1 a step ahead, in a thread.

    max_staleness 0   step t learns from answers of the weights before step t
    max_staleness 1   while step t trains, the answers of step t + 1 are sampled from the weights before step t

Answers that were sampled ahead are in the checkpoint, and a run goes on with them. The first step has its own policy's.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from amenable import processes
from amenable.generation.engine import Progress, generate
from amenable.generation.requests import Completion
from amenable.generation.rollout import Rollout, gather_rollout, own_share
from amenable.generation.sampler import Sampler, generate_by
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_server import PROBE, VllmServers
from amenable.model_folder import is_adapter
from amenable.models.decoder import Decoder
from amenable.models.sharding import whole
from amenable.ranks import in_group
from amenable.rl.experience import Purpose
from amenable.rl.models import Models
from amenable.rl.options import OnlineOptions
from amenable.seeds import derive_seed
from amenable.train import forward, plan

MAX_BATCH_SIZE = 128
"""completions decoded at once"""

Groups = list[list[Completion]]
"""completions of each prompt"""
Prompts = Sequence[list[int]]


class Cancelled(Exception):
    """Sampling ended before it was done, as the run has ended."""


class PolicySampler:
    """Source of rollouts of the policy, by the weights that it has when they are sampled.

    version: number of steps whose updates the policy has. sampler: None samples with our engine.
    """

    def __init__(self, models: Models, options: OnlineOptions, sampler: Sampler | None = None):
        self.models, self.options, self.sampler = models, options, sampler
        self.version = 0
        self.loaded: int | None = None
        self.ready: dict[int, tuple[Rollout, int]] = {}
        """by step: a rollout that waits for it, and the version that it was sampled from"""
        self.pending: AsyncRollout | None = None

    def rollout(
        self, prompts: Prompts, purpose: Purpose, samples: int, progress: Progress | None = None
    ) -> tuple[Rollout, int]:
        """Return `samples` answers to each prompt, and their staleness: steps of updates since they were sampled, 0
        but for the answers of a step that were sampled ahead. purpose: decides the random numbers."""
        if len(purpose) == 2 and purpose[0] == "rollout" and purpose[1] in self.ready:
            rollout, version = self.ready[int(str(purpose[1]))]
            return rollout, self.version - version
        if self.sampler is not None:
            self.join()
        own = own_share(prompts, self.sampling)
        draw = self.drawing(self.models.policy, prompts, own, purpose, samples)
        return gather_rollout(prompts, own, draw(progress), samples), 0

    def prepare(self, step: int, prompts_of: Callable[[int], Prompts]) -> None:
        """Begin a step: have its answers, and sample those of the next in a thread, if that is wanted."""
        self.version = step - 1
        if not self.options.max_staleness:
            return
        self.join()
        self.ready = {number: each for number, each in self.ready.items() if number >= step}
        if step not in self.ready:
            rollout, _ = self.rollout(prompts_of(step), ("rollout", step), self.options.num_generations)
            self.ready[step] = rollout, self.version
        if step < self.options.max_steps and step + 1 not in self.ready:
            self.pending = self.start(step + 1, prompts_of(step + 1))

    def start(self, step: int, prompts: Prompts) -> AsyncRollout:
        """Start a thread that samples the answers of a step from a copy of the weights as they are."""
        own, policy = own_share(prompts, self.sampling), self.models.policy
        policy = policy if self.sampler is not None else self.snapshot()
        draw = self.drawing(policy, prompts, own, ("rollout", step), self.options.num_generations)
        pending = AsyncRollout(step, self.version, prompts, own)
        pending.start(draw)
        return pending

    def join(self) -> None:
        """Wait for the answers that are being sampled in a thread, if there are any."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            groups = pending.wait()
            rollout = gather_rollout(pending.prompts, pending.own, groups, self.options.num_generations)
            self.ready[pending.step] = rollout, pending.version

    @property
    def sampling(self) -> Sampling:
        """Sampling settings of the run."""
        return Sampling(temperature=self.options.temperature, max_new_tokens=self.options.max_new_tokens)

    def drawing(
        self, policy: Decoder, prompts: Prompts, own: Sequence[int], purpose: Purpose, samples: int
    ) -> Callable[[Progress | None], Groups]:
        """Return a function that samples completions of the prompts `own` by the weights of a policy. A sampler takes
        these now, unless it has them."""
        policy, ids, sampling = whole(policy), [prompts[i] for i in own], self.sampling
        seeds = [derive_seed(self.options.seed, *purpose, i) for i in own]
        settings: Any = {"eos_id": self.models.tokenizer.stop_ids, "seeds": seeds, "samples": samples}
        sampler, length = self.sampler, policy.config.context_length
        if sampler is not None:
            self.load(sampler, policy)
            settings |= {"context_length": length}
            return lambda progress: generate_by(sampler, ids, sampling, progress=progress, **settings)

        def sample_here(progress: Progress | None) -> Groups:
            with self.models.runtime.autocast():
                return generate(policy, ids, sampling, max_batch_size=MAX_BATCH_SIZE, progress=progress, **settings)

        return sample_here

    def load(self, sampler: Sampler, policy: Decoder) -> None:
        """Hand the weights of a policy over to a sampler that has not this version of them."""
        if self.loaded == self.version:
            return
        sampler.load(policy)
        if self.loaded is None and isinstance(sampler, VllmServers):
            self.require_weights(sampler)
        self.loaded = self.version

    def snapshot(self) -> Decoder:
        """Return a frozen copy of the policy, which shares what does not train."""
        policy = whole(self.models.policy)
        shared = {id(weight): weight for weight in policy.parameters() if not weight.requires_grad}
        twin = copy.deepcopy(policy, dict(shared)).requires_grad_(False).eval()
        return self.models.runtime.to_inference(twin)

    def require_weights(self, servers: VllmServers) -> None:
        """Require that servers have the policy's weights, by its log-probabilities of a text."""
        models, limit = self.models, self.options.max_tokens_per_pass
        ids = [*models.tokenizer.opening_ids, *models.tokenizer.encode(PROBE)]
        row = ids, [False] + [True] * (len(ids) - 1)
        (logps,) = forward.compute_logprobs(models.policy, [row], models.runtime, limit, 1.0)
        theirs = logps.tolist()
        processes.from_first(lambda: servers.require_weights(ids, theirs))

    def require_length(self, tokens: int) -> None:
        """Require that the sampler takes rows of so many tokens. InputError for a server that does not."""
        if isinstance(self.sampler, VllmServers):
            self.sampler.require_length(tokens)

    def close(self) -> None:
        """Give up what is being sampled, and remove what was written for it."""
        if self.pending is not None:
            self.pending.cancel()
        if self.sampler is not None:
            self.sampler.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the answers that were sampled ahead, once they are there."""
        self.join()
        return {str(step): {**vars(rollout), "version": version} for step, (rollout, version) in self.ready.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for step, facts in state.items():
            version = facts.pop("version")
            self.ready[int(step)] = Rollout(**facts), version


class AsyncRollout:
    """Answers of a step that are being sampled in a thread."""

    def __init__(self, step: int, version: int, prompts: Prompts, own: Sequence[int]):
        self.step, self.version, self.prompts, self.own = step, version, prompts, own
        self.groups: Groups = []
        self.error: BaseException | None = None
        self.cancelled = threading.Event()

    def start(self, draw: Callable[[Progress | None], Groups]) -> None:
        """Call `draw` in a thread."""

        def work() -> None:
            try:
                self.groups = draw(self.progress)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=work, name=f"answers of step {self.step}", daemon=True)
        self.thread.start()

    def progress(self, finished: int, total: int) -> None:
        """Raise Cancelled once the run has ended."""
        if self.cancelled.is_set():
            raise Cancelled

    def wait(self) -> Groups:
        """Return what the thread has drawn, or raise its error."""
        self.thread.join()
        if self.error is not None:
            raise self.error
        return self.groups

    def cancel(self) -> None:
        """End the thread at the next completion, and wait for that."""
        self.cancelled.set()
        self.thread.join()


def require_sampler(options: OnlineOptions) -> None:
    """Raise InputError, before anything is loaded, where the sampler of the options is not to be had."""
    options.require_engine()
    if options.sampler == "vllm":
        group = in_group() and not options.sampler_url
        plan.forbid(group, "vLLM in the process of a group", "use servers (--sampler-url), or one process")
        merged = options.lora.rank and is_adapter(options.model)
        plan.forbid(merged, "vLLM takes one adapter, and --model is one already", "merge it: amenable export")


def make_sampler(models: Models, options: OnlineOptions, out: Path) -> Sampler | None:
    """Return the sampler that the options name; None for our engine. InputError where it cannot be used."""
    if options.sampler == "amenable":
        return None
    dtype = torch.bfloat16 if models.runtime.bf16 else torch.float32
    return options.open_vllm(options.model, models.policy, models.tokenizer, dtype, out, options.lora.rank)
