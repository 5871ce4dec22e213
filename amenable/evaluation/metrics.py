"""Metrics of answers, of each answer and as means over many.

    KL(p || ref) = E_p[sum_t KL(p(. | y_<t) || ref(. | y_<t))], nats an answer      (the mean over drawn answers)
    H(p) = E_p[-log p(y)], nats an answer

p is the policy as it is drawn from, its temperature included. The divergence at each token is summed over the whole
vocabulary, which has the mean of log p(y) - log ref(y) and far less noise. The best of n answers is further away by
log n - (n - 1) / n than the policy it is picked from, which is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from amenable.data.types import Demonstration, Prompt, Text
from amenable.evaluation.answering import Answer, LoadedModel, entropy
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.preference import GoldCache, Row
from amenable.functional.statistics import best_of_n_kl
from amenable.models.decoder import Decoder
from amenable.rewards.functions import columns_of
from amenable.rewards.model_judge import ModelJudge
from amenable.rewards.options import RewardOptions
from amenable.rewards.spec import Reward, Specs, load_reward
from amenable.text.chat import render, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.text.words import uncovered_bytes
from amenable.train import forward
from amenable.train.examples import keep_fitting, validation_rows
from amenable.train.log import Bars, no_bars
from amenable.train.runtime import Runtime
from amenable.world.closed_world import ClosedWorld
from amenable.world.scores import gold_figures

GOLD_FIELDS = ("truthful", "hallucinated", "over_refused", "harmful", "rude", "polite", "follows")
"""fields of a GoldReport in every row of an answer"""


@dataclass(frozen=True)
class Scorers:
    """Gold, reward and reference that answers are scored with; None where there is none."""

    gold: GoldCache | None
    reward: Reward | None
    reference: LoadedModel | None
    """KL is measured to this model"""
    temperature: float
    """of the reference's distribution"""
    runtime: Runtime
    max_tokens: int
    """of one pass of a model"""
    bars: Bars = no_bars
    """progress bars over the passes"""

    @classmethod
    def load(
        cls,
        world: Path | None,
        reward: Specs,
        reference: Path | None,
        temperature: float,
        runtime: Runtime,
        max_tokens: int,
        bars: Bars = no_bars,
        scoring: RewardOptions | None = None,
    ) -> Scorers:
        """Load a world, what the specs of a reward name, and the reference in a folder, those that are given."""
        gold = GoldCache(ClosedWorld.load(world)) if world is not None else None
        options = scoring or RewardOptions()
        loaded_reward = load_reward(reward, runtime, max_tokens, options=options) if reward else None
        model = LoadedModel.load(ModelEntry("reference", reference), runtime) if reference is not None else None
        return cls(gold, loaded_reward, model, temperature, runtime, max_tokens, bars)

    @property
    def judge(self) -> ModelJudge | None:
        """The model that judges answers, where the reward is one."""
        return self.reward.judge if self.reward is not None else None

    def require_columns(self, suites: Mapping[str, Sequence[Prompt]]) -> None:
        """Require the columns that the reward needs in the rows of all suites' prompts."""
        for name, prompts in suites.items():
            if self.reward is not None:
                self.reward.require_columns([prompt.meta for prompt in prompts], f"suite {name}")


def measure(
    model: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[Answer], temperature: float, scorers: Scorers
) -> list[Row]:
    """Return a row for each answer: text, ended, gold with its fields, reward, logp, kl, ref_logp and tokens; None
    where not applicable."""
    parts = compute_reward_parts(model, prompts, answers, scorers)
    rewards = scorers.reward.total(parts).tolist() if scorers.reward is not None else [None] * len(answers)
    kls, ref_logps = compare_with_reference(model, prompts, answers, temperature, scorers)
    rows = []
    given = zip(prompts, answers, rewards, kls, ref_logps, strict=True)
    for i, (prompt, answer, reward, kl, ref_logp) in enumerate(given):
        row: Row = {"text": answer.text, "ended": answer.ended}
        report = scorers.gold.report(prompt.id, row) if scorers.gold is not None else None
        row |= {"gold": report.gold if report else None, "reward": reward, "logp": answer.logp, "kl": kl}
        row |= {"ref_logp": ref_logp, "tokens": len(answer.ids)}
        row |= {name: getattr(report, name) if report else None for name in GOLD_FIELDS}
        rows.append(
            {**row, "rewards": {name: float(part[i]) for name, part in parts.items()}} if len(parts) > 1 else row
        )
    return rows


