"""How much memory a run needs at its peak, by arithmetic on shapes: what the plan of a run says before it starts.

A run holds its models and, of those that train, the optimizer's moments. Beside that it needs, in turn and never at
once, memory for each of these; the greatest of them makes the peak:

    learning    what the layers keep for the backward pass, then the gradients that take its place
    reading     one layer's working set over a batch, where nothing is learned
    sampling    keys and values of the answers, and the logits of their next tokens
    saving      a copy of all that a checkpoint holds

All results are bytes beyond the program itself. A token is one of a flat batch; a slot is a place that attention
computes: rows padded to one length, and shared contexts repeated.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from torch import nn

from amenable.data import batches
from amenable.functional.logprobs import CACHED, KEPT, chunk_size
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import choose_buckets
from amenable.train.forward import Row
from amenable.train.optimizer import OptimizerConfig, is_hidden_matrix
from amenable.train.runtime import KERNELS, Runtime

FP32, BF16 = 4, 2
LIBRARIES = 16 << 20
"""what torch's kernels and threads take for themselves when they are first used"""
SCATTER = 1.33
"""a processor's allocator keeps freed blocks in pieces: what comes and goes takes so much more than it holds"""
NOISE = 2
"""bytes that dropout keeps of an element"""
KERNEL = 750_000
"""bytes of one bf16 product made for one shape, which the processor's library keeps for the next time"""
KERNELS_OF_A_PASS = 16
STEPS = 50
"""iterations of a rollout that are looked through for the largest pass"""
ROWS = 128
"""answers that a rollout makes at once"""
PREFILL = 8192
"""prompt tokens that a rollout reads at once"""
LISTED = 48
"""bytes of a token among the rows of the data: a number, its place in a list, its mark"""


@dataclass(frozen=True)
class Model:
    """A decoder in memory that ends in logits, or in one number."""

    shape: DecoderConfig
    parameters: int
    bytes: int
    """of the parameters"""
    matrices: int
    """those of the parameters that are matrices inside the layers"""
    training: int = 0
    """how many of the parameters train"""
    moments: int = 0
    """numbers that its optimizer keeps"""
    predicts: bool = True
    """whether it ends in logits"""
    padded: bool = False
    """the vocabulary has more rows than its tokenizer has tokens: a copy makes the unembedding's gradient whole"""


def model_of(module: nn.Module, optimizer: OptimizerConfig | None = None) -> Model:
    """What a module will hold; without an optimizer it is only read."""
    decoder = module.decoder if isinstance(module, ScalarModel) else module
    assert isinstance(decoder, Decoder)
    count, size = sum(p.numel() for p in module.parameters()), sum(p.nbytes for p in module.parameters())
    matrices = sum(p.numel() for p in decoder.layers.parameters() if p.ndim == 2)
    if optimizer is None:
        return Model(decoder.config, count, size, matrices, predicts=decoder is module)
    trained = [(f"0.{name}", p) for name, p in module.named_parameters() if p.requires_grad]
    muon = optimizer.muon_learning_rate > 0
    moments = sum(p.numel() * (1 if muon and is_hidden_matrix(name, p) else 2) for name, p in trained)
    padded = decoder.num_tokens < decoder.config.vocab_size
    numbers = sum(p.numel() for _, p in trained)
    return Model(decoder.config, count, size, matrices, numbers, moments, decoder is module, padded)


@dataclass(frozen=True)
class Pass:
    """Rows that are computed at once."""

    tokens: int
    slots: int
    trained: int
    """tokens that are predicted, by the vocabulary or by one number: after the last attention only they are computed"""
    further: bool = False
    """whether the step has computed another pass before: then the gradients are there from the start"""
    rows: int = 0
    summed: bool = False
    """whether the loss is the sum over what is predicted: then its gradient is computed with the logits"""
    budget: int = 0
    """tokens that a pass may have; a single row may be longer"""


