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
"""logits computed at once on a processor, if they are enough rows"""
CHUNK_ACCELERATOR = 1 << 26
"""logits computed at once on an accelerator, which wants large matrix products, if they are enough rows"""
CHUNK_ROWS = 512
"""the fewest rows of a chunk: with fewer, products wait for the unembedding to be read and its gradient to be summed"""
CACHED = 1 << 19
"""logits that a processor takes the softmax of at once, and numbers of a gradient that it adds to: 2 MiB in fp32"""
KEPT = 1 << 27
"""a batch whose logits have up to so many bytes (128 MiB) keeps them for the backward pass; a larger one computes them
again, one more matrix product of four"""


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at the tokens, in fp32. logits [..., V], tokens [...] -> [...]."""
    logps = torch.log_softmax(at_least_fp32(logits) / temperature, dim=-1)
    return logps.gather(-1, tokens[..., None]).squeeze(-1)


def entropy(logits: Tensor) -> Tensor:
    """-sum_v p_v log p_v in nats, in fp32. logits [..., V] -> [...]; a logit of -inf adds 0, in value and gradient."""
    logps = torch.log_softmax(at_least_fp32(logits), dim=-1)
    return -(logps.exp() * logps.masked_fill(logps == -torch.inf, 0.0)).sum(-1)


def at_least_fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def chunk_size(vocabulary: int, device: str) -> int:
    """How many logits are computed at once."""
    return max(CHUNK_CPU if device == "cpu" else CHUNK_ACCELERATOR, CHUNK_ROWS * vocabulary)


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: bool = False,
    keep: int = KEPT,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of tokens under softmax(hidden weight^T / temperature), without the logits of the whole batch.

        log p(y) = z_y - logsumexp(z)      d log p(y) / dz = onehot(y) - p      dH / dz_v = -p_v (log p_v + H)

    hidden [M, D], weight [V, D], tokens [M] -> log-probabilities [M], and entropies [M] in nats if asked for.
    Both are fp32 and carry gradient to hidden and weight. At most `chunk` logits are computed at once. A batch whose
    logits have at most `keep` bytes in all keeps them for the backward pass, a larger one computes them again.
    Matrix products are in autocast's type where it is on, else in hidden's; the softmax and the sum of the weight's
    gradient over chunks are fp32. Without gradients nothing is kept.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; log-probabilities need one above 0")
    size, dtype = chunking(hidden, weight, tokens, chunk)
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    with torch.autocast(hidden.device.type, enabled=False):
        if not learns:
            logps, entropies, _ = forward(hidden, weight, tokens, temperature, size, dtype, entropy, kept=False)
            return logps, entropies
        kept = len(hidden) * len(weight) * dtype.itemsize <= keep
        outputs = LinearLogprobs.apply(hidden, weight, tokens, temperature, size, dtype, entropy, kept)
        return cast(tuple[Tensor, Tensor | None], outputs)


def linear_nll(hidden: Tensor, weight: Tensor, tokens: Tensor, scale: float = 1.0, chunk: int | None = None) -> Tensor:
    """-scale sum log p(y) over the rows, a scalar in fp32; types and gradients as those of `linear_logprobs`.

    All tokens count alike, so a chunk's gradients are computed with its logits, in the forward pass: nothing is kept
    but the gradients, and no logits are computed twice. A scale given here costs less than one multiplied later.
    """
    size, dtype = chunking(hidden, weight, tokens, chunk)
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    with torch.autocast(hidden.device.type, enabled=False):
        if not learns:
            return forward(hidden, weight, tokens, 1.0, size, dtype, entropy=False, kept=False)[0].sum() * -scale
        return cast(Tensor, LinearNll.apply(hidden, weight, tokens, scale, size, dtype))


def chunking(hidden: Tensor, weight: Tensor, tokens: Tensor, chunk: int | None) -> tuple[int, torch.dtype]:
    """Rows of a chunk, and the type of matrix products. ValueError if the shapes do not fit."""
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or tokens.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, tokens {tuple(tokens.shape)} "
            "are not [M, D], [V, D], [M]"
        )
    device = hidden.device.type
    size = max(1, (chunk or chunk_size(len(weight), device)) // len(weight))
    return size, torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class LinearLogprobs(torch.autograd.Function):
    """The two passes of `linear_logprobs`."""

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
        kept: bool,
    ) -> tuple[Tensor, Tensor | None]:
        logps, entropies, chunks = forward(hidden, weight, tokens, temperature, size, dtype, entropy, kept)
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
        for number, part in enumerate(parts(len(hidden), ctx.size)):
            if ctx.chunks:
                logits, ctx.chunks[number] = ctx.chunks[number], None
            else:
                logits = rows[part] @ columns.t()
            down = (grad[part] if grad is not None else None for grad in grads)
            held = entropies[part] if entropies is not None else None
            to_gradient(logits, tokens[part], ctx.temperature, held, *down)
            gradients.add(logits, part)
        ctx.chunks = []
        return *gradients.found(hidden.dtype, weight.dtype), None, None, None, None, None, None


class LinearNll(torch.autograd.Function):
    """`linear_nll`: the gradients are computed on the way forward and handed out on the way back."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, scale: float, size: int, dtype: torch.dtype
    ) -> Tensor:
        rows, columns = hidden.to(dtype), weight.to(dtype)
        gradients = Gradients(rows, columns, weight, ctx.needs_input_grad, scale)
        logps = torch.empty_like(tokens, dtype=at_least_fp32(rows[:0]).dtype)
        for part in parts(len(hidden), size):
            logits = rows[part] @ columns.t()
            logps[part] = to_nll_gradient(logits, tokens[part])
            gradients.add(logits, part)
        ctx.save_for_backward(*gradients.found(hidden.dtype, weight.dtype))
        return logps.sum() * -scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.saved_tensors
        if grad != 1:
            found = (gradient * grad.to(gradient.dtype) if gradient is not None else None for gradient in found)
        return *found, None, None, None, None


