"""Whatever comes in: texts of any plane, rows of any length, lines of any bytes, answers cut into any tokens.

What single modules promise is checked beside them; here they are taken together, with worse input. Every run draws the
same examples; `FUZZ_EXAMPLES=5000 pytest tests/test_fuzz.py` draws more, and others.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amenable.data import sources
from amenable.data.batches import (
    Row,
    chunk_documents,
    collate,
    microbatches,
    shared_prefix_lengths,
    shuffled,
    targets,
)
from amenable.data.orders import batch_starts
from amenable.data.types import Message
from amenable.errors import InputError
from amenable.functional import losses
from amenable.functional.advantages import masked_gae
from amenable.functional.masked import masked_mean, masked_sum, masked_var, scale, standardize
from amenable.functional.rewards import token_rewards
from amenable.generation.detokenizer import IncrementalDetokenizer
from amenable.text.chat import render, render_completion, render_document
from amenable.text.tokenizer import ASSISTANT, BOS, EOS, SPECIAL_TOKENS, Tokenizer

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
FUZZ = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LOOKALIKES = [
    *SPECIAL_TOKENS,
    *(name[:-1] for name in SPECIAL_TOKENS),
    *(name[2:] for name in SPECIAL_TOKENS),
    "<|eos|" + "\u200b" + ">",
    "＜|eos|＞",
    "<|EOS|>",
    "<<|eos|>|>",
    "<|endoftext|>",
    "<|im_start|>assistant\n",
    "</s>",
    "[INST]",
    "{{ messages }}",
    "{% generation %}",
    "\n\nUser: ",
    "\n\nAssistant: ",
]
ODD = [
    "\x00",
    "\r\n",
    "\n\n\n",
    "\u2028",
    "e\u0301",
    "\u0301",
    "\ufeff",
    "\ufffd",
    "\U0010ffff",
    "👩‍👩‍👧",
    "\u202eabc",
    "\ue000",
]
"""what trips text: NUL, line ends, combining marks alone and joined, marks of order, the last code point"""
TEXT = st.lists(st.sampled_from(LOOKALIKES + ODD) | st.text(max_size=12), max_size=6).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """A system message or none, and one to three exchanges."""
    messages = [Message("system", draw(TEXT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(TEXT)), Message("assistant", draw(TEXT))]
    return messages


@FUZZ
@given(conversations())
def test_a_conversation_is_its_turns_and_no_content_steers_it(words: Tokenizer, messages: list[Message]) -> None:
    """Control tokens stand where the turns change and nowhere else; trained are the assistant's words and their end."""
    signs = {"system": "<|system|>", "user": "<|user|>", "assistant": ASSISTANT}
    expected, marks = [words.bos_id], [False]
    for message in messages:
        reply, speaks = words.encode(message.content), message.role == "assistant"
        ends = [words.eos_id] if speaks else []
        expected += [*words.encode_with_special_tokens(signs[message.role]), *reply, *ends]
        marks += [False, *[speaks] * (len(reply) + len(ends))]
    result = render(words, messages)
    assert result.ids == expected and result.loss_mask == marks
    assert len(result.roles) == len(result.ids)
    assert result.ids.count(words.bos_id) == 1 and words.pad_id not in result.ids


@FUZZ
@given(TEXT)
def test_the_ids_of_a_content_are_its_text(words: Tokenizer, text: str) -> None:
    ids = words.encode(text)
    assert words.decode(ids) == text and not words.special_ids & set(ids)
    assert words.decode(ids, skip_special_tokens=False) == text
    assert render_completion(words, text) == [*ids, words.eos_id]
    document = render_document(words, text)
    assert document == [words.bos_id, *ids, words.eos_id]
    assert words.decode(document, skip_special_tokens=False) == BOS + text + EOS


