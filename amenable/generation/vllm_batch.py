"""Continuous batch by vLLM's engine in this process, in the place of ours behind a server's scheduler.

    add(requests) -> step() -> step() -> ... -> finished completions;  cancel(prompt) at any time

vLLM decides what is decoded together. Text, stop strings and the form of completions are ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from amenable.generation.continuous_batch import Finished, Running
from amenable.generation.detokenizer import Decode, IncrementalDetokenizer
from amenable.generation.requests import Completion, EosIds, FinishReason, SampleRequest, eos_tuple
from amenable.generation.sampler import completion_of, vllm_parameters
from amenable.generation.sampling import Sampling
from amenable.generation.top_logprobs import PromptLogprobs, TopLogprobs
from amenable.generation.vllm_engine import VllmEngine


class VllmBatch:
    """Requests that run or wait in vLLM's engine, by their numbers there. decode: ids to text."""

    def __init__(self, engine: VllmEngine, decode: Decode, eos_id: EosIds):
        self.engine, self.decode, self.eos_ids = engine, decode, eos_tuple(eos_id)
        self.numbers = itertools.count()
        self.running: dict[int, Running] = {}
        self.counts: dict[int, int] = {}
        """tokens of each request that its text has"""
        engine.wake()

    def emptied(self) -> VllmBatch:
        """Return the batch itself, without requests."""
        self.abort(list(self.running))
        return self

    def add(self, requests: Sequence[SampleRequest]) -> None:
        """Hand requests over to vLLM. Their `prompt` must be a number that no request here has."""
        from vllm import SamplingParams

        for request in requests:
            number, settings = (
                next(self.numbers),
                vllm_parameters(request, request.sampling or Sampling(), self.eos_ids, self.engine.never),
            )
            settings["logprobs"] = request.top_logprobs
            if request.prompt_logprobs:
                settings["prompt_logprobs"] = request.top_logprobs
            prompt: Any = {"prompt_token_ids": list(request.ids)}
            self.core.add_request(str(number), prompt, SamplingParams(**settings, detokenize=False))
            self.running[number], self.counts[number] = Running(request, IncrementalDetokenizer(self.decode)), 0

    def cancel(self, prompt: int) -> None:
        """Drop all requests of a prompt."""
        self.abort([number for number, row in self.running.items() if row.request.prompt == prompt])

    def step(self) -> list[Finished]:
        """Have vLLM decode a token of every request that it runs; return what finished."""
        finished = []
        with torch.autocast(self.engine.device.type, enabled=False):  # vLLM has its own precision
            outputs = self.core.step()
        for output in outputs:
            number = int(output.request_id)
            if number not in self.running:
                continue  # cancelled
            row, answer = self.running[number], output.outputs[0]
            stopped = self.push(number, row, answer.token_ids)
            if stopped or output.finished:
                finished.append((row.request, self.complete(row, output, self.counts[number], stopped)))
                self.abort([number] if stopped and not output.finished else [])
                self.running.pop(number, None)
                self.counts.pop(number, None)
        return finished

    @property
    def core(self) -> Any:
        """vLLM's engine of single steps."""
        return self.engine.engine.llm_engine

    def push(self, number: int, row: Running, ids: Sequence[int]) -> bool:
        """Add the tokens that are new to a request's text; return True once a stop string has ended it."""
        assert row.detokenizer is not None
        for token in ids[self.counts[number] :]:
            self.counts[number] += 1
            if token not in self.eos_ids and row.detokenizer.push(token, row.request.stop or ()):
                return True
        return False

    def complete(self, row: Running, output: Any, count: int, stopped: bool) -> Completion:
        """Return the completion of a request, its first `count` tokens. InputError for one whose numbers are none."""
        assert row.detokenizer is not None
        request, answer = row.request, output.outputs[0]
        ids, steps = list(answer.token_ids)[:count], list(answer.logprobs)[:count]
        logps = [step[token].logprob for step, token in zip(steps, ids, strict=True)]
        done = completion_of(ids, logps, self.eos_ids, "vLLM")
        reason: FinishReason = "stop" if stopped else done.finish_reason
        text = row.detokenizer.text if stopped else self.decode(ids[:-1] if done.ended else ids)
        top = [best_of(step, request.top_logprobs) for step in steps] if request.top_logprobs else None
        prompt = None
        if request.prompt_logprobs:
            given = [(step[token].logprob, step) for step, token in zip(output.prompt_logprobs[1:], request.ids[1:])]
            prompt = PromptLogprobs([logp for logp, _ in given], [best_of(s, request.top_logprobs) for _, s in given])
        return Completion(ids, logps, reason, text, top, prompt)

    def abort(self, numbers: Sequence[int]) -> None:
        """Have vLLM drop requests, and forget them."""
        if numbers:
            self.core.abort_request([str(number) for number in numbers])
        for number in numbers:
            del self.running[number], self.counts[number]


def best_of(step: Mapping[int, Any], count: int) -> TopLogprobs:
    """Return the `count` most probable tokens of vLLM's log-probabilities at a position, best first."""
    best = sorted(((token, each.logprob) for token, each in step.items()), key=lambda pair: -pair[1])
    return [pair for pair in best[:count] if pair[1] > float("-inf")]
