"""An n-gram model as a language model: states are the contexts that a row ends with, looked up in sorted tables.

    state [n - 1]: the row, in the table of order k, of the last k tokens, for k = 1 ... n - 1
                   UNKNOWN where they were not counted together, OUTSIDE where the row has fewer tokens

A state after one more token is one look-up for each order. Logits are log-probabilities: they begin with those of order
1, and each longer context that is known weighs them down and puts its own in place of what was counted after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amenable.functional.logprobs import entropy as entropy_of
from amenable.functional.logprobs import token_logprobs
from amenable.models.language_model import LanguageModel, StateCache
from amenable.models.layout import Layout, SharedPrefixes
from amenable.models.ngram import tables as table_files
from amenable.models.ngram.tables import CONTEXT, NGramTables

UNKNOWN, OUTSIDE = -1, -2
CHUNK_LOGITS = 1 << 21
"""logits computed at once where a distribution is needed and not a token's probability alone"""


@dataclass(frozen=True)
class NGramConfig:
    """Configuration of an n-gram model."""

    order: int
    vocab_size: int
    context_length: int = CONTEXT


class Contexts:
    """The states of R rows."""

    def __init__(self, rows: int, width: int, device: torch.device):
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.states = torch.full((rows, width), OUTSIDE, device=device)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy row source[i] to row target[i]; both [n]."""
        self.states[target], self.lengths[target] = self.states[source], self.lengths[source]


class NGramModel(LanguageModel):
    """An n-gram model of order n over V tokens. Its tables are parameters that do not train."""

    def __init__(self, tables: NGramTables):
        super().__init__()
        self.config: NGramConfig = NGramConfig(tables.order, tables.vocab_size)
        self.num_tokens, self.to_uniform = tables.vocab_size, tables.to_uniform
        self.keys, self.log_p, self.log_b = map(frozen, (tables.keys, tables.logprobs, tables.backoffs))
        possible = int((self.log_p[0] > -math.inf).sum())
        self.log_uniform = -math.log(max(possible, 1))

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> NGramModel:
        """Read the model in a folder. InputError for files that are torn."""
        return cls(table_files.load(folder)).to(device).eval()

    @property
    def device(self) -> torch.device:
        """The device of the tables."""
        return self.log_p[0].device

    def forward(
        self,
        ids: Tensor,
        layout: Layout,
        cache: Any = None,
        rows: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Return the states after ids [N] of the layout's rows, [N, n - 1]; see `LanguageModel.forward`."""
        before = previous_tokens(layout)
        columns = [ids]
        for length in range(2, self.config.order):
            longer = self.extend(columns[-1][before], ids, length)
            columns.append(torch.where(layout.positions < length - 1, OUTSIDE, longer))
        states = torch.stack(columns, 1)[:, : self.config.order - 1]
        if cache is not None:
            rows = torch.arange(len(layout.lengths), device=ids.device) if rows is None else rows
            cache.states[rows] = states[layout.last_tokens]
            cache.lengths[rows] = torch.tensor(layout.lengths, device=ids.device)
        return states if at is None else states[at]

    def step(self, ids: Tensor, cache: Any) -> Tensor:
        """Append one token to each of the first R cache rows, ids [R] -> states [R, n - 1]."""
        old = cache.states[: len(ids)]
        columns = [ids]
        for length in range(2, self.config.order):
            shorter = old[:, length - 2]
            columns.append(torch.where(shorter == OUTSIDE, OUTSIDE, self.extend(shorter, ids, length)))
        states = torch.stack(columns, 1)[:, : self.config.order - 1]
        cache.states[: len(ids)] = states
        cache.lengths[: len(ids)] += 1
        return states

    def extend(self, contexts: Tensor, ids: Tensor, length: int) -> Tensor:
        """Return the rows [M], in the table of order `length`, of contexts [M] of one token less followed by ids [M];
        UNKNOWN where that was not counted."""
        keys = self.keys[length - 2]
        if not len(keys):
            return torch.full_like(ids, UNKNOWN)
        wanted = contexts * self.config.vocab_size + ids
        rows = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        return torch.where((keys[rows] == wanted) & (contexts >= 0), rows, UNKNOWN)

    @torch.no_grad()
    def logprobs(
        self, states: Tensor, tokens: Tensor, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the log-probability [M] of tokens [M] after states [M, n - 1], and with `entropy` that of their
        distributions [M]."""
        if temperature != 1 or entropy:
            return self.logprobs_of_distribution(states, tokens, temperature, entropy)
        logp = self.log_p[0][tokens]
        for k, contexts in enumerate(states.unbind(1)):
            known = contexts >= 0
            rows = self.extend(contexts, tokens, k + 2)
            backed_off = (self.log_uniform if self.to_uniform else logp) + at_rows(self.log_b[k], contexts)
            longer = torch.where(rows >= 0, at_rows(self.log_p[k + 1], rows), backed_off)
            logp = torch.where(known, longer, self.without_context(contexts, logp))
        return torch.where(self.log_p[0][tokens] == -math.inf, -math.inf, logp), None

    def logprobs_of_distribution(
        self, states: Tensor, tokens: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return what `logprobs` does from all logits, a chunk of rows at a time."""
        size = max(1, CHUNK_LOGITS // self.num_tokens)
        logps, entropies = [states.new_empty(0, dtype=torch.float32)], [states.new_empty(0, dtype=torch.float32)]
        for part, ids in zip(states.split(size), tokens.split(size)):
            logits = self.logits(part)
            logps.append(token_logprobs(logits, ids, temperature))
            entropies.append(entropy_of(logits, temperature) if entropy else logps[0])
        return torch.cat(logps), torch.cat(entropies) if entropy else None

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """Return the log-probabilities of the next token, [..., n - 1] -> [..., V]."""
        flat = states.reshape(math.prod(states.shape[:-1]), self.config.order - 1)
        impossible = self.log_p[0] == -math.inf
        logits = self.log_p[0].repeat(len(flat), 1)
        for k, contexts in enumerate(flat.unbind(1)):
            if self.to_uniform:
                logits = torch.where((contexts == OUTSIDE)[:, None], logits, self.log_uniform)
            logits += torch.where(contexts >= 0, at_rows(self.log_b[k], contexts), 0.0)[:, None]
            members, rows = self.continuations(contexts, k + 2)
            logits[members, self.keys[k][rows] % self.config.vocab_size] = self.log_p[k + 1][rows]
        if bool(impossible.any()):
            logits[:, impossible] = -math.inf
        return logits.view(*states.shape[:-1], self.num_tokens)

    def continuations(self, contexts: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """Return the rows, in the table of this order, of all n-grams of known contexts [M], and the index of each in
        contexts."""
        keys, size = self.keys[order - 2], self.config.vocab_size
        members = torch.nonzero(contexts >= 0)[:, 0]
        first = contexts[members] * size
        starts, ends = torch.searchsorted(keys, first), torch.searchsorted(keys, first + size)
        counts = ends - starts
        offsets = torch.repeat_interleave(starts - (counts.cumsum(0) - counts), counts)
        return torch.repeat_interleave(members, counts), offsets + torch.arange(len(offsets), device=keys.device)

    def without_context(self, contexts: Tensor, logp: Tensor) -> Tensor:
        """Return log-probabilities after contexts that are not known: the shorter context's, or with add-k the uniform
        distribution where there are as many tokens."""
        return torch.where(contexts == UNKNOWN, self.log_uniform, logp) if self.to_uniform else logp

    def new_cache(self, rows: int, length: int) -> StateCache:
        """Return an empty cache for `rows` rows, of any length."""
        return Contexts(rows, self.config.order - 1, self.device)


def previous_tokens(layout: Layout) -> Tensor:
    """Return the flat index [N] of the token before each token in its row; of a row's first token any index."""
    before = torch.arange(layout.tokens, device=layout.positions.device) - 1
    if layout.prefix_lengths:
        prefixes = SharedPrefixes.of(layout.lengths, layout.prefix_lengths)
        last = torch.from_numpy(prefixes.prefix_starts + prefixes.lengths - 1).to(before.device)
        shared = torch.from_numpy(prefixes.lengths > 0).to(before.device)
        before[layout.starts[shared]] = last[shared]
    return before.clamp_(min=0)


def at_rows(column: Tensor, rows: Tensor) -> Tensor:
    """Return the numbers of a column at rows [M]; any number where a row is below 0."""
    return column[rows.clamp(min=0)] if len(column) else rows.new_zeros(rows.shape, dtype=column.dtype)


def frozen(columns: Any) -> nn.ParameterList:
    """Return arrays as parameters that do not train, which copies of a module share."""
    return nn.ParameterList([nn.Parameter(torch.from_numpy(c), requires_grad=False) for c in columns])