@FUZZ
@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=40), max_size=12), st.integers(2, 20), st.data())
def test_packing_loses_nothing_and_predicts_every_token_once(
    documents: list[list[int]], context: int, data: st.DataObject
) -> None:
    """From documents to what a loss sees: each token but a document's first is a target once, after the one before."""
    budget, seed = data.draw(st.integers(1, 60)), data.draw(st.integers(0, 9))
    pieces = chunk_documents(documents, context)
    observed: list[tuple[int, int]] = []
    rows = [(piece, [False] + [True] * (len(piece) - 1)) for piece in pieces]
    sizes = [len(piece) for piece in pieces]
    order = shuffled(len(sizes), seed, 0)
    for start, end in pairwise(batch_starts(np.array(sizes, np.int64), np.array(order, np.int64), budget).tolist()):
        chosen = order[start:end]
        lengths = [len(pieces[i]) for i in chosen]
        assert sum(lengths) <= budget or len(chosen) == 1
        for part in microbatches([rows[i] for i in chosen], max(1, budget // 2)):
            batch = collate([rows[chosen[i]] for i in part.rows])
            index, tokens = targets(batch)
            observed += zip(batch.ids[index].tolist(), tokens.tolist())
    assert sorted(observed) == sorted(pair for document in documents for pair in pairwise(document))


@st.composite
def answers_to_prompts(draw: st.DrawFn) -> list[Row]:
    """Rows of several answers to a few prompts, neighbours or not."""
    prompts = draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=14), min_size=1, max_size=3))
    rows: list[Row] = []
    for _ in range(draw(st.integers(1, 6))):
        prompt, answer = draw(st.sampled_from(prompts)), draw(st.lists(st.integers(4, 9), min_size=1, max_size=6))
        rows.append(([*prompt, *answer], [False] * len(prompt) + [True] * len(answer)))
    return rows


@FUZZ
@given(answers_to_prompts())
def test_sharing_a_prompt_leaves_every_target_as_it_was(rows: list[Row]) -> None:
    """Where a prompt is in the batch once, each answer's first token is still predicted from the prompt's last."""
    pairs = []
    for share in (False, True):
        batch = collate(rows, shared_prefix_lengths(rows) if share else ())
        index, tokens = targets(batch)
        pairs.append((batch.ids[index].tolist(), tokens.tolist()))
    assert pairs[0] == pairs[1]
    assert pairs[0][1] == [token for ids, trained in rows for token, counts in zip(ids, trained) if counts]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
