"""Rows of published data sets with columns of their own, converted to the conventional ones.

    OpenAI preference fine-tuning   input.messages, preferred_output, non_preferred_output
    Stanford Human Preferences      history, human_ref_A, human_ref_B, labels (1: A is preferred, 0: B)
    UltraFeedback                   instruction, completions [{response, overall_score, annotations ...}]
    HelpSteer, HelpSteer2           prompt, response, helpfulness: the rows of a prompt, one after another, are ranked
    HelpSteer2-Preference           prompt, response_1, response_2, preference_strength (-3 to 3, below 0 the first)
    HelpSteer3                      context, response1, response2, overall_preference (-3 to 3, below 0 the first)
    summarize-from-feedback         info, summaries [{text}], choice; axis: info, summary {text, axes.overall}, worker
    Nectar                          prompt, answers [{answer, rank}]
    WebGPT comparisons              question.full_text, answer_0, answer_1, score_0, score_1
    Stack Exchange, paired          question, response_j (preferred), response_k
    LLMBar                          input, output_1, output_2, label (1 or 2, the better output)
    comparisons of two models       Chatbot Arena, LMSYS, AlpacaEval (`model_comparisons.py`)
    Llama-Factory's KTO             kto_tag is the `label` of the completion
    scored completions              prompt, completions, scores; or prompt, completion, score, rows of a prompt ranked

A strength of preference that annotators gave (HelpSteer2-Preference, HelpSteer3) is the margin of the pair, as in
Touvron et al. (2023, eq. 2); differences of scores are none.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from amenable.data import model_comparisons
from amenable.data.column_mapping import ColumnMapping
from amenable.data.files import BadRow
from amenable.data.rankings import from_scores
from amenable.data.record import Derived, InvalidRow, LeftOutRow, Record, is_filled, is_number, text_of

Columns: TypeAlias = Mapping[str, Any]
Converted: TypeAlias = dict[str, Derived]
TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
"""mark of a turn in HelpSteer's prompts of several turns"""
TLDR = "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
ARTICLE = "Article:\n{article}\n\nTL;DR:\n"
"""prompts of summarize-from-feedback: of Reddit posts, and of news (Stiennon et al., 2020)"""

JOINED = ("response", "helpfulness", "summary", "completion", "score")
"""columns that are compared between the rows of a prompt"""


@dataclass(frozen=True)
class PublishedFormat:
    """Format of a published data set."""

    name: str
    columns: tuple[str, ...]
    """columns that all of its rows have"""
    convert: Callable[[Columns], Converted]
    """the row's columns -> conventional columns, with those that they are made of"""
    fits: Callable[[Columns], bool] = lambda columns: True
    """a further condition that tells the format from others with these columns"""
    group_by: tuple[str, ...] = ()
    """columns that are equal in the rows that make one ranking together, one after another"""

    def matches(self, columns: Columns) -> bool:
        """Return True for a row of this format."""
        return all(is_filled(columns.get(name)) for name in self.columns) and self.fits(columns)


def convert(record: Record) -> None:
    """Replace the columns of a published format by conventional ones; InvalidRow if the row fits several formats."""
    if MARKS.isdisjoint(record.columns):
        return
    formats = [format for format in FORMATS if format.matches(record.columns)]
    names = [format.name for format in formats]
    if formats and record.filled("chosen") and record.filled("rejected"):
        names.append("chosen and rejected")
    if formats and "completions" not in formats[0].columns and all(map(record.filled, ("completions", "ranking"))):
        names.append("completions and ranking")
    if len(names) > 1:
        hint = "name the columns that are meant, as in --columns prompt=prompt chosen=chosen rejected=rejected"
        raise InvalidRow(f"the columns fit {' and '.join(names)}; {hint}")
    if formats:
        record.derive(formats[0].convert(record.columns))


