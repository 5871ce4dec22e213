"""A model over a batch: log-probabilities where something is trained, rewards at the last token, bits per byte.

Batches are flat: `ids [N]` holds the rows one after another, M of its tokens are trained, and nothing is padded.
`progress` is told of every batch that is done: they are about equally long, whatever the rows are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from amenable.data.batches import Batch, Microbatch, collate, microbatches, order_by_length, targets
from amenable.functional.kl import linear_kl
from amenable.functional.logprobs import linear_logprobs, linear_nll
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.train.log import Progress, silent, tracked
from amenable.train.runtime import Runtime

Row = tuple[list[int], list[bool]]
"""one sequence: its ids, and which of them are trained"""


def masked_logprobs(
    decoder: Decoder, batch: Batch, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probability [M] of every trained token (fp32), and the entropy [M] of its distribution if asked for."""
    index, tokens = targets(batch)
    hidden = decoder(batch.ids, layout_of(batch), at=index)
    return linear_logprobs(hidden, decoder.unembedding, tokens, temperature=temperature, entropy=entropy)


def masked_nll(decoder: Decoder, batch: Batch, scale: float) -> Tensor:
    """-scale * the sum of every trained token's log-probability, a scalar (fp32)."""
    index, tokens = targets(batch)
    hidden = decoder(batch.ids, layout_of(batch), at=index)
    return linear_nll(hidden, decoder.unembedding, tokens, scale)


def masked_values(critic: ScalarModel, batch: Batch) -> Tensor:
    """The critic's value [M] of the state before every trained token."""
    index, _ = targets(batch)
    return critic(batch.ids, layout_of(batch), at=index)


def rewards(model: ScalarModel, batch: Batch) -> Tensor:
    """Reward [B] of every row, read at its last token. The place comes with the row, never from a token's id."""
    layout = layout_of(batch)
    return model(batch.ids, layout, at=layout.last_tokens)


def summed_logprobs(decoder: Decoder, batch: Batch) -> Tensor:
    """Log-probability [B] of each row's trained tokens together (fp32)."""
    logps, _ = masked_logprobs(decoder, batch)
    rows = layout_of(batch).rows[batch.loss_mask]
    return torch.zeros(len(batch.lengths), device=logps.device).index_add(0, rows, logps)


def layout_of(batch: Batch) -> Layout:
    """Where the batch's rows lie."""
    return Layout.of(batch.lengths, batch.ids.device, batch.prefix_lengths)


@torch.inference_mode()
def compute_logprobs(
    decoder: Decoder,
    rows: Sequence[Row],
    runtime: Runtime,
    max_tokens: int,
    temperature: float = 1.0,
    progress: Progress = silent,
) -> list[Tensor]:
    """Log-probabilities of each row's trained tokens, one tensor a row (on the CPU), a token budget at a time."""
    decoder = runtime.inference_copy(decoder)
    out: list[Tensor] = [torch.empty(0)] * len(rows)
    for chosen, batch in length_sorted_batches(rows, runtime, max_tokens, progress):
        with runtime.autocast():
            logps, _ = masked_logprobs(decoder, batch, temperature)
        counts = [sum(rows[i][1]) for i in chosen]
        for i, part in zip(chosen, logps.cpu().split(counts)):
            out[i] = part
    return out


def rounding(
    decoder: Decoder, rows: Sequence[Row], runtime: Runtime, max_tokens: int, temperature: float = 1.0
) -> float:
    """Mean absolute change of the rows' log-probabilities by bf16 products, in nats a token; 0 for a run in fp32.

    It grows with the depth of a model: 0.005 for one of four layers, 0.03 for SmolLM2-135M's thirty.
    """
    if not runtime.bf16:
        return 0.0
    machines = (runtime, replace(runtime, bf16=False))
    ours, exact = (torch.cat(compute_logprobs(decoder, rows, each, max_tokens, temperature)) for each in machines)
    return float((ours - exact).abs().mean())


