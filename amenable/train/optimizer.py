"""AdamW with weight decay on matrices only, and torch's Muon for hidden matrices as an option.

Muon (Jordan et al., 2024) makes the update of a hidden matrix orthogonal. At a few million parameters and minutes of
training it learned facts more reliably than AdamW, so the small presets use it for pretraining.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.models.sharding import is_sharded, own_part, portable, shard
from amenable.processes import sum_gradients, tensor_size, total_norm
from amenable.train.defaults import FROM_MODEL, FromModel
from amenable.train.guards import LOWER
from amenable.train.runtime import return_memory

T = TypeVar("T", bound=Tensor)


@dataclass(frozen=True)
class OptimizerConfig:
    """Options of AdamW and Muon."""

    learning_rate: FromModel[float] = FROM_MODEL
    """peak learning rate of AdamW; by default from the model's size"""
    muon_learning_rate: FromModel[float] = 0.0
    """learning rate of Muon for the hidden matrices; 0 leaves them to AdamW"""
    weight_decay: float = 0.0
    """decoupled decay, on matrices only"""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    """gradients are scaled down to this norm; 0 leaves them"""
    fsdp: bool = False
    """divide weights, gradients and moments among the processes (FSDP2); sampling and scoring take whole copies of the
    moment. In one process it changes nothing"""
    fsdp_offload: bool = False
    """keep the divided weights, gradients and moments in the processor's memory, where they are updated, and copy a
    block's weights to the GPU when it computes (CPUOffloadPolicy): less GPU memory, slower steps"""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "muon_learning_rate", "weight_decay", "max_grad_norm"):
            if getattr(self, name) is not FROM_MODEL and not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"optimizer.{name} is {getattr(self, name)}", how="it must be 0 or more, and finite")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}", how="it must lie in [0, 1)")
        if self.fsdp_offload and not self.fsdp:
            raise InputError("optimizer.fsdp_offload moves what fsdp divides", how="add --optimizer.fsdp")
        if not 0 < self.eps < 1e9:
            raise InputError(f"optimizer.eps is {self.eps}", how="it must be above 0, such as 1e-8")


