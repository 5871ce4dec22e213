"""Log-probabilities of tokens, from logits or straight from hidden states.

`linear_logprobs` is `token_logprobs(hidden @ weight.T, tokens)` for long batches: it goes through the rows in chunks
and never holds logits for all of them. `linear_nll` is their negated sum, for losses in which all tokens count alike.
Letters: M rows, m rows of a chunk, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_CPU = 1 << 21
"""logits computed at once on CPU, if they are enough rows"""
CHUNK_ACCELERATOR = 1 << 26
"""logits computed at once on an accelerator, where large matrix products are faster, if they are enough rows"""
CHUNK_ROWS = 512
"""minimum rows of a chunk: with fewer, reading the unembedding and summing its gradient dominate the products"""
CACHE_LOGITS = 1 << 19
"""logits of a softmax at once on CPU, and numbers of a gradient that is added to: 2 MiB in fp32 stay in its cache"""
KEEP_LOGITS_BYTES = 1 << 27
"""a batch whose logits have at most this many bytes (128 MiB) keeps them for the backward pass; a larger batch computes
its logits again, one more matrix product of four"""


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at the tokens, in fp32. logits [..., V], tokens [...] -> [...]."""
    return log_softmax(logits, temperature).gather(-1, tokens[..., None]).squeeze(-1)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """-sum_v p_v log p_v in nats, in fp32, with p = softmax(logits / temperature). logits [..., V] -> [...].

    A logit of -inf adds 0, in value and gradient.
    """
    logps = log_softmax(logits, temperature)
    return -(logps.exp() * logps.masked_fill(logps == -torch.inf, 0.0)).sum(-1)


def at_least_fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def chunk_size(vocabulary: int, device: str) -> int:
    """Return the number of logits computed at once."""
    return max(CHUNK_CPU if device == "cpu" else CHUNK_ACCELERATOR, CHUNK_ROWS * vocabulary)


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: bool = False,
    keep: int = KEEP_LOGITS_BYTES,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of tokens under softmax(hidden weight^T / temperature), without the logits of the whole batch.

        log p(y) = z_y - logsumexp(z)      d log p(y) / dz = onehot(y) - p      dH / dz_v = -p_v (log p_v + H)

    hidden [M, D], weight [V, D], tokens [M] -> log-probabilities [M], and entropies [M] in nats (None without
    `entropy`). Both are fp32 and carry gradient to hidden and weight. At most `chunk` logits are computed at once. A
    batch whose logits have at most `keep` bytes in all keeps them for the backward pass, a larger batch computes them
    again. Matrix products are in autocast's dtype where it is on, else in hidden's; the softmax and the sum of the
    weight's gradient over chunks are fp32. Without gradients nothing is kept.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; log-probabilities need one above 0")
    size, dtype = chunk_rows(hidden, weight, tokens, chunk)
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    with torch.autocast(hidden.device.type, enabled=False):
        if not learns:
            logps, entropies, _ = forward(hidden, weight, tokens, temperature, size, dtype, entropy, keep_logits=False)
            return logps, entropies
        keep_logits = len(hidden) * len(weight) * dtype.itemsize <= keep
        outputs = LinearLogprobs.apply(hidden, weight, tokens, temperature, size, dtype, entropy, keep_logits)
        return cast(tuple[Tensor, Tensor | None], outputs)