def ranked(texts: Sequence[Any], scores: Sequence[float], sources: Sequence[str], by: Sequence[str]) -> Converted:
    """Return the columns `completions` and `ranking`: the highest score is the best."""
    return {"completions": (list(texts), tuple(sources)), "ranking": (from_scores(scores), tuple(by))}


def pair(columns: Columns, first: str, second: str, score: float, by: Sequence[str]) -> Converted:
    """Return the ranking of two columns; score 1: the first is preferred, 0: the second, one half: neither."""
    return ranked([columns[first], columns[second]], [score, 1 - score], (first, second), by)


def number(value: Any, name: str) -> float:
    """Return a number, also one written as text."""
    with contextlib.suppress(ValueError):
        value = float(value) if isinstance(value, str) else value
    if not is_number(value):
        raise InvalidRow(f"{name} is {value!r:.40}, not a number")
    return float(value)


def openai_preference(columns: Columns) -> Converted:
    """Convert a row of OpenAI's preference fine-tuning."""
    given = columns["input"]
    if not isinstance(given, Mapping) or "messages" not in given:
        raise InvalidRow("input has no messages")
    tools = {"tools": (given["tools"], ("input.tools",))} if "tools" in given else {}
    return {
        "prompt": (given["messages"], ("input.messages",)),
        "chosen": (columns["preferred_output"], ("preferred_output",)),
        "rejected": (columns["non_preferred_output"], ("non_preferred_output",)),
        **tools,
    }


def labelled(name: str, prompt: str, first: str, second: str, by: str, other: int) -> PublishedFormat:
    """Return the format of two columns of which a label names the better: 1 the first, `other` the second."""

    def convert(columns: Columns) -> Converted:
        label = number(columns[by], by)
        if label not in (1, other):
            raise InvalidRow(f"{by} is {label:g}; known are 1 ({first}) and {other} ({second})")
        return {"prompt": (columns[prompt], (prompt,)), **pair(columns, first, second, float(label == 1), (by,))}

    return PublishedFormat(name, (prompt, by, first, second), convert)


def ultrafeedback(columns: Columns) -> Converted:
    """Convert a row of UltraFeedback. The score is overall_score, fine-grained_score or the mean of all ratings."""
    entries = columns["completions"]
    texts = [entry.get("response", "") for entry in entries]
    for name in ("overall_score", "fine-grained_score"):
        if all(is_number(entry.get(name)) for entry in entries):
            scores = [float(entry[name]) for entry in entries]
            break
    else:
        name, scores = "annotations", [mean_rating(entry.get("annotations")) for entry in entries]
    rows = ranked(texts, scores, ("completions.response",), (f"completions.{name}",))
    return {"prompt": (columns["instruction"], ("instruction",)), **rows}


def mean_rating(annotations: Any) -> float:
    """Return the mean of the ratings in UltraFeedback's annotations of a completion, without those that are N/A."""
    values = list(annotations.values()) if isinstance(annotations, Mapping) else []
    flat = [rating for value in values for rating in (value if isinstance(value, list) else [value])]
    given = [rating.get("Rating") for rating in flat if isinstance(rating, Mapping)]
    ratings = [number(rating, "a Rating") for rating in given if rating is not None and rating != "N/A"]
    if not ratings:
        raise InvalidRow("a completion has no overall_score, fine-grained_score or annotations with a Rating")
    return sum(ratings) / len(ratings)


def helpsteer(columns: Columns) -> Converted:
    """Convert a row of HelpSteer, or the rows of a prompt that are joined into one: then they are ranked."""
    prompt = (turns_of(columns["prompt"]), ("prompt",))
    response, scores = columns["response"], columns["helpfulness"]
    if not (isinstance(response, list) and isinstance(scores, list)):
        return {"prompt": prompt, "completion": (response, ("response",))}
    scores = [number(score, "helpfulness") for score in scores]
    return {"prompt": prompt, **ranked(response, scores, ("response",), ("helpfulness",))}


