"""Likelihoods of continuations: by hand from the model's logits, whatever the batch, and at the token's border."""

import pytest
import torch

from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.likelihood import (
    ChoiceRow,
    Likelihood,
    Request,
    encode,
    likeliest,
    move_space,
    score,
    score_choices,
)
from amenable.models.layout import Layout
from amenable.text.tokenizer import Tokenizer

REQUESTS = [
    Request(f"The {thing} is", f" {colour}.")
    for thing in ("rose", "sea", "leaf")
    for colour in ("red", "green", "blue")
]


def by_hand(examinee: Examinee, request: Request) -> tuple[float, bool]:
    words, decoder = examinee.model.tokenizer, examinee.model.decoder
    context = [*words.added_ids, *words.encode(request.context)]
    ids = [*words.added_ids, *words.encode(request.context + request.continuation)]
    with torch.inference_mode():
        layout = Layout.of([len(ids)], decoder.device)
        logps = decoder.logits(decoder(torch.tensor(ids), layout)).float().log_softmax(-1)
    targets = list(enumerate(ids))[len(context) :]
    return (
        sum(float(logps[i - 1, token]) for i, token in targets),
        all(int(logps[i - 1].argmax()) == token for i, token in targets),
    )


def test_likelihoods_are_those_of_the_logits(examinee: Examinee) -> None:
    scores = score(examinee.model, REQUESTS, 200)
    for request, value in zip(REQUESTS, scores, strict=True):
        logp, greedy = by_hand(examinee, request)
        assert value.logp == pytest.approx(logp, abs=1e-4) and value.greedy == greedy


def test_batches_and_repeats_change_nothing(examinee: Examinee) -> None:
    together = score(examinee.model, REQUESTS, 2000)
    again = score(examinee.model, [*REQUESTS[::-1], REQUESTS[0]], 20)
    assert [value.logp for value in again] == pytest.approx(
        [value.logp for value in [*together[::-1], together[0]]], abs=1e-4
    )


def test_a_row_has_a_score_for_each_choice(examinee: Examinee) -> None:
    rows = [ChoiceRow("The rose is", ("red.", "blue."), (0,)), ChoiceRow("A sea is", ("blue.",), (0,))]
    scores = score_choices(examinee.model, rows, 200)
    assert [len(row) for row in scores] == [2, 1]
    assert scores[0][0].logp == pytest.approx(by_hand(examinee, Request("The rose is", " red."))[0], abs=1e-4)


def test_the_continuation_alone_counts(words: Tokenizer) -> None:
    ((ids, counts),) = encode(words, [Request("The rose is", " red.")], 100)
    assert ids[: len(words.added_ids)] == words.added_ids and words.decode(ids) == "The rose is red."
    assert words.decode([token for token, counted in zip(ids, counts) if counted]) == " red."


def test_white_space_at_the_end_of_a_context_is_the_continuations() -> None:
    assert move_space(Request("The rose is \n", "red")) == ("The rose is", " \nred")


def test_an_empty_context_is_the_beginning_of_a_text(words: Tokenizer) -> None:
    ((ids, counts),) = encode(words, [Request("", " red.")], 100)
    assert ids == [words.bos_id, *words.encode(" red.")] and counts == [False, *[True] * (len(ids) - 1)]


def test_a_long_text_loses_its_beginning_and_bos(words: Tokenizer) -> None:
    ((whole, _),) = encode(words, [Request("A leaf is green. The rose is", " red.")], 100)
    ((ids, counts),) = encode(words, [Request("A leaf is green. The rose is", " red.")], 8)
    assert ids == whole[-8:] and ids[0] not in words.added_ids and len(counts) == 8 and not counts[0]
    assert words.decode([token for token, counted in zip(ids, counts) if counted]) == " red."


@pytest.mark.parametrize("surplus", [0, 1, 5])
def test_the_last_token_of_a_long_text_is_predicted_and_never_read(examinee: Examinee, surplus: int) -> None:
    """A context of 64 tokens predicts the last of 65; what is before these is left out."""
    words, decoder = examinee.model.tokenizer, examinee.model.decoder
    context = decoder.config.context_length
    text = words.encode("The rose is red. " * context)[: context + 1 + surplus - len(words.added_ids) - 2]
    request = Request(words.decode(text), " red.")
    ids = [*words.added_ids, *words.encode(request.context + request.continuation)]
    assert len(ids) == context + 1 + surplus
    with torch.inference_mode():
        read = torch.tensor(ids[-context - 1 : -1])
        logps = decoder.logits(decoder(read, Layout.of([context], decoder.device))).float().log_softmax(-1)
    (value,) = score(examinee.model, [request], 200)
    expected = sum(float(logps[context - count, ids[-count]]) for count in range(1, value.tokens + 1))
    assert value.tokens == 2 and value.logp == pytest.approx(expected, abs=1e-4)


def test_a_continuation_within_the_contexts_only_token_has_no_tokens(
    examinee: Examinee, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = examinee.model.tokenizer
    monkeypatch.setitem(vars(words), "added_ids", [])
    texts = (words.decode([token]) for token in range(words.vocab_size))
    word = next(
        text for text in texts if text.isalpha() and 1 == len(words.encode(text)) == len(words.encode(text[:-1]))
    )
    assert score(examinee.model, [Request(word[:-1], word[-1])], 200) == [Likelihood(0.0, True, 0)]


def test_shots_and_description_come_before_the_context() -> None:
    shots = (ChoiceRow("s", ("u", "t"), (1,), description="no\n\n"), ChoiceRow("v", (" w",), (0,), delimiter=""))
    row = ChoiceRow("c", ("x", "y"), (1,), description="about\n\n", shots=shots, content_free="N/A")
    before = "about\n\ns t\n\nv w\n\n"
    assert row.requests == [Request(f"{before}c", " x"), Request(f"{before}c", " y")]
    assert row.requests_after("N/A") == [Request(f"{before}N/A", " x"), Request(f"{before}N/A", " y")]
    assert row.example == "c y" and row.label == "1"


def test_a_choice_that_is_empty_is_refused_and_the_first_of_equal_ones_wins() -> None:
    with pytest.raises(ValueError, match="a choice is empty"):
        ChoiceRow("c", ("x", ""), (0,)).require_complete()
    assert likeliest([Likelihood(logp, False, 1) for logp in (-2.0, -1.0, -1.0)]) == 1