def heaviest(
    elements: Sequence[Sequence[Row]],
    steps: Iterable[Sequence[int]],
    limit: int,
    share: bool = False,
    summed: bool = False,
) -> list[Pass]:
    """The largest pass that is a whole step, and the largest of a step of several; one of them if there is no other.

    elements: each the rows that a loss couples; steps: which elements each has; limit: tokens of a pass; share: whether
    a context that neighbours begin with is computed once; summed: whether the loss is a sum over what is predicted.
    """
    largest: dict[bool, tuple[int, Sequence[Row]]] = {}
    for step in steps:
        chosen = [elements[i] for i in step]
        parts = [part for group in batches.loss_groups(chosen, limit, share) for part in group.microbatches]
        rows, further = list(chain.from_iterable(chosen)), len(parts) > 1
        for part in parts:
            weight = part.tokens + part.row_tokens
            if weight > largest.get(further, (0, ()))[0]:
                largest[further] = weight, [rows[place] for place in part.rows]
    return [
        replace(pass_of(rows, share, further), summed=summed, budget=limit) for further, (_, rows) in largest.items()
    ]


def largest_reading(rows: Sequence[Row], limit: int) -> Pass:
    """The largest pass over rows that are only read, in the order of `passes.in_chunks`."""
    ordered = [rows[place] for place in batches.order_by_length(rows)]
    parts = batches.microbatches(ordered, limit, share=True)
    part = max(parts, key=lambda part: part.tokens + part.row_tokens, default=None)
    return pass_of([ordered[place] for place in part.rows], share=True) if part else Pass(0, 0, 0)


def pass_of(rows: Sequence[Row], share: bool = False, further: bool = False) -> Pass:
    """What a batch of these rows is to a model."""
    lengths = [len(ids) for ids, _ in rows]
    slots = sum(count * length for count, length in choose_buckets(np.sort(lengths)))
    tokens = batches.unique_tokens(rows) if share else sum(lengths)
    return Pass(tokens, slots, sum(sum(trained) for _, trained in rows), further, len(rows))


def learning(models: Sequence[Model], work: Pass, runtime: Runtime) -> int:
    """Of models that compute a pass together: the most of its forward end and its backward end.

    At the forward end all that the layers keep is there; on the way back each layer's share makes room for its
    gradients. The embedding's gradient comes last, beside that of the unembedding where they are one matrix.
    """
    gradients = FP32 * sum(model.training for model in models)
    forward = sum(kept(model, work, runtime) for model in models) + (gradients if work.further else 0)
    turning = max(max(head(model, work, runtime), layer_backward(model, work, runtime)) for model in models)
    embedding = FP32 * max(model.shape.vocab_size * model.shape.hidden_size for model in models)
    backward = gradients + embedding + FP32 * work.tokens * max(model.shape.hidden_size for model in models)
    return max(forward + turning, backward)


def kept(model: Model, work: Pass, runtime: Runtime) -> int:
    """What the layers keep for the backward pass, the weights in the products' precision among it."""
    shape, product = model.shape, product_bytes(runtime)
    casts = 0 if product == FP32 else product * model.matrices
    token, slot = layer_keeps(shape, runtime, even=work.slots == work.tokens)
    late = late_keeps(shape, runtime)  # the last layer keeps this of the tokens alone whose states are read
    dropout = NOISE * shape.hidden_size if shape.dropout else 0  # of the embedding
    ends = (FP32 + FP32) * shape.hidden_size  # the last norm's input, and what it gives
    rotation = FP32 * shape.head_size if shape.positions == "rope" else 0
    layers = shape.num_layers * (token * work.tokens + slot * work.slots) - late * (work.tokens - work.trained)
    return casts + layers + ends * work.trained + (rotation + dropout) * work.tokens