def scored(columns: Columns) -> Converted:
    """Convert completions with scores, such as votes: lists, or the joined rows of a prompt; one row is unranked."""
    names = ("completions", "scores") if "scores" in columns else ("completion", "score")
    texts, scores = (columns[name] for name in names)
    prompt = {"prompt": (columns["prompt"], ("prompt",))}
    if not isinstance(texts, list) and "scores" not in columns:
        return {**prompt, "completion": (texts, ("completion",))}
    if not (isinstance(scores, list) and isinstance(texts, list) and len(scores) == len(texts)):
        raise InvalidRow(f"scores {scores!r:.40} of the completions: it takes a list of numbers, one for each")
    if len(texts) == 1:
        raise LeftOutRow("the prompt has one completion, which nothing is compared with")
    return prompt | ranked(texts, [number(score, names[1]) for score in scores], names[:1], names[1:])


def helpsteer_preference(columns: Columns) -> Converted:
    """Convert a row of HelpSteer2-Preference; the strength of the preference is the margin."""
    return {
        "prompt": (turns_of(columns["prompt"]), ("prompt",)),
        **strength_of_preference(columns, "response_1", "response_2", "preference_strength"),
    }


def helpsteer3(columns: Columns) -> Converted:
    """Convert a row of HelpSteer3; the strength of the preference is the margin."""
    rows = strength_of_preference(columns, "response1", "response2", "overall_preference")
    return {"prompt": (columns["context"], ("context",)), **rows}


def strength_of_preference(columns: Columns, first: str, second: str, by: str) -> Converted:
    """Return the ranking and margin of two columns by a strength, -3 to 3: below 0 the first is preferred."""
    strength = number(columns[by], by)
    rows = pair(columns, first, second, 0.5 if strength == 0 else float(strength < 0), (by,))
    return {**rows, "margin": (abs(strength), (by,))}


def turns_of(prompt: Any) -> Any:
    """Return the messages of a HelpSteer prompt with several turns; any other prompt unchanged."""
    parts = TURN.split(prompt) if isinstance(prompt, str) else []
    if len(parts) < 3:
        return prompt
    roles = ["user", *(role.lower() for role in parts[1::2])]
    return [{"role": role, "content": text} for role, text in zip(roles, parts[::2]) if text.strip()]


def comparison_of_summaries(columns: Columns) -> Converted:
    """Convert a comparison of summarize-from-feedback."""
    summaries, choice = columns["summaries"], columns["choice"]
    if not isinstance(summaries, list) or len(summaries) != 2 or number(choice, "choice") not in (0, 1):
        raise InvalidRow(f"the choice {choice!r:.40} between summaries: it takes two of them, and 0 or 1")
    texts = [summary_text(summary) for summary in summaries]
    scores = [float(i == number(choice, "choice")) for i in range(2)]
    return {**post_of(columns), **ranked(texts, scores, ("summaries.text",), ("choice",))}


def scored_summaries(columns: Columns) -> Converted:
    """Convert summaries with an overall score (`axis` of summarize-from-feedback), the rows of a post joined."""
    summaries = columns["summary"] if isinstance(columns["summary"], list) else [columns["summary"]]
    texts = [summary_text(summary) for summary in summaries]
    axes = [summary["axes"] if isinstance(summary["axes"], Mapping) else {} for summary in summaries]
    scores = [number(each.get("overall"), "axes.overall") for each in axes]
    return {**post_of(columns), **ranked(texts, scores, ("summary.text",), ("summary.axes.overall",))}


def summary_text(summary: Any) -> str:
    """Return the text of a summary, without the space that it begins with."""
    return text_of(summary.get("text") if isinstance(summary, Mapping) else summary, "a summary").strip()