def linear_nll(
    hidden: Tensor, weight: Tensor, tokens: Tensor, scale: float = 1.0, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """-scale sum log p(y) over the rows, a scalar in fp32, and log p(y) [M] without gradient; dtypes and gradients as
    those of `linear_logprobs`.

    All tokens count alike, so a chunk's gradients are computed with its logits, in the forward pass: only the gradients
    are kept, and no logits are computed twice. `scale` costs less than multiplying the loss later.
    """
    size, dtype = chunk_rows(hidden, weight, tokens, chunk)
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    with torch.autocast(hidden.device.type, enabled=False):
        if not learns:
            logps, _, _ = forward(hidden, weight, tokens, 1.0, size, dtype, entropy=False, keep_logits=False)
            return logps.sum() * -scale, logps
        return cast(tuple[Tensor, Tensor], LinearNll.apply(hidden, weight, tokens, scale, size, dtype))


@torch.no_grad()
def linear_log_collisions(hidden: Tensor, weight: Tensor, chunk: int | None = None) -> Tensor:
    """log sum_v p_v^2 with p = softmax(hidden weight^T): the log-probability that two tokens drawn of p are the same.

    hidden [M, D], weight [V, D] -> [M], fp32, without gradient. At most `chunk` logits are computed at once.
    """
    size, dtype = chunk_rows(hidden, weight, hidden.new_zeros(len(hidden)), chunk)
    rows, columns, out = hidden.to(dtype), weight.to(dtype), [at_least_fp32(hidden.new_empty(0))]
    with torch.autocast(hidden.device.type, enabled=False):
        for part in row_slices(len(hidden), size):
            logps = log_softmax(rows[part] @ columns.t(), 1.0)
            out.append((2 * logps).logsumexp(-1))
    return torch.cat(out)


def chunk_rows(hidden: Tensor, weight: Tensor, tokens: Tensor, chunk: int | None) -> tuple[int, torch.dtype]:
    """Return the rows of a chunk, and the dtype of matrix products. ValueError if the shapes do not fit."""
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or tokens.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, tokens {tuple(tokens.shape)} "
            "are not [M, D], [V, D], [M]"
        )
    device = hidden.device.type
    size = max(1, (chunk or chunk_size(len(weight), device)) // len(weight))
    return size, torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class LinearLogprobs(torch.autograd.Function):
    """Forward and backward pass of `linear_logprobs`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        temperature: float,
        size: int,
        dtype: torch.dtype,
        entropy: bool,
        keep_logits: bool,
    ) -> tuple[Tensor, Tensor | None]:
        logps, entropies, chunks = forward(hidden, weight, tokens, temperature, size, dtype, entropy, keep_logits)
        ctx.save_for_backward(hidden, weight, tokens, entropies)
        ctx.chunks, ctx.temperature, ctx.size, ctx.dtype = chunks, temperature, size, dtype
        ctx.set_materialize_grads(False)
        return logps, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, tokens, entropies = ctx.saved_tensors
        rows, columns = hidden.to(ctx.dtype), weight.to(ctx.dtype)
        gradients = Gradients(rows, columns, weight, ctx.needs_input_grad, 1 / ctx.temperature)
        for number, part in enumerate(row_slices(len(hidden), ctx.size)):
            if ctx.chunks:
                logits, ctx.chunks[number] = ctx.chunks[number], None
            else:
                logits = rows[part] @ columns.t()
            down = (grad[part] if grad is not None else None for grad in grads)
            part_entropies = entropies[part] if entropies is not None else None
            logits_to_grad_(logits, tokens[part], ctx.temperature, part_entropies, *down)
            gradients.add(logits, part)
        ctx.chunks = []
        return *gradients.cast(hidden.dtype, weight.dtype), None, None, None, None, None, None


class LinearNll(torch.autograd.Function):
    """`linear_nll`: the forward pass computes the gradients, the backward pass returns them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, scale: float, size: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        rows, columns = hidden.to(dtype), weight.to(dtype)
        gradients = Gradients(rows, columns, weight, ctx.needs_input_grad, scale)
        logps = torch.empty_like(tokens, dtype=at_least_fp32(rows[:0]).dtype)
        for part in row_slices(len(hidden), size):
            logits = rows[part] @ columns.t()
            logps[part] = logits_to_nll_grad_(logits, tokens[part])
            gradients.add(logits, part)
        ctx.save_for_backward(*gradients.cast(hidden.dtype, weight.dtype))
        ctx.mark_non_differentiable(logps)
        return logps.sum() * -scale, logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        if grad != 1:
            gradients = (saved * grad.to(saved.dtype) if saved is not None else None for saved in gradients)
        return *gradients, None, None, None, None


class Gradients:
    """Gradients of hidden states and weight: `scale` times the sum over the chunks of logits."""

    def __init__(self, rows: Tensor, columns: Tensor, weight: Tensor, needed: Sequence[bool], scale: float):
        self.rows, self.columns, self.scale = rows, columns, scale
        self.hidden = torch.empty_like(rows) if needed[0] else None
        self.weight = torch.zeros_like(weight, dtype=at_least_fp32(weight[:0]).dtype) if needed[1] else None

    def add(self, grad_logits: Tensor, part: slice) -> None:
        """Add the gradient [m, V] of the logits of rows `part`."""
        if self.hidden is not None:
            torch.mm(grad_logits, self.columns, out=self.hidden[part])
        if self.weight is not None:
            add_product(self.weight, grad_logits.t(), self.rows[part], self.scale)

    def cast(self, hidden: torch.dtype, weight: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """Return both gradients in the given dtypes; None for one that is not needed."""
        return (
            self.hidden.to(hidden).mul_(self.scale) if self.hidden is not None else None,
            self.weight.to(weight) if self.weight is not None else None,
        )


def forward(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    temperature: float,
    size: int,
    dtype: torch.dtype,
    entropy: bool,
    keep_logits: bool,
) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
    """Compute log-probabilities [M], entropies [M] or None, and with `keep_logits` each chunk's logits."""
    rows, columns = hidden.to(dtype), weight.to(dtype)
    logps = torch.empty_like(tokens, dtype=at_least_fp32(rows[:0]).dtype)
    entropies = torch.empty_like(logps) if entropy else None
    chunks: list[Tensor | None] = []
    for part in row_slices(len(hidden), size):
        logits = rows[part] @ columns.t()
        for rows_here, block in row_blocks(logits, part.start):
            block_logps = log_softmax(block, temperature)
            logps[rows_here] = block_logps.gather(1, tokens[rows_here, None]).squeeze(1)
            if entropies is not None:
                entropies[rows_here] = -torch.einsum("mv,mv->m", block_logps.exp(), block_logps)
        if keep_logits:
            chunks.append(logits)
    return logps, entropies, chunks


def row_slices(rows: int, size: int) -> Iterator[slice]:
    """Slice range(rows) into parts of `size`; the last part may be smaller."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def row_blocks(logits: Tensor, start: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """Divide logits [m, V] into blocks of rows that stay in a CPU's cache: (slice of the rows, from `start` on; block).

    On an accelerator all rows are one block.
    """
    size = max(1, CACHE_LOGITS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    return ((slice(start + part.start, start + part.stop), logits[part]) for part in row_slices(len(logits), size))


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature) in fp32. [..., V] -> [..., V]."""
    return torch.log_softmax(apply_temperature(logits, temperature), dim=-1)


def softmax(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature) in fp32. [..., V] -> [..., V]."""
    return torch.softmax(apply_temperature(logits, temperature), dim=-1)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    logits = at_least_fp32(logits)
    return logits / temperature if temperature != 1.0 else logits


def logits_to_grad_(
    logits: Tensor,
    tokens: Tensor,
    temperature: float,
    entropies: Tensor | None,
    grad_logps: Tensor | None,
    grad_entropies: Tensor | None,
) -> None:
    """Overwrite logits [m, V] with the gradient in logits / temperature, given those in log p(y) and entropies [m]."""
    if grad_logps is None:
        grad_logps = torch.zeros_like(tokens, dtype=at_least_fp32(logits[:0]).dtype)
    for rows, block in row_blocks(logits):
        slope = grad_logps[rows, None]
        if grad_entropies is None or entropies is None:
            gradient = softmax(block, temperature).mul_(-slope)
        else:
            block_logps = log_softmax(block, temperature)
            factor = (block_logps + entropies[rows, None]).mul_(-grad_entropies[rows, None]).sub_(slope)
            gradient = block_logps.exp_().mul_(factor)
        block.copy_(gradient.scatter_add_(1, tokens[rows, None], slope))


def logits_to_nll_grad_(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return log p(y) [m] of the tokens; overwrite logits [m, V] with the gradient of -sum log p(y), p - onehot(y)."""
    logps = torch.empty_like(tokens, dtype=at_least_fp32(logits[:0]).dtype)
    for rows, block in row_blocks(logits):
        exact, row_tokens = at_least_fp32(block), tokens[rows, None]
        p = torch.softmax(exact, dim=-1)
        # log p(y) relative to the most probable token, whose p never underflows
        logps[rows] = (exact.gather(1, row_tokens) - exact.amax(1, True) + p.amax(1, True).log()).squeeze(1)
        block.copy_(p.scatter_add_(1, row_tokens, p.new_full(row_tokens.shape, -1.0)))
    return logps


def add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """total += scale * left @ right, the sum in total's dtype."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, alpha=scale)
        return
    size = max(1, CACHE_LOGITS // total.shape[1]) if total.device.type == "cpu" else len(total)
    for part in row_slices(len(total), size):
        total[part].add_(left[part] @ right, alpha=scale)
