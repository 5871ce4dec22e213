"""Answers to prompts, many at once: one static key/value cache whose rows are refilled as answers end.

    waiting answers -> free rows (each prompt read once, its cache row copied to its samples)
    running rows    -> one step: decoder, logits, draw, record
    ended rows      -> completions; their places go to waiting answers, or the rows close up when none wait

It speaks token ids, so training, evaluation and chat share it. An answer's randomness is fixed before it starts, by its
own seed and number: who its neighbours are, and how many rows there are, has no part in it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.generation.detokenizer import Decode, GrowingText
from amenable.generation.sampling import Sampling, adjust, sample
from amenable.generation.top_logprobs import PromptLogprobs, TopLogprobs, prompt_logprobs, top_logprobs
from amenable.models.cache import Cache
from amenable.models.decoder import Decoder
from amenable.models.inference import cast_for_inference
from amenable.models.layout import Layout
from amenable.seeds import mix, uniforms

OnToken = Callable[[int, int, int], None]
Progress = Callable[[int, int], None]
StoppedBy = Literal["eos", "stop", "length"]
EosIds = int | Sequence[int] | None
"""the id that ends an answer, or several of them"""

PREFILL_TOKENS = 8192  # prompts are read in portions, so that their activations stay small


@dataclass(frozen=True)
class Completion:
    """One answer. `ids` and `logps` are of the same length; the EOS is among them when there was one."""

    ids: list[int]
    logps: list[float]
    stopped_by: StoppedBy
    text: str | None
    """decoded, without EOS and without the stop string; None where no `decode` was given"""
    likeliest: list[TopLogprobs] | None = None
    """at each token, the most probable (id, log-probability) of the distribution drawn from, if the job wants them"""
    prompt: PromptLogprobs | None = None
    """of the prompt's tokens, if the job wants them"""

    @property
    def ended(self) -> bool:
        """Whether the model ended its answer by EOS. An answer cut short is not given one."""
        return self.stopped_by == "eos"


@dataclass(frozen=True)
class Job:
    """One answer to make: the prompt, which sample of it, and at most how many tokens.

    sampling and stop are those of all jobs, unless the job has its own. likeliest: how many of the most probable tokens
    are wanted at each place. prompt_logprobs: they are wanted of the prompt too, with its own log-probabilities.
    """

    prompt: int
    sample: int
    ids: Sequence[int]
    limit: int
    seed: int
    sampling: Sampling | None = None
    stop: tuple[str, ...] | None = None
    likeliest: int = 0
    prompt_logprobs: bool = False


