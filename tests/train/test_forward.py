"""A model over batches: the same numbers in any company, any order and any number of passes."""

import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.batches import collate, shared_prefix_lengths
from amenable.data.mixture import Mixed
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.text.chat import render_document
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import text_row
from amenable.train.objective import NextToken, mean_stats
from amenable.train.runtime import Runtime

ROWS: list[forward.Row] = [
    ([5, 40, 9, 300, 7], [False, False, True, True, True]),
    ([1, 2, 3, 4, 5, 6, 7, 8, 9], [False] * 6 + [True] * 3),
    ([11, 12], [False, True]),
    ([1, 40, 9, 300, 7, 8], [False, True, False, True, False, True]),
]


@pytest.fixture(scope="module")
def decoder(make_decoder: Callable[..., Decoder]) -> Decoder:
    return make_decoder(seed=3)


@pytest.fixture(scope="module")
def scorer(make_scalar_model: Callable[..., ScalarModel]) -> ScalarModel:
    return make_scalar_model(seed=4)


def by_hand(decoder: Decoder, row: forward.Row, temperature: float = 1.0) -> torch.Tensor:
    """A row alone: the whole softmax of every place, read one place before each trained token."""
    ids, trained = row
    with torch.no_grad():
        logits = decoder.logits(decoder(torch.tensor(ids), Layout.of([len(ids)]))).float() / temperature
    logps = logits - logits.exp().sum(-1, keepdim=True).log()
    return torch.stack([logps[i - 1, ids[i]] for i in range(len(ids)) if trained[i]])


