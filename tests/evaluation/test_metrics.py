"""Every figure from its definition: divergences by hand, rewards and gold read again, means of the rows."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.data.types import Conversation, Demonstration, Message, Prompt, Text
from amenable.evaluation.answering import Answer, GenerationConfig, LoadedModel, entropy, generate_answers
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.metrics import (
    GOLD_FIELDS,
    Scorers,
    add_best_of_n_kl,
    comparable,
    compare_with_reference,
    compute_rewards,
    demonstration_metrics,
    mean,
    measure,
    sampling_info,
    summarize,
    text_metrics,
)
from amenable.evaluation.preference import GoldCache
from amenable.evaluation.prompting import Prompting
from amenable.functional.kl import exact_kl
from amenable.models.layout import Layout
from amenable.rewards.spec import load_reward
from amenable.text.chat import render, render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.examples import text_row, validation_rows
from amenable.train.runtime import Runtime
from amenable.world.closed_world import ClosedWorld

GENERATION = GenerationConfig(max_new_tokens=10, max_batch_size=8)
QUESTIONS = [Prompt((Message("user", f"name a {colour} thing."),), id=colour) for colour in ("red", "blue", "green")]


@pytest.fixture(scope="module")
def sft(assistant: Path, runtime: Runtime) -> LoadedModel:
    return LoadedModel.load(ModelEntry("sft", assistant), runtime)


@pytest.fixture(scope="module")
def bare(base: Path, runtime: Runtime) -> LoadedModel:
    return LoadedModel.load(ModelEntry("base", base), runtime)


@pytest.fixture(scope="module")
def by(judge: Path, sft: LoadedModel, runtime: Runtime) -> Scorers:
    return Scorers(None, load_reward(judge, runtime, 1000), sft, 1.0, runtime, 1000)


def answers_of(model: LoadedModel, prompts: list[Prompt], temperature: float = 1.0) -> list[Answer]:
    return [group[0] for group in generate_answers(model, prompts, GENERATION.at(temperature))]


@torch.no_grad()
def kl_by_hand(ours: list[int], theirs: list[int], reply: list[int], sft: LoadedModel, temperature: float) -> float:
    """The sum over an answer's tokens of exact divergences, from whole logits."""
    both = []
    for before, t in ((ours, temperature), (theirs, 1.0)):
        ids = torch.tensor(before + reply)
        hidden = sft.decoder(ids, Layout.of([len(ids)], ids.device))
        both.append((hidden @ sft.decoder.unembedding.T)[len(before) - 1 : -1] / t)
    return float(exact_kl(*both).sum())


def test_divergence_by_hand(sft: LoadedModel, by: Scorers) -> None:
    """The sharpened model against itself at temperature 1: two passes of one model at two temperatures."""
    answers = answers_of(sft, QUESTIONS, 0.5)
    for answer, kl in zip(answers, compare_with_reference(sft, QUESTIONS, answers, 0.5, by)[0]):
        assert (
            kl == pytest.approx(kl_by_hand(answer.prompt_ids, answer.prompt_ids, answer.ids, sft, 0.5), abs=1e-4)
            and kl > 0
        )
    kls, _ = compare_with_reference(sft, QUESTIONS, answers, 1.0, by)  # the reference itself
    assert kls == pytest.approx([0.0] * 3)


def test_the_mean_divergence_is_the_mean_log_ratio(sft: LoadedModel, by: Scorers) -> None:
    """What the sum over the vocabulary stands for: the same expectation, with less noise."""
    groups = generate_answers(sft, QUESTIONS[:1], GENERATION.at(0.5), samples=300)
    answers = groups[0]
    kls = torch.tensor(compare_with_reference(sft, QUESTIONS[:1] * 300, answers, 0.5, by)[0])
    rows = [(a.prompt_ids + a.ids, [False] * len(a.prompt_ids) + [True] * len(a.ids)) for a in answers]
    cold, usual = (forward.compute_logprobs(sft.decoder, rows, sft.runtime, 1000, t) for t in (0.5, 1.0))
    ratios = torch.tensor([float((a - b).sum()) for a, b in zip(cold, usual)])
    assert abs(float(kls.mean() - ratios.mean())) < 4 * float(ratios.std()) / 300**0.5
    assert kls.std() < ratios.std()


def test_shots_are_part_of_the_policy_and_not_of_the_reference(sft: LoadedModel, by: Scorers) -> None:
    shown = replace(sft, entry=replace(sft.entry, few_shot=True))
    shot = (Message("user", "Ann?"), Message("assistant", "Yes."))
    answer = generate_answers(shown, QUESTIONS[:1], replace(GENERATION, prompting=Prompting.of([shot])))[0][0]
    plain = render_prompt(sft.tokenizer, QUESTIONS[0].messages)
    assert len(answer.prompt_ids) > len(plain)
    (kl,), _ = compare_with_reference(shown, QUESTIONS[:1], [answer], 1.0, by)
    assert kl == pytest.approx(kl_by_hand(answer.prompt_ids, plain, answer.ids, sft, 1.0), abs=1e-4) and kl > 0