def layer_keeps(shape: DecoderConfig, runtime: Runtime, even: bool) -> tuple[int, int]:
    """Bytes that one layer keeps for the backward pass: of each token, and of each slot. even: no row is padded."""
    product, attention = product_bytes(runtime), attention_bytes(runtime)
    queries, keys = shape.num_heads * shape.head_size, shape.kv_head_count * shape.head_size
    norm = (FP32 + product) * shape.hidden_size
    heads = attention * (queries + 2 * keys) if even or shape.qk_norm else 0
    turned = shape.positions == "rope" or shape.qk_norm
    copies = attention * ((queries + 2 * keys) if not even else (queries + keys) if turned else 0)
    attended = attention * queries + FP32 * shape.num_heads
    given = 0 if even and product == attention else product * queries
    noise = NOISE * shape.hidden_size if shape.dropout else 0
    return norm + heads + given + noise + late_keeps(shape, runtime), copies + attended


def late_keeps(shape: DecoderConfig, runtime: Runtime) -> int:
    """Those bytes of a token that a layer keeps after its attention: norm, MLP, noise."""
    product = product_bytes(runtime)
    widths = {"swiglu": 4, "gelu": 2, "relu": 1}
    mlp = widths[shape.activation] * product * shape.mlp_size
    return (FP32 + product) * shape.hidden_size + mlp + (NOISE * shape.hidden_size if shape.dropout else 0)


def layer_backward(model: Model, work: Pass, runtime: Runtime) -> int:
    """The most that going back through one layer needs beside what was kept."""
    shape, product, attention = model.shape, product_bytes(runtime), attention_bytes(runtime)
    queries, keys = shape.num_heads * shape.head_size, shape.kv_head_count * shape.head_size
    stream = (FP32 + product) * shape.hidden_size
    mlp = (5 if shape.activation == "swiglu" else 2) * product * shape.mlp_size
    heads = queries + 2 * keys
    attended = (attention + product) * heads * work.tokens + attention * (heads + queries) * work.slots
    return stream * work.tokens + max(mlp * work.tokens, attended)


def head(model: Model, work: Pass, runtime: Runtime) -> int:
    """What the loss over the vocabulary needs, with its gradients to hidden states and unembedding."""
    if not model.predicts:
        return 0
    shape, product = model.shape, product_bytes(runtime)
    logits = work.trained * shape.vocab_size
    added = 1 if runtime.device.type == "cpu" else 2  # a processor has but few rows of the gradient's product at once
    casts = 0 if product == FP32 else product * (work.trained + added * shape.vocab_size) * shape.hidden_size
    states = (FP32 + product) * work.trained * shape.hidden_size
    remembered = product * logits if product * logits <= KEPT and not work.summed else 0
    gradient = (2 if model.padded else 1) * FP32 * shape.vocab_size * shape.hidden_size
    return casts + states + remembered + gradient + chunk(shape, work, runtime)


def chunk(shape: DecoderConfig, work: Pass, runtime: Runtime) -> int:
    """The logits that are computed at once, and their softmax: of few rows at once on a processor."""
    cpu = runtime.device.type == "cpu"
    logits = min(work.trained * shape.vocab_size, chunk_size(shape.vocab_size, runtime.device.type))
    return product_bytes(runtime) * logits + 2 * FP32 * (min(logits, CACHED) if cpu else logits)


def reading(model: Model, work: Pass, runtime: Runtime) -> int:
    """What a pass without gradients needs: the stream, and the most of attention, MLP and head."""
    shape, product, attention = model.shape, product_bytes(runtime), attention_bytes(runtime)
    queries, keys = shape.num_heads * shape.head_size, shape.kv_head_count * shape.head_size
    heads = queries + 2 * keys
    stream = (2 * FP32 + product) * shape.hidden_size * work.tokens
    attended = (product + attention) * heads * work.tokens + attention * (heads + 2 * queries) * work.slots
    mlp = (4 if shape.activation == "swiglu" else 2) * product * shape.mlp_size * work.tokens
    copies = 0 if product == FP32 or not model.training else product * model.matrices  # of one that is not lean yet
    columns = 0
    if model.predicts:
        copies += 0 if product == FP32 else product * shape.vocab_size * shape.hidden_size
        columns = (FP32 + product) * work.trained * shape.hidden_size + chunk(shape, work, runtime)
    return copies + stream + max(attended, mlp, columns)


