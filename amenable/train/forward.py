"""Forward passes: log-probabilities, KLs and values at the loss mask's tokens, rewards at last tokens, bits per byte.

Batches are flat: ids [N] of all rows, one after another without padding; M of these tokens are in the loss mask.
`masked_*` compute one batch, with gradients; `compute_*` compute any number of rows in batches, without gradients.
They call `progress` before every batch and at the end; batches take about equal time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from amenable import processes
from amenable.data.batches import Batch, Microbatch, collate, microbatches, order_by_length, own_microbatches, targets
from amenable.data.mixture import Mixed
from amenable.functional.kl import linear_kl
from amenable.functional.logprobs import linear_log_collisions, linear_logprobs, linear_nll
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel, ValueHead
from amenable.models.inference import cast_for_inference
from amenable.models.language_model import LanguageModel
from amenable.models.layout import Layout
from amenable.models.sharding import whole
from amenable.train.log import Progress, silent, tracked
from amenable.train.runtime import Runtime, return_memory

Row = tuple[list[int], list[bool]]
"""ids of one sequence, and its loss mask"""
E = TypeVar("E")
SPAN = 1 << 14
"""rows, or elements of several rows, that are in memory at a time where all of a data set are computed"""


def checkpoint_activations(models: Iterable[nn.Module], on: bool) -> None:
    """Make the decoders of some models compute their layers' activations again in backward passes, and freed memory
    go back to the system; or keep both."""
    for decoder in (module for model in models for module in model.modules() if isinstance(module, Decoder)):
        decoder.checkpoint_activations = on
    if on:
        return_memory()


def masked_logprobs(
    decoder: LanguageModel, batch: Batch, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the log-probability [M] of every token in the loss mask (fp32), and with `entropy` that of its
    distribution [M]."""
    return logprobs_of_hidden(decoder, masked_hidden(decoder, batch), batch, temperature, entropy)


