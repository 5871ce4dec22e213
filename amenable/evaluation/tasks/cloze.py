"""LAMBADA's last word (Paperno et al., 2016): accuracy of greedy decoding, and perplexity of the word."""

from __future__ import annotations

import math
from collections.abc import Sequence

from amenable.evaluation.tasks.form import Columns, Examinee, Form, Metrics, mean, metrics_of, text
from amenable.evaluation.tasks.likelihood import ChoiceRow, score_choices


def lambada(columns: Columns) -> list[ChoiceRow]:
    """Convert a passage to its last word after all others. As a shot it has two spaces before the word, as in
    lm-evaluation-harness's prompts."""
    (passage,) = text(columns, "text")
    context, _, word = passage.rpartition(" ")
    if not context:
        raise ValueError("a passage has two words or more")
    return [ChoiceRow(context, (word,), (0,), shot_delimiter="  ")]


def measure(examinee: Examinee, rows: Sequence[ChoiceRow]) -> Metrics:
    """Return the share of rows whose word is decoded greedily, and exp(-mean log p(word)), once a word."""
    scores = [own[0] for own in score_choices(examinee.model, rows, examinee.max_tokens, examinee.progress)]
    center, low, high = mean([score.logp for score in scores])
    ends = (None, None) if low is None or high is None else (math.exp(-high), math.exp(-low))
    return metrics_of("acc", [score.greedy for score in scores], {"perplexity": (math.exp(-center), *ends)})


FORMS = (Form("lambada", ("text",), lambada, measure, lambda columns: set(columns) <= {"text", "id", "domain"}),)
