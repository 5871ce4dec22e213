"""Peak memory of a run, in bytes beyond the program's own, computed from shapes before the run starts.

    held        weights, moments of the weights that train, data in lists
    pass        a training pass, an inference pass or generation: the largest of them counts

Weights, gradients and moments are exact. Activations are a model with a few constants: within 15 % of the
peaks that `python -m benchmarks.scaling --sweep memory` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from amenable.functional.logprobs import CACHE_LOGITS, KEEP_LOGITS_BYTES, chunk_size
from amenable.models.attention import QUERY_BLOCK
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.heads import Classifier, ScalarModel
from amenable.models.lora import published_layers
from amenable.models.tensor_parallel import processes_of_products, share_of
from amenable.processes import is_summed, local_part
from amenable.train.memory_limit import Choice, gibibytes
from amenable.train.optimizer import OptimizerConfig, is_hidden_matrix
from amenable.train.passes import Pass
from amenable.train.runtime import KERNELS, Runtime

FP32, BF16 = 4, 2
DROPOUT_BYTES = 2
"""stored for each number under dropout, measured"""
MLP_WIDTHS = {"swiglu": 4, "geglu": 4, "gelu": 2, "exact_gelu": 2, "relu": 1}
"""tensors of the MLP's width stored for the backward pass"""
LAYER_SHARE = 0.9
"""working memory of one layer, in a backward pass or without gradients, over its activations: 0.70 to 1.04 by shape"""
RECOMPUTED_SHARE = 0.2
"""gradients inside a layer that is computed again, over its activations"""
LIBRARIES = 16 << 20
"""of torch's kernels and threads, once they are used"""
FRAGMENTATION = 1.15
"""peak over live bytes in a processor's heap: 1.0 after one step, 1.03 to 1.35 after eight steps of different sizes"""
KERNEL_BYTES, KERNELS_PER_PASS = 1_000_000, 16
"""cached bf16 products of a processor's library: bytes of one, 0.7 to 1.3 million; products of each size of a pass"""
GENERATION_ROWS, PREFILL_TOKENS = 128, 8192
"""completions generated at once, and prompt tokens read at once"""


@dataclass(frozen=True)
class Model:
    """Sizes of a decoder that ends in logits, or in a scalar."""

    shape: DecoderConfig
    parameters: int
    bytes: int
    """of the parameters"""
    matrices: int
    """parameters in the layers' matrices, as far as they are in fp32"""
    training: int = 0
    """parameters that train"""
    moments: int = 0
    """numbers in the optimizer's state"""
    predicts: bool = True
    """True if it ends in logits"""
    checkpointed: bool = False
    """True if layers' activations are computed again in the backward pass"""
    virtual_tokens: int = 0
    """before every row, beyond the tokens of a pass"""
    keeps_inputs: bool = True
    """True if matrices of the layers train: the inputs of their products are kept for the gradient"""
    residual: int = FP32
    """bytes of a number between layers: fp32 here, bf16 in programs that cast their weights instead of products"""
    gathered: int = 0
    """bytes of the whole copy that samples and scores, where processes divide the weights"""
    buffers: int = 0
    """bytes of what a training pass gathers of them, and of its gradients"""
    tensor_parallel: int = 1
    """processes that divide the products of a training pass"""


