"""Batched generation: completions of many prompts, or one streamed.

The engine takes and returns token ids, so training, evaluation and chat share it. A completion's random numbers depend
only on its own seed and sample number, never on the other prompts or the batch size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence

import torch
from torch import nn

from amenable.generation.continuous_batch import ContinuousBatch, OnToken
from amenable.generation.detokenizer import Decode
from amenable.generation.requests import Completion, EosIds, check_stops, make_requests
from amenable.generation.sampling import Sampling
from amenable.models.language_model import LanguageModel

Progress = Callable[[int, int], None]


def generate(
    decoder: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos_id: EosIds,
    seeds: Sequence[int] | int = 0,
    samples: int = 1,
    stop: Sequence[str] = (),
    decode: Decode | None = None,
    max_batch_size: int = 64,
    on_token: OnToken | None = None,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Return `samples` completions of each prompt, in the order of the prompts.

    seeds: one per prompt, or one number to derive them from; sample j of a prompt with seed s draws from (s, j). A
    completion ends at an `eos_id` (included in ids), at a `stop` string (matched on decoded text; ids up to the token
    that completes it, text without it), after max_new_tokens, or at the end of the context. Calls on_token(prompt,
    sample, id) for every token, and progress(finished, total) at the start and for every finished completion. Raises
    InputError for an empty prompt, one that leaves no room in the context, and a model that gives nan.
    """
    requests = make_requests(prompts, sampling, seeds, samples, decoder.config.context_length)
    check_stops(stop, decode)
    completions: dict[tuple[int, int], Completion] = {}
    if requests:
        with evaluating(decoder), torch.inference_mode():
            batch = ContinuousBatch(decoder, requests, sampling, eos_id, stop, decode, max_batch_size, on_token)
            if progress is not None:
                progress(0, len(requests))
            while len(completions) < len(requests):
                finished = batch.step()
                completions.update(((request.prompt, request.sample), done) for request, done in finished)
                if finished and progress is not None:
                    progress(len(completions), len(requests))
    return [[completions[prompt, k] for k in range(samples)] for prompt in range(len(prompts))]


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode inside; restore each submodule's mode afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


class Stream:
    """Streamed completion: iterate for pieces of its text; `completion` is set at the end.

        for piece in Stream(decoder, prompt, sampling, eos_id=2, decode=tokenizer.decode):
            print(piece, end="")

    The pieces joined are the completion's text; no piece ends inside a character or holds part of a stop string. The
    completion equals that of `generate` with `seeds=[seed]`.
    """

    def __init__(
        self,
        decoder: LanguageModel,
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
        self.requests = make_requests([prompt], sampling, [seed], 1, decoder.config.context_length)
        self.stop = tuple(stop)
        self.completion: Completion | None = None

    def __iter__(self) -> Generator[str, None, None]:
        self.completion = None
        shown = 0
        with evaluating(self.decoder):
            with torch.inference_mode():
                batch = ContinuousBatch(
                    self.decoder, self.requests, self.sampling, self.eos_id, self.stop, self.decode, 1, follow=True
                )
            while self.completion is None:
                # inference mode ends before each yield: the caller's code must not run in it
                with torch.inference_mode():
                    finished = batch.step()
                if finished:
                    self.completion = finished[0][1]
                    piece = (self.completion.text or "")[shown:]
                else:
                    detokenizer = batch.running[0].detokenizer
                    assert detokenizer is not None
                    piece = detokenizer.text[shown : detokenizer.stable_length(self.stop)]
                shown += len(piece)
                if piece:
                    yield piece
