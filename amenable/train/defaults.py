"""Options that follow from the model: what a stage leaves open, and the numbers that it gets before anything begins.

A learning rate that suits two million parameters is ten times too much for a hundred million. So options that depend on
the model are declared `FromModel[...] = FROM_MODEL`, which is None on the command line and in a file, and a stage fills
them from the `Traits` of its model. The numbers stand in config.yaml and in the plan of the run.

    log(learning rate) = linear in log(parameters) between the anchors of a table, constant beyond its ends

Learning rates are of AdamW and of models all of whose weights train; frozen layers do not change them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

from amenable.models import pretrained
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.train import loading, plan

T = TypeVar("T")
if TYPE_CHECKING:
    FromModel = Annotated[T, "None until `fill` has put a number there"]
else:
    FromModel = Optional
FROM_MODEL: Any = None
"""default of an option that follows from the model"""

TEMPERATURE = 0.7
"""at which a model is sampled whose folder states no other: Ziegler et al. (2019), Huang et al. (2024)"""
LONGEST = 256
"""tokens of an answer, whatever the context"""
SHORT = 64
"""tokens of an answer in the closed world, where price and target of the KL were settled"""

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
    """What options follow from."""

    parameters: int
    context: int
    dropout: float = 0.0
    """that the model's own configuration states for training"""
    temperature: float = TEMPERATURE
    """that the model is to be sampled at"""
    width: int = 0
    """numbers in a hidden state"""


def traits(folder: Path, made_by: str = "amenable sft") -> Traits:
    """Traits of a saved model, from its config.json and generation_config.json; its weights are not read. InputError
    where no model is; made_by: what makes one."""
    loading.require_model(folder, made_by)
    stated = pretrained.read_temperature(folder)
    found = replace(traits_of(pretrained.read_config(folder)), dropout=pretrained.read_dropout(folder))
    return found if stated is None else replace(found, temperature=stated)


def traits_of(shape: DecoderConfig) -> Traits:
    """Traits of a model of this shape."""
    parameters = sum(parameter.numel() for parameter in Decoder(shape, device="meta").parameters())
    return Traits(parameters, shape.context_length, shape.dropout, width=shape.hidden_size)


def learning_rate(table: Table, parameters: int) -> float:
    """Peak learning rate for a model with so many parameters, to two significant digits."""
    size = min(max(parameters, table[0][0]), table[-1][0])
    for (small, high), (large, low) in pairwise(table):
        if size <= large:
            share = math.log(size / small) / math.log(large / small)
            return min(high, max(low, float(f"{high * (low / high) ** share:.1e}")))
    raise ValueError(f"a table of {len(table)} anchors")


def answer_length(context: int) -> int:
    """Most tokens of an answer: a quarter of the context, at most `LONGEST`."""
    return max(1, min(LONGEST, context // 4))


def kl_target(answer: int) -> float:
    """Nats a response away from the reference, for answers of at most so many tokens: 6 at 256 tokens and in proportion
    to the length, as each token adds its own. Ziegler et al. (2019): 6; the closed world: 1.5 at 64, and for less."""
    return float(f"{1.5 * max(answer, SHORT) / SHORT:.2g}")


def kl_coef(answer: int) -> float:
    """Price of a nat, to begin with: at the target all nats of a response cost the same at every length. 0.3 at 64
    tokens, as in the closed world, and 0.075 at 256; Huang et al. (2024): 0.05, Ouyang et al. (2022): 0.02."""
    return float(f"{0.3 * SHORT / max(answer, SHORT):.2g}")


C = TypeVar("C")


def pretrain(config: C, model: Traits) -> tuple[C, str]:
    """Options of pretraining, filled for a model of this size; and a line that names them."""
    rate = learning_rate(PRETRAIN, model.parameters)
    return fill(config, model, {"optimizer.learning_rate": rate, "context": model.context})


def sft(config: C, model: Traits) -> tuple[C, str]:
    """Options of supervised fine-tuning, filled for its base model; and a line that names them."""
    rate = learning_rate(SFT, model.parameters)
    values = {"dropout": model.dropout, "max_new_tokens": answer_length(model.context)}
    return fill(config, model, {"optimizer.learning_rate": rate, **values})


def reward(config: C, model: Traits) -> tuple[C, str]:
    """Options of reward modelling, filled for the model that it starts from; and a line that names them."""
    rates = {
        "optimizer.learning_rate": learning_rate(REWARD, model.parameters),
        "head_learning_rate": head_learning_rate(model.width),
    }
    return fill(config, model, rates)


def head_learning_rate(width: int) -> float:
    """Peak learning rate of a linear layer from hidden states of D numbers to one: 1 / D, to two significant digits.

    A step of Adam moves each of the D weights by the rate, so that it moves scores by at most the mean size of a hidden
    state's numbers, whatever D is: the rate of an output layer falls as 1 / D (Yang et al., 2022, table 3).
    """
    return float(f"{1 / width:.1e}")


def dpo(config: C, model: Traits) -> tuple[C, str]:
    """Options of DPO, filled for its policy; and a line that names them."""
    rate = learning_rate(DPO, model.parameters)
    return fill(config, model, {"optimizer.learning_rate": rate, "max_new_tokens": answer_length(model.context)})


def online(config: Any, policy: Traits, critic: Traits | None = None) -> tuple[Any, str]:
    """Fill the options of an online algorithm for its policy, and for the model that its critic starts from, if it has
    one; return them, and a line that names them."""
    answer = answer_length(policy.context) if config.max_new_tokens is None else config.max_new_tokens
    values = {
        "optimizer.learning_rate": learning_rate(PPO, policy.parameters),
        **({"critic_learning_rate": learning_rate(CRITIC, critic.parameters)} if critic is not None else {}),
        "temperature": policy.temperature,
        "max_new_tokens": answer,
        "kl_coef": kl_coef(answer),
        "adaptive_kl_target": kl_target(answer),
    }
    return fill(config, policy, values)


def sample(config: C, model: Traits) -> tuple[C, str]:
    """Options of sampling, filled for the model that answers; and a line that names them."""
    values = {"temperature": model.temperature, "max_new_tokens": answer_length(model.context)}
    return fill(config, model, {f"sampling.{name}": value for name, value in values.items()})


def evaluate(config: C, models: Sequence[Traits]) -> tuple[C, str]:
    """Options of an evaluation, filled for the model of the least context; and a line that names them."""
    least = min(models, key=lambda model: model.context)
    return fill(config, least, {"max_new_tokens": answer_length(least.context)})


def fill(config: C, model: Traits, values: Mapping[str, float]) -> tuple[C, str]:
    """Put values, by dotted option, where the options are None. Returns the configuration, and a line for the plan that
    names them; an empty one where all were given."""
    filled, named = config, list[str]()
    for option, value in values.items():
        path = option.split(".")
        if value_at(config, path) is None:
            filled = put(filled, path, value)
            words = path[-1].replace("_", " ")
            named.append(f"{words} {value:g} (--{option.replace('_', '-')})")
    model_words = f"{plan.human_count(model.parameters)} parameters and a context of {model.context:,}"
    said = f"by default for {model_words}: {', '.join(named)}"
    return filled, said if named else ""


def value_at(config: Any, path: list[str]) -> Any:
    """The value of a nested option."""
    for name in path:
        config = getattr(config, name)
    return config


def put(config: Any, path: list[str], value: Any) -> Any:
    """A copy of nested dataclasses with another value of one option."""
    name, *rest = path
    return replace(config, **{name: put(getattr(config, name), rest, value) if rest else value})
