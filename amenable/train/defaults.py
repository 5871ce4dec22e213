"""Defaults that depend on the model, such as learning rates by its number of parameters.

A learning rate for two million parameters is ten times too large for a hundred million. So options that depend on the
model are declared `FromModel[...] = FROM_MODEL`, which is None on the command line and in a file, and a stage fills
them from the `Traits` of its model. config.yaml and the plan of the run have the numbers.

    log(learning rate) = linear in log(parameters) between the anchors of a table, constant beyond its ends

Learning rates are AdamW's for models whose weights all train; frozen layers do not change them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

from amenable.model_folder import count_virtual_tokens
from amenable.models import pretrained
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.ngram.tables import count_ngrams, is_ngram
from amenable.train import loading, plan

T = TypeVar("T")
if TYPE_CHECKING:
    FromModel = Annotated[T, "None until `fill` has put a number there"]
else:
    FromModel = Optional
FROM_MODEL: Any = None
"""default of an option that depends on the model"""

TEMPERATURE = 0.7
"""sampling temperature of a model whose folder has none: Ziegler et al. (2019), Huang et al. (2024)"""
MAX_LENGTH = 256
"""longest completion in tokens, for any context"""
TUNED_LENGTH = 64
"""longest completion in tokens in the closed world, where KL coefficient and target were tuned"""
MUON_RATE = 0.02
"""peak learning rate of Muon for the hidden matrices of a new model (Jordan et al., 2024)"""
LORA_FACTOR = 10
"""best learning rate of adapters over that of all weights, at any rank and size (Schulman et al., 2025)"""
PROMPT_RATE = 0.03
"""peak learning rate of virtual tokens, for every size: with 16 of them the held-out loss of SmolLM2-135M-Instruct
after 25 steps of sft was 3.16 at 2e-4, 2.61 at 0.01, 2.43 at 0.05, 2.47 at 0.2; the closed world's is flat from 3e-3 to
0.03"""
PREFIX_RATE = 0.1
"""peak learning rate of the keys and values of prefix tuning, for every size: with 16 of them the held-out loss of the
closed world's sft after an epoch was 1.63 at 3e-3, 1.28 at 0.01, 0.98 at 0.03, 0.83 at 0.1, 0.78 at 0.3"""

Table = tuple[tuple[float, float], ...]
"""anchors: parameters, peak learning rate"""

PRETRAIN: Table = (
    (2.1e6, 4e-3),  # the closed world's nano model, beside Muon for the hidden matrices
    (125e6, 6e-4),  # this and what follows: Brown et al. (2020, table 2.1)
    (350e6, 3e-4),
    (760e6, 2.5e-4),
    (1.3e9, 2e-4),
    (2.7e9, 1.6e-4),
    (6.7e9, 1.2e-4),
    (13e9, 1e-4),
    (175e9, 6e-5),
)
SFT: Table = (
    (2.1e6, 5e-4),  # the closed world's
    (135e6, 2e-5),  # SmolLM2-135M-Instruct on dolly
    (1.3e9, 9.65e-6),  # Ouyang et al. (2022, appendix C.1)
    (6e9, 9.65e-6),
    (175e9, 5.03e-6),
)
REWARD: Table = (
    (2.1e6, 5e-4),  # the closed world's
    (135e6, 2e-5),  # SmolLM2-135M-Instruct on hh-rlhf
    (1.3e9, 1.5e-5),  # Stiennon et al. (2020, appendix B.1)
    (6e9, 9e-6),  # Ouyang et al. (2022, appendix C.2)
    (70e9, 5e-6),  # Touvron et al. (2023, section 3.2.2)
)
DPO: Table = (
    (2.1e6, 2e-4),  # the closed world's
    (135e6, 1e-5),  # SmolLM2-135M-Instruct
    (2.8e9, 1e-6),  # Rafailov et al. (2023, appendix B)
    (7e9, 5e-7),  # Tunstall et al. (2023, Zephyr)
)
PPO: Table = (
    (2.1e6, 2e-4),  # the closed world's
    (135e6, 1e-5),  # SmolLM2-135M-Instruct
    (1e9, 3e-6),  # Huang et al. (2024), at all sizes from 1B to 6.9B
)
CRITIC: Table = (
    (2.1e6, 4e-4),  # the closed world's
    (135e6, 2e-5),  # SmolLM2-135M-Instruct
    (6e9, 9e-6),  # Ouyang et al. (2022, appendix C.4)
    (175e9, 5e-6),
)


