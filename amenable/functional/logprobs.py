"""Log-probabilities of tokens, from logits or straight from hidden states.

`linear_logprobs` is `token_logprobs(hidden @ weight.T, tokens)` for long batches: it goes through the rows in chunks
and never holds logits for all of them. Letters: M rows, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_CPU = 1 << 21
"""logits computed at once on a processor: 8 MiB in fp32, so that a chunk stays near its cache"""
CHUNK_ACCELERATOR = 1 << 26
"""logits computed at once on an accelerator, which wants large matrix products: 256 MiB in fp32"""
KEPT = 1 << 25
"""a batch of up to so many logits (128 MiB in fp32) keeps its log-probabilities for the backward pass; a larger one
computes them again, one more matrix product of four"""


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
    Both are fp32 and carry gradient to hidden and weight. At most `chunk` logits are computed at once. A batch of at
    most `keep` logits in all keeps its log-probabilities for the backward pass, a larger one computes them again.
    Matrix products are in autocast's type where it is on, else in hidden's; the softmax and the sum of the weight's
    gradient over chunks are fp32. Without gradients nothing is kept.
    """
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or tokens.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}, tokens {tuple(tokens.shape)} "
            "are not [M, D], [V, D], [M]"
        )
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; log-probabilities need one above 0")
    device = hidden.device.type
    if chunk is None:
        chunk = CHUNK_CPU if device == "cpu" else CHUNK_ACCELERATOR
    size = max(1, chunk // weight.shape[0])
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    with torch.autocast(device, enabled=False):
        if not learns:
            logps, entropies, _ = forward(hidden, weight, tokens, temperature, size, dtype, entropy, kept=False)
            return logps, entropies
        kept = hidden.shape[0] * weight.shape[0] <= keep
        outputs = LinearLogprobs.apply(hidden, weight, tokens, temperature, size, dtype, entropy, kept)
        return cast(tuple[Tensor, Tensor | None], outputs)


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
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        rows, columns = hidden.to(ctx.dtype), weight.to(ctx.dtype)
        grad_hidden = torch.empty_like(rows) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=at_least_fp32(weight[:0]).dtype) if wants_weight else None
        for number, part in enumerate(parts(len(hidden), ctx.size)):
            if ctx.chunks:
                logps, ctx.chunks[number] = ctx.chunks[number], None
            else:
                logps = chunk_logprobs(rows[part], columns, ctx.temperature)
            down = (grad[part] if grad is not None else None for grad in grads)
            held = entropies[part] if entropies is not None else None
            grad_logits = chunk_gradient(logps, tokens[part], held, *down).div_(ctx.temperature).to(ctx.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits, columns, out=grad_hidden[part])
            if grad_weight is not None:
                add_product(grad_weight, grad_logits.t(), rows[part])
        ctx.chunks = []
        grad_hidden = grad_hidden.to(hidden.dtype) if grad_hidden is not None else None
        grad_weight = grad_weight.to(weight.dtype) if grad_weight is not None else None
        return grad_hidden, grad_weight, None, None, None, None, None, None


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
    """Log-probabilities [M], entropies [M] or None, and each chunk's log-probabilities if they are to be kept."""
    rows, columns = hidden.to(dtype), weight.to(dtype)
    logps = torch.empty_like(tokens, dtype=at_least_fp32(rows[:0]).dtype)
    entropies = torch.empty_like(logps) if entropy else None
    chunks: list[Tensor | None] = []
    for part in parts(len(hidden), size):
        every = chunk_logprobs(rows[part], columns, temperature)
        logps[part] = every.gather(1, tokens[part, None]).squeeze(1)
        if entropies is not None:
            entropies[part] = -torch.einsum("mv,mv->m", every.exp(), every)
        if kept:
            chunks.append(every)
    return logps, entropies, chunks


def parts(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def chunk_logprobs(rows: Tensor, columns: Tensor, temperature: float) -> Tensor:
    """Log-probabilities of every token for a few rows. [m, D], [V, D] -> [m, V] in fp32."""
    logits = at_least_fp32(rows @ columns.t())
    return torch.log_softmax(logits.div_(temperature) if temperature != 1.0 else logits, dim=-1)


def chunk_gradient(
    logps: Tensor, tokens: Tensor, entropies: Tensor | None, grad_logps: Tensor | None, grad_entropies: Tensor | None
) -> Tensor:
    """Gradient of the logits [m, V] from those of log-probabilities and entropies, [m] each. Writes over logps."""
    if grad_logps is None:
        grad_logps = torch.zeros_like(logps[:, 0])
    if grad_entropies is None or entropies is None:
        grad_logits = logps.exp_().mul_(-grad_logps[:, None])
    else:
        slope = (logps + entropies[:, None]).mul_(grad_entropies[:, None]).add_(grad_logps[:, None])
        grad_logits = logps.exp_().mul_(slope.neg_())
    return grad_logits.scatter_add_(1, tokens[:, None], grad_logps[:, None])


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, the sum in total's type."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