class Optimizer:
    """AdamW, and Muon if configured, over the trainable parameters of some modules, stepped together."""

    extra_vectors = 0
    """vectors of the weights' size that a step holds beyond the moments"""

    def __init__(self, modules: list[nn.Module], config: OptimizerConfig):
        if config.learning_rate is FROM_MODEL:
            raise InputError("no learning rate is given", how="give optimizer.learning_rate, or fill it by the model")
        if config.fsdp or tensor_size() > 1:
            self.divide(modules, config)
        parameters = {name: p for i, m in enumerate(modules) for name, p in named(m, i) if p.requires_grad}
        if not parameters:
            raise InputError("nothing is left to train", how="freeze fewer layers")
        self.parameters = list(parameters.values())
        self.max_grad_norm = config.max_grad_norm
        self.on_nonfinite: Callable[[str, str], NoReturn] = raise_nonfinite
        hidden = {name: p for name, p in parameters.items() if config.muon_learning_rate and is_hidden_matrix(name, p)}
        matrices = [p for name, p in parameters.items() if p.ndim >= 2 and name not in hidden]
        others = [p for name, p in parameters.items() if p.ndim < 2]
        groups = [
            {"params": kind, "weight_decay": decay}
            for part, decay in ((matrices, config.weight_decay), (others, 0.0))
            for kind in by_mesh(part)
        ]
        self.usual_groups = [group for group in (matrices, others) if group]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                groups,
                lr=config.learning_rate,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                fused=True,
            )
        ]
        self.paddings = [padding for module in modules for padding in paddings_of(module)]
        self.peaks = [config.learning_rate]
        if hidden:
            self.parts.append(
                torch.optim.Muon(
                    list(hidden.values()),
                    lr=config.muon_learning_rate,
                    weight_decay=config.weight_decay,
                    momentum=0.95,
                )
            )
            self.peaks.append(config.muon_learning_rate)

    def divide(self, modules: Sequence[nn.Module], config: OptimizerConfig) -> None:
        """Divide the modules' weights among the processes. InputError for what takes whole matrices."""
        name, option = ("fsdp", "optimizer.fsdp") if config.fsdp else ("tensor_parallel", "tensor-parallel")
        if config.muon_learning_rate:
            problem = f"Muon takes whole matrices, and {name} divides them"
            raise InputError(problem, how="set --optimizer.muon-learning-rate 0")
        if self.extra_vectors:
            raise InputError(f"trpo takes second derivatives, which {name} has not", how=f"leave out --{option}")
        for module in modules:
            if config.fsdp and config.weight_decay and paddings_of(module):
                raise InputError("weight decay would change padding rows, which fsdp divides", how="set it to 0")
            shard(module, config.fsdp, config.fsdp_offload)
        if any(map(is_sharded, modules)):
            return_memory()  # blocks that come and go with each layer are kept as fragments, four times their size

    def step(self, multiplier: float = 1.0) -> float:
        """Sum the gradient over processes, clip it, step at `multiplier` times the peak learning rates, and clear it;
        return its norm before.

        Calls `on_nonfinite` before the step for a gradient that is not finite, and after it for such weights.
        """
        sum_gradients(self.parameters)
        limit = self.max_grad_norm or float("inf")
        norm = clip_gradients(self.parameters, limit)
        if not math.isfinite(norm):
            self.on_nonfinite(f"the gradient is not finite (its norm is {norm})", LOWER)
        for part, peak in zip(self.parts, self.peaks):
            for group in part.param_groups:
                group["lr"] = peak * multiplier
            part.step()
        torch.autograd.graph.increment_version(self.parameters)  # torch's fused AdamW does not
        for parameter, count, rows in self.paddings:
            if not isinstance(parameter, DTensor):
                parameter.data[count:] = rows
        self.zero_grad()
        if not math.isfinite(length(self.parameters)):
            self.on_nonfinite("the weights are no longer finite after this step", LOWER)
        return norm

    def rates(self, prefix: str = "") -> dict[str, float]:
        """Return the learning rates of the last step as metrics: `lr`, and `muon_lr` with Muon."""
        names = ("lr", "muon_lr")
        return {prefix + name: part.param_groups[0]["lr"] for name, part in zip(names, self.parts)}

    def zero_grad(self) -> None:
        """Clear all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the moments, of the same form however the weights are held; where those are divided, this process's
        parts."""
        states = {str(i): portable_state(part) for i, part in enumerate(self.parts)}
        return {**states, "0": regrouped(states["0"], grouped(self.parts[0]), self.usual_groups)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = {**state, "0": regrouped(state["0"], self.usual_groups, grouped(self.parts[0]))}
        for i, part in enumerate(self.parts):
            own = state[str(i)]
            parameters = parameters_of(part)
            moments = {number: parts_like(parameters[number], values) for number, values in own["state"].items()}
            part.load_state_dict({**own, "state": moments})


def raise_nonfinite(problem: str, hint: str) -> NoReturn:
    """Raise InputError for numbers that are not finite; a run replaces this to stop itself."""
    raise InputError(problem, how=hint)


@torch.no_grad()
def length(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all numbers; not finite if one is not, or if its square overflows."""
    return math.hypot(*(total_norm(kind) for kind in by_mesh(tensors)))


def by_mesh(tensors: Iterable[T]) -> list[list[T]]:
    """Return tensors that are whole, and those that are divided, by the processes that they are divided among."""
    kinds: dict[DeviceMesh | None, list[T]] = {None: []}
    for tensor in tensors:
        kinds.setdefault(tensor.device_mesh if isinstance(tensor, DTensor) else None, []).append(tensor)
    return [kind for kind in kinds.values() if kind]


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale the gradients down to a norm of at most `limit`; return their norm before."""
    having = [p for p in parameters if p.grad is not None]
    norm = length([p.grad for p in having if p.grad is not None])
    for kind in by_mesh(having) if math.isfinite(limit) else []:
        nn.utils.clip_grads_with_norm_(kind, limit, torch.tensor(norm, device=kind[0].device))
    return norm


def parameters_of(part: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return the parameters of a torch optimizer, as its state numbers them."""
    return [parameter for group in grouped(part) for parameter in group]


def portable_state(part: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of a torch optimizer with moments that any other layout of its parameters reads."""
    state, parameters = part.state_dict(), parameters_of(part)
    moments = {
        number: {name: portable(value, parameters[number]) for name, value in own.items()}
        for number, own in state["state"].items()
    }
    return {**state, "state": moments}


def grouped(part: torch.optim.Optimizer) -> list[list[nn.Parameter]]:
    """Return the parameters of a torch optimizer by its groups."""
    return [group["params"] for group in part.param_groups]


def regrouped(
    state: dict[str, Any], old: Sequence[Sequence[nn.Parameter]], new: Sequence[Sequence[nn.Parameter]]
) -> dict[str, Any]:
    """Return the state of a torch optimizer for other groups of the same parameters. The options of a new group are
    those of the old one that its first parameter was in."""
    if [[*map(id, group)] for group in old] == [[*map(id, group)] for group in new]:
        return state
    places = {id(parameter): i for i, parameter in enumerate(p for group in old for p in group)}
    owners = {id(parameter): i for i, group in enumerate(old) for parameter in group}
    order = [parameter for group in new for parameter in group]
    numbers = {id(parameter): i for i, parameter in enumerate(order)}
    moments = {i: state["state"][places[id(p)]] for i, p in enumerate(order) if places[id(p)] in state["state"]}
    groups = [
        {**state["param_groups"][owners[id(group[0])]], "params": [numbers[id(p)] for p in group]} for group in new
    ]
    return {"state": moments, "param_groups": groups}


def parts_like(parameter: nn.Parameter, moments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the moments of a parameter, those of its shape divided as it is."""
    return {
        name: own_part(value, parameter) if value.shape == parameter.shape else value for name, value in moments.items()
    }


def named(module: nn.Module, index: int) -> list[tuple[str, nn.Parameter]]:
    return [(f"{index}.{name}", parameter) for name, parameter in module.named_parameters()]


def paddings_of(module: nn.Module) -> list[tuple[Tensor, int, Tensor]]:
    """Return embeddings and unembeddings with padding rows: (matrix, number of tokens, copy of the rows beyond). These
    rows have no gradient, but weight decay would change them."""
    paddings = []
    for decoder in (part for part in module.modules() if isinstance(part, Decoder)):
        matrices = [decoder.token_embedding] + ([decoder.output] if decoder.output is not None else [])
        if decoder.num_tokens < decoder.config.vocab_size:
            tokens = decoder.num_tokens
            paddings += [(m.weight, tokens, m.weight.detach()[tokens:].clone()) for m in matrices]
    return paddings


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Return True for a matrix inside a layer, not an embedding or a head."""
    return parameter.ndim == 2 and ".layers." in name