def test_likelihood_under_the_reference_is_that_of_the_plain_prompt(sft: LoadedModel, by: Scorers) -> None:
    instructed = replace(sft, entry=replace(sft.entry, instructed=True))
    answers = [group[0] for group in generate_answers(instructed, QUESTIONS, replace(GENERATION, instruction="Ann?"))]
    plain = [render_prompt(sft.tokenizer, prompt.messages) for prompt in QUESTIONS]
    rows = [(ids + a.ids, [False] * len(ids) + [True] * len(a.ids)) for ids, a in zip(plain, answers)]
    by_hand = [float(logps.sum()) for logps in forward.compute_logprobs(sft.decoder, rows, sft.runtime, 1000)]
    _, ref_logps = compare_with_reference(instructed, QUESTIONS, answers, 0.5, by)
    assert ref_logps == pytest.approx(by_hand)
    longer = [(a.prompt_ids + a.ids, [False] * len(a.prompt_ids) + [True] * len(a.ids)) for a in answers]
    own = [float(logps.sum()) for logps in forward.compute_logprobs(sft.decoder, longer, sft.runtime, 1000)]
    assert own != pytest.approx(by_hand)


def test_models_that_write_other_ids_have_no_divergence(
    bare: LoadedModel, sft: LoadedModel, other_judge: Path, by: Scorers
) -> None:
    assert comparable(sft.tokenizer, sft.tokenizer)
    assert not comparable(sft.tokenizer, Tokenizer.load(other_judge))
    assert not comparable(bare.tokenizer, bare.tokenizer)  # a transcript is no conversation
    answers = answers_of(bare, QUESTIONS)
    nothing = [None] * 3, [None] * 3
    assert compare_with_reference(bare, QUESTIONS, answers, 1.0, by) == nothing
    assert compare_with_reference(sft, QUESTIONS, answers, 1.0, replace(by, reference=None)) == nothing


def reward_of(by: Scorers, ids: list[int]) -> float:
    """The reward of a conversation, from its ids; only the last token counts."""
    assert by.reward is not None
    return float(by.reward.models[0].score_rows([(ids, [False] * (len(ids) - 1) + [True])])[0])


def test_a_base_models_words_are_judged_as_a_turn(bare: LoadedModel, words: Tokenizer, by: Scorers) -> None:
    answers = [Answer([1, 2], [3, 4], "Snow.", True, -1.0), Answer([1], [5], "Snow.", False, -1.0)]
    answers += [Answer([1], [5], "", False, -1.0), Answer([1], [5], "snow " * 70, False, -1.0)]
    before = render_prompt(words, QUESTIONS[0].messages)
    rows = [before + render_completion(words, answer.text, answer.ended) for answer in answers]
    rows[2] += [words.eos_id]  # an empty answer ends
    assert rows[0][-1] == words.eos_id != rows[1][-1] and len(rows[3]) > 64
    rewards = compute_rewards(bare, QUESTIONS[:1] * 4, answers, by)
    assert rewards == pytest.approx([reward_of(by, ids[:64]) for ids in rows], abs=1e-5) and len(set(rewards)) == 4


def test_rows_say_all_that_is_known_of_an_answer(sft: LoadedModel, by: Scorers) -> None:
    answers = answers_of(sft, QUESTIONS)
    rows = measure(sft, QUESTIONS, answers, 1.0, by)
    for prompt, answer, row in zip(QUESTIONS, answers, rows):
        ids = render_prompt(sft.tokenizer, prompt.messages) + answer.ids
        assert row["reward"] == pytest.approx(reward_of(by, ids), abs=1e-5)
        assert (row["text"], row["ended"], row["logp"]) == (answer.text, answer.ended, answer.logp)
        assert row["gold"] is None and {row[name] for name in GOLD_FIELDS} == {None}
    assert list(rows[0]) == ["text", "ended", "gold", "reward", "logp", "kl", "ref_logp", "tokens", *GOLD_FIELDS]


def test_functions_and_models_of_other_tokenizers_read_the_answers(
    sft: LoadedModel, other_judge: Path, by: Scorers, runtime: Runtime
) -> None:
    """Functions have the columns of the prompts' rows."""
    answers = answers_of(sft, QUESTIONS)
    request = [replace(prompt, meta={"length": i}) for i, prompt in enumerate(QUESTIONS)]

    def score(prompt: Conversation, completion: str, ended: bool, id: str, length: int) -> float:
        assert id in prompt[-1].content
        return 100 * length + 10 * ended + len(completion)

    rewards = compute_rewards(sft, request, answers, replace(by, reward=load_reward(score, runtime)))
    assert rewards == [100 * i + 10 * answer.ended + len(answer.text) for i, answer in enumerate(answers)]
    other = load_reward(other_judge, runtime)
    texts, ended = [answer.text for answer in answers], [answer.ended for answer in answers]
    rewards = compute_rewards(sft, request, answers, replace(by, reward=other))
    assert rewards == other([prompt.messages for prompt in request], texts, ended=ended)