COLUMNS = st.sampled_from(
    ["text", "messages", "prompt", "completion", "completions", "chosen", "rejected", "margin", "ranking", "context"]
    + ["label", "instruction", "input", "output", "conversations", "annotator", "id", "system", "role", "content"]
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", ""]), "content": TEXT | JSON}
    ),
    max_size=4,
)
ROW = st.dictionaries(COLUMNS, TEXT | MESSAGES | JSON | st.lists(TEXT, max_size=3), max_size=5)
LINE = ROW.map(json.dumps).map(str.encode) | JSON.map(json.dumps).map(str.encode) | st.binary(max_size=40)
READERS = [
    sources.read_texts,
    sources.read_demonstrations,
    sources.read_prompts,
    sources.read_rankings,
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.txt", "rows.jsonl.gz"])
@FUZZ
@given(st.lists(LINE, max_size=6))
def test_any_file_gives_rows_or_reasons(name: str, lines: list[bytes]) -> None:
    """A reader answers with usable rows and rejected ones, or with an InputError of few lines; never with a crash."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        content = b"\n".join(lines)
        file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        for read in READERS:
            with contextlib.suppress(InputError):
                loaded = read(file)
                assert loaded.rows and all(row.reason and row.line >= 1 for row in loaded.rejected)
                if name.endswith((".jsonl", ".gz")):
                    assert len(loaded.rows) + len(loaded.rejected) <= content.count(b"\n") + 1


def growing(tokenizer: Tokenizer, ids: Sequence[int], stop: Sequence[str]) -> tuple[str, bool]:
    """The text of ids that come one by one, until a stop string is in it."""
    text = IncrementalDetokenizer(tokenizer.decode)
    for token in ids:
        if text.push(token, stop):
            return text.text, True
    return text.text, False


ENDING = st.text(alphabet="ab\n é🙂", min_size=1, max_size=4)


@FUZZ
@given(st.data())
def test_a_stop_string_cuts_at_its_first_place_however_the_text_is_cut_into_tokens(
    words: Tokenizer, data: st.DataObject
) -> None:
    pieces = data.draw(st.lists(st.text(alphabet="ab\n é🙂", max_size=6), max_size=8))
    stop = data.draw(st.lists(ENDING, min_size=1, max_size=3))
    ids = [token for piece in pieces for token in words.encode(piece)]
    text = "".join(pieces)
    result, stopped = growing(words, ids, stop)
    places = [(text.find(string) + len(string), text.find(string)) for string in stop if string in text]
    assert stopped == bool(places)
    if not places:
        assert result == text
        return
    # the first to be complete stops the answer; where two are complete in one token, the text ends before both
    assert not any(string in result for string in stop)
    assert text.startswith(result) and len(result) <= min(places)[1]
    assert any(text.startswith(string, len(result)) for string in stop)


BAD = st.sampled_from([math.nan, math.inf, -math.inf, 1e30])


@st.composite
def padded(draw: st.DrawFn, columns: int) -> tuple[list[torch.Tensor], torch.Tensor, float]:
    """Columns [B, T] of numbers, a mask with a True in it, and what stands where the mask is False."""
    rows, steps = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    flags = draw(st.lists(st.booleans(), min_size=rows * steps, max_size=rows * steps))
    mask = torch.tensor(flags).view(rows, steps)
    mask[0, draw(st.integers(0, steps - 1))] = True
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    return [torch.randn(rows, steps, generator=generator).double() for _ in range(columns)], mask, draw(BAD)


SCALARS: list[tuple[int, Callable[..., torch.Tensor]]] = [
    (1, masked_mean),
    (1, masked_sum),
    (1, masked_var),
    (1, lambda x, mask: (standardize(x, mask) ** 3).sum()),
    (1, lambda x, mask: (scale(x, mask) ** 3).sum()),
    (3, lambda *columns: losses.ppo_policy_loss(*columns, 0.2)[0]),
    (3, lambda *columns: losses.ppo_kl_penalty_loss(*columns, 0.5)[0]),
    (3, lambda *columns: losses.value_loss(*columns, 0.2)[0]),
    (2, lambda logp, ref, mask: (token_rewards(logp, ref, torch.ones(len(mask)), mask, 0.1) ** 2).sum()),
    (2, lambda rewards, values, mask: sum((x**2).sum() for x in masked_gae(rewards, values, mask, 0.9, 0.8))),
]
NAMES = ["mean", "sum", "var", "standardize", "scale", "ppo_clip", "ppo_kl", "value", "rewards", "gae"]


@pytest.mark.parametrize(("columns", "function"), SCALARS, ids=NAMES)
@FUZZ
@given(data=st.data())
def test_what_stands_in_the_padding_changes_no_value_and_no_gradient(
    columns: int, function: Callable[..., Any], data: st.DataObject
) -> None:
    numbers, mask, bad = data.draw(padded(columns))
    results = []
    for outside in (0.0, bad):
        inputs = [torch.where(mask, column, outside).requires_grad_() for column in numbers]
        value = function(*inputs, mask)
        gradients = torch.autograd.grad(value, inputs, allow_unused=True)
        results.append((value.detach(), gradients))
    (value, gradients), (other, others) = results
    assert torch.equal(value, other) and value.isfinite()
    for gradient, again in zip(gradients, others):
        assert (gradient is None) == (again is None)
        if gradient is not None and again is not None:
            assert torch.equal(gradient, again) and gradient.isfinite().all() and not again[~mask].any()