@pytest.mark.parametrize("max_tokens", [1, 8, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_row_logprobs_are_each_rows_own(
    decoder: Decoder, runtime: Runtime, max_tokens: int, temperature: float
) -> None:
    result = forward.compute_logprobs(decoder, ROWS, runtime, max_tokens, temperature)
    assert [len(part) for part in result] == [3, 3, 1, 3]
    for row, part in zip(ROWS, result):
        assert torch.allclose(part, by_hand(decoder, row, temperature), atol=1e-5)


def test_entropy_is_that_of_the_tempered_distribution(decoder: Decoder) -> None:
    batch = collate(ROWS)
    with torch.no_grad():
        _, entropies = forward.masked_logprobs(decoder, batch, temperature=0.5, entropy=True)
        logits = decoder.logits(decoder(batch.ids, Layout.of(batch.lengths))).float() / 0.5
    places = batch.loss_mask.nonzero().squeeze(1) - 1
    p = logits[places].softmax(-1)
    assert torch.allclose(entropies, -(p * p.log()).sum(-1), atol=1e-4)


def test_values_are_read_before_each_trained_token(scorer: ScalarModel, runtime: Runtime) -> None:
    result = forward.compute_values(scorer, ROWS, runtime, 8)
    for (ids, trained), part in zip(ROWS, result):
        with torch.no_grad():
            values = scorer(torch.tensor(ids), Layout.of([len(ids)]))
        expected = torch.stack([values[i - 1] for i in range(len(ids)) if trained[i]])
        assert torch.allclose(part, expected, atol=1e-5)


ids = st.lists(st.integers(0, 319), min_size=2, max_size=12)


@settings(max_examples=40)
@given(st.lists(ids, min_size=1, max_size=6), st.randoms(use_true_random=False), st.integers(1, 60))
def test_a_reward_depends_on_its_row_alone(
    scorer: ScalarModel,
    runtime: Runtime,
    texts: list[list[int]],
    draw: random.Random,
    max_tokens: int,
) -> None:
    alone = torch.cat([forward.compute_rewards(scorer, [text_row(text)], runtime, 1000) for text in texts])
    with torch.no_grad():
        last = torch.stack([scorer(torch.tensor(text), Layout.of([len(text)]))[-1] for text in texts])
    assert torch.allclose(alone, last, atol=1e-5)
    order = list(range(len(texts)))
    draw.shuffle(order)
    company = forward.compute_rewards(scorer, [text_row(texts[i]) for i in order], runtime, max_tokens)
    assert torch.allclose(company, alone[order], atol=1e-5)


def test_a_reward_is_read_at_the_last_token_even_if_it_is_no_end(
    scorer: ScalarModel, words: Tokenizer, runtime: Runtime
) -> None:
    text = [*words.encode("a rose"), words.eos_id, *words.encode(" it is"), words.pad_id]
    with torch.no_grad():
        expected = scorer(torch.tensor(text), Layout.of([len(text)]))
    (reward,) = forward.compute_rewards(scorer, [text_row(text)], runtime, 1000)
    assert reward == pytest.approx(expected[-1].item(), abs=1e-5)
    assert reward != pytest.approx(expected[-2].item(), abs=1e-5)


def test_chunks_hold_every_row_once_and_keep_the_budget(runtime: Runtime) -> None:
    chunks = list(forward.length_sorted_batches(ROWS, runtime, 8))
    assert sorted(i for chosen, _ in chunks for i in chosen) == [0, 1, 2, 3]
    for chosen, batch in chunks:
        assert batch.lengths == tuple(len(ROWS[i][0]) for i in chosen)
        assert len(chosen) == 1 or len(batch.ids) <= 8


def test_chunks_of_rows_with_one_system_prompt_keep_the_budget(runtime: Runtime) -> None:
    """40 questions of two answers after the same 30 tokens: 41 + 3 tokens a question."""
    system = list(range(30))
    rows = [
        (system + [100 + question] * 10 + [answer] * 3, [False] * 40 + [True] * 3)
        for question in range(40)
        for answer in (7, 8)
    ]
    chunks = list(forward.length_sorted_batches(rows, runtime, 200))
    assert [len(chosen) for chosen, _ in chunks] == [8] * 10
    assert all(len(batch.ids) == 4 * 46 for _, batch in chunks)


def test_a_pass_that_was_not_planned_is_not_computed(runtime: Runtime) -> None:
    (part,) = forward.microbatches(ROWS[:2], 20)
    assert len(forward.load(ROWS, part, runtime, 20).ids) == 14
    for wrong in (replace(part, tokens=13), replace(part, rows=[0, 2])):
        with pytest.raises(RuntimeError, match="planned as"):
            forward.load(ROWS, wrong, runtime, 20)
    with pytest.raises(RuntimeError, match="at most 13"):
        forward.load(ROWS, part, runtime, 13)


def test_every_pass_is_made_in_one_place() -> None:
    """Whoever makes a batch by himself is held to no budget."""
    package = Path(forward.__file__).parents[1]
    makers = {path.name for path in package.rglob("*.py") if re.search(r"\bcollate\(", path.read_text("utf-8"))}
    assert makers == {"batches.py", "forward.py"}


def test_the_sum_of_a_rows_log_probabilities(decoder: Decoder) -> None:
    prompt = list(range(20, 30))
    rows = [(prompt + [answer, 3], [False] * 10 + [True] * 2) for answer in (1, 2)] + ROWS
    with torch.no_grad():
        sums = forward.summed_logprobs(decoder, collate(rows, shared_prefix_lengths(rows)))
    assert torch.allclose(sums, torch.stack([by_hand(decoder, row).sum() for row in rows]), atol=1e-4)


def test_kl_is_between_the_same_tokens_after_other_contexts(
    decoder: Decoder, runtime: Runtime, make_decoder: Callable[..., Decoder]
) -> None:
    """The reference's rows are longer, and divided by themselves."""
    reference = make_decoder(seed=8)
    longer = [([90 + i for i in range(12)] + ids, [False] * 12 + marks) for ids, marks in ROWS]
    together = forward.compute_kls(decoder, reference, ROWS, longer, runtime, 1000)
    apart = forward.compute_kls(decoder, reference, ROWS, longer, runtime, 21)
    for row, other, kls, again in zip(ROWS, longer, together, apart):
        logps = []
        for model, (ids, marks) in ((decoder, row), (reference, other)):
            with torch.no_grad():
                every = model.logits(model(torch.tensor(ids), Layout.of([len(ids)]))).log_softmax(-1)
            logps.append(every[[i - 1 for i, mark in enumerate(marks) if mark]])
        expected = (logps[0].exp() * (logps[0] - logps[1])).sum(-1)
        assert torch.allclose(kls, expected, atol=1e-4) and torch.allclose(again, expected, atol=1e-4)


def test_mean_loss_weighs_tokens_not_rows(decoder: Decoder, runtime: Runtime) -> None:
    every = torch.cat([by_hand(decoder, row) for row in ROWS])
    assert forward.mean_loss(decoder, ROWS, runtime, 8) == pytest.approx(-every.mean().item(), rel=1e-5)


def test_bits_per_byte_of_a_uniform_model(
    words: Tokenizer, runtime: Runtime, make_decoder: Callable[..., Decoder]
) -> None:
    uniform = make_decoder(vocab_size=words.vocab_size)
    with torch.no_grad():
        uniform.token_embedding.weight.zero_()
    text = "The sea is blue, naïve as it is."
    row = text_row(render_document(words, text))
    # every token but BOS costs log2 V bits; EOS has to be predicted too, but is no byte of the text
    expected = math.log2(words.vocab_size) * (len(row[0]) - 1) / len(text.encode())
    result = forward.bits_per_byte(uniform, Mixed(["text"], [[row]]), [len(text.encode())], runtime, 1000)
    assert result["eval/bpb"] == pytest.approx(expected, rel=1e-6)


def test_bits_per_byte_is_nats_over_log_2_and_bytes(decoder: Decoder, runtime: Runtime) -> None:
    nats = -sum(by_hand(decoder, row).sum().item() for row in ROWS)
    counts = [17, *[0] * (len(ROWS) - 1)]
    result = forward.bits_per_byte(decoder, Mixed(["text"], [ROWS]), counts, runtime, 8)
    assert result == {"eval/bpb": pytest.approx(nats / math.log(2) / 17, rel=1e-5)}


def test_spans_change_nothing_but_what_is_in_memory(
    make_decoder: Callable[..., Decoder], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, elements, done = make_decoder(), [ROWS[i % 4] for i in range(9)], list[tuple[int, int]]()
    both = decoder, elements, lambda row: [row, ROWS[0]], runtime, 64
    whole, rows = forward.element_logprobs(*both), forward.compute_logprobs(decoder, elements, runtime, 64)
    assert [sums[0] for sums in whole] == pytest.approx([float(part.sum()) for part in rows], abs=1e-5)
    assert len({round(sums[1], 4) for sums in whole}) == 1
    monkeypatch.setattr(forward, "SPAN", 2)
    apart = forward.element_logprobs(*both, lambda *each: done.append(each))
    assert [sum(sums) for sums in apart] == pytest.approx([sum(sums) for sums in whole], abs=1e-4)
    shares = [number / total for number, total in done]
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(set(shares)) > 4


def test_held_out_elements_are_evaluated_span_by_span(
    make_decoder: Callable[..., Decoder], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = Mixed(["a", "b"], [[ROWS[i % 4] for i in range(5)], [ROWS[0], ROWS[2]]])
    objective = NextToken(make_decoder())
    whole = mean_stats(objective, mixed, runtime, 64)
    assert whole.keys() == {"loss", "loss/a", "loss/b"}
    monkeypatch.setattr(forward, "SPAN", 2)
    assert mean_stats(objective, mixed, runtime, 64) == pytest.approx(whole, rel=1e-5)
    assert mean_stats(objective, [], runtime, 64) == {}
