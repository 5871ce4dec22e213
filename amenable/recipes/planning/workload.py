"""Work of a stage's step on paper: its rows, the models that train or are read, and the products of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.train import memory
from amenable.train.memory import BF16, FP32
from amenable.train.memory_limit import Choice
from amenable.train.optimizer import OptimizerConfig
from amenable.train.passes import Pass
from amenable.train.runtime import Runtime

CUDA = Runtime(torch.device("cuda"), bf16=True, threads=1)
CPU = Runtime(torch.device("cpu"), bf16=True, threads=1)


@dataclass(frozen=True)
class StageTraits:
    """Models of a stage beside its policy, and the form of its rows."""

    critic: bool = False
    reference: bool = False
    """True if a frozen policy is read in every step; DPO's is read once, before the first"""
    scored: bool = False
    """True if completions are sampled and scored"""
    group: int = 1
    """rows with the same prompt, by default"""
    all_tokens: bool = False
    """True if every token is predicted, not completions alone"""
    scalar: bool = False
    """True if the model that trains ends in a scalar"""


STAGES = {
    "pretrain": StageTraits(all_tokens=True),
    "sft": StageTraits(),
    "reward": StageTraits(group=2, scalar=True),
    "dpo": StageTraits(group=2),
    "ppo": StageTraits(critic=True, reference=True, scored=True),
    "grpo": StageTraits(reference=True, scored=True, group=8),
    "rloo": StageTraits(reference=True, scored=True, group=4),
}