def test_scorers_are_those_that_are_given(assistant: Path, judge: Path, runtime: Runtime, tmp_path: Path) -> None:
    none = Scorers.load(None, (), None, 1.0, runtime, 1000)
    assert (none.gold, none.reward, none.reference) == (None, None, None)
    some = Scorers.load(None, (f"{judge}=2", "ends"), assistant, 0.5, runtime, 1000)
    assert some.reward is not None and [part.weight for part in some.reward.parts] == [2.0, 1.0]
    assert some.reference is not None and some.reference.entry.folder == assistant and some.temperature == 0.5


def test_a_world_tells_the_parts_of_gold(
    sft: LoadedModel, by: Scorers, small_world: ClosedWorld, prompts: list[Prompt]
) -> None:
    texts = [small_world.best_answer(prompt.id) for prompt in prompts]
    answers = [Answer([1], sft.tokenizer.encode(text)[:20], text, True, -1.0) for text in texts]
    judged = replace(by, gold=GoldCache(small_world), reward=None, reference=None)
    rows = measure(sft, prompts, answers, 1.0, judged)
    for prompt, row in zip(prompts, rows):
        parts = small_world.gold(prompt.id, row["text"], True)
        assert row["gold"] == parts.gold and row["polite"] is parts.polite
        assert (row["truthful"], row["harmful"]) == (parts.truthful, parts.harmful)
    figures = summarize(rows, prompts, judged)
    assert figures["gold"] == pytest.approx(sum(row["gold"] for row in rows) / len(rows))
    assert figures["gold_low"] <= figures["gold"] <= figures["gold_high"] and figures["rude"] == 0.0
    assert figures["reward"] is figures["kl"] is None


def test_summary_is_the_mean(by: Scorers) -> None:
    rows = [
        {"text": "a b c", "ended": True, "reward": 1.0, "kl": 2.0},
        {"text": "a", "ended": False, "reward": -2.0, "kl": 3.0},
    ]
    logps = [(-6.0, 3), (-1.0, 1)]
    rows = [{**row, "ref_logp": logp, "tokens": tokens} for row, (logp, tokens) in zip(rows, logps)]
    figures = summarize(rows, QUESTIONS[:2], by)
    perplexity = pytest.approx(math.exp(7 / 4))
    assert figures == {"length": 2.0, "ended": 0.5, "reward": -0.5, "kl": 2.5, "perplexity": perplexity}
    assert summarize([{**rows[0], "ref_logp": None}, rows[1]], QUESTIONS[:2], by)["perplexity"] is None
    assert mean([1.0, None]) is None and mean([]) is None


def test_the_best_of_n_is_further_from_the_reference() -> None:
    rows = add_best_of_n_kl([{"text": "a", "kl": 0.5}, {"text": "b", "kl": None}], 4)
    assert rows == [{"text": "a", "kl": pytest.approx(0.5 + math.log(4) - 3 / 4)}, {"text": "b", "kl": None}]


def test_how_answers_were_drawn(sft: LoadedModel) -> None:
    answers = answers_of(sft, QUESTIONS)
    assert sampling_info(answers, 0.7) == {"entropy": entropy(answers), "temperature": 0.7}


def test_bits_of_text(bare: LoadedModel, by: Scorers) -> None:
    texts = [Text("The rose is red. A leaf is green."), Text("The sea is blue."), Text("Snow is white.")]
    rows, size = validation_rows(texts, bare.tokenizer, 64, 30)
    figures = text_metrics(bare, texts, 30, by)
    assert len(figures["text_bits"]) == len(rows) == 2 and figures["text_bytes"] == size
    assert sum(figures["text_bits"]) / size == figures["bpb"]
    nats = forward.mean_loss(bare.decoder, rows, by.runtime, 1000) * sum(sum(mask) for _, mask in rows)
    assert figures["bpb"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
    assert text_row([1, 2, 3])[1] == [False, True, True]


def test_likelihood_of_demonstrations(sft: LoadedModel, by: Scorers) -> None:
    rows = [
        Demonstration((Message("user", "name a red thing."), Message("assistant", "Gladly: a rose.")), id="a"),
        Demonstration((Message("user", "word " * 100), Message("assistant", "too long")), id="b"),
    ]
    rendered = render(sft.tokenizer, rows[0].messages)
    (logps,) = forward.compute_logprobs(sft.decoder, [(rendered.ids, rendered.loss_mask)], by.runtime, 1000)
    figures = demonstration_metrics(sft, rows, by)
    assert figures["demonstration_nats"] == [pytest.approx(-float(logps.sum()), rel=1e-5)]
    assert figures["demonstration_tokens"] == sum(rendered.loss_mask)