def post_of(columns: Columns) -> Converted:
    """Return the prompt and annotator of summarize-from-feedback: a Reddit post, or an article."""
    info = columns["info"]
    if not isinstance(info, Mapping):
        raise InvalidRow("info is no object")
    fields = ("article",) if is_filled(info.get("article")) else ("subreddit", "title", "post")
    if missing := [field for field in fields if not isinstance(info.get(field), str)]:
        raise InvalidRow(f"info has no {' and no '.join(missing)}")
    prompt = (ARTICLE if len(fields) == 1 else TLDR).format(**{field: info[field] for field in fields})
    annotator = {"annotator": (columns["worker"], ("worker",))} if "worker" in columns else {}
    return {"prompt": (prompt, tuple(f"info.{field}" for field in fields)), **annotator}


def nectar(columns: Columns) -> Converted:
    """Convert a row of Nectar."""
    answers = columns["answers"]
    ranks = [number(answer.get("rank"), "a rank") for answer in answers]
    texts = [answer.get("answer", "") for answer in answers]
    return {
        "prompt": (columns["prompt"], ("prompt",)),
        "completions": (texts, ("answers.answer",)),
        "ranking": (ranks, ("answers.rank",)),
    }


def webgpt(columns: Columns) -> Converted:
    """Convert a row of the WebGPT comparisons."""
    scores = [number(columns[name], name) for name in ("score_0", "score_1")]
    texts = [columns["answer_0"], columns["answer_1"]]
    rows = ranked(texts, scores, ("answer_0", "answer_1"), ("score_0", "score_1"))
    return {"prompt": (columns["question"]["full_text"], ("question.full_text",)), **rows}


def stack_exchange(columns: Columns) -> Converted:
    """Convert a row of the paired answers of Stack Exchange."""
    return {
        "prompt": (columns["question"], ("question",)),
        "chosen": (columns["response_j"], ("response_j",)),
        "rejected": (columns["response_k"], ("response_k",)),
    }


def comparison_of_models(columns: Columns) -> Converted:
    """Convert a comparison of the answers of two models."""
    prompt, answers, verdict = model_comparisons.compared(columns)
    texts = next(names for names in model_comparisons.TEXTS if all(columns.get(name) is not None for name in names))
    by = [name for name in ("winner", *model_comparisons.FLAGS, "preference") if name in columns]
    sources = [name for name in ("instruction", "input", "prompt") if name in columns] or list(texts)
    messages = [{"role": message.role, "content": message.content} for message in prompt]
    rows = ranked(answers, [verdict.score, 1 - verdict.score], texts, by)
    judges = [name for name in model_comparisons.ANNOTATOR_COLUMNS if name in columns][:1]
    return {
        "prompt": (messages, tuple(sources)),
        **rows,
        **({"annotator": (verdict.annotator, tuple(judges))} if verdict.annotator is not None else {}),
        **({"id": (columns["question_id"], ("question_id",))} if "question_id" in columns else {}),
    }


def kto(columns: Columns) -> Converted:
    """Convert a row with the label of a completion that Llama-Factory calls kto_tag."""
    others = {name: (value, (name,)) for name, value in columns.items() if name != "kto_tag"}
    return {**others, "label": (columns["kto_tag"], ("kto_tag",))}


def are_objects(column: str, *keys: str, kinds: tuple[type, ...] = (list,)) -> Callable[[Columns], bool]:
    """Return a condition: a column is a list of objects with these keys, or (kinds) an object with them."""

    def holds(columns: Columns) -> bool:
        value = columns[column]
        entries = value if isinstance(value, list) else [value]
        return isinstance(value, kinds) and all(
            isinstance(entry, Mapping) and set(keys) <= set(entry) for entry in entries
        )

    return holds


