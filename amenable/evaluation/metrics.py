"""What answers are worth: each by itself, and what many of them come to.

    KL(p || ref) = E_p[sum_t KL(p(. | y_<t) || ref(. | y_<t))], nats an answer      (the mean over drawn answers)
    H(p) = E_p[-log p(y)], nats an answer

p is the policy as it is drawn from, its temperature included. The divergence at each token is summed over the whole
vocabulary, which has the mean of log p(y) - log ref(y) and far less noise. The best of n answers is further away by
log n - (n - 1) / n than the policy it is picked from, which is added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amenable.data.types import Demonstration, Prompt, Text
from amenable.evaluation.answering import Answer, LoadedModel, entropy
from amenable.evaluation.preference import Jury, Row
from amenable.functional.statistics import best_of_n_kl
from amenable.models.heads import ScalarModel
from amenable.text.chat import render, render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import keep_fitting, measured_text
from amenable.train.log import Bars, no_bars
from amenable.train.runtime import Runtime
from amenable.world.scores import gold_figures

PARTS = ("truthful", "hallucinated", "over_refused", "harmful", "rude", "polite", "follows")
"""the parts of gold that are kept of each answer"""


@dataclass(frozen=True)
class Yardsticks:
    """What answers are measured by; None where there is none."""

    jury: Jury | None
    reward_model: ScalarModel | None
    reference: LoadedModel | None
    """what KL is measured to"""
    temperature: float
    """at which the reference is drawn from"""
    runtime: Runtime
    max_tokens: int
    """of one pass of a model"""
    bars: Bars = no_bars
    """what shows how far a pass has come"""


def measure(
    model: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[Answer], temperature: float, by: Yardsticks
) -> list[Row]:
    """One row an answer: what was said, and all that is known of it. None where something does not apply."""
    rewards, kls = score(model, prompts, answers, by), divergences(model, prompts, answers, temperature, by)
    rows = []
    for prompt, answer, reward, kl in zip(prompts, answers, rewards, kls, strict=True):
        row: Row = {"text": answer.text, "ended": answer.ended}
        parts = by.jury.parts(prompt.id, row) if by.jury is not None else None
        row |= {"gold": parts.gold if parts else None, "reward": reward, "logp": answer.logp, "kl": kl}
        rows.append({**row, **{name: getattr(parts, name) if parts else None for name in PARTS}})
    return rows


def score(
    model: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[Answer], by: Yardsticks
) -> list[float] | list[None]:
    """The reward of every answer. Shots are not shown to the reward model: it judges an answer to the prompt."""
    if by.reward_model is None:
        return [None] * len(answers)
    chat, context = model.tokenizer.with_chat_template(), by.reward_model.decoder.config.context_length
    rows = [judged_row(chat, prompt, answer, model.is_chat_model, context) for prompt, answer in zip(prompts, answers)]
    bar = by.bars(f"{model.entry.name}: rewards")
    return forward.compute_rewards(by.reward_model, rows, by.runtime, by.max_tokens, bar).tolist()


def judged_row(chat: Tokenizer, prompt: Prompt, answer: Answer, own_ids: bool, context: int) -> forward.Row:
    """Prompt and answer as a conversation: the very ids that were drawn, or a base model's text put into a turn."""
    ids = answer.ids if own_ids else render_completion(chat, answer.text, answer.ended)
    before = render_prompt(chat, prompt.messages, None if own_ids else answer.text)
    return answered(before, ids or [chat.end_of_turn_id], context)


def answered(before: list[int], ids: list[int], context: int) -> forward.Row:
    """A prompt and its answer, which is what counts."""
    return (before + ids)[:context], ([False] * len(before) + [True] * len(ids))[:context]


