"""Log-likelihoods of continuations after their contexts, as lm-evaluation-harness defines them.

A text is encoded whole; the tokens after those of its context alone are the continuation's. White space at the end of a
context goes to the continuation. An empty context is BOS, else EOS. A text that is longer than the model's context
loses its beginning, BOS too; its last token is predicted and never read, so that one more than the context fits. Rows
of one context compute it once, rows of different contexts what these begin with (the shots), and batches hold a number
of tokens, not of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.evaluation.answering import LoadedModel
from amenable.generation.top_logprobs import CHUNK_LOGITS
from amenable.models.language_model import LanguageModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.log import Progress, silent

SHOT_END = "\n\n"
"""after an example"""


class Request(NamedTuple):
    """A continuation to score after a context."""

    context: str
    continuation: str


class Likelihood(NamedTuple):
    """Score of a continuation."""

    logp: float
    """log p(continuation | context), in nats"""
    greedy: bool
    """True where each of its tokens is the most probable one"""
    tokens: int


@dataclass(frozen=True)
class ChoiceRow:
    """A context and the choices of how it continues; a single choice is a cloze."""

    context: str
    choices: tuple[str, ...]
    right: tuple[int, ...]
    """indices of the right choices"""
    delimiter: str = " "
    """between the context and a choice"""
    shot_delimiter: str | None = None
    """the same in an example; None: as elsewhere"""
    description: str = ""
    """before the shots"""
    shots: tuple[ChoiceRow, ...] = ()
    """examples before the context"""
    content_free: str = ""
    """the context with N/A in place of its content; empty where there is none"""
    group: str = ""
    """part of the test, such as a subject"""
    fields: dict[str, object] = field(default_factory=dict, compare=False)
    """further columns that a metric reads"""

    @property
    def example(self) -> str:
        """The row as a shot: the context with its first right choice."""
        delimiter = self.delimiter if self.shot_delimiter is None else self.shot_delimiter
        return f"{self.context}{delimiter}{self.choices[self.right[0]]}"

    @property
    def label(self) -> str:
        """Class of the row: the position of its first right choice."""
        return str(self.right[0])

    @property
    def requests(self) -> list[Request]:
        """A request for each choice."""
        return self.requests_after(self.context)

    @property
    def whole(self) -> str:
        """The longest text of the row: all before a choice, and the choice."""
        return max((request.context + request.continuation for request in self.requests), key=len)

    def requests_after(self, context: str) -> list[Request]:
        """Return a request for each choice after another context and the row's own examples."""
        before = self.description + "".join(shot.example + SHOT_END for shot in self.shots)
        return [Request(before + context, self.delimiter + choice) for choice in self.choices]

    def require_complete(self) -> None:
        """Raise ValueError for a choice that is empty or no text."""
        if not all(isinstance(choice, str) and choice for choice in self.choices):
            raise ValueError("a choice is empty, or no text")


def score_choices(
    model: LoadedModel, rows: Sequence[ChoiceRow], max_tokens: int, progress: Progress = silent
) -> list[list[Likelihood]]:
    """Return the likelihood of each row's choices."""
    scores = iter(score(model, [request for row in rows for request in row.requests], max_tokens, progress))
    return [[next(scores) for _ in row.choices] for row in rows]


def likeliest(scores: Sequence[Likelihood]) -> int:
    """Return the index of the most likely choice, the first of several."""
    logps = [score.logp for score in scores]
    return logps.index(max(logps))


def score(
    model: LoadedModel, requests: Sequence[Request], max_tokens: int, progress: Progress = silent
) -> list[Likelihood]:
    """Return the likelihood of each request. Equal requests are computed once; at most `max_tokens` ids a pass."""
    unique = list(dict.fromkeys(requests))
    scores: dict[Request, Likelihood] = {}
    decoder = model.runtime.inference_copy(model.decoder)
    for _, part, bar in forward.spans(unique, progress):
        texts = encode(model.tokenizer, part, model.decoder.config.context_length + 1)
        rows = [(ids[:-1] or ids, mask[1:] or mask) for ids, mask in texts]
        targets = [[token for token, counts in zip(*text) if counts] for text in texts]
        with torch.inference_mode():
            compute = partial(token_scores, decoder, targets)
            numbers = forward.map_rows(compute, rows, model.runtime, max_tokens, bar)
        for request, values in zip(part, numbers):
            logps, greedy = values.double().unbind(1)
            scores[request] = Likelihood(float(logps.sum()), bool(greedy.all()), len(logps))
    return [scores[request] for request in requests]


def token_scores(decoder: LanguageModel, targets: Sequence[Sequence[int]], rows: Sequence[int], batch: Batch) -> Tensor:
    """Return of each target its log-probability and 1 if it is the most probable token, else 0, [M, 2].

    targets: of every row of the test the tokens that are predicted at its loss mask; rows: those in the batch.
    """
    tokens = batch.ids.new_tensor([token for row in rows for token in targets[row]])
    hidden = decoder(batch.ids, forward.layout_of(batch), at=batch.loss_mask.nonzero().squeeze(1))
    size = max(1, CHUNK_LOGITS // decoder.num_tokens)
    parts = [hidden.new_empty(0, 2, dtype=torch.float32)]
    for states, ids in zip(hidden.split(size), tokens.split(size)):
        logits = decoder.logits(states).float()
        own = logits.gather(-1, ids[:, None])[:, 0]
        parts.append(torch.stack([own - logits.logsumexp(-1), (own == logits.amax(-1)).float()], dim=1))
    return torch.cat(parts)


def encode(tokenizer: Tokenizer, requests: Sequence[Request], room: int) -> list[forward.Row]:
    """Return the ids of each request, at most `room`, with a mask that is True at the continuation's tokens.

    A text that is too long loses its beginning.
    """
    pairs = [move_space(request) for request in requests]
    contexts = list(dict.fromkeys(context for context, _ in pairs))
    lengths = dict(zip(contexts, map(len, tokenizer.encode_batch(contexts))))
    encoded = tokenizer.encode_batch([context + continuation for context, continuation in pairs])
    return [
        with_opening(tokenizer, ids, lengths[context], room) for (context, _), ids in zip(pairs, encoded, strict=True)
    ]


def move_space(request: Request) -> Request:
    """Return a request with the white space at the end of its context at the beginning of its continuation."""
    context = request.context.rstrip()
    return Request(context, request.context[len(context) :] + request.continuation)


def with_opening(tokenizer: Tokenizer, ids: list[int], context: int, room: int) -> forward.Row:
    """Return a text's ids after its opening, with a mask that is True after the first `context` ids."""
    opening = tokenizer.added_ids if context else prefix_ids(tokenizer)
    row = [*opening, *ids]
    mask = [position >= len(opening) + context for position in range(len(row))]
    return row[-room:], [False, *mask[-room:][1:]]  # nothing predicts the first token


def prefix_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the ids that take the place of an empty context."""
    return [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