def compute_rewards(
    model: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[Answer], scorers: Scorers
) -> list[float] | list[None]:
    """Return the reward of every answer to its prompt; None where there is no reward."""
    if scorers.reward is None:
        return [None] * len(answers)
    return scorers.reward.total(compute_reward_parts(model, prompts, answers, scorers)).tolist()


def compute_reward_parts(
    model: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[Answer], scorers: Scorers
) -> dict[str, Tensor]:
    """Return the scores [B] of answers to their prompts by each part of the reward, by name, without the shots: reward
    models of a chat model's tokenizer score the sampled ids, and everything else reads the text."""
    reward, tokenizer = scorers.reward, model.tokenizer
    if reward is None:
        return {}
    rows = None
    if model.is_chat_model:
        encoded = [render_prompt(tokenizer, prompt.messages) for prompt in prompts]
        rows = [masked_row(ids, answer.ids or [tokenizer.end_of_turn_id]) for ids, answer in zip(encoded, answers)]
    columns = {**columns_of(prompts), "ended": [answer.ended for answer in answers]}
    messages, texts = [prompt.messages for prompt in prompts], [answer.text for answer in answers]
    bar = scorers.bars(f"{model.entry.name}: rewards")
    return reward.scores(messages, texts, columns, rows, tokenizer, bar, cut=True)


def masked_row(prompt_ids: list[int], ids: list[int], context: int | None = None) -> forward.Row:
    """Return the ids of prompt and answer, at most `context`, with a mask that is True at the answer's."""
    return (prompt_ids + ids)[:context], ([False] * len(prompt_ids) + [True] * len(ids))[:context]


def compare_with_reference(
    model: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[Answer], temperature: float, scorers: Scorers
) -> tuple[list[float] | list[None], list[float] | list[None]]:
    """Return two numbers of every answer, in nats: the KL to the reference along it, the policy at `temperature`, and
    its log-probability under the reference at temperature 1. None without a reference; the KL is None too where one of
    the two is an n-gram model."""
    reference, policy = reference_of(model, scorers), model.decoder
    none: list[None] = [None] * len(answers)
    if reference is None:
        return none, none
    ref_rows, limits = reference_rows(reference, prompts, answers), (scorers.runtime, scorers.max_tokens)
    bar = scorers.bars(f"{model.entry.name}: KL")
    if not isinstance(policy, Decoder) or not isinstance(reference.decoder, Decoder):
        logps = forward.compute_logprobs(reference.decoder, ref_rows, *limits, progress=bar)
        return none, [float(row.sum()) for row in logps]
    context = policy.config.context_length
    rows = [masked_row(answer.prompt_ids, answer.ids, context) for answer in answers]
    models, temperatures = (policy, reference.decoder), (temperature, scorers.temperature)
    parts = forward.compute_kls(*models, rows, ref_rows, *limits, *temperatures, progress=bar, ref_logps=True)
    return [float(part[:, 0].sum()) for part in parts], [float(part[:, 1].sum()) for part in parts]


def reference_of(model: LoadedModel, scorers: Scorers) -> LoadedModel | None:
    """Return the reference if it encodes prompts and answers as the model does, else None."""
    reference = scorers.reference
    return reference if reference is not None and comparable(model.tokenizer, reference.tokenizer) else None


