import random
from dataclasses import replace
from itertools import chain

import pytest
import torch

from amenable.errors import InputError
from amenable.generation.engine import Stream, generate
from amenable.generation.requests import Completion
from amenable.generation.sampling import Sampling, adjust
from amenable.models.decoder import Decoder, DecoderConfig
from amenable.models.layout import Layout

EOS = 3
VOCABULARY = 17
CLASSIC = DecoderConfig(vocab_size=VOCABULARY, context_length=40, num_layers=2, hidden_size=32, num_heads=2)
MODERN = replace(
    CLASSIC, positions="rope", norm="rms", activation="swiglu", num_heads=4, num_kv_heads=2, bias=False, qk_norm=True
)


def make_decoder(config: DecoderConfig = MODERN) -> Decoder:
    """A random model with confident predictions: larger weights than at the start of training."""
    decoder = Decoder(config)
    decoder.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return decoder.eval()


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_decoder()


def make_prompts(count: int, seed: int = 0) -> list[list[int]]:
    numbers = random.Random(seed)
    return [[numbers.randrange(4, VOCABULARY) for _ in range(numbers.randrange(1, 14))] for _ in range(count)]


def letters(ids: list[int]) -> str:
    return "".join(chr(ord("a") + token) for token in ids)


def full_logits(decoder: Decoder, ids: list[int]) -> torch.Tensor:
    """Logits [len(ids), V] with no cache."""
    with torch.no_grad():
        return decoder.logits(decoder(torch.tensor(ids), Layout.of([len(ids)])))


def text_of(completion: Completion | None) -> str:
    assert completion is not None and completion.text is not None
    return completion.text


def tokens_of(results: list[list[Completion]]) -> list[list[list[int]]]:
    return [[completion.ids for completion in row] for row in results]


@pytest.mark.parametrize("config", [CLASSIC, MODERN], ids=["classic", "modern"])
def test_greedy_completions_are_those_of_a_loop_without_cache(config):
    decoder = make_decoder(config)
    prompts = make_prompts(6)
    results = generate(decoder, prompts, Sampling(temperature=0, max_new_tokens=12), eos_id=EOS, max_batch_size=4)
    for prompt, (completion,) in zip(prompts, results):
        ids = list(prompt)
        while len(ids) < len(prompt) + 12 and (len(ids) == len(prompt) or ids[-1] != EOS):
            ids.append(int(full_logits(decoder, ids)[-1].argmax()))
        assert completion.ids == ids[len(prompt) :]


def test_an_answer_ends_at_the_first_of_several_ids(decoder):
    prompts, sampling = make_prompts(9), Sampling(max_new_tokens=20)
    free = generate(decoder, prompts, sampling, eos_id=None, seeds=3, samples=2)
    ended = generate(decoder, prompts, sampling, eos_id=[EOS, 7, 11], seeds=3, samples=2, decode=letters)
    stopped = 0
    for whole, cut in zip(chain.from_iterable(free), chain.from_iterable(ended)):
        hits = [i for i, token in enumerate(whole.ids) if token in (EOS, 7, 11)]
        assert cut.ids == whole.ids[: hits[0] + 1] if hits else cut.ids == whole.ids
        assert cut.ended == bool(hits) and (not hits or cut.text == letters(cut.ids[:-1]))
        stopped += bool(hits)
    assert stopped > 3
    assert {cut.ids[-1] for cut in chain.from_iterable(ended) if cut.ended} == {EOS, 7, 11}


def test_answers_do_not_depend_on_the_number_of_rows_nor_on_the_neighbours(decoder):
    prompts, seeds = make_prompts(13), list(range(100, 113))
    sampling = Sampling(temperature=0.9, max_new_tokens=16)

    def completions(order: list[int], size: int) -> list[list[list[int]]]:
        results = generate(
            decoder,
            [prompts[i] for i in order],
            sampling,
            eos_id=EOS,
            seeds=[seeds[i] for i in order],
            samples=3,
            max_batch_size=size,
        )
        return [ids for _, ids in sorted(zip(order, tokens_of(results)))]

    straight = list(range(13))
    shuffled = random.Random(1).sample(straight, 13)
    expected = completions(straight, 64)
    assert len({tuple(ids) for row in expected for ids in row}) > 30
    assert {ids[-1] == EOS for row in expected for ids in row} == {True, False}
    for size in (1, 3, 8):
        assert completions(straight, size) == expected
    assert completions(shuffled, 7) == expected
    alone = generate(decoder, prompts[4:5], sampling, eos_id=EOS, seeds=seeds[4:5], samples=1)
    assert alone[0][0].ids == expected[4][0]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=20),
        Sampling(temperature=0.6, max_new_tokens=20),
        Sampling(temperature=1.3, top_k=9, top_p=0.93, min_p=0.01, max_new_tokens=20),
    ],
    ids=["plain", "temperature", "filters"],
)
def test_log_probabilities_are_those_of_a_full_forward_under_the_same_sampling(decoder, sampling):
    prompts = make_prompts(9)
    for prompt, row in zip(
        prompts, generate(decoder, prompts, sampling, eos_id=EOS, samples=2, seeds=7, max_batch_size=5)
    ):
        for completion in row:
            logits = adjust(full_logits(decoder, [*prompt, *completion.ids])[len(prompt) - 1 : -1], sampling)
            expected = logits.log_softmax(-1).gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
            assert torch.tensor(completion.logps).allclose(expected, atol=1e-4)


