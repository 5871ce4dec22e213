"""A reward model as a reward function: of texts, by its own tokenizer, or of token ids as they were sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor

from amenable.data.types import Conversation
from amenable.errors import InputError
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import completion_rows
from amenable.train.forward import Row
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime


@dataclass(frozen=True)
class ModelReward:
    """A frozen reward model with its tokenizer. Calling it scores texts; `score_rows` scores token ids."""

    model: ScalarModel
    tokenizer: Tokenizer
    runtime: Runtime
    max_tokens: int = 8192
    """ids of one pass"""
    folder: Path | None = None
    """where the model was loaded from"""
    label: str | None = None
    """of a sequence classifier"""

    @classmethod
    def load(
        cls,
        folder: Path,
        runtime: Runtime,
        label: str | None = None,
        max_tokens: int = 8192,
        base: loading.Base | None = None,
    ) -> ModelReward:
        """Load a folder's reward model, or one label of its sequence classifier, with its tokenizer. One that is
        adapters on the model `base` shares its weights."""
        loading.require_model(folder, "amenable reward")
        tokenizer = Tokenizer.load(folder)
        model = loading.load_reward_model(folder, runtime, tokenizer, label, frozen=True, base=base)
        return cls(model, tokenizer, runtime, max_tokens, folder, label)

    @property
    def context_length(self) -> int:
        return self.model.decoder.config.context_length

    def __call__(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[str],
        *,
        ended: Sequence[bool] | None = None,
        **columns: Sequence[Any],
    ) -> list[float]:
        """Return the score of each completion."""
        return self.score_rows(self.rows(prompts, completions, ended)).tolist()

    def rows(
        self, prompts: Sequence[Conversation], completions: Sequence[str], ended: Sequence[bool] | None = None
    ) -> list[Row]:
        """Render prompts and completions; neighbours with one prompt have it rendered once."""
        rows: list[Row] = []
        for prompt, group in groupby(prompts):
            part = slice(len(rows), len(rows) + len(list(group)))
            marks = ended[part] if ended is not None else [True] * (part.stop - part.start)
            rows += completion_rows(self.tokenizer, prompt, completions[part], marks)
        return rows

    def fits(self, prompt: Conversation, completions: Sequence[str], ended: Sequence[bool] | None = None) -> bool:
        """Return True if all completions, with their prompt, are within the context."""
        rows = self.rows([prompt] * len(completions), completions, ended)
        return max((len(ids) for ids, _ in rows), default=0) <= self.context_length

    def cut(self, row: Row) -> Row:
        """Cut a row at the end of the context."""
        ids, mask = row
        return ids[: self.context_length], mask[: self.context_length]

    def reads(self, tokenizer: Tokenizer) -> bool:
        """Return True if the model reads the ids that `tokenizer` writes."""
        return tokenizer.fingerprint == self.tokenizer.fingerprint

    def score_rows(self, rows: Sequence[Row], progress: Progress = silent) -> Tensor:
        """Return the score [B] of each row of token ids, read at its last token; on the CPU, fp32.

        InputError for a row that is longer than the context: nothing is cut.
        """
        longest = max((len(ids) for ids, _ in rows), default=0)
        if longest > self.context_length:
            error = f"a completion with its prompt has {longest} tokens, and the reward model reads "
            raise InputError(f"{error}{self.context_length}", how="leave long prompts out, or take shorter completions")
        return forward.compute_rewards(self.model, rows, self.runtime, self.max_tokens, progress)