@dataclass(frozen=True)
class Traits:
    """Properties of a model that defaults depend on."""

    parameters: int
    context: int
    dropout: float = 0.0
    """training dropout in the model's own configuration"""
    temperature: float = TEMPERATURE
    """sampling temperature"""
    width: int = 0
    """hidden size"""


def traits(folder: Path, made_by: str = "amenable sft", virtual_tokens: int = 0) -> Traits:
    """Read the traits of a saved model from config.json and generation_config.json.

    virtual_tokens: those that it will have before every row, which take their place from its context. InputError where
    they leave none, and for a folder without a model, naming the command `made_by` that makes one.
    """
    loading.require_model(folder, made_by)
    temperature = pretrained.read_temperature(folder)
    model = replace(traits_of(pretrained.read_config(folder)), dropout=pretrained.read_dropout(folder))
    new = max(virtual_tokens - count_virtual_tokens(folder), 0)
    plan.forbid(
        new >= model.context, f"{new} virtual tokens leave nothing of a context of {model.context}", "take fewer"
    )
    model = replace(model, context=model.context - new)
    return model if temperature is None else replace(model, temperature=temperature)


def sampling_traits(folder: Path, made_by: str = "a training stage") -> Traits:
    """Read the traits of a saved model that will not train; an n-gram model's parameters are its n-grams."""
    if not is_ngram(folder):
        return traits(folder, made_by)
    loading.require_model(folder, made_by)
    return Traits(count_ngrams(folder), pretrained.read_context(folder))


def traits_of(shape: DecoderConfig) -> Traits:
    """Return the traits of a model of this shape."""
    parameters = sum(parameter.numel() for parameter in Decoder(shape, device="meta").parameters())
    return Traits(parameters, shape.context_length, shape.dropout, width=shape.hidden_size)


def learning_rate(table: Table, parameters: int) -> float:
    """Interpolate the peak learning rate for a number of parameters, to two significant digits."""
    size = min(max(parameters, table[0][0]), table[-1][0])
    for (small, high), (large, low) in pairwise(table):
        if size <= large:
            share = math.log(size / small) / math.log(large / small)
            return min(high, max(low, float(f"{high * (low / high) ** share:.1e}")))
    raise ValueError(f"a table of {len(table)} anchors")


def peak_rate(config: Any, table: Table, model: Traits) -> float:
    """Return the peak learning rate for a model of this size; LORA_FACTOR times as much with adapters, and PROMPT_RATE
    or PREFIX_RATE with virtual tokens."""
    rate = learning_rate(table, model.parameters)
    if config.virtual_tokens:
        return PROMPT_RATE if config.prompt_tuning else PREFIX_RATE
    return float(f"{rate * LORA_FACTOR:.2g}") if config.lora.rank else rate


