"""Continuous batching: a static key/value cache whose slots are refilled as completions end.

waiting requests    -> free slots (each prompt prefilled once, its cache row copied to its samples)
running slots       -> one decoding step: decoder, logits, sample, record
finished slots      -> completions; their slots go to waiting requests, or the batch is compacted if none wait
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from amenable.errors import InputError
from amenable.generation.detokenizer import Decode, IncrementalDetokenizer
from amenable.generation.requests import Completion, EosIds, FinishReason, SampleRequest, eos_tuple
from amenable.generation.sampling import Sampling, adjust, sample
from amenable.generation.top_logprobs import PromptLogprobs, TopLogprobs, prompt_logprobs, top_logprobs
from amenable.models.inference import for_generation
from amenable.models.language_model import LanguageModel
from amenable.models.layout import Layout
from amenable.seeds import uniforms

OnToken = Callable[[int, int, int], None]
Placed = tuple[int, SampleRequest]
"""a slot and its request"""
Finished = tuple[SampleRequest, Completion]

PREFILL_TOKENS = 8192  # prompts are prefilled in chunks of at most this many tokens, to bound activations


@dataclass
class Running:
    """State of a request in a slot, besides its tensors."""

    request: SampleRequest
    detokenizer: IncrementalDetokenizer | None
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    prompt_logprobs: PromptLogprobs | None = None


class ContinuousBatch:
    """Slots of a cache and the requests that run in them.

    Slots 0 .. width - 1 are decoded together. Some of them may be finished: a few are cheaper than moving the others,
    and new requests fill them. With `length` there are `max_batch_size` slots of `length` tokens from the start, for
    requests that are added and cancelled at any time. follow: detokenize after every token.
    """

    def __init__(
        self,
        decoder: LanguageModel,
        requests: Sequence[SampleRequest],
        sampling: Sampling,
        eos_id: EosIds,
        stop: Sequence[str] = (),
        decode: Decode | None = None,
        max_batch_size: int = 64,
        on_token: OnToken | None = None,
        follow: bool = False,
        length: int | None = None,
    ):
        self.decoder, self.output_layer = for_generation(decoder)
        self.sampling, self.decode, self.on_token = sampling, decode, on_token
        self.eos_ids, self.stop = eos_tuple(eos_id), tuple(stop)
        self.follow = follow or bool(stop)
        self.waiting = list(reversed(requests))
        self.running: dict[int, Running] = {}
        self.size = max_batch_size if length else max(1, min(max_batch_size, len(requests)))
        self.width = 0
        self.device = decoder.device
        self.eos_tensor = torch.tensor(self.eos_ids, dtype=torch.long, device=self.device)
        row_length = length or max(len(request.ids) + request.limit for request in requests)
        self.cache = decoder.new_cache(self.size, row_length)
        longest = length or max(request.limit for request in requests)
        self.tokens = torch.zeros(self.size, longest, dtype=torch.long, device=self.device)
        self.logps = torch.zeros(self.size, longest, device=self.device)
        self.uniforms = torch.zeros(self.size, longest, device=self.device)
        self.counts = torch.zeros(self.size, dtype=torch.long, device=self.device)
        self.limits = torch.zeros_like(self.counts)
        self.last = torch.zeros_like(self.counts)
        self.alive = torch.zeros(self.size, dtype=torch.bool, device=self.device)
        self.penalized: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self.penalized = torch.zeros(self.size, decoder.num_tokens, dtype=torch.bool, device=self.device)

    def add(self, requests: Sequence[SampleRequest]) -> None:
        """Append requests to those that wait. Their `prompt` must be a number that no request here has."""
        self.waiting[:0] = reversed(requests)

    def cancel(self, prompt: int) -> None:
        """Drop all waiting and running requests of a prompt."""
        self.waiting = [request for request in self.waiting if request.prompt != prompt]
        slots = [slot for slot, running in self.running.items() if running.request.prompt == prompt]
        if slots:
            self.free(self.on_device(slots))
        for slot in slots:
            del self.running[slot]

    def step(self) -> list[Finished]:
        """Prefill waiting requests once an eighth of the slots is free, else decode a token; return what finished."""
        free = self.size - len(self.running)
        if self.waiting and (free >= max(1, self.size // 8) or free >= len(self.waiting)):
            return self.admit()
        if not self.waiting:
            self.compact()
        return self.decode_token()

    def admit(self) -> list[Finished]:
        """Put waiting requests into free slots and sample their first tokens."""
        free = [slot for slot in range(self.size) if slot not in self.running][: len(self.waiting)]
        placed = [(slot, self.waiting.pop()) for slot in free]
        for slot, request in placed:
            detokenizer = IncrementalDetokenizer(self.decode) if self.follow and self.decode else None
            self.running[slot] = Running(request, detokenizer)
        self.width = max(self.running) + 1
        self.prepare(placed)
        return [finished for chunk in prefill_chunks(placed) for finished in self.prefill(chunk)]

    def prepare(self, placed: list[Placed]) -> None:
        """Reset the tensors of newly filled slots."""
        index = self.on_device([slot for slot, _ in placed])
        self.counts[index] = 0
        self.limits[index] = self.on_device([request.limit for _, request in placed])
        self.alive[index] = True
        if any(self.sampling_of(request).temperature > 0 for _, request in placed):
            longest = self.uniforms.shape[1]
            drawn = torch.stack([uniforms(request.seed, longest) for _, request in placed])
            self.uniforms[index] = drawn.to(self.device)
        if self.penalized is not None:
            self.penalized[index] = False
            for slot, request in placed:
                self.penalized[slot, self.on_device(request.ids)] = True

    def prefill(self, placed: list[Placed]) -> list[Finished]:
        """Prefill each prompt once, copy its keys and values to its other samples, sample all first tokens."""
        groups = [list(group) for _, group in groupby(placed, key=prompt_number)]
        prompts = [group[0][1].ids for group in groups]
        ids = self.on_device([token for prompt in prompts for token in prompt])
        layout = Layout.of([len(prompt) for prompt in prompts], self.device)
        leaders = self.on_device([group[0][0] for group in groups])
        if any(request.prompt_logprobs for _, request in placed):
            states = self.decoder(ids, layout, self.cache, leaders)
            self.record_prompt_logprobs(groups, states, layout)
            hidden = states[layout.last_tokens]
        else:
            hidden = self.decoder(ids, layout, self.cache, leaders, at=layout.last_tokens)
        copies = [(group[0][0], slot) for group in groups for slot, _ in group[1:]]
        if copies:
            source, target = self.on_device(copies).T
            self.cache.copy(source, target)
        logits = self.output_layer(hidden)
        logits = logits.repeat_interleave(self.on_device([len(group) for group in groups]), 0)
        return self.record(self.on_device([slot for slot, _ in placed]), logits)

    def record_prompt_logprobs(self, groups: list[list[Placed]], hidden: Tensor, layout: Layout) -> None:
        """Store the requested log-probabilities of prompts. hidden [N, D], a group of samples for each row."""
        for group, states in zip(groups, hidden.split(layout.lengths)):
            request = group[0][1]
            if request.prompt_logprobs:
                logprobs = prompt_logprobs(self.decoder, states, request.ids, request.top_logprobs)
                for slot, _ in group:
                    self.running[slot].prompt_logprobs = logprobs

    def decode_token(self) -> list[Finished]:
        """Decode one more token in every slot."""
        hidden = self.decoder.step(self.last[: self.width], self.cache)
        return self.record(torch.arange(self.width, device=self.device), self.output_layer(hidden))

    def record(self, slots: Tensor, logits: Tensor) -> list[Finished]:
        """Sample and store a token for each of these slots; return the completions that it finishes."""
        counts = self.counts[slots].clamp_(max=self.tokens.shape[1] - 1)
        penalized = None if self.penalized is None else self.penalized[slots]
        tokens, logps = self.draw(slots, logits, self.uniforms[slots, counts], penalized)
        self.tokens[slots, counts] = tokens
        self.logps[slots, counts] = logps
        self.last[slots] = tokens
        counts += 1
        self.counts[slots] = counts
        if self.penalized is not None:
            self.penalized[slots, tokens] = True
        over = (tokens[:, None] == self.eos_tensor).any(1) | (counts >= self.limits[slots]) | logps.isnan()
        over &= self.alive[slots]
        stopped = self.emit_tokens(slots, tokens) if self.follow or self.on_token else set()
        if stopped or over.any():
            return self.finish(sorted(stopped.union(slots[over].tolist())), stopped)
        return []

    def sampling_of(self, request: SampleRequest) -> Sampling:
        return request.sampling or self.sampling

    def draw(self, slots: Tensor, logits: Tensor, uniforms: Tensor, penalized: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sample tokens [R] and their log-probabilities [R] from logits [R, V], grouped by equal sampling settings."""
        requests = [running.request for running in self.running.values()]
        if all(request.sampling is None and not request.top_logprobs for request in requests):
            return sample(logits, uniforms, self.sampling, penalized)
        tokens, logps = torch.zeros_like(slots), torch.zeros_like(uniforms)
        groups: dict[Sampling, list[int]] = {}
        for i, slot in enumerate(slots.tolist()):
            if slot in self.running:
                groups.setdefault(self.sampling_of(self.running[slot].request), []).append(i)
        for sampling, members in groups.items():
            rows = self.on_device(members)
            own = None if penalized is None else penalized[rows]
            tokens[rows], logps[rows] = sample(logits[rows], uniforms[rows], sampling, own)
            self.record_top_logprobs(slots[rows].tolist(), logits[rows], sampling, own)
        return tokens, logps

    def record_top_logprobs(
        self, slots: list[int], logits: Tensor, sampling: Sampling, penalized: Tensor | None
    ) -> None:
        """Store the most probable tokens of the slots whose requests want them."""
        for i, slot in enumerate(slots):
            count = self.running[slot].request.top_logprobs
            if count:
                own = None if penalized is None else penalized[i]
                distribution = adjust(logits[i], sampling, own).log_softmax(-1)
                self.running[slot].top_logprobs.extend(top_logprobs(distribution[None], count))

    def emit_tokens(self, slots: Tensor, tokens: Tensor) -> set[int]:
        """Pass each new token to `on_token` and its detokenizer; return the slots whose text holds a stop string."""
        stopped = set()
        for slot, token in zip(slots.tolist(), tokens.tolist()):
            if slot not in self.running:
                continue
            request, detokenizer = self.running[slot].request, self.running[slot].detokenizer
            if self.on_token:
                self.on_token(request.prompt, request.sample, token)
            stop = self.stop if request.stop is None else request.stop
            if detokenizer and token not in self.eos_ids and detokenizer.push(token, stop):
                stopped.add(slot)
        return stopped

    def finish(self, slots: list[int], stopped: set[int]) -> list[Finished]:
        """Free these slots and return their completions."""
        index = self.on_device(slots)
        rows = zip(slots, self.counts[index].tolist(), self.tokens[index].tolist(), self.logps[index].tolist())
        self.free(index)
        return [self.complete(slot, ids[:count], logps[:count], slot in stopped) for slot, count, ids, logps in rows]

    def free(self, index: Tensor) -> None:
        self.alive[index] = False
        self.counts[index] = 0
        self.cache.lengths[index] = 0

    def complete(self, slot: int, ids: list[int], logps: list[float], stopped: bool) -> Finished:
        """Remove the request from its slot and return it with its completion."""
        running = self.running.pop(slot)
        if math.isnan(logps[-1]):
            raise InputError("the model gives nan for logits", how="its training diverged: use an earlier checkpoint")
        by_eos = ids[-1] in self.eos_ids
        text = None
        if stopped and running.detokenizer:
            text = running.detokenizer.text
        elif self.decode:
            text = self.decode(ids[:-1] if by_eos else ids)
        reason: FinishReason = "stop" if stopped else "eos" if by_eos else "length"
        top = running.top_logprobs if running.request.top_logprobs else None
        return running.request, Completion(ids, logps, reason, text, top, running.prompt_logprobs)

    def compact(self) -> None:
        """Move the last requests into finished slots, once an eighth of the slots has finished."""
        count = len(self.running)
        if self.width - count < max(1, self.width // 8):
            return
        holes = [slot for slot in range(count) if slot not in self.running]
        moved = [slot for slot in range(count, self.width) if slot in self.running]
        self.width = count
        if not moved:
            return
        source, target = self.on_device(moved), self.on_device(holes)
        self.cache.copy(source, target)
        states = (self.tokens, self.logps, self.uniforms, self.counts, self.limits, self.last, self.alive)
        for state in (*states, self.penalized):
            if state is not None:
                state[target] = state[source]
        for old, new in zip(moved, holes):
            self.running[new] = self.running.pop(old)

    def on_device(self, values: Sequence) -> Tensor:
        return torch.tensor(values, device=self.device)


def prompt_number(placed: Placed) -> int:
    return placed[1].prompt


def prefill_chunks(placed: list[Placed]) -> Iterator[list[Placed]]:
    """Divide requests into chunks whose prompts have together at most PREFILL_TOKENS tokens, or are a single prompt."""
    chunk: list[Placed] = []
    tokens = 0
    for _, group in groupby(placed, key=prompt_number):
        members = list(group)
        length = len(members[0][1].ids)
        if chunk and tokens + length > PREFILL_TOKENS:
            yield chunk
            chunk, tokens = [], 0
        chunk += members
        tokens += length
    yield chunk