def sampling(model: Model, rows: int, length: int, prompt_tokens: int, runtime: Runtime) -> int:
    """What `rows` answers made at once need, prompt and answer together at most `length` tokens each."""
    shape, product = model.shape, product_bytes(runtime)
    cache = 2 * shape.num_layers * rows * length * shape.kv_head_count * shape.head_size * product
    casts = 0 if product == FP32 else product * (model.matrices + shape.vocab_size * shape.hidden_size)
    drawing = (product + 4 * FP32) * rows * shape.vocab_size
    prefill = reading(model, Pass(prompt_tokens, prompt_tokens, 0), runtime)
    return cache + casts + max(drawing, prefill)


def saving(models: Sequence[Model], best: int = 0) -> int:
    """A copy of the weights and moments of the models that train, and of so many numbers more."""
    return FP32 * (sum(model.parameters + model.moments for model in models if model.training) + best)


def product_bytes(runtime: Runtime) -> int:
    """Bytes of a number in a matrix product."""
    return BF16 if runtime.bf16 else FP32


def attention_bytes(runtime: Runtime) -> int:
    """Bytes of a number in attention, which is computed in fp32 on a processor."""
    return FP32 if runtime.device.type == "cpu" else product_bytes(runtime)


def training(
    module: nn.Module,
    optimizer: OptimizerConfig,
    works: Sequence[Pass],
    runtime: Runtime,
    steps: int = 1,
    read: Pass | None = None,
    best: bool = False,
    listed: int = 0,
    reference: nn.Module | None = None,
    others: Sequence[int] = (),
) -> int:
    """Peak of a run that trains one model on data in so many steps.

    works: its largest passes. read: the largest in which the model is only read, as in validation. best: whether the
    best weights are kept beside the newest. listed: tokens of the data, as they lie in lists. reference: a
    model that is held and only read. others: bytes of whatever else comes and goes.
    """
    model = model_of(module, optimizer)
    copies = model.parameters if best else 0
    held = model.bytes + FP32 * (model.moments + copies) + LISTED * listed
    passing = [learning([model], work, runtime) for work in works]
    passing += [reading(model, read, runtime)] if read else []
    held += model_of(reference).bytes if reference is not None else 0
    return peak(held, max([*passing, *others]), saving([model], copies), steps, runtime)


def full_answer(prompt: list[int], length: int) -> Row:
    """A prompt with an answer of so many tokens."""
    return prompt + [0] * length, [False] * len(prompt) + [True] * length


def peak(held: int, passing: int, saved: int, passes: int, runtime: Runtime) -> int:
    """What is held all the time, and the greater of what comes and goes at every step and what a checkpoint copies."""
    if runtime.device.type != "cpu":
        return held + passing
    return LIBRARIES + kernels(passes, runtime) + held + max(round(SCATTER * passing), saved)


def kernels(passes: int, runtime: Runtime) -> int:
    """What a processor's library keeps of the bf16 products made for each number of tokens that passes have."""
    if not runtime.bf16:
        return 0
    limits = [int(os.environ.get(f"{name}_CACHE_CAPACITY", KERNELS)) for name in ("ONEDNN_PRIMITIVE", "LRU")]
    return KERNEL * min(sum(limits), KERNELS_OF_A_PASS * passes)


def told(size: int, runtime: Runtime, works: Sequence[Pass] = ()) -> str:
    """The size, what computes there, and the longest row if it is over the budget, as the plan of a run says them."""
    number = f"{size / 2**30:.2g} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
    longest, budget = max(((work.tokens, work.budget) for work in works), default=(0, 0))
    over = f"; passes of up to {longest:,} tokens, as the longest row has, not {budget:,}" if longest > budget else ""
    return f"about {number}; {runtime.describe()}{over}"
