"""Rank of the empty answer under a reward model.

Comparisons seldom hold an empty answer, so its score is that of EOS after a prompt, untrained. Where that is high, a
policy trained on this reward learns to answer nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from amenable.models.heads import ScalarModel
from amenable.text.chat import render_completion
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.rankings import TokenizedRanking
from amenable.train.runtime import Runtime


def rank_of_empty(
    model: ScalarModel, items: Sequence[TokenizedRanking], tokenizer: Tokenizer, runtime: Runtime, max_tokens: int
) -> dict[str, float]:
    """Return the share of prompts whose empty answer scores below the mean of the given answers (eval/empty_below), and
    below each of them (eval/empty_last). Given answers that are empty are left out; {} where none is left.

    max_tokens: tokens of a pass.
    """
    below, last = [], []
    rows = [[*given_rows(item), empty_row(item, tokenizer)] for item in items]
    scores = forward.compute_rewards(model, [row for some in rows for row in some], runtime, max_tokens)
    for row_scores in scores.split([len(some) for some in rows]):
        *given, empty = row_scores.tolist()
        if given:
            below.append(empty < fmean(given))
            last.append(empty < min(given))
    return {"eval/empty_below": fmean(below), "eval/empty_last": fmean(last)} if below else {}


def given_rows(item: TokenizedRanking) -> list[forward.Row]:
    """Return the rows of the answers that are not empty."""
    return [row for row, length in zip(item.rows, item.lengths) if length]


def empty_row(item: TokenizedRanking, tokenizer: Tokenizer) -> forward.Row:
    """Return the row of the item's prompt and an empty answer."""
    ids, loss_mask = item.rows[0]
    prompt, answer = ids[: loss_mask.index(True)], render_completion(tokenizer, "")
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)