def reference_rows(reference: LoadedModel, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[forward.Row]:
    """Return the rows of answers to the reference: without shots and instruction."""
    context = reference.decoder.config.context_length
    encoded = [render_prompt(reference.tokenizer, prompt.messages) for prompt in prompts]
    return [masked_row(ids, answer.ids, context) for ids, answer in zip(encoded, answers)]


def comparable(ours: Tokenizer, theirs: Tokenizer) -> bool:
    """Return True if two chat models encode prompts and answers as the same ids."""
    return ours.fingerprint == theirs.fingerprint and ours.chat_template == theirs.chat_template is not None


def add_best_of_n_kl(rows: Sequence[Row], n: int) -> list[Row]:
    """Add the KL of the best of n to one sample, log n - (n - 1) / n, to each row's `kl`."""
    added = best_of_n_kl(n)
    return [{**row, "kl": None if row["kl"] is None else row["kl"] + added} for row in rows]


def summarize(rows: Sequence[Row], prompts: Sequence[Prompt], scorers: Scorers) -> dict[str, Any]:
    """Return means over many answers: words, share that ended, reward, KL; with gold its mean and rates too."""
    metrics: dict[str, Any] = {
        "length": mean([len(row["text"].split()) for row in rows]),
        "ended": mean([row["ended"] for row in rows]),
        "reward": mean([row["reward"] for row in rows]),
        "kl": mean([row["kl"] for row in rows]),
        "perplexity": perplexity(rows),
    }
    for name in rows[0].get("rewards", {}) if rows else ():
        metrics[f"rewards/{name}"] = mean([row["rewards"][name] for row in rows])
    if scorers.gold is None:
        return metrics
    reports = [scorers.gold.report(prompt.id, row) for prompt, row in zip(prompts, rows, strict=True)]
    return {**metrics, **gold_figures(reports, [prompt.meta.get("kind", "") for prompt in prompts])}


def perplexity(rows: Sequence[Row]) -> float | None:
    """Return the perplexity of answers under the reference, exp(-sum log ref(y) / tokens); None without a reference."""
    logps, tokens = [row["ref_logp"] for row in rows], sum(row["tokens"] for row in rows)
    return math.exp(-math.fsum(logps) / tokens) if tokens and None not in logps else None


def sampling_info(answers: Sequence[Answer], temperature: float) -> dict[str, Any]:
    """Return the temperature of sampled answers and their entropy."""
    return {"entropy": entropy(answers), "temperature": temperature}


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where any value is None, or there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def text_metrics(model: LoadedModel, texts: list[Text], tokens: int, scorers: Scorers) -> dict[str, Any]:
    """Return bits per byte of raw text, and the bits of each of its rows, so that two models can be paired by row.

    A byte of a word that a word-level tokenizer does not know costs eight bits.
    """
    context = model.decoder.config.context_length
    rows, byte_count = validation_rows(texts, model.tokenizer, context, tokens)
    bar = scorers.bars(f"{model.entry.name}: text")
    logps = forward.compute_logprobs(model.decoder, rows, scorers.runtime, scorers.max_tokens, progress=bar)
    bits = [-float(row_logps.double().sum()) / math.log(2) for row_logps in logps]
    spelled = 8 * uncovered_bytes(model.tokenizer, chain.from_iterable(ids for ids, _ in rows), byte_count)
    return {"bpb": (sum(bits) + spelled) / byte_count, "text_bits": bits, "text_bytes": byte_count}


def demonstration_metrics(model: LoadedModel, rows: Sequence[Demonstration], scorers: Scorers) -> dict[str, Any]:
    """Return the negative log-probability of each demonstration's loss-mask tokens, in nats, and their number."""
    context = model.decoder.config.context_length
    rendered = [render(model.tokenizer, row.messages) for row in rows]
    encoded = [(row.ids, row.loss_mask) if len(row.ids) <= context else None for row in rendered]
    _, fitting = keep_fitting(f"demonstrations to {model.entry.name}", rows, encoded, "conversations", context)
    bar = scorers.bars(f"{model.entry.name}: demonstrations")
    logps = forward.compute_logprobs(model.decoder, fitting, scorers.runtime, scorers.max_tokens, progress=bar)
    return {
        "demonstration_nats": [-float(row_logps.double().sum()) for row_logps in logps],
        "demonstration_tokens": sum(row_logps.numel() for row_logps in logps),
    }
