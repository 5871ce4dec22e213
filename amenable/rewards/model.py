"""A reward model as a reward function: of texts, by its own tokenizer, or of token ids as they were sampled.

An ensemble is a reward model with others beside it: its score is the mean of theirs, the worst, or the mean less their
deviation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor

from amenable.data.types import Conversation
from amenable.errors import InputError
from amenable.functional.rewards import Combination, combine_scores
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import completion_rows
from amenable.train.forward import Row
from amenable.train.log import Progress, silent
from amenable.train.runtime import Runtime

ENSEMBLE = "ensemble.json"
"""file of an ensemble's folder: the folders of its further members, and how their scores are combined"""


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
    """of a sequence classifier, or the combination of an ensemble's scores"""
    others: tuple[ModelReward, ...] = ()
    """further members of an ensemble, of the same tokenizer"""
    combination: Combination = "mean"
    coefficient: float = 1.0
    """of the members' deviation, in the combination"""

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
        if (folder / ENSEMBLE).exists():
            return load_ensemble(folder, runtime, label, max_tokens, base)
        model = loading.load_reward_model(folder, runtime, tokenizer, label, frozen=True, base=base)
        return cls(model, tokenizer, runtime, max_tokens, folder, label)

    @property
    def members(self) -> tuple[ModelReward, ...]:
        """The models whose scores are combined: this one, and the further members of an ensemble."""
        return (self, *self.others)

    @property
    def context_length(self) -> int:
        return min(each.model.decoder.config.context_length for each in self.members)

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
        models = [each.model for each in self.members]
        scores = [forward.compute_rewards(model, rows, self.runtime, self.max_tokens, progress) for model in models]
        return combine_scores(torch.stack(scores), self.combination, self.coefficient) if self.others else scores[0]


def load_ensemble(
    folder: Path, runtime: Runtime, combination: str | None, max_tokens: int, base: loading.Base | None
) -> ModelReward:
    """Load an ensemble: the reward model of the folder, and those of the folders that its ENSEMBLE file names.

    combination: that of their scores in place of the file's. InputError for an unknown one, and for a member that is
    missing or has another tokenizer.
    """
    fields = json.loads((folder / ENSEMBLE).read_text("utf-8"))
    combination = combination or fields["combination"]
    if combination not in get_args(Combination):
        raise InputError(
            f"an ensemble's scores have no combination '{combination}'", folder, "take mean, min, std or var"
        )
    tokenizer, models = Tokenizer.load(folder), []
    for member in (folder, *(folder / name for name in fields["members"])):
        loading.require_model(member, "amenable reward")
        models.append(loading.load_reward_model(member, runtime, tokenizer, frozen=True, base=base))
    parts = [ModelReward(model, tokenizer, runtime, max_tokens, folder) for model in models]
    others, coefficient = tuple(parts[1:]), float(fields["coefficient"])
    return replace(parts[0], others=others, combination=cast(Combination, combination), coefficient=coefficient)