FORMATS = (
    PublishedFormat("OpenAI's preferences", ("input", "preferred_output", "non_preferred_output"), openai_preference),
    labelled("SHP", "history", "human_ref_A", "human_ref_B", "labels", 0),
    PublishedFormat(
        "UltraFeedback", ("instruction", "completions"), ultrafeedback, are_objects("completions", "response")
    ),
    PublishedFormat("HelpSteer", ("prompt", "response", "helpfulness"), helpsteer, group_by=("prompt",)),
    PublishedFormat(
        "HelpSteer2-Preference", ("prompt", "response_1", "response_2", "preference_strength"), helpsteer_preference
    ),
    PublishedFormat("HelpSteer3", ("context", "response1", "response2", "overall_preference"), helpsteer3),
    PublishedFormat("summarize-from-feedback", ("info", "summaries", "choice"), comparison_of_summaries),
    PublishedFormat(
        "summarize-from-feedback, axis",
        ("info", "summary"),
        scored_summaries,
        are_objects("summary", "text", "axes", kinds=(list, Mapping)),
        ("info", "worker"),
    ),
    PublishedFormat("Nectar", ("prompt", "answers"), nectar, are_objects("answers", "answer", "rank")),
    PublishedFormat(
        "WebGPT",
        ("question", "answer_0", "answer_1", "score_0", "score_1"),
        webgpt,
        are_objects("question", "full_text", kinds=(Mapping,)),
    ),
    PublishedFormat("Stack Exchange", ("question", "response_j", "response_k"), stack_exchange),
    labelled("LLMBar", "input", "output_1", "output_2", "label", 2),
    PublishedFormat("a comparison of two models", (), comparison_of_models, model_comparisons.is_comparison),
    PublishedFormat("Llama-Factory's KTO", ("kto_tag",), kto),
    PublishedFormat("scored completions", ("prompt", "completions", "scores"), scored),
    PublishedFormat(
        "completions with a score",
        ("prompt", "completion", "score"),
        scored,
        lambda columns: columns["score"] is not None and "label" not in columns,
        group_by=("prompt",),
    ),
)
MARKS = frozenset({"model_a", "generator_1"}.union(format.columns[-1] for format in FORMATS if format.columns))
"""columns one of which every format has: most rows have none, and need no closer look"""
FORMAT_COLUMNS = tuple(
    dict.fromkeys(
        [name for format in FORMATS for name in format.columns]
        + ["model_a", "model_b", "winner", *model_comparisons.FLAGS, "generator_1", "generator_2", "preference"]
        + [name for names in model_comparisons.TEXTS for name in names]
    )
)
"""columns that the formats read, for a mapping to them"""


def join_rows(
    records: Iterator[tuple[int, Record | BadRow]], mapping: ColumnMapping
) -> Iterator[tuple[int, Record | BadRow]]:
    """Join the rows of a format that ranks several rows (HelpSteer): those of a prompt, one after another, are one.

    A joined row has the number of its first; columns that differ hold the list of the rows' values.
    """
    group: list[Record] = []
    first, key = 0, None
    for line, record in records:
        own = group_key(record)
        if group and own != key:
            yield first, mapping.record(joined(group))
            group = []
        if own is None or not isinstance(record, Record):
            yield line, record
        else:
            first, key = (first, key) if group else (line, own)
            group.append(record)
    if group:
        yield first, mapping.record(joined(group))


def group_key(record: Record | BadRow) -> list[Any] | None:
    """Return the format and the values that are equal in all rows of a ranking; None for other rows."""
    if not isinstance(record, Record) or MARKS.isdisjoint(record.columns):
        return None
    formats = [format for format in FORMATS if format.group_by and format.matches(record.columns)]
    return [[format.name, *(record.columns.get(name) for name in format.group_by)] for format in formats] or None


def joined(group: Sequence[Record]) -> dict[str, Any]:
    """Return a row of several rows' values: a list where they differ, and of the columns that are compared."""
    compared = {source for record in group for name in JOINED for source in record.sources.get(name, (name,))}
    names = dict.fromkeys(name for record in group for name in record.row)
    row = {}
    for name in names:
        values = [record.row.get(name) for record in group]
        row[name] = values if name in compared or any(value != values[0] for value in values) else values[0]
    return {**row, "id": group[0].row["id"]} if "id" in row else row