class Gradients:
    """Gradients of hidden states and weight, `scale` times those that the chunks of logits add up to."""

    def __init__(self, rows: Tensor, columns: Tensor, weight: Tensor, wanted: Sequence[bool], scale: float):
        self.rows, self.columns, self.scale = rows, columns, scale
        self.hidden = torch.empty_like(rows) if wanted[0] else None
        self.weight = torch.zeros_like(weight, dtype=at_least_fp32(weight[:0]).dtype) if wanted[1] else None

    def add(self, grad_logits: Tensor, part: slice) -> None:
        """Count in the gradient [m, V] of these rows' logits."""
        if self.hidden is not None:
            torch.mm(grad_logits, self.columns, out=self.hidden[part])
        if self.weight is not None:
            add_product(self.weight, grad_logits.t(), self.rows[part], self.scale)

    def found(self, hidden: torch.dtype, weight: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """Both, in these types; None for one that is not wanted."""
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
    kept: bool,
) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
    """Log-probabilities [M], entropies [M] or None, and each chunk's logits if they are to be kept."""
    rows, columns = hidden.to(dtype), weight.to(dtype)
    logps = torch.empty_like(tokens, dtype=at_least_fp32(rows[:0]).dtype)
    entropies = torch.empty_like(logps) if entropy else None
    chunks: list[Tensor | None] = []
    for part in parts(len(hidden), size):
        logits = rows[part] @ columns.t()
        for here, few in pieces(logits, part.start):
            every = log_softmax(few, temperature)
            logps[here] = every.gather(1, tokens[here, None]).squeeze(1)
            if entropies is not None:
                entropies[here] = -torch.einsum("mv,mv->m", every.exp(), every)
        if kept:
            chunks.append(logits)
    return logps, entropies, chunks


def parts(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def pieces(logits: Tensor, start: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """Few of a chunk's rows after another, as many as stay in a processor's cache: where from `start` on, and they."""
    size = max(1, CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    return ((slice(start + part.start, start + part.stop), logits[part]) for part in parts(len(logits), size))


def chunk_logprobs(rows: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of every token for a few rows. [m, D], [V, D] -> [m, V] in fp32."""
    return log_softmax(rows @ columns.t(), temperature)


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature) in fp32. [m, V] -> [m, V]."""
    return torch.log_softmax(cooled(logits, temperature), dim=-1)


def softmax(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature) in fp32. [m, V] -> [m, V]."""
    return torch.softmax(cooled(logits, temperature), dim=-1)


def cooled(logits: Tensor, temperature: float) -> Tensor:
    logits = at_least_fp32(logits)
    return logits / temperature if temperature != 1.0 else logits


def to_gradient(
    logits: Tensor,
    tokens: Tensor,
    temperature: float,
    entropies: Tensor | None,
    grad_logps: Tensor | None,
    grad_entropies: Tensor | None,
) -> None:
    """Write over logits [m, V] the gradient of logits / temperature, from those of log p(y) and entropies, [m] each."""
    if grad_logps is None:
        grad_logps = torch.zeros_like(tokens, dtype=at_least_fp32(logits[:0]).dtype)
    for here, few in pieces(logits):
        slope = grad_logps[here, None]
        if grad_entropies is None or entropies is None:
            grad_few = softmax(few, temperature).mul_(-slope)
        else:
            every = log_softmax(few, temperature)
            factor = (every + entropies[here, None]).mul_(-grad_entropies[here, None]).sub_(slope)
            grad_few = every.exp_().mul_(factor)
        few.copy_(grad_few.scatter_add_(1, tokens[here, None], slope))


def to_nll_gradient(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p(y) [m] of the tokens; writes over logits [m, V] the gradient of -sum log p(y), which is p - onehot(y)."""
    logps = torch.empty_like(tokens, dtype=at_least_fp32(logits[:0]).dtype)
    for here, few in pieces(logits):
        every, tokens_here = at_least_fp32(few), tokens[here, None]
        p = torch.softmax(every, dim=-1)
        # log p(y) by the likeliest token, whose p cannot be so small that its logarithm is lost
        logps[here] = (every.gather(1, tokens_here) - every.amax(1, True) + p.amax(1, True).log()).squeeze(1)
        few.copy_(p.scatter_add_(1, tokens_here, p.new_full(tokens_here.shape, -1.0)))
    return logps


def add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """total += scale * left @ right, the sum in total's type."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, alpha=scale)
        return
    size = max(1, CACHED // total.shape[1]) if total.device.type == "cpu" else len(total)
    for part in parts(len(total), size):
        total[part].add_(left[part] @ right, alpha=scale)
