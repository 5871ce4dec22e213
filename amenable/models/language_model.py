"""The protocol of language models: what generation, evaluation and chat need of one, a transformer or an n-gram model.

    ids -> states of the rows, one before each next token -> logits of the next token

A state is what a model knows of a row so far: a decoder's hidden state, or the rows of an n-gram model's contexts.
Shapes: N tokens in B rows, S width of a state, T tokens of the tokenizer, R cache rows.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from amenable.models.layout import Layout


class StateCache(Protocol):
    """The states of R rows that are being generated."""

    lengths: Tensor
    """[R] tokens of each row"""

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy row source[i] to row target[i]; both [n]."""
        ...


class ModelConfig(Protocol):
    """The configuration of any language model."""

    @property
    def context_length(self) -> int:
        """The most tokens of a row."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the vocabulary, those of padding among them."""
        ...


class LanguageModel(nn.Module):
    """A model of the next token."""

    config: ModelConfig
    num_tokens: int
    """number of the tokenizer's tokens, which alone are drawn"""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of ids and states."""

    @abstractmethod
    def forward(
        self,
        ids: Tensor,
        layout: Layout,
        cache: Any = None,
        rows: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Return the states after ids [N] of the layout's rows, [N, S], or [M, S] at the flat indices `at` [M]; with a
        cache, row b of the batch becomes cache row rows[b].

        cache: one that `new_cache` made.
        """

    @abstractmethod
    def step(self, ids: Tensor, cache: Any) -> Tensor:
        """Append one token to each of the first R cache rows, ids [R] -> states [R, S]."""

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of the next token, [..., S] -> [..., T]."""

    @abstractmethod
    def logprobs(
        self, states: Tensor, tokens: Tensor, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the log-probability [M] in fp32 of tokens [M] after states [M, S], and with `entropy` that of their
        distributions [M]."""

    @abstractmethod
    def new_cache(self, rows: int, length: int) -> StateCache:
        """Return an empty cache for `rows` rows of at most `length` tokens."""