def test_repetition_penalty_counts_the_prompt_and_the_answer_so_far(decoder):
    prompts = make_prompts(5)
    sampling = Sampling(temperature=0, repetition_penalty=1.7, max_new_tokens=10)
    for prompt, (completion,) in zip(prompts, generate(decoder, prompts, sampling, eos_id=EOS, max_batch_size=2)):
        ids = list(prompt)
        for token in completion.ids:
            penalized = torch.zeros(1, VOCABULARY, dtype=torch.bool)
            penalized[0, ids] = True
            assert token == adjust(full_logits(decoder, ids)[-1:], sampling, penalized).argmax()
            ids.append(token)


def test_a_completion_ends_with_eos(decoder):
    results = generate(decoder, make_prompts(30), Sampling(max_new_tokens=10), eos_id=EOS, seeds=3, decode=letters)
    assert {row[0].finish_reason for row in results} == {"eos", "length"}
    for (completion,) in results:
        assert len(completion.logps) == len(completion.ids)
        assert EOS not in completion.ids[:-1]
        assert completion.ended == (completion.ids[-1] == EOS) == (completion.finish_reason == "eos")
        assert completion.ended or len(completion.ids) == 10
        assert completion.text == letters([token for token in completion.ids if token != EOS])


def test_without_an_eos_every_answer_has_the_full_length(decoder):
    results = generate(decoder, make_prompts(8), Sampling(max_new_tokens=9), eos_id=None, samples=2, max_batch_size=3)
    assert {(len(c.ids), c.finish_reason) for row in results for c in row} == {(9, "length")}


def test_the_context_cuts_an_answer_short(decoder):
    context = decoder.config.context_length
    prompts = [[5] * (context - 1), [5] * (context - 4), [5]]
    results = generate(decoder, prompts, Sampling(max_new_tokens=6), eos_id=None, max_batch_size=2)
    assert [(len(row[0].ids), row[0].finish_reason) for row in results] == [(1, "length"), (4, "length"), (6, "length")]


def test_samples_of_a_prompt_differ_and_do_not_depend_on_how_many_there_are(decoder):
    sampling = Sampling(max_new_tokens=12)
    many = tokens_of(generate(decoder, [[5, 6]], sampling, eos_id=None, seeds=1, samples=6))[0]
    few = tokens_of(generate(decoder, [[5, 6]], sampling, eos_id=None, seeds=1, samples=2))[0]
    other = tokens_of(generate(decoder, [[5, 6]], sampling, eos_id=None, seeds=2, samples=2))[0]
    twins = tokens_of(generate(decoder, [[5, 6], [5, 6]], sampling, eos_id=None, seeds=1))
    assert len({tuple(ids) for ids in many}) == 6
    assert many[:2] == few != other
    assert twins[0] != twins[1]


def test_a_longer_limit_continues_the_same_answer(decoder):
    short = tokens_of(generate(decoder, [[5, 6]], Sampling(max_new_tokens=5), eos_id=None, seeds=1))[0][0]
    long = tokens_of(generate(decoder, [[5, 6]], Sampling(max_new_tokens=30), eos_id=None, seeds=1))[0][0]
    assert long[:5] == short