def logprobs_of_hidden(
    decoder: LanguageModel, hidden: Tensor, batch: Batch, temperature: float = 1.0, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return what `masked_logprobs` does from the hidden states [M, D] before the loss mask's tokens."""
    _, tokens = targets(batch)
    return decoder.logprobs(hidden, tokens, temperature, entropy)


def masked_nll(decoder: Decoder, batch: Batch, scale: float) -> tuple[Tensor, Tensor]:
    """Return -scale times the sum of the log-probabilities in the loss mask, a scalar (fp32), and the log-probabilities
    [M] without gradient."""
    index, tokens = targets(batch)
    hidden = decoder(batch.ids, layout_of(batch), at=index)
    return linear_nll(hidden, decoder.product_unembedding, tokens, scale)


def masked_values(critic: ScalarModel, batch: Batch) -> Tensor:
    """Return the critic's value [M] of the state before every token in the loss mask."""
    index, _ = targets(batch)
    return critic(batch.ids, layout_of(batch), at=index)


def rewards(model: ScalarModel, batch: Batch) -> Tensor:
    """Return the reward [B] of every row, read at its last token: by the row's length, never by a token's id."""
    layout = layout_of(batch)
    return model(batch.ids, layout, at=layout.last_tokens)


def summed_logprobs(decoder: Decoder, batch: Batch, temperature: float = 1.0, collisions: bool = False) -> Tensor:
    """Return the summed log-probability [B] of each row's loss mask (fp32); with `collisions` [B, 2], the second column
    the sum of `linear_log_collisions` at temperature 1, without gradient."""
    index, tokens = targets(batch)
    layout = layout_of(batch)
    hidden, weight = decoder(batch.ids, layout, at=index), decoder.product_unembedding
    logps, _ = linear_logprobs(hidden, weight, tokens, temperature=temperature)
    if collisions:
        logps = torch.stack([logps, linear_log_collisions(hidden, weight)], dim=1)
    sums = torch.zeros(len(batch.lengths), *logps.shape[1:], device=logps.device)
    return sums.index_add(0, layout.rows[batch.loss_mask], logps)


def layout_of(batch: Batch) -> Layout:
    """Return the layout of a batch's rows."""
    return Layout.of(batch.lengths, batch.ids.device, batch.prefix_lengths)


@torch.inference_mode()
def compute_logprobs(
    decoder: LanguageModel,
    rows: Sequence[Row],
    runtime: Runtime,
    max_tokens: int,
    temperature: float = 1.0,
    progress: Progress = silent,
) -> list[Tensor]:
    """Return the log-probabilities of each row's loss mask, one tensor a row, on the CPU; at most `max_tokens` ids at a
    time."""
    decoder = runtime.inference_copy(decoder)
    return map_rows(
        lambda _, batch: masked_logprobs(decoder, batch, temperature)[0], rows, runtime, max_tokens, progress
    )


def rounding(
    decoder: Decoder, rows: Sequence[Row], runtime: Runtime, max_tokens: int, temperature: float = 1.0
) -> float:
    """Return the mean absolute rounding error of log-probabilities from bf16 products, in nats a token; 0 in fp32.

    It grows with the depth of a model: 0.005 for four layers, 0.03 for SmolLM2-135M's thirty.
    """
    if not runtime.bf16:
        return 0.0
    rounded = torch.cat(compute_logprobs(decoder, rows, runtime, max_tokens, temperature))
    precise = cast_for_inference(decoder, torch.float32)  # adapters are on matrices in bf16
    exact = torch.cat(compute_logprobs(precise, rows, replace(runtime, bf16=False), max_tokens, temperature))
    return float((rounded - exact).abs().mean())


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
    ref_logps: bool = False,
) -> list[Tensor]:
    """Return KL(policy || reference), summed over the vocabulary, at each row's loss mask; one tensor a row, on CPU.

    ref_rows: the same tokens in the loss mask after the reference's own prompts. With `ref_logps` the tensors are
    [M, 2], and the second column is the reference's log-probability of the token at temperature 1, from the same pass.
    """
    policy, reference = runtime.inference_copy(policy), runtime.inference_copy(reference)

    def of_batch(indices: list[int], batch: Batch) -> Tensor:
        ours = masked_hidden(policy, batch)
        ref_batches = ordered_batches([ref_rows[i] for i in indices], runtime, max_tokens)
        theirs = torch.cat([masked_hidden(reference, ref_batch) for _, ref_batch in ref_batches])
        kls = linear_kl(ours, policy.unembedding, theirs, reference.unembedding, temperature, ref_temperature)
        if not ref_logps:
            return kls
        return torch.stack([kls, reference.logprobs(theirs, targets(batch)[1])[0]], dim=1)

    return map_rows(of_batch, rows, runtime, max_tokens, progress, width=2 if ref_logps else 1)


def masked_kls(policy: Decoder, reference: Decoder, batch: Batch, temperature: float) -> Tensor:
    """Return KL(policy || reference), summed over the vocabulary, before every token in the loss mask, [M], with the
    policy's gradient."""
    reference = whole(reference)
    with torch.no_grad():
        ref_states = masked_hidden(reference, batch)
    states, ref_weight = masked_hidden(policy, batch), reference.unembedding.detach()
    return linear_kl(states, policy.unembedding, ref_states, ref_weight, temperature, temperature)


def masked_hidden(decoder: LanguageModel, batch: Batch) -> Tensor:
    """Return the hidden state [M, D] before every token in the loss mask."""
    index, _ = targets(batch)
    return decoder(batch.ids, layout_of(batch), at=index)