def answer_length(context: int) -> int:
    """Return the longest completion in tokens: a quarter of the context, at most `MAX_LENGTH`."""
    return max(1, min(MAX_LENGTH, context // 4))


def kl_target(length: int) -> float:
    """Return the target KL from the reference in nats a completion of at most `length` tokens: 6 at 256 tokens (Ziegler
    et al., 2019), in proportion to the length, since each token adds KL; 1.5 at 64 and below (the closed world)."""
    return float(f"{1.5 * max(length, TUNED_LENGTH) / TUNED_LENGTH:.2g}")


def kl_coef(length: int) -> float:
    """Return the initial KL coefficient, in inverse proportion to the length so that a completion at the target costs
    the same at every length: 0.3 at 64 tokens (the closed world), 0.075 at 256. Huang et al. (2024): 0.05, Ouyang et
    al. (2022): 0.02."""
    return float(f"{0.3 * TUNED_LENGTH / max(length, TUNED_LENGTH):.2g}")


C = TypeVar("C")


def pretrain(config: C, model: Traits) -> tuple[C, str]:
    """Fill the options of pretraining for a model of this size; return them, and a line that names them."""
    rate = learning_rate(PRETRAIN, model.parameters)
    rates = {"optimizer.learning_rate": rate, "optimizer.muon_learning_rate": MUON_RATE}
    return fill(config, model, {**rates, "context": model.context})


def continue_pretraining(config: Any, model: Traits) -> tuple[Any, str]:
    """Fill the options of pretraining a trained model further: a tenth of the peak rate, where its cosine has ended,
    and AdamW alone; return them, and a line that names them."""
    rate = peak_rate(config, PRETRAIN, model)
    rate = rate if config.virtual_tokens else float(f"{rate / 10:.2g}")
    rates = {"optimizer.learning_rate": rate, "optimizer.muon_learning_rate": 0.0}
    return fill(config, model, {**rates, "context": min(model.context, config.tokens_per_step)})


def sft(config: C, model: Traits) -> tuple[C, str]:
    """Fill the options of supervised fine-tuning for its base model; return them, and a line that names them."""
    rate = peak_rate(config, SFT, model)
    values = {"dropout": model.dropout, "max_new_tokens": answer_length(model.context)}
    return fill(config, model, {"optimizer.learning_rate": rate, **values})


def reward(config: C, model: Traits) -> tuple[C, str]:
    """Fill the options of reward modelling for its initial model; return them, and a line that names them."""
    options: Any = config
    rates = {
        "optimizer.learning_rate": peak_rate(config, PRETRAIN if options.from_scratch else REWARD, model),
        "head_learning_rate": head_learning_rate(model.width),
    }
    return fill(config, model, rates)


def classify(config: C, model: Traits) -> tuple[C, str]:
    """Fill the options of a classifier for the model that it starts from; return them, and a line that names them."""
    rate = peak_rate(config, SFT, model)
    values = {"dropout": model.dropout, "head_learning_rate": head_learning_rate(model.width)}
    return fill(config, model, {"optimizer.learning_rate": rate, **values})


def head_learning_rate(width: int) -> float:
    """Return the peak learning rate of a scalar head on hidden states of D numbers: 1 / D, to two significant digits.

    A step of Adam moves each of the D weights by the rate, so it moves scores by at most the mean size of a hidden
    state's numbers, for any D: the rate of an output layer falls as 1 / D (Yang et al., 2022, table 3).
    """
    return float(f"{1 / width:.1e}")


def dpo(config: C, model: Traits) -> tuple[C, str]:
    """Fill the options of DPO for its policy; return them, and a line that names them."""
    rate = peak_rate(config, DPO, model)
    return fill(config, model, {"optimizer.learning_rate": rate, "max_new_tokens": answer_length(model.context)})


def distill_context(config: C, model: Traits) -> tuple[C, str]:
    """Fill the options of context distillation for its student; return them, and a line that names them."""
    rate = peak_rate(config, SFT, model)
    return fill(config, model, {"optimizer.learning_rate": rate, "max_new_tokens": answer_length(model.context)})


def online(config: Any, policy: Traits, critic: Traits | None = None) -> tuple[Any, str]:
    """Fill the options of an online algorithm for its policy and, if it has a critic, the critic's initial model;
    return them, and a line that names them."""
    length = answer_length(policy.context) if config.max_new_tokens is None else config.max_new_tokens
    values = {
        "optimizer.learning_rate": peak_rate(config, PPO, policy),
        **({"critic_learning_rate": peak_rate(config, CRITIC, critic)} if critic is not None else {}),
        "temperature": policy.temperature,
        "max_new_tokens": length,
        "kl_coef": kl_coef(length),
        "adaptive_kl_target": kl_target(length),
    }
    return fill(config, policy, values)


def sample(config: C, model: Traits) -> tuple[C, str]:
    """Fill the options of sampling for its model; return them, and a line that names them."""
    values = {"temperature": model.temperature, "max_new_tokens": answer_length(model.context)}
    return fill(config, model, {f"sampling.{name}": value for name, value in values.items()})


def evaluate(config: C, models: Sequence[Traits]) -> tuple[C, str]:
    """Fill the options of an evaluation for the model with the shortest context; return them, and a line that names
    them."""
    least = min(models, key=lambda model: model.context)
    filled, named = fill(config, least, {"max_new_tokens": answer_length(least.context)})
    length: int = attrgetter("max_new_tokens")(filled)
    problem = f"answers of {length} tokens leave no room for a prompt in a context of {least.context}"
    plan.forbid(length >= least.context, problem, "give fewer --max-new-tokens")
    return filled, named


def fill(config: C, model: Traits, values: Mapping[str, float]) -> tuple[C, str]:
    """Replace the options that are None by `values`, given by dotted name. Returns the configuration, and a line for
    the plan that names the filled options; empty if none was None."""
    filled, named = config, list[str]()
    for option, value in values.items():
        path = option.split(".")
        if attrgetter(option)(config) is None:
            filled = replace_option(filled, path, value)
            named.append(f"{path[-1].replace('_', ' ')} {value:g} (--{option.replace('_', '-')})")
    size = f"{plan.human_count(model.parameters)} parameters and a context of {model.context:,}"
    return filled, f"by default for {size}: {', '.join(named)}" if named else ""


def replace_option(config: Any, path: list[str], value: Any) -> Any:
    """Return a copy of nested dataclasses with another value of one option."""
    name, *rest = path
    return replace(config, **{name: replace_option(getattr(config, name), rest, value) if rest else value})
