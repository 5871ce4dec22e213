"""Answers are the model's own, at the given temperature, after the shots that fit."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.data.types import Message, Prompt
from amenable.evaluation.answering import (
    GenerationConfig,
    LoadedModel,
    bisect_temperature,
    count_dropped_shots,
    entropy,
    generate_answers,
    match_entropy,
    prepend_shots,
    sampling_temperature,
    to_answer,
)
from amenable.evaluation.base_prompts import Transcript
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.prompting import Prompting
from amenable.generation.requests import Completion
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.runtime import Runtime

GENERATION = GenerationConfig(max_new_tokens=12, max_batch_size=4, seed=3)
SHOTS = tuple((Message("user", f"{name}?"), Message("assistant", "Yes.")) for name in ("Ann", "Bo", "Cy"))
ASKED = [Prompt((Message("user", f"name a {colour} thing."),), id=colour) for colour in ("red", "blue", "green")]


@pytest.fixture(scope="module")
def sft(assistant: Path, runtime: Runtime) -> LoadedModel:
    return LoadedModel.load(ModelEntry("sft", assistant), runtime)


@pytest.fixture(scope="module")
def bare(base: Path, runtime: Runtime) -> LoadedModel:
    return LoadedModel.load(ModelEntry("base", base), runtime)


def few_shot(model: LoadedModel) -> LoadedModel:
    return replace(model, entry=replace(model.entry, few_shot=True))


def test_log_probability_is_that_of_the_ids_at_the_temperature_they_were_drawn_at(sft: LoadedModel) -> None:
    for temperature, measured_at in ((0.7, 0.7), (0.0, 1.0)):
        groups = generate_answers(sft, ASKED, GENERATION.at(temperature), samples=2)
        assert [len(group) for group in groups] == [2, 2, 2]
        for prompt, group in zip(ASKED, groups):
            for answer in group:
                assert answer.prompt_ids == render_prompt(sft.tokenizer, prompt.messages)
                row = answer.prompt_ids + answer.ids, [False] * len(answer.prompt_ids) + [True] * len(answer.ids)
                (logps,) = forward.compute_logprobs(sft.decoder, [row], sft.runtime, 1000, measured_at)
                assert answer.logp == pytest.approx(float(logps.sum()), abs=1e-3)
                assert answer.text == sft.tokenizer.decode(answer.ids)


def test_luck_belongs_to_the_prompt(sft: LoadedModel) -> None:

    def first(prompts: list[Prompt], generation: GenerationConfig, samples: int = 1) -> list[list[int]]:
        return [group[0].ids for group in generate_answers(sft, prompts, generation, samples)]

    together = first(ASKED, GENERATION)
    assert first(ASKED[:1], GENERATION) == together[:1]
    assert first(ASKED[::-1], replace(GENERATION, max_batch_size=1)) == together[::-1]
    assert first(ASKED, GENERATION, samples=3) == together
    assert first(ASKED, replace(GENERATION, seed=4)) != together


def test_a_base_model_stops_where_its_turn_ends(bare: LoadedModel, sft: LoadedModel) -> None:
    assert not bare.is_chat_model and sft.is_chat_model
    ids = bare.tokenizer.encode(" Snow.\n\nUser: and now?")
    reply = to_answer(bare.tokenizer, [1], Completion(ids, [-1.0, -0.5], "stop", " Snow."))
    assert (reply.text, reply.ended, reply.logp) == ("Snow.", True, -1.5)
    cut = to_answer(bare.tokenizer, [1], Completion(ids, [-1.0], "length", " Snow is"))
    assert (cut.text, cut.ended) == ("Snow is", False)
    for group in generate_answers(bare, ASKED, GENERATION):
        assert "\n\n" not in group[0].text


def test_shots_are_earlier_turns(bare: LoadedModel) -> None:
    answer = generate_answers(few_shot(bare), ASKED[:1], replace(GENERATION, prompting=Prompting.of(SHOTS[:1])))[0][0]
    transcript = "User: Ann?\n\nAssistant: Yes.\n\nUser: name a red thing.\n\nAssistant:"
    assert bare.tokenizer.decode(answer.prompt_ids) == transcript
    plain = generate_answers(bare, ASKED[:1], replace(GENERATION, prompting=Prompting.of(SHOTS)))[0][0]
    assert plain.prompt_ids == render_prompt(bare.tokenizer, ASKED[0].messages)  # who is not few-shot sees none


def test_an_instruction_follows_the_last_words_of_an_instructed_model_alone(sft: LoadedModel) -> None:
    generation = replace(GENERATION, instruction="Be brief.")
    instructed = replace(sft, entry=replace(sft.entry, instructed=True))
    system = Message("system", "Hello.")
    prompt = Prompt((system, Message("user", "Ann?"), Message("assistant", "Yes."), Message("user", "Why?")), id="1")
    longer = (*prompt.messages[:-1], Message("user", "Why? Be brief."))
    answers = [generate_answers(model, [prompt], generation)[0][0] for model in (instructed, sft)]
    assert [answer.prompt_ids for answer in answers] == [
        render_prompt(sft.tokenizer, messages) for messages in (longer, prompt.messages)
    ]


def test_a_base_model_is_asked_in_the_manner_of_its_text(bare: LoadedModel, sft: LoadedModel) -> None:
    forum, desk = Transcript("Post:", "Reply:", "\n"), Transcript("Visitor:", "Clerk:", "\n")
    generation = replace(
        GENERATION, prompting=Prompting.of(SHOTS[:1]), transcripts={"zero-shot": forum, "few-shot": desk}
    )
    plain, prompted = (
        generate_answers(bare, ASKED[:1], generation)[0][0],
        generate_answers(few_shot(bare), ASKED[:1], generation)[0][0],
    )
    assert bare.tokenizer.decode(plain.prompt_ids) == "Post: name a red thing.\nReply:"
    assert (
        bare.tokenizer.decode(prompted.prompt_ids) == "Visitor: Ann?\nClerk: Yes.\nVisitor: name a red thing.\nClerk:"
    )
    assert plain.prompt_ids[0] == bare.tokenizer.bos_id and "\n" not in plain.text
    ids = bare.tokenizer.encode(" Snow.\nPost: and now?")
    reply = to_answer(bare.tokenizer, [1], Completion(ids, [-1.0], "stop", " Snow.\nPost: and"), forum)
    assert reply.text == "Snow."
    assert generate_answers(sft, ASKED[:1], generation)[0][0].prompt_ids == render_prompt(
        sft.tokenizer, ASKED[0].messages
    )


def test_the_first_shots_give_way(words: Tokenizer) -> None:
    messages = ASKED[0].messages
    lengths = [len(prepend_shots(words, messages, SHOTS[i:], 1000)[0]) for i in range(4)]
    assert prepend_shots(words, messages, SHOTS, lengths[0])[1] == 0
    for left_away in (1, 2, 3):
        ids, counted = prepend_shots(words, messages, SHOTS, lengths[left_away - 1] - 1)
        assert counted == left_away
        assert ids == prepend_shots(words, messages, SHOTS[left_away:], 1000)[0]
    assert ids == render_prompt(words, messages)


def test_a_system_message_stays_the_first(words: Tokenizer) -> None:
    system = Message("system", "Be kind.")
    ids, _ = prepend_shots(words, (system, *ASKED[0].messages), SHOTS[:1], 1000)
    assert ids == render_prompt(words, (system, *SHOTS[0], *ASKED[0].messages))


def test_shortened_prompts_are_counted(bare: LoadedModel) -> None:
    room = bare.decoder.config.context_length - GENERATION.max_new_tokens
    fits = [prepend_shots(bare.tokenizer, prompt.messages, SHOTS, room)[1] == 0 for prompt in ASKED]
    assert count_dropped_shots(few_shot(bare), ASKED, replace(GENERATION, prompting=Prompting.of(SHOTS))) == fits.count(
        False
    )
    assert count_dropped_shots(few_shot(bare), ASKED, replace(GENERATION, prompting=Prompting.of(SHOTS * 4))) == 3


def test_entropy_is_the_mean_surprise(sft: LoadedModel) -> None:
    answers = [group[0] for group in generate_answers(sft, ASKED, GENERATION)]
    assert entropy(answers) == pytest.approx(-sum(answer.logp for answer in answers) / 3)


@pytest.mark.parametrize("target", [0.5, 2.0, 3.9, 5.0])
def test_a_temperature_is_found_on_either_side_of_the_usual_one(target: float) -> None:
    tried = []

    def entropy_at(temperature: float) -> float:
        tried.append(temperature)
        return 4.0 * temperature**1.5

    assert entropy_at(bisect_temperature(entropy_at, target, 1.0)) == pytest.approx(target, rel=0.02)
    assert len(tried) <= 7


def test_a_target_out_of_reach_gives_the_end_of_the_search() -> None:
    assert bisect_temperature(lambda temperature: 1 + temperature, 0.5, 1.0) == 0.05
    assert bisect_temperature(lambda temperature: temperature, 9.0, 1.0) == 2.0
    assert bisect_temperature(lambda temperature: temperature, 1.0, 1.0) == 1.0


def test_alike_models_have_the_same_entropy(sft: LoadedModel, files: Any) -> None:
    """A model is to be like itself at a lower temperature: that temperature is found again."""
    prompts = [Prompt((Message("user", f"{name} asks: name a thing."),), id=name) for name in "abcdefghijklmnopqrst"]
    colder = replace(sft, entry=replace(sft.entry, temperature=0.6))
    matched = match_entropy(sft, colder, prompts, GENERATION)
    surprise = [
        entropy([group[0] for group in generate_answers(sft, prompts, GENERATION.at(t))]) for t in (0.6, matched, 1.0)
    ]
    assert surprise[2] > surprise[0] > 0 and math.isfinite(matched)
    assert abs(surprise[1] - surprise[0]) < 0.3 * (surprise[2] - surprise[0])


def test_the_temperature_of_a_model(assistant: Path, runtime: Runtime) -> None:
    """Its own, that of the evaluation, or the one at which its entropy is another's."""
    plain, cold = ModelEntry("plain", assistant), ModelEntry("cold", assistant, temperature=0.5)
    alike = ModelEntry("alike", assistant, entropy_of="cold")
    prompts = [Prompt((Message("user", f"name a {colour} thing."),), id=colour) for colour in ("red", "blue", "green")]
    generation = GenerationConfig(0.8, 10, max_batch_size=8)
    entries = [plain, cold, alike]
    temperatures = [
        sampling_temperature(LoadedModel.load(entry, runtime), entries, prompts, generation) for entry in entries
    ]
    assert temperatures[:2] == [0.8, 0.5]
    assert temperatures[2] == match_entropy(*(LoadedModel.load(e, runtime) for e in (alike, cold)), prompts, generation)
    assert temperatures[2] < 0.8