@torch.inference_mode()
def compute_values(
    critic: ScalarModel, rows: Sequence[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> list[Tensor]:
    """Return the critic's values before the tokens of each row's loss mask, one tensor a row, on the CPU."""
    critic = runtime.inference_copy(critic)
    return map_rows(lambda _, batch: masked_values(critic, batch), rows, runtime, max_tokens, progress)


@torch.inference_mode()
def compute_head_values(
    policy: Decoder,
    head: ValueHead,
    rows: Sequence[Row],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> list[Tensor]:
    """Return the values of a head on the policy's hidden states, as `compute_values` does."""
    policy = runtime.inference_copy(policy)
    return map_rows(lambda _, batch: head(masked_hidden(policy, batch)), rows, runtime, max_tokens, progress)


@torch.inference_mode()
def compute_rewards(
    model: ScalarModel, rows: Sequence[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> Tensor:
    """Return the reward of each row, [B] on the CPU; of a classifier of K > 1 labels the logits [B, K]. A published
    classifier is read before tokens like its padding."""
    if model.pad_id is not None:
        rows = [without_padding(row, model.pad_id) for row in rows]
    model = runtime.inference_copy(model)
    out = torch.zeros(len(rows), model.score.out_features).squeeze(1)
    for indices, batch in length_sorted_batches(rows, runtime, max_tokens, progress, divided=True):
        with runtime.autocast():
            out[torch.tensor(indices)] = rewards(model, batch).float().cpu()
    return processes.summed(out)


def without_padding(row: Row, pad_id: int) -> Row:
    """Return a row without the padding ids that it ends with; at least one id stays."""
    ids, mask = row
    length = len(ids)
    while length > 1 and ids[length - 1] == pad_id:
        length -= 1
    return ids[:length], mask[:length]


def map_rows(
    compute: Callable[[list[int], Batch], Tensor],
    rows: Sequence[Row],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress,
    width: int = 1,
) -> list[Tensor]:
    """Apply `compute`, (row indices, batch) -> [M], or [M, width], to all rows in batches, each in one process; return
    the numbers of each row, on CPU."""
    out: list[Tensor] = [torch.empty(0)] * len(rows)
    for indices, batch in length_sorted_batches(rows, runtime, max_tokens, progress, divided=True):
        with runtime.autocast():
            numbers = compute(indices, batch)
        for i, part in zip(indices, numbers.float().cpu().split([sum(rows[i][1]) for i in indices])):
            out[i] = part
    return out if processes.size() == 1 else of_all_processes(out, [sum(mask) for _, mask in rows], width)


def of_all_processes(parts: Sequence[Tensor], counts: Sequence[int], width: int) -> list[Tensor]:
    """Return the numbers of every row, [counts[i]] or [counts[i], width] each, of which a process has some."""
    shape = (width,) if width > 1 else ()
    sizes = zip(parts, counts)
    filled = [part if len(part) == count and len(part) else torch.zeros(count, *shape) for part, count in sizes]
    return list(processes.summed(torch.cat(filled)).split(list(counts))) if filled else []


def length_sorted_batches(
    rows: Sequence[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent, divided: bool = False
) -> Iterator[tuple[list[int], Batch]]:
    """Yield (row indices, batch) of rows of similar length, at most `max_tokens` computed ids a batch; SPAN rows are
    ordered, and in memory, at a time. divided: those of this process alone.

    Neighbours with a shared prefix stay together if they fit, and have it computed once.
    """
    for start, part, bar in spans(rows, progress):
        order = order_by_length(part)
        for indices, batch in ordered_batches([part[i] for i in order], runtime, max_tokens, True, bar, divided):
            yield [start + order[i] for i in indices], batch


def spans(elements: Sequence[E], progress: Progress = silent) -> Iterator[tuple[int, Sequence[E], Progress]]:
    """Yield (index of the first, SPAN neighbouring elements, the progress of their share of the work)."""
    count = max(1, -(-len(elements) // SPAN))
    for number, start in enumerate(range(0, len(elements), SPAN)):
        bar = partial(progress_of_share, progress, number, count) if count > 1 else progress
        yield start, elements[start : start + SPAN], bar


def progress_of_share(progress: Progress, number: int, count: int, done: int, total: int) -> None:
    """Call `progress` for the work of which `done` of `total` is the share `number` of `count` equal ones."""
    progress(number * total + done, count * total)


def element_logprobs(
    decoder: Decoder,
    elements: Sequence[E],
    rows: Callable[[E], Sequence[Row]],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> list[list[float]]:
    """Return the summed log-probability of each of an element's rows, by element; SPAN elements are in memory at a
    time."""
    sums = list[list[float]]()
    for _, part, bar in spans(elements, progress):
        of_elements = [rows(element) for element in part]
        flat = [row for own in of_elements for row in own]
        parts = iter(compute_logprobs(decoder, flat, runtime, max_tokens, progress=bar))
        sums += [[float(next(parts).sum()) for _ in own] for own in of_elements]
    return sums


def element_rewards(
    model: ScalarModel,
    elements: Sequence[E],
    rows: Callable[[E], Sequence[Row]],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> list[Tensor]:
    """Return the rewards of each element's rows, [rows] on the CPU; SPAN elements are in memory at a time."""
    scores = list[Tensor]()
    for _, part, bar in spans(elements, progress):
        of_elements = [rows(element) for element in part]
        flat = [row for own in of_elements for row in own]
        scores += compute_rewards(model, flat, runtime, max_tokens, bar).split([len(own) for own in of_elements])
    return scores


def ordered_batches(
    rows: Sequence[Row],
    runtime: Runtime,
    max_tokens: int,
    share: bool = True,
    progress: Progress = silent,
    divided: bool = False,
) -> Iterator[tuple[list[int], Batch]]:
    """Yield (row indices, batch) of neighbouring rows, at most `max_tokens` computed ids a batch. divided: those of
    this process alone."""
    parts = own_microbatches(rows, max_tokens, share) if divided else microbatches(rows, max_tokens, share)
    for part in tracked(parts, progress):
        yield part.rows, load(rows, part, runtime, max_tokens)


def load(rows: Sequence[Row], part: Microbatch, runtime: Runtime, max_tokens: int) -> Batch:
    """Collate a microbatch's rows on the device: every forward pass of every stage takes its batch from here.

    Raises RuntimeError for another number of tokens than planned, or more than `max_tokens` in several rows.
    """
    batch = collate([rows[i] for i in part.rows], part.prefix_lengths)
    if len(batch.ids) != part.tokens or not part.fits(max_tokens):
        raise RuntimeError(f"a pass of {len(batch.ids):,} tokens, planned as {part.tokens:,} of at most {max_tokens:,}")
    return batch.to(runtime.device)


def mean_loss(
    decoder: Decoder, rows: Sequence[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> float:
    """Return the mean negative log-probability of the loss mask's tokens, in nats a token."""
    return mean_losses(decoder, Mixed([""], [rows]), runtime, max_tokens, progress)["eval/loss"]


def mean_losses(
    decoder: Decoder, rows: Mixed[Row], runtime: Runtime, max_tokens: int, progress: Progress = silent
) -> dict[str, float]:
    """Return the mean loss of some rows, in nats a token, as `eval/loss`; of several sources `eval/loss/NAME` too."""
    logps = compute_logprobs(decoder, rows, runtime, max_tokens, progress=progress)
    return by_source("eval/loss", rows, [-float(part.double().sum()) for part in logps], [len(part) for part in logps])


def by_source(
    name: str, rows: Mixed[Row], sums: Sequence[float], counts: Sequence[float], factor: float = 1.0
) -> dict[str, float]:
    """Return factor * sum(sums) / sum(counts) over all rows as `name`, and of several sources as `name/SOURCE` too."""
    spans = {name: slice(None)}
    if len(rows.parts) > 1:
        starts = zip(rows.names, rows.starts, rows.sizes)
        spans |= {f"{name}/{source}": slice(start, start + size) for source, start, size in starts if size}
    return {key: factor * sum(sums[span]) / max(sum(counts[span]), 1) for key, span in spans.items()}


def bits_per_byte(
    decoder: LanguageModel,
    rows: Mixed[Row],
    byte_counts: Sequence[int],
    runtime: Runtime,
    max_tokens: int,
    progress: Progress = silent,
) -> dict[str, float]:
    """Return the model's bits per byte of the text that the rows encode, comparable between vocabularies, as
    `eval/bpb`; of several sources `eval/bpb/NAME` too.

    byte_counts: bytes of the text of each row.
    """
    logps = compute_logprobs(decoder, rows, runtime, max_tokens, progress=progress)
    nats = [-float(part.double().sum()) for part in logps]
    return by_source("eval/bpb", rows, nats, byte_counts, 1 / math.log(2))