@torch.inference_mode()
def compute_kls(
    policy: Decoder,
    reference: Decoder,
    rows: Sequence[Row],
    ref_rows: Sequence[Row],
    runtime: Runtime,
    max_tokens: int,
    temperature: float = 1.0,
    ref_temperature: float = 1.0,
    progress: Progress = silent,
) -> list[Tensor]:
    """KL(policy || reference), summed over the vocabulary, at each row's trained tokens, one tensor a row (on the CPU).

    ref_rows are the same trained tokens as the reference sees them: what stands before them may differ.
    """
    policy, reference = runtime.inference_copy(policy), runtime.inference_copy(reference)
    out: list[Tensor] = [torch.empty(0)] * len(rows)
    for chosen, batch in length_sorted_batches(rows, runtime, max_tokens, progress):
        with runtime.autocast():
            ours = masked_hidden(policy, batch)
            ref_batches = in_order([ref_rows[i] for i in chosen], runtime, max_tokens)
            theirs = torch.cat([masked_hidden(reference, ref_batch) for _, ref_batch in ref_batches])
            kls = linear_kl(ours, policy.unembedding, theirs, reference.unembedding, temperature, ref_temperature)
        for i, part in zip(chosen, kls.cpu().split([sum(rows[i][1]) for i in chosen])):
            out[i] = part
    return out


def masked_hidden(decoder: Decoder, batch: Batch) -> Tensor:
    """The hidden state [M, D] before every trained token."""
    index, _ = targets(batch)
    return decoder(batch.ids, layout_of(batch), at=index)


@torch.inference_mode()
def compute_values(
    critic: ScalarModel, rows: Sequence[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> list[Tensor]:
    """The critic's values before each row's trained tokens, one tensor a row (on the CPU)."""
    critic = runtime.inference_copy(critic)
    out: list[Tensor] = [torch.empty(0)] * len(rows)
    for chosen, batch in length_sorted_batches(rows, runtime, max_tokens, progress):
        with runtime.autocast():
            values = masked_values(critic, batch)
        for i, part in zip(chosen, values.float().cpu().split([sum(rows[i][1]) for i in chosen])):
            out[i] = part
    return out


@torch.inference_mode()
def compute_rewards(
    model: ScalarModel, rows: Sequence[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> Tensor:
    """Reward of each row [B] on the CPU, a token budget at a time."""
    model = runtime.inference_copy(model)
    out = torch.zeros(len(rows))
    for chosen, batch in length_sorted_batches(rows, runtime, max_tokens, progress):
        with runtime.autocast():
            out[torch.tensor(chosen)] = rewards(model, batch).float().cpu()
    return out


def length_sorted_batches(
    rows: Sequence[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> Iterator[tuple[list[int], Batch]]:
    """Rows of similar length together, at most `max_tokens` computed ids a batch: (which rows, the batch).

    Neighbours with a common context stay together where they fit, and have it computed once a batch.
    """
    order = order_by_length(rows)
    for places, batch in in_order([rows[i] for i in order], runtime, max_tokens, progress=progress):
        yield [order[place] for place in places], batch


def in_order(
    rows: Sequence[Row], runtime: Runtime, max_tokens: int, share: bool = True, progress: Progress = silent
) -> Iterator[tuple[list[int], Batch]]:
    """Neighbouring rows together, at most `max_tokens` computed ids a batch: (which rows, the batch)."""
    for part in tracked(microbatches(rows, max_tokens, share), progress):
        yield part.rows, load(rows, part, runtime, max_tokens)


def load(rows: Sequence[Row], part: Microbatch, runtime: Runtime, max_tokens: int) -> Batch:
    """A microbatch's rows as one batch on the device. Every pass of every stage is made here.

    Raises RuntimeError for a batch that has other tokens than were planned, or more than the budget; a single row may.
    """
    batch = collate([rows[place] for place in part.rows], part.share)
    if len(batch.ids) != part.tokens or not part.fits(max_tokens):
        raise RuntimeError(
            f"a pass of {len(batch.ids):,} tokens, planned as {part.tokens:,}, where at most {max_tokens:,} may be"
        )
    return batch.to(runtime.device)


def mean_loss(
    decoder: Decoder, rows: Sequence[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> float:
    """Mean negative log-probability of the trained tokens, in nats a token."""
    logps = compute_logprobs(decoder, rows, runtime, max_tokens, progress=progress)
    count = sum(part.numel() for part in logps)
    return -sum(float(part.double().sum()) for part in logps) / max(count, 1)


def bits_per_byte(
    decoder: Decoder,
    rows: Sequence[Row],
    byte_count: int,
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> float:
    """Bits that the model needs for each byte of the text that the rows encode; the same scale for any vocabulary."""
    logps = compute_logprobs(decoder, rows, runtime, max_tokens, progress=progress)
    return -sum(float(part.double().sum()) for part in logps) / math.log(2) / byte_count