def model_of(module: nn.Module, optimizer: OptimizerConfig | None = None) -> Model:
    """Return the sizes of a module, of what this process holds where several divide the weights; without an optimizer
    nothing of it trains."""
    decoder = module.decoder if isinstance(module, ScalarModel) else module
    assert isinstance(decoder, Decoder)
    count, size = sum(p.numel() for p in module.parameters()), sum(local_part(p).nbytes for p in module.parameters())
    matrices = sum(p.numel() for p in decoder.layers.parameters() if p.ndim == 2 and p.dtype == torch.float32)
    predicts = decoder is module or (isinstance(module, Classifier) and module.predicts_tokens)
    model = Model(decoder.config, count, size, matrices, predicts=predicts, virtual_tokens=decoder.num_virtual_tokens)
    divided = [p for p in module.parameters() if isinstance(p, DTensor)]
    model = replace(model, gathered=sum(p.nbytes for p in divided))
    if optimizer is None:
        return model
    tensor_parallel = processes_of_products(decoder)
    muon = optimizer.muon_learning_rate > 0
    trained = [(f"0.{name}", p) for name, p in module.named_parameters() if p.requires_grad]
    moments = sum(local_part(p).numel() * (1 if muon and is_hidden_matrix(name, p) else 2) for name, p in trained)
    training = sum(local_part(p).numel() for _, p in trained)
    keeps_inputs = any(p.requires_grad for p in decoder.layers.parameters() if p.ndim == 2)
    checkpointed = decoder.checkpoint_activations
    model = replace(model, training=training, moments=moments, checkpointed=checkpointed, keeps_inputs=keeps_inputs)
    model = replace(model, tensor_parallel=tensor_parallel, matrices=matrices // tensor_parallel)
    if not any(map(is_summed, divided)):
        return model
    blocks = [sum(p.nbytes for p in block.parameters()) for block in decoder.layers]
    others = model.gathered - sum(blocks)  # a block, the next, and the gradient of one
    return replace(model, buffers=2 * others + 3 * max(blocks) // tensor_parallel)


def can_adapt(module: nn.Module, options: Any) -> bool:
    """Return True if a run trains the weights of a model that adapters could be on: one that was loaded."""
    decoder = module.decoder if isinstance(module, ScalarModel) else module
    return getattr(decoder, "origin", None) is not None and not getattr(options, "trains_adapters", True)


def chosen(model: Model, module: nn.Module, choice: Choice | None, runtime: Runtime) -> Model:
    """Return the sizes of a model that trains, as they are under another choice of options."""
    if choice is None or not model.training:
        return model
    model = replace(model, checkpointed=choice.checkpoint_activations)
    if not choice.rank:
        return model
    decoder = module.decoder if isinstance(module, ScalarModel) else module
    assert isinstance(decoder, Decoder)
    layers = published_layers(decoder)
    widths: dict[str, int] = {name: decoder.get_parameter(f"{name}.weight").shape[1] for name in layers}
    count = sum(choice.rank * (widths[name] + size) for name, parts in layers.items() for _, size in parts)
    size, cast = model.bytes + FP32 * count, runtime.bf16  # frozen matrices are stored as their products are
    return replace(
        model,
        parameters=model.parameters + count,
        bytes=size - (FP32 - BF16) * model.matrices if cast else size,
        matrices=0 if cast else model.matrices,
        training=count,
        moments=2 * count,
    )


def layer_bytes(shape: DecoderConfig, work: Pass, runtime: Runtime, residual: int = FP32) -> tuple[int, int]:
    """Return bytes that one layer keeps for the backward pass: attention's, and the MLP's of one token. residual: bytes
    of a number between layers."""
    product = product_bytes(runtime)
    attention = FP32 if runtime.device.type == "cpu" else product  # a processor attends in fp32
    queries, keys = shape.num_heads * shape.head_size, shape.kv_head_count * shape.head_size
    around = {"branch": 2 * product, "sandwich": residual + 2 * product}.get(shape.norm_placement, residual + product)
    norm = (around + (DROPOUT_BYTES if shape.dropout else 0)) * shape.hidden_size
    # rows of one length are views of the product, which stays beside what rotation makes of it
    stays = shape.qk_norm or (shape.positions == "rope" and work.slots == work.tokens)
    token = norm + product * queries + (attention * (queries + 2 * keys) if stays else 0)
    slot = attention * 2 * (queries + keys)
    if shape.limits_attention:  # blocks of queries under a window are joined to a second result
        slot += attention * queries
    return token * work.tokens + slot * work.slots, norm + MLP_WIDTHS[shape.activation] * product * shape.mlp_size


def activation_bytes(model: Model, work: Pass, runtime: Runtime) -> int:
    """Return bytes kept for the backward pass, the layers' matrices in bf16 included. The last MLP and the final norm
    read tokens with a prediction only."""
    shape, (attention, mlp) = model.shape, layer_bytes(model.shape, work, runtime, model.residual)
    layers = shape.num_layers * (attention + mlp * work.tokens) - mlp * (work.tokens - work.trained)
    if not model.keeps_inputs:  # of the products after norms and after the gate
        widths = shape.mlp_size + (2 * shape.hidden_size if shape.norm_placement in ("pre", "sandwich") else 0)
        layers -= product_bytes(runtime) * shape.num_layers * widths * work.tokens
    mask = FP32 * QUERY_BLOCK * (QUERY_BLOCK + shape.window) if shape.limits_attention and shape.window else 0
    return cast_bytes(model.matrices, runtime) + layers + mask + 2 * FP32 * shape.hidden_size * work.trained


def head_bytes(model: Model, work: Pass, runtime: Runtime, training: bool = True) -> int:
    """Return bytes of predictions over the vocabulary; training: with the gradients of states and unembedding."""
    if not model.predicts:
        return 0
    shape, product, cpu = model.shape, product_bytes(runtime), runtime.device.type == "cpu"
    logits, unembedding = work.trained * shape.vocab_size, shape.vocab_size * shape.hidden_size
    chunk = min(logits, chunk_size(shape.vocab_size, runtime.device.type))
    softmax = product * chunk + 2 * FP32 * (min(chunk, CACHE_LOGITS) if cpu else chunk)
    states = (FP32 + product) * work.trained * shape.hidden_size
    stored = product * logits if training and not work.summed and product * logits <= KEEP_LOGITS_BYTES else 0
    return cast_bytes(unembedding, runtime) + states + softmax + stored + (FP32 * unembedding if training else 0)


def working_bytes(model: Model, work: Pass, runtime: Runtime) -> int:
    """Return the working memory of one layer."""
    attention, mlp = layer_bytes(model.shape, work, runtime, model.residual)
    return round(LAYER_SHARE * (attention + mlp * work.tokens))


def training_bytes(model: Model, work: Pass, runtime: Runtime) -> int:
    """Return the peak of a forward and backward pass: all activations, or all gradients with the embedding's twice."""
    if model.buffers:
        return model.buffers + training_bytes(replace(model, buffers=0), work, runtime)
    model = replace(model, shape=share_of(model.shape, model.tensor_parallel))
    work = work.after(model.virtual_tokens)
    if model.checkpointed:
        return checkpointed_bytes(model, work, runtime)
    shape, gradients = model.shape, FP32 * model.training
    working = max(head_bytes(model, work, runtime), working_bytes(model, work, runtime))
    forward = activation_bytes(model, work, runtime) + working
    backward = gradients + FP32 * shape.hidden_size * (shape.vocab_size + work.tokens)
    return max(forward + (gradients if work.accumulates else 0), backward)


def checkpointed_bytes(model: Model, work: Pass, runtime: Runtime) -> int:
    """Return the peak of a forward and backward pass that keeps the layers' inputs alone: at the head, at a layer whose
    activations are computed again, or at the embedding."""
    shape, gradients = model.shape, FP32 * model.training
    inputs, unembedding = (
        model.residual * shape.hidden_size * work.tokens * shape.num_layers,
        shape.vocab_size * shape.hidden_size,
    )
    attention, mlp = layer_bytes(shape, work, runtime, model.residual)
    layer = attention + mlp * work.tokens + cast_bytes(model.matrices // shape.num_layers, runtime)
    working, before = working_bytes(model, work, runtime), gradients if work.accumulates else 0
    forward = cast_bytes(model.matrices, runtime) + max(head_bytes(model, work, runtime), working)
    head = FP32 * unembedding if model.predicts and not before else 0
    backward = max(gradients - before, inputs + head) - inputs + round((1 + RECOMPUTED_SHARE) * layer)
    last = gradients - before - inputs + FP32 * shape.hidden_size * (shape.vocab_size + work.tokens)
    return before + inputs + max(forward, backward, last)


def inference_bytes(model: Model, work: Pass, runtime: Runtime) -> int:
    """Return the peak of a pass without gradients."""
    work = work.after(model.virtual_tokens)
    copy = cast_bytes(model.matrices, runtime) if model.training else 0  # a model that trains is cast for inference
    copy += model.gathered
    return copy + max(working_bytes(model, work, runtime), head_bytes(model, work, runtime, training=False))


def generation_bytes(model: Model, rows: int, length: int, prompt_tokens: int, runtime: Runtime) -> int:
    """Return the peak of generating `rows` completions at once, each at most `length` tokens with its prompt."""
    shape, product = model.shape, product_bytes(runtime)
    slots = rows * (length + model.virtual_tokens)
    cache = 2 * shape.num_layers * slots * shape.kv_head_count * shape.head_size * product
    casts = cast_bytes(model.matrices + shape.vocab_size * shape.hidden_size, runtime)
    sampling = (product + 4 * FP32) * rows * shape.vocab_size + model.gathered
    return cache + casts + max(sampling, inference_bytes(model, Pass(prompt_tokens, prompt_tokens, 0, rows), runtime))


def product_bytes(runtime: Runtime) -> int:
    """Return bytes of a number in a matrix product."""
    return BF16 if runtime.bf16 else FP32


def cast_bytes(numbers: int, runtime: Runtime) -> int:
    """Return bytes of fp32 weights cast for products; 0 where products are fp32."""
    return BF16 * numbers if runtime.bf16 else 0


def training_peak(
    module: nn.Module,
    optimizer: OptimizerConfig,
    work: Pass,
    runtime: Runtime,
    steps: int = 1,
    inference: Pass | None = None,
    best: bool = False,
    reference: nn.Module | None = None,
    others: Sequence[int] = (),
    choice: Choice | None = None,
    async_save: bool = False,
) -> int:
    """Return the peak of a run that trains one model on data.

    work, inference: its largest passes with and without gradients. best: True if the best weights are kept.
    reference: a frozen model. others: peaks of other work, such as generation. choice:
    other options than the model's own. async_save: True if a copy of the state is written while training goes on.
    """
    model = chosen(model_of(module, optimizer), module, choice, runtime)
    copies = model.parameters if best else 0
    held = model.bytes + FP32 * (model.moments + copies)
    held += FP32 * (model.training + model.moments + copies) if async_save else 0
    held += model_of(reference).bytes if reference is not None else 0
    peaks = [training_bytes(model, work, runtime), *others]
    peaks += [inference_bytes(model, inference, runtime)] if inference else []
    return peak_bytes(held, max(peaks), steps, runtime, returned=model.checkpointed or model.gathered > 0)


def peak_bytes(
    held: int, largest: int, passes: int, runtime: Runtime, other_phase: int = 0, returned: bool = False
) -> int:
    """Return the peak of a run: what is held, and its largest pass. A checkpoint is written without a copy.

    other_phase: peak of a phase in every step whose freed blocks stay in a processor's heap and do not fit the largest
    pass, as generation's beside updates (measured: the heap grows to their sum). returned: True if freed blocks go back
    to the system (`runtime.return_memory`).
    """
    if runtime.device.type != "cpu":
        return held + largest
    kernels = KERNEL_BYTES * min(2 * KERNELS, KERNELS_PER_PASS * passes) if runtime.bf16 else 0
    heap = largest if returned else max(round(FRAGMENTATION * largest), largest + other_phase)
    return LIBRARIES + kernels + held + heap


def describe(size: int, runtime: Runtime, longest: int, limit: int) -> str:
    """Return a line of a run's plan: the size, the device, and the longest row's tokens if they exceed the limit."""
    over = f"; passes of up to {longest:,} tokens, as the longest row has, not {limit:,}" if longest > limit else ""
    return f"about {gibibytes(size)}; {runtime.describe()}{over}"