def test_a_stop_string_is_matched_across_tokens_and_trimmed_from_the_text(decoder):
    prompts = make_prompts(6)
    sampling = Sampling(max_new_tokens=20)
    free = generate(decoder, prompts, sampling, eos_id=None, seeds=5, decode=letters)
    stops = [text_of(free[0][0])[6:9], text_of(free[3][0])[10:12]]
    results = generate(decoder, prompts, sampling, eos_id=None, seeds=5, decode=letters, stop=stops, max_batch_size=4)
    for (whole,), (cut,) in zip(free, results):
        text = text_of(whole)
        hits = {text.find(stop) + len(stop) for stop in stops if stop in text}
        if hits:
            end = min(hits)
            assert cut.finish_reason == "stop" and not cut.ended
            assert cut.ids == whole.ids[:end]
            stop = next(stop for stop in stops if text[:end].endswith(stop))
            assert cut.text == text[: end - len(stop)]
        else:
            assert (cut.ids, cut.text, cut.finish_reason) == (whole.ids, whole.text, "length")
    assert results[0][0].finish_reason == results[3][0].finish_reason == "stop"


def test_on_token_gets_every_token(decoder):
    received: dict[tuple[int, int], list[int]] = {}
    results = generate(
        decoder,
        make_prompts(5),
        Sampling(max_new_tokens=8),
        eos_id=EOS,
        samples=2,
        max_batch_size=3,
        on_token=lambda prompt, sample, token: received.setdefault((prompt, sample), []).append(token),
    )
    assert received == {(i, k): c.ids for i, row in enumerate(results) for k, c in enumerate(row)}


def test_the_mode_of_the_model_is_restored_and_it_can_still_be_trained():
    decoder = make_decoder().train()
    frozen = next(module for module in decoder.children())
    frozen.eval()
    generate(decoder, [[5, 6]], Sampling(max_new_tokens=3), eos_id=None)
    assert decoder.training and not frozen.training
    loss = decoder.logits(decoder(torch.tensor([5, 6, 7]), Layout.of([3]))).square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


def test_dropout_is_off_while_generating():
    decoder = make_decoder(replace(MODERN, dropout=0.5)).train()
    results = [generate(decoder, [[5, 6]], Sampling(temperature=0, max_new_tokens=10), eos_id=None) for _ in range(3)]
    assert tokens_of(results[0]) == tokens_of(results[1]) == tokens_of(results[2])


def test_a_model_that_diverged_is_named_as_such():
    decoder = make_decoder()
    with torch.no_grad():
        decoder.unembedding.fill_(float("nan"))
    with pytest.raises(InputError, match="nan"):
        generate(decoder, [[5]], Sampling(), eos_id=EOS)
    assert not decoder.training


def test_half_precision_gives_nearly_the_same_log_probabilities(decoder):
    sampling = Sampling(max_new_tokens=12)
    prompts = make_prompts(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = generate(decoder, prompts, sampling, eos_id=None)
    for prompt, (completion,) in zip(prompts, results):
        logits = full_logits(decoder, [*prompt, *completion.ids])[len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
        assert torch.tensor(completion.logps).allclose(expected, atol=0.2)


def test_a_stream_is_the_answer_of_generate_in_pieces(decoder):
    sampling = Sampling(max_new_tokens=20)
    whole = generate(decoder, [[5, 6]], sampling, eos_id=EOS, seeds=[9], decode=letters)[0][0]
    decoder.train()
    stream = Stream(decoder, [5, 6], sampling, eos_id=EOS, seed=9, decode=letters)
    pieces = list(stream)
    assert decoder.training and not torch.is_inference_mode_enabled()
    decoder.eval()
    assert stream.completion == whole
    assert "".join(pieces) == whole.text
    assert len(pieces) > 5


def test_a_stream_holds_back_what_may_become_a_stop_string(decoder):
    sampling = Sampling(max_new_tokens=20)
    whole = generate(decoder, [[5, 6]], sampling, eos_id=None, seeds=[9], decode=letters)[0][0]
    text = text_of(whole)
    stop = text[8:12]
    stream = Stream(decoder, [5, 6], sampling, eos_id=None, seed=9, decode=letters, stop=[stop])
    pieces = list(stream)
    assert "".join(pieces) == text_of(stream.completion) == text[: text.index(stop)]
    assert stream.completion and stream.completion.finish_reason == "stop"
    never = Stream(decoder, [5, 6], sampling, eos_id=None, seed=9, decode=letters, stop=[text[-2:] + "!"])
    assert "".join(never) == text


def test_a_stream_left_early_restores_the_mode(decoder):
    decoder.train()
    iterator = iter(Stream(decoder, [5, 6], Sampling(), eos_id=None, decode=letters))
    next(iterator)
    iterator.close()
    assert decoder.training
    decoder.eval()