def generate(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos_id: EosIds,
    seeds: Sequence[int] | int = 0,
    samples: int = 1,
    stop: Sequence[str] = (),
    decode: Decode | None = None,
    rows: int = 64,
    on_token: OnToken | None = None,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """`samples` answers to each prompt, in the order of the prompts.

    seeds: one for each prompt, or one number from which theirs are made; sample j of a prompt with seed s draws its
    numbers from (s, j). An answer ends at an `eos_id` (kept), at a `stop` string (matched on decoded text; the tokens
    up to the one that completes it are kept, the text is trimmed), or after max_new_tokens or where the decoder's
    context is full. rows: answers computed at once. on_token(prompt, sample, id) hears of every token as it is drawn,
    progress(answers that have ended, all answers) of the start and of every answer that ends. Raises InputError for a
    prompt that is empty or leaves no room in the context, and for a model that gives nan.
    """
    jobs = make_jobs(prompts, sampling, seeds, samples, decoder.config.context_length)
    check_stops(stop, decode)
    completions: dict[tuple[int, int], Completion] = {}
    if jobs:
        with evaluating(decoder), torch.inference_mode():
            slots = Slots(decoder, jobs, sampling, eos_id, stop, decode, rows, on_token)
            if progress is not None:
                progress(0, len(jobs))
            while len(completions) < len(jobs):
                ended = slots.advance()
                completions.update(((job.prompt, job.sample), completion) for job, completion in ended)
                if ended and progress is not None:
                    progress(len(completions), len(jobs))
    return [[completions[prompt, k] for k in range(samples)] for prompt in range(len(prompts))]


def make_jobs(
    prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | int, samples: int, context: int
) -> list[Job]:
    """The answers to make, longest prompts first: prompts of one length are read and continued together."""
    if samples < 1:
        raise InputError(f"samples is {samples}", how="use 1 or more")
    if isinstance(seeds, int):
        seeds = [mix(seeds, i) for i in range(len(prompts))]
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
    jobs = []
    for i, ids in enumerate(prompts):
        limit = room(ids, sampling.max_new_tokens, context, f"prompt {i}")
        jobs += [Job(i, k, ids, limit, mix(seeds[i], k)) for k in range(samples)]
    return sorted(jobs, key=lambda job: -len(job.ids))


def room(prompt: Sequence[int], max_new_tokens: int, context: int, name: str) -> int:
    """How many tokens an answer to this prompt may have."""
    if not prompt:
        raise InputError(f"{name} is empty", how="a prompt is at least one token, such as BOS")
    if len(prompt) >= context:
        how = f"shorten it to {context - 1} tokens or fewer"
        raise InputError(f"{name} has {len(prompt)} tokens and leaves no room in a context of {context}", how=how)
    return min(max_new_tokens, context - len(prompt))


def check_stops(stop: Sequence[str], decode: Decode | None) -> None:
    if isinstance(stop, str) or not all(stop):
        raise ValueError("stop is a list of strings that are not empty")
    if stop and decode is None:
        raise ValueError("stop strings are matched on text: hand over decode as well")


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; outside, each submodule's mode is what it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def as_ids(eos_id: EosIds) -> tuple[int, ...]:
    """The ids that end an answer."""
    if eos_id is None:
        return ()
    return (eos_id,) if isinstance(eos_id, int) else tuple(eos_id)


class Slots:
    """The rows of the cache and the answers that run in them.

    Rows 0 .. width - 1 are stepped together. Among them may be rows whose answer has ended: a few are cheaper than
    moving the others, and new answers are put right into their place. With `length` there are `rows` rows of so many
    tokens from the start, for jobs that are added later and taken back at any time.
    """

    def __init__(
        self,
        decoder: Decoder,
        jobs: Sequence[Job],
        sampling: Sampling,
        eos_id: EosIds,
        stop: Sequence[str] = (),
        decode: Decode | None = None,
        rows: int = 64,
        on_token: OnToken | None = None,
        follow: bool = False,
        length: int | None = None,
    ):
        self.decoder, self.sampling, self.decode, self.on_token = asked(decoder), sampling, decode, on_token
        self.eos_ids, self.stop = as_ids(eos_id), tuple(stop)
        self.follow = follow or bool(stop)  # whether the text is wanted after every token
        self.waiting = list(reversed(jobs))
        self.size = rows if length else max(1, min(rows, len(jobs)))
        self.width = 0
        self.jobs: dict[int, Job] = {}
        self.texts: dict[int, GrowingText] = {}
        self.likeliest: dict[int, list[TopLogprobs]] = {}
        self.prompts: dict[int, PromptLogprobs] = {}
        self.device = decoder.unembedding.device
        self.ends = torch.tensor(self.eos_ids, dtype=torch.long, device=self.device)
        self.cache = new_cache(decoder, self.size, length or max(len(job.ids) + job.limit for job in jobs))
        longest = length or max(job.limit for job in jobs)
        self.tokens = torch.zeros(self.size, longest, dtype=torch.long, device=self.device)
        self.logps = torch.zeros(self.size, longest, device=self.device)
        self.uniforms = torch.zeros(self.size, longest, device=self.device)
        self.counts = torch.zeros(self.size, dtype=torch.long, device=self.device)
        self.limits = torch.zeros_like(self.counts)
        self.last = torch.zeros_like(self.counts)
        self.alive = torch.zeros(self.size, dtype=torch.bool, device=self.device)
        self.seen: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self.seen = torch.zeros(self.size, decoder.num_tokens, dtype=torch.bool, device=self.device)

    def add(self, jobs: Sequence[Job]) -> None:
        """More answers to make, after those that wait. Their `prompt` is a number that no job here has."""
        self.waiting[:0] = reversed(jobs)

    def cancel(self, prompt: int) -> None:
        """Forget the answers to a prompt, those that wait and those that run."""
        self.waiting = [job for job in self.waiting if job.prompt != prompt]
        slots = [slot for slot, job in self.jobs.items() if job.prompt == prompt]
        if slots:
            self.empty(self.on_device(slots))
        for slot in slots:
            for state in (self.jobs, self.texts, self.likeliest, self.prompts):
                state.pop(slot, None)

    def advance(self) -> list[tuple[Job, Completion]]:
        """Fill the free rows once an eighth is free, else step those that run; the answers that ended by it."""
        free = self.size - len(self.jobs)
        if self.waiting and (free >= max(1, self.size // 8) or free >= len(self.waiting)):
            return self.admit(free)
        if not self.waiting:
            self.close_up()
        return self.step()

    def admit(self, free: int) -> list[tuple[Job, Completion]]:
        """Put waiting answers into free rows and draw their first tokens."""
        places = [slot for slot in range(self.size) if slot not in self.jobs][: len(self.waiting)]
        placed = [(slot, self.waiting.pop()) for slot in places]
        self.jobs.update(placed)
        if self.follow and self.decode:
            self.texts.update((slot, GrowingText(self.decode)) for slot in places)
        self.width = max(self.jobs) + 1
        self.prepare(placed)
        return [ended for portion in portions(placed) for ended in self.prefill(portion)]

    def prepare(self, placed: list[tuple[int, Job]]) -> None:
        """The state of new answers."""
        index = self.on_device([slot for slot, _ in placed])
        self.counts[index] = 0
        self.limits[index] = self.on_device([job.limit for _, job in placed])
        self.alive[index] = True
        if any(self.settings(job).temperature > 0 for _, job in placed):
            longest = self.uniforms.shape[1]
            self.uniforms[index] = torch.stack([uniforms(job.seed, longest) for _, job in placed]).to(self.device)
        if self.seen is not None:
            self.seen[index] = False
            for slot, job in placed:
                self.seen[slot, self.on_device(job.ids)] = True

    def prefill(self, placed: list[tuple[int, Job]]) -> list[tuple[Job, Completion]]:
        """Read each prompt once, copy its keys and values to its other samples, draw the first token of all."""
        groups = [list(group) for _, group in groupby(placed, key=lambda place: place[1].prompt)]
        prompts = [group[0][1].ids for group in groups]
        ids = self.on_device([token for prompt in prompts for token in prompt])
        layout = Layout.of([len(prompt) for prompt in prompts], self.device)
        leaders = self.on_device([group[0][0] for group in groups])
        if any(job.prompt_logprobs for _, job in placed):
            everywhere = self.decoder(ids, layout, self.cache, leaders)
            self.note_prompts(groups, everywhere, layout)
            hidden = everywhere[layout.ends]
        else:
            hidden = self.decoder(ids, layout, self.cache, leaders, at=layout.ends)
        copies = [(group[0][0], slot) for group in groups for slot, _ in group[1:]]
        if copies:
            source, target = self.on_device(copies).T
            self.cache.copy(source, target)
        logits = self.decoder.logits(hidden)
        logits = logits.repeat_interleave(self.on_device([len(group) for group in groups]), 0)
        return self.record(self.on_device([slot for slot, _ in placed]), logits)

    def note_prompts(self, groups: list[list[tuple[int, Job]]], hidden: Tensor, layout: Layout) -> None:
        """Write down the log-probabilities of the prompts that are wanted. hidden [N, D], a group for each row."""
        for group, states in zip(groups, hidden.split(layout.lengths)):
            job = group[0][1]
            if job.prompt_logprobs:
                made = prompt_logprobs(self.decoder, states, job.ids, job.likeliest)
                self.prompts.update((slot, made) for slot, _ in group)

    def step(self) -> list[tuple[Job, Completion]]:
        """One more token for every row."""
        hidden = self.decoder.step(self.last[: self.width], self.cache)
        return self.record(torch.arange(self.width, device=self.device), self.decoder.logits(hidden))

    def record(self, slots: Tensor, logits: Tensor) -> list[tuple[Job, Completion]]:
        """Draw a token for each of these rows, write it down, and let go of the answers that end by it."""
        counts = self.counts[slots].clamp_(max=self.tokens.shape[1] - 1)
        seen = None if self.seen is None else self.seen[slots]
        tokens, logps = self.draw(slots, logits, self.uniforms[slots, counts], seen)
        self.tokens[slots, counts] = tokens
        self.logps[slots, counts] = logps
        self.last[slots] = tokens
        counts += 1
        self.counts[slots] = counts
        if self.seen is not None:
            self.seen[slots, tokens] = True
        over = (tokens[:, None] == self.ends).any(1) | (counts >= self.limits[slots]) | logps.isnan()
        over &= self.alive[slots]
        stopped = self.listen(slots, tokens) if self.follow or self.on_token else set()
        if stopped or over.any():
            return self.release(sorted(stopped.union(slots[over].tolist())), stopped)
        return []

    def settings(self, job: Job) -> Sampling:
        return job.sampling or self.sampling

    def draw(self, slots: Tensor, logits: Tensor, uniforms: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """A token for each row, and its log-probability: rows of the same settings together. [R, V] -> [R], [R]."""
        jobs = list(self.jobs.values())
        if all(job.sampling is None and not job.likeliest for job in jobs):
            return sample(logits, uniforms, self.sampling, seen)
        tokens, logps = torch.zeros_like(slots), torch.zeros_like(uniforms)
        groups: dict[Sampling, list[int]] = {}
        for place, slot in enumerate(slots.tolist()):
            if slot in self.jobs:
                groups.setdefault(self.settings(self.jobs[slot]), []).append(place)
        for sampling, places in groups.items():
            rows = self.on_device(places)
            own = None if seen is None else seen[rows]
            tokens[rows], logps[rows] = sample(logits[rows], uniforms[rows], sampling, own)
            self.note_likeliest(slots[rows].tolist(), logits[rows], sampling, own)
        return tokens, logps

    def note_likeliest(self, slots: list[int], logits: Tensor, sampling: Sampling, seen: Tensor | None) -> None:
        """Write down the most probable tokens of the rows that want them."""
        for place, slot in enumerate(slots):
            count = self.jobs[slot].likeliest
            if count:
                own = None if seen is None else seen[place]
                distribution = adjust(logits[place], sampling, own).log_softmax(-1)
                self.likeliest.setdefault(slot, []).extend(top_logprobs(distribution[None], count))

    def listen(self, slots: Tensor, tokens: Tensor) -> set[int]:
        """Tell of each new token; the rows whose text now holds a stop string."""
        stopped = set()
        for slot, token in zip(slots.tolist(), tokens.tolist()):
            if slot not in self.jobs:
                continue
            if self.on_token:
                self.on_token(self.jobs[slot].prompt, self.jobs[slot].sample, token)
            stop = self.jobs[slot].stop
            stop = self.stop if stop is None else stop
            if slot in self.texts and token not in self.eos_ids and self.texts[slot].push(token, stop):
                stopped.add(slot)
        return stopped

    def release(self, slots: list[int], stopped: set[int]) -> list[tuple[Job, Completion]]:
        """Free these rows and return their answers."""
        index = self.on_device(slots)
        made = zip(slots, self.counts[index].tolist(), self.tokens[index].tolist(), self.logps[index].tolist())
        self.empty(index)
        return [self.complete(slot, ids[:count], logps[:count], slot in stopped) for slot, count, ids, logps in made]

    def empty(self, index: Tensor) -> None:
        """These rows are free."""
        self.alive[index] = False
        self.counts[index] = 0
        self.cache.lengths[index] = 0

    def complete(self, slot: int, ids: list[int], logps: list[float], stopped: bool) -> tuple[Job, Completion]:
        """The answer in a row, which it leaves."""
        job, growing, likeliest = self.jobs.pop(slot), self.texts.pop(slot, None), self.likeliest.pop(slot, None)
        if math.isnan(logps[-1]):
            raise InputError("the model gives nan for logits", how="its training diverged: use an earlier checkpoint")
        by_eos = ids[-1] in self.eos_ids
        text = None
        if stopped and growing:
            text = growing.text
        elif self.decode:
            text = self.decode(ids[:-1] if by_eos else ids)
        stopped_by: StoppedBy = "stop" if stopped else "eos" if by_eos else "length"
        return job, Completion(ids, logps, stopped_by, text, likeliest, self.prompts.pop(slot, None))

    def close_up(self) -> None:
        """Move the last answers into the places of ended ones, once an eighth of the rows has ended."""
        kept = len(self.jobs)
        if self.width - kept < max(1, self.width // 8):
            return
        holes = [slot for slot in range(kept) if slot not in self.jobs]
        moved = [slot for slot in range(kept, self.width) if slot in self.jobs]
        self.width = kept
        if not moved:
            return
        source, target = self.on_device(moved), self.on_device(holes)
        self.cache.copy(source, target)
        for state in (
            self.tokens,
            self.logps,
            self.uniforms,
            self.counts,
            self.limits,
            self.last,
            self.alive,
            self.seen,
        ):
            if state is not None:
                state[target] = state[source]
        for old, new in zip(moved, holes):
            self.jobs[new] = self.jobs.pop(old)
            if old in self.texts:
                self.texts[new] = self.texts.pop(old)
            if old in self.likeliest:
                self.likeliest[new] = self.likeliest.pop(old)
            if old in self.prompts:
                self.prompts[new] = self.prompts.pop(old)

    def on_device(self, values: Sequence) -> Tensor:
        return torch.tensor(values, device=self.device)


def portions(placed: list[tuple[int, Job]]) -> Iterator[list[tuple[int, Job]]]:
    """Rows to be filled in portions whose prompts have together at most PREFILL_TOKENS tokens, or are one prompt."""
    portion: list[tuple[int, Job]] = []
    tokens = 0
    for _, group in groupby(placed, key=lambda place: place[1].prompt):
        members = list(group)
        length = len(members[0][1].ids)
        if portion and tokens + length > PREFILL_TOKENS:
            yield portion
            portion, tokens = [], 0
        portion += members
        tokens += length
    yield portion


def asked(decoder: Decoder) -> Decoder:
    """The decoder with the weights that autocast would make of its own at every step."""
    kind = decoder.unembedding.device.type
    return cast_for_inference(decoder, torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else decoder


def new_cache(decoder: Decoder, rows: int, length: int) -> Cache:
    """An empty cache, in the precision of the products that keys and values come from."""
    weight = decoder.unembedding
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return Cache(decoder.config, rows, length, weight.device, dtype)


class Stream:
    """One answer, piece by piece: iterate for its text; `completion` is there once it ended.

        for piece in Stream(decoder, prompt, sampling, eos_id=2, decode=tokenizer.decode):
            print(piece, end="")

    The pieces joined are the completion's text. They never hold half a character, nor a part of a stop string. The
    answer is the one that `generate` gives with `seeds=[seed]`.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        eos_id: EosIds,
        decode: Decode,
        seed: int = 0,
        stop: Sequence[str] = (),
    ):
        check_stops(stop, decode)
        self.decoder, self.sampling, self.eos_id, self.decode = decoder, sampling, eos_id, decode
        self.jobs = make_jobs([prompt], sampling, [seed], 1, decoder.config.context_length)
        self.stop = tuple(stop)
        self.completion: Completion | None = None

    def __iter__(self) -> Generator[str, None, None]:
        shown = 0
        with evaluating(self.decoder):
            slots = self.open()
            while self.completion is None:
                # not around the loop: the caller's own code, between the pieces, is not to run in inference mode
                with torch.inference_mode():
                    ended = slots.advance()
                if ended:
                    self.completion = ended[0][1]
                    piece = (self.completion.text or "")[shown:]
                else:
                    piece = slots.texts[0].text[shown : slots.texts[0].sure(self.stop)]
                shown += len(piece)
                if piece:
                    yield piece

    def open(self) -> Slots:
        self.completion = None
        with torch.inference_mode():
            return Slots(
                self.decoder, self.jobs, self.sampling, self.eos_id, self.stop, self.decode, rows=1, follow=True
            )