@dataclass(frozen=True)
class StepWork:
    """A step: `rows` rows, each a prompt and a completion, `group` of them with the same prompt."""

    stage: str
    rows: int
    prompt: int
    """tokens of a prompt"""
    completion: int
    """tokens of a completion, on average"""
    group: int = 1
    epochs: int = 1
    """passes over the rows"""
    updates: int = 1
    """optimizer steps of each pass over the rows"""
    longest: int = 0
    """tokens of the longest completion that is sampled; 0 is `completion`"""

    @property
    def traits(self) -> StageTraits:
        return STAGES[self.stage]

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.completion

    @property
    def longest_length(self) -> int:
        """Tokens of the longest row."""
        return self.prompt + max(self.completion, self.longest)

    @property
    def predicted(self) -> int:
        """Tokens of a row that are predicted."""
        return self.length if self.traits.all_tokens else self.completion

    @property
    def group_tokens(self) -> int:
        """Tokens of a group: its prompt is computed once."""
        return self.prompt + self.group * self.completion

    @property
    def tokens(self) -> int:
        """Tokens of the step."""
        return self.rows // self.group * self.group_tokens

    def shared(self, ranks: int) -> StepWork | None:
        """Return one rank's part of the step; None where there are fewer groups than ranks."""
        groups = self.rows // self.group
        return None if groups < ranks else replace(self, rows=-(-groups // ranks) * self.group)

    def pass_within(self, limit: int) -> Pass | None:
        """Return the largest pass of at most `limit` tokens; None where a row is longer. Several rows of a group that
        does not fit are computed with its prompt."""
        if limit < self.longest_length:
            return None
        count = min(limit // self.group_tokens, self.rows // self.group) * self.group
        if not count:
            count = (limit - self.prompt) // self.completion
        tokens = -(-count // self.group) * self.prompt + count * self.completion
        trained = count * self.predicted
        return Pass(tokens, count * self.length, trained, count, accumulates=True, summed=not self.traits.scored)


@dataclass(frozen=True)
class Role:
    """Model of a step."""

    name: str
    model: memory.Model
    trains: bool = True
    inferences: int = 0
    """passes over the rows of a step without gradients"""


def roles(work: StepWork, shape: DecoderConfig, reward: DecoderConfig | None, rank: int) -> list[Role]:
    """Return the models of a step, the one that is trained first.

    reward: shape of the reward model, None for a reward that is no model. rank: of adapters in place of the weights, 0
    for none. Models with adapters share one base: a critic has adapters of its own, reference and reward model none.
    """
    traits = work.traits
    policy = sized(shape, rank, traits.scalar)
    again = traits.scored and work.epochs * work.updates > 1  # probabilities before the updates
    models = [Role("policy", policy, inferences=int(again))]
    if traits.critic:
        critic = sized(shape, rank, scalar=True)
        own = replace(critic, bytes=FP32 * critic.training, parameters=critic.training) if rank else critic
        models.append(Role("critic", own, inferences=1))
    if traits.reference:
        models.append(Role("reference", without_weights(policy) if rank else frozen(policy), False, 1))
    if traits.scored and reward is not None:
        scorer = frozen(sized(reward, scalar=True))
        shared = bool(rank) and reward == shape
        models.append(Role("reward", without_weights(scorer) if shared else scorer, False, 1))
    return models


def sized(shape: DecoderConfig, rank: int = 0, scalar: bool = False) -> memory.Model:
    """Return the sizes of a model of which all weights train, or adapters of a rank. scalar: True for a model that ends
    in a scalar in place of an unembedding."""
    whole = whole_model(replace(shape, tie_embeddings=True) if scalar else shape, rank)
    return replace(whole, predicts=not scalar)


def without_weights(model: memory.Model) -> memory.Model:
    """Return the sizes of a model that is only read, on weights which another model of the step holds."""
    return replace(model, bytes=0, parameters=0, training=0, moments=0)


@lru_cache(maxsize=64)
def whole_model(shape: DecoderConfig, rank: int = 0) -> memory.Model:
    """Return the sizes of a decoder whose weights, or adapters of a rank, train by AdamW."""
    decoder = Decoder(shape, "meta")
    model = memory.model_of(decoder, OptimizerConfig())
    return memory.chosen(model, decoder, Choice(0, rank=rank), CUDA) if rank else model


def frozen(model: memory.Model) -> memory.Model:
    """Return the sizes of a model that is only read: its matrices and its unembedding in bf16 (models/inference.py)."""
    unembedding = model.shape.vocab_size * model.shape.hidden_size if model.predicts else 0
    size = model.bytes - (FP32 - BF16) * model.matrices
    size += BF16 * unembedding if model.shape.tie_embeddings else (BF16 - FP32) * unembedding
    return replace(model, bytes=size, matrices=0, training=0, moments=0)


@lru_cache(maxsize=64)
def matrix_numbers(shape: DecoderConfig) -> tuple[int, int]:
    """Return the numbers in the matrices of all layers, and in those of the last layer after its attention."""
    matrices = {name: p for name, p in Decoder(shape, "meta").layers.named_parameters() if p.ndim == 2}
    last = tuple(f"{shape.num_layers - 1}.{part}." for part in ("attention.out", "mlp"))
    return sum(p.numel() for p in matrices.values()), sum(p.numel() for n, p in matrices.items() if n.startswith(last))


def forward_flops(
    shape: DecoderConfig, lengths: Sequence[int], predicted: int, read: int, tokens: int | None = None
) -> float:
    """Return the operations of one pass: 2 for each weight of a matrix and token it multiplies, and causal attention.

        2 N T + sum_b 2 L h T_b (T_b + 1) - 2 n (T - R) + 2 V D M

    N weights of the layers' matrices, L layers, h = heads x head width, T tokens (those of the rows, or `tokens` where
    prompts that rows share are computed once), R tokens whose hidden states are read, M of them to be unembedded. After
    its attention the last layer, n weights, is needed at the tokens read alone. With every token predicted, three times
    this is the "6N + attention" of Kaplan et al. (2020) and Chowdhery et al. (2022), attention counted where it is
    causal.
    """
    weights, last = matrix_numbers(shape)
    tokens = sum(lengths) if tokens is None else tokens
    width = shape.num_heads * shape.head_size
    attention = sum(2 * shape.num_layers * width * length * (length + 1) for length in lengths)
    spared = 2 * last * (tokens - read)
    return 2 * weights * tokens + attention - spared + head_flops(shape, predicted)


def head_flops(shape: DecoderConfig, predicted: float) -> float:
    """Return the operations of unembedding some tokens."""
    return 2 * shape.vocab_size * shape.hidden_size * predicted


def step_flops(work: StepWork, model: memory.Model) -> float:
    """Return the operations of a pass over all rows of a step without gradients."""
    predicted = work.predicted if model.predicts else 0
    lengths = [work.length] * work.group
    read = work.group * max(predicted, 1)
    group = forward_flops(model.shape, lengths, work.group * predicted, read, work.group_tokens)
    return work.rows // work.group * group