def divergences(
    model: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[Answer], temperature: float, by: Yardsticks
) -> list[float] | list[None]:
    """KL to the reference along every answer, in nats, p at the temperature given; the reference sees no shots."""
    if by.reference is None or not comparable(model.tokenizer, by.reference.tokenizer):
        return [None] * len(answers)
    reference, context = by.reference.decoder, by.reference.decoder.config.context_length
    seen = [answered(answer.prompt_ids, answer.ids, model.decoder.config.context_length) for answer in answers]
    plain = [
        answered(render_prompt(model.tokenizer, prompt.messages), answer.ids, context)
        for prompt, answer in zip(prompts, answers)
    ]
    temperatures, bar = (temperature, by.temperature), by.bars(f"{model.entry.name}: KL")
    found = forward.compute_kls(
        model.decoder, reference, seen, plain, by.runtime, by.max_tokens, *temperatures, progress=bar
    )
    return [float(kl.sum()) for kl in found]


def comparable(ours: Tokenizer, theirs: Tokenizer) -> bool:
    """Whether two models draw answers of the same ids after the same prompt."""
    return ours.fingerprint == theirs.fingerprint and ours.chat_template == theirs.chat_template is not None


def further(rows: Sequence[Row], n: int) -> list[Row]:
    """The rows of answers that are the best of n: the search adds to their divergence."""
    added = best_of_n_kl(n)
    return [{**row, "kl": None if row["kl"] is None else row["kl"] + added} for row in rows]


def summary(rows: Sequence[Row], prompts: Sequence[Prompt], by: Yardsticks) -> dict[str, Any]:
    """Means over many answers: words, share that ended, reward, KL; with a jury gold and the rates of its parts."""
    figures: dict[str, Any] = {
        "length": mean([len(row["text"].split()) for row in rows]),
        "ended": mean([row["ended"] for row in rows]),
        "reward": mean([row["reward"] for row in rows]),
        "kl": mean([row["kl"] for row in rows]),
    }
    if by.jury is None:
        return figures
    parts = [by.jury.parts(prompt.id, row) for prompt, row in zip(prompts, rows, strict=True)]
    return {**figures, **gold_figures(parts, [prompt.meta.get("kind", "") for prompt in prompts])}


def drawn(answers: Sequence[Answer], temperature: float) -> dict[str, Any]:
    """How sampled answers were drawn: their temperature, and how much chance there is in them."""
    return {"entropy": entropy(answers), "temperature": temperature}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where anything was not measured."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def text_figures(model: LoadedModel, texts: list[Text], tokens: int, by: Yardsticks) -> dict[str, Any]:
    """Bits per byte of raw text, and the bits of each of its pieces, so that two models can be compared in pairs."""
    context = model.decoder.config.context_length
    rows, byte_count = measured_text(texts, model.tokenizer, context, tokens)
    bar = by.bars(f"{model.entry.name}: text")
    logps = forward.compute_logprobs(model.decoder, rows, by.runtime, by.max_tokens, progress=bar)
    bits = [-float(part.double().sum()) / math.log(2) for part in logps]
    return {"bpb": sum(bits) / byte_count, "text_bits": bits, "text_bytes": byte_count}


def demonstration_figures(model: LoadedModel, rows: Sequence[Demonstration], by: Yardsticks) -> dict[str, Any]:
    """Negative log-probability of each demonstration's trained tokens, in nats, and how many tokens they are."""
    context = model.decoder.config.context_length
    rendered = [render(model.tokenizer, row.messages) for row in rows]
    found = [(one.ids, one.loss_mask) if len(one.ids) <= context else None for one in rendered]
    _, fitting = keep_fitting(f"demonstrations to {model.entry.name}", rows, found, "conversations", context)
    bar = by.bars(f"{model.entry.name}: demonstrations")
    logps = forward.compute_logprobs(model.decoder, fitting, by.runtime, by.max_tokens, progress=bar)
    return {
        "demonstration_nats": [-float(part.double().sum()) for part in logps],
        "demonstration_tokens": sum(part.numel() for part in logps),
    }
