"""Answers are those of the model that is asked, at the temperature that is asked for, after the shots that fit."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.data.types import Message, Prompt
from amenable.evaluation.answering import (
    Asking,
    Speaker,
    alike,
    answer_of,
    ask,
    entropy,
    preceded,
    read_shots,
    shortened,
    where_it_is,
)
from amenable.evaluation.base_prompts import Transcript
from amenable.evaluation.entries import Contestant
from amenable.generation.requests import Completion
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.runtime import Runtime

ASKING = Asking(max_new_tokens=12, rows=4, seed=3)
SHOTS = tuple((Message("user", f"{name}?"), Message("assistant", "Yes.")) for name in ("Ann", "Bo", "Cy"))
ASKED = [Prompt((Message("user", f"name a {colour} thing."),), id=colour) for colour in ("red", "blue", "green")]


@pytest.fixture(scope="module")
def sft(assistant: Path, runtime: Runtime) -> Speaker:
    return Speaker.load(Contestant("sft", assistant), runtime)


@pytest.fixture(scope="module")
def bare(base: Path, runtime: Runtime) -> Speaker:
    return Speaker.load(Contestant("base", base), runtime)


def few_shot(speaker: Speaker) -> Speaker:
    return replace(speaker, contestant=replace(speaker.contestant, few_shot=True))


def test_log_probability_is_that_of_the_ids_at_the_temperature_they_were_drawn_at(sft: Speaker) -> None:
    for temperature, measured_at in ((0.7, 0.7), (0.0, 1.0)):
        groups = ask(sft, ASKED, ASKING.at(temperature), samples=2)
        assert [len(group) for group in groups] == [2, 2, 2]
        for prompt, group in zip(ASKED, groups):
            for answer in group:
                assert answer.before == render_prompt(sft.tokenizer, prompt.messages)
                row = answer.before + answer.ids, [False] * len(answer.before) + [True] * len(answer.ids)
                (logps,) = forward.row_logprobs(sft.decoder, [row], sft.runtime, 1000, measured_at)
                assert answer.logp == pytest.approx(float(logps.sum()), abs=1e-3)
                assert answer.text == sft.tokenizer.decode(answer.ids)


def test_luck_belongs_to_the_prompt(sft: Speaker) -> None:

    def first(prompts: list[Prompt], asking: Asking, samples: int = 1) -> list[list[int]]:
        return [group[0].ids for group in ask(sft, prompts, asking, samples)]

    together = first(ASKED, ASKING)
    assert first(ASKED[:1], ASKING) == together[:1]
    assert first(ASKED[::-1], replace(ASKING, rows=1)) == together[::-1]
    assert first(ASKED, ASKING, samples=3) == together
    assert first(ASKED, replace(ASKING, seed=4)) != together


def test_a_base_model_stops_where_its_turn_ends(bare: Speaker, sft: Speaker) -> None:
    assert not bare.converses and sft.converses
    ids = bare.tokenizer.encode(" Snow.\n\nUser: and now?")
    said = answer_of(bare.tokenizer, [1], Completion(ids, [-1.0, -0.5], "stop", " Snow."))
    assert (said.text, said.ended, said.logp) == ("Snow.", True, -1.5)
    cut = answer_of(bare.tokenizer, [1], Completion(ids, [-1.0], "length", " Snow is"))
    assert (cut.text, cut.ended) == ("Snow is", False)
    for group in ask(bare, ASKED, ASKING):
        assert "\n\n" not in group[0].text


def test_shots_are_earlier_turns(bare: Speaker) -> None:
    answer = ask(few_shot(bare), ASKED[:1], replace(ASKING, shots=SHOTS[:1]))[0][0]
    transcript = "User: Ann?\n\nAssistant: Yes.\n\nUser: name a red thing.\n\nAssistant:"
    assert bare.tokenizer.decode(answer.before) == transcript
    plain = ask(bare, ASKED[:1], replace(ASKING, shots=SHOTS))[0][0]
    assert plain.before == render_prompt(bare.tokenizer, ASKED[0].messages)  # who is not few-shot sees none


def test_a_base_model_is_asked_in_the_manner_of_its_text(bare: Speaker, sft: Speaker) -> None:
    forum, desk = Transcript("Post:", "Reply:", "\n"), Transcript("Visitor:", "Clerk:", "\n")
    asking = replace(ASKING, shots=SHOTS[:1], transcripts={"zero-shot": forum, "few-shot": desk})
    plain, prompted = ask(bare, ASKED[:1], asking)[0][0], ask(few_shot(bare), ASKED[:1], asking)[0][0]
    assert bare.tokenizer.decode(plain.before) == "Post: name a red thing.\nReply:"
    assert bare.tokenizer.decode(prompted.before) == "Visitor: Ann?\nClerk: Yes.\nVisitor: name a red thing.\nClerk:"
    assert plain.before[0] == bare.tokenizer.bos_id and "\n" not in plain.text
    ids = bare.tokenizer.encode(" Snow.\nPost: and now?")
    said = answer_of(bare.tokenizer, [1], Completion(ids, [-1.0], "stop", " Snow.\nPost: and"), forum)
    assert said.text == "Snow."
    assert ask(sft, ASKED[:1], asking)[0][0].before == render_prompt(sft.tokenizer, ASKED[0].messages)


def test_the_first_shots_give_way(words: Tokenizer) -> None:
    messages = ASKED[0].messages
    lengths = [len(preceded(words, messages, SHOTS[i:], 1000)[0]) for i in range(4)]
    assert preceded(words, messages, SHOTS, lengths[0])[1] == 0
    for left_away in (1, 2, 3):
        ids, counted = preceded(words, messages, SHOTS, lengths[left_away - 1] - 1)
        assert counted == left_away
        assert ids == preceded(words, messages, SHOTS[left_away:], 1000)[0]
    assert ids == render_prompt(words, messages)


def test_a_system_message_stays_the_first(words: Tokenizer) -> None:
    system = Message("system", "Be kind.")
    ids, _ = preceded(words, (system, *ASKED[0].messages), SHOTS[:1], 1000)
    assert ids == render_prompt(words, (system, *SHOTS[0], *ASKED[0].messages))


def test_shortened_prompts_are_counted(bare: Speaker) -> None:
    room = bare.decoder.config.context_length - ASKING.max_new_tokens
    fits = [preceded(bare.tokenizer, prompt.messages, SHOTS, room)[1] == 0 for prompt in ASKED]
    assert shortened(few_shot(bare), ASKED, replace(ASKING, shots=SHOTS)) == fits.count(False)
    assert shortened(few_shot(bare), ASKED, replace(ASKING, shots=SHOTS * 4)) == 3


def test_shots_are_read_as_demonstrations(tmp_path: Path) -> None:
    file = tmp_path / "shots.jsonl"
    file.write_text('{"messages": [{"role": "user", "content": "Ann?"}, {"role": "assistant", "content": "Yes."}]}\n')
    assert read_shots(file) == SHOTS[:1]


def test_entropy_is_the_mean_surprise(sft: Speaker) -> None:
    answers = [group[0] for group in ask(sft, ASKED, ASKING)]
    assert entropy(answers) == pytest.approx(-sum(answer.logp for answer in answers) / 3)


@pytest.mark.parametrize("target", [0.5, 2.0, 3.9, 5.0])
def test_a_temperature_is_found_on_either_side_of_the_usual_one(target: float) -> None:
    tried = []

    def entropy_at(temperature: float) -> float:
        tried.append(temperature)
        return 4.0 * temperature**1.5

    assert entropy_at(where_it_is(entropy_at, target, 1.0)) == pytest.approx(target, rel=0.02)
    assert len(tried) <= 7


def test_a_target_out_of_reach_gives_the_end_of_the_search() -> None:
    assert where_it_is(lambda temperature: 1 + temperature, 0.5, 1.0) == 0.05
    assert where_it_is(lambda temperature: temperature, 9.0, 1.0) == 2.0
    assert where_it_is(lambda temperature: temperature, 1.0, 1.0) == 1.0


def test_alike_models_have_the_same_entropy(sft: Speaker, files: Any) -> None:
    """A model is to be like itself at a lower temperature: that temperature is found again."""
    prompts = [Prompt((Message("user", f"{name} asks: name a thing."),), id=name) for name in "abcdefghijklmnopqrst"]
    colder = replace(sft, contestant=replace(sft.contestant, temperature=0.6))
    found = alike(sft, colder, prompts, ASKING)
    surprise = [entropy([group[0] for group in ask(sft, prompts, ASKING.at(t))]) for t in (0.6, found, 1.0)]
    assert surprise[2] > surprise[0] > 0 and math.isfinite(found)
    assert abs(surprise[1] - surprise[0]) < 0.3 * (surprise[2] - surprise[0])
