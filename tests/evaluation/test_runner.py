"""Whom is asked what: suites, decodings, the best of n; and that what is kept of it is what was said."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.data.types import Demonstration, Message, Prompt, Text
from amenable.evaluation import best_of
from amenable.evaluation.answering import GenerationConfig, LoadedModel, generate_answers
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.metrics import Scorers, compute_rewards, demonstration_metrics, text_metrics
from amenable.evaluation.prompting import Prompting
from amenable.evaluation.runner import Suites, evaluate_model, lm_metrics, plan_lines
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.forms import FORMS, Task
from amenable.evaluation.tasks.likelihood import ChoiceRow
from amenable.functional.statistics import best_of_n_kl
from amenable.rewards.spec import load_reward
from amenable.train.log import silent
from amenable.train.runtime import Runtime

GENERATION = GenerationConfig(max_new_tokens=10, max_batch_size=8)


def request(*colours: str) -> list[Prompt]:
    return [Prompt((Message("user", f"name a {colour} thing."),), id=colour) for colour in colours]


SUITES = Suites({"test": request("red", "blue", "green"), "more": request("white", "black")}, best_of_prompts=2)


@pytest.fixture(scope="module")
def sft(assistant: Path, runtime: Runtime) -> LoadedModel:
    return LoadedModel.load(ModelEntry("sft", assistant), runtime)


@pytest.fixture(scope="module")
def by(judge: Path, sft: LoadedModel, runtime: Runtime) -> Scorers:
    return Scorers(None, load_reward(judge, runtime, 1000), sft, 1.0, runtime, 1000)


def test_the_plan_says_sizes_intervals_and_what_is_not_measured(sft: LoadedModel, by: Scorers) -> None:
    best = [sft.entry, replace(sft.entry, name="best", best_of=4)]
    work, widths, *rest = plan_lines(best, SUITES, by, "sft")
    assert work.startswith("2 models x 3 prompts x 2 decodings; ") and not rest
    assert "test ±56.6% (3 prompts), more ±69.3% (2 prompts), best of n ±69.3% (2 prompts)" in widths
    lines = plan_lines(best[:1], SUITES, replace(by, reward=None, reference=None), "ppo")
    assert "best of n" not in lines[1] and "no judge of the answers: give --reward, or the --world" in lines[2]
    assert lines[3] == "no KL: the reference 'ppo' is none of the models, and no folder of one"


def test_every_suite_is_answered_under_its_decodings(sft: LoadedModel, by: Scorers) -> None:
    result = evaluate_model(sft, 0.7, replace(SUITES, decodings=("greedy",)), GENERATION, by)
    assert list(result.metrics) == list(result.answers) == ["test", "more"] and result.curve is None
    assert {decoding: len(rows or ()) for decoding, rows in result.answers["test"].items()} == {
        "sampled": 3,
        "greedy": 3,
    }
    assert list(result.answers["more"]) == ["greedy"]
    figures, more = result.metrics["test"], result.metrics["more"]
    assert figures["temperature"] == 0.7 and figures["entropy"] > 0 and figures["kl"] != 0
    assert figures["greedy"]["temperature"] == 0.0 and figures["greedy"]["entropy"] is None
    assert figures["greedy"]["kl"] == 0.0  # a temperature changes no greedy answer
    assert "reward" not in more and more["greedy"]["length"] > 0
    for decoding, temperature in (("sampled", 0.7), ("greedy", 0.0)):
        reply = [group[0].text for group in generate_answers(sft, SUITES.prompts["test"], GENERATION.at(temperature))]
        assert [row["text"] for row in result.answers["test"][decoding] or ()] == reply


def test_a_suite_may_be_sampled_alone(sft: LoadedModel, by: Scorers) -> None:
    result = evaluate_model(sft, 1.0, replace(SUITES, decodings=("sampled",)), GENERATION, by)
    assert result.metrics["more"]["greedy"] is None and result.metrics["more"]["kl"] == 0.0


def test_the_best_of_n_is_the_one_of_the_highest_reward(sft: LoadedModel, by: Scorers) -> None:
    best = replace(sft, entry=replace(sft.entry, best_of=4))
    result = evaluate_model(best, 1.0, SUITES, GENERATION, by)
    prompts = SUITES.prompts["test"][:2]
    groups = generate_answers(sft, prompts, GENERATION, samples=4)
    rewards = torch.tensor(
        [compute_rewards(sft, [prompt] * 4, group, by) for prompt, group in zip(prompts, groups)], dtype=torch.float64
    )
    rows = result.answers["test"]["sampled"] or []
    assert [row["reward"] for row in rows] == pytest.approx(rewards.amax(1).tolist(), abs=1e-4)
    chosen = [group[i].text for group, i in zip(groups, rewards.argmax(1).tolist())]
    assert [row["text"] for row in rows] == chosen
    assert {row["kl"] for row in rows} == {best_of_n_kl(4)}  # the policy is the reference
    figures = result.metrics["test"]
    assert list(result.metrics) == ["test"] and result.answers["test"]["greedy"] is figures["greedy"] is None
    assert figures["entropy"] is None and figures["kl"] == pytest.approx(best_of_n_kl(4))
    assert result.curve is not None and [row["n"] for row in result.curve] == [1, 2, 4]
    for row, expected in zip(result.curve, best_of.curve(rewards, None)):
        assert row["reward"] == pytest.approx(expected["reward"], abs=1e-4) and row["gold"] is None


def test_shots_that_do_not_fit_are_told(sft: LoadedModel, by: Scorers) -> None:
    shown = replace(sft, entry=replace(sft.entry, few_shot=True))
    shot = (Message("user", "one two three four five"), Message("assistant", "six seven eight nine ten"))
    assert evaluate_model(shown, 1.0, SUITES, replace(GENERATION, prompting=Prompting.of([shot] * 5)), by).notes == [
        "3 of 3 prompts of 'test' leave no room for all the shots",
        "2 of 2 prompts of 'more' leave no room for all the shots",
    ]
    assert evaluate_model(sft, 1.0, SUITES, replace(GENERATION, prompting=Prompting.of([shot] * 5)), by).notes == []


def test_what_a_model_knows(sft: LoadedModel, by: Scorers) -> None:
    texts, row = [Text("The rose is red.")], ChoiceRow("The rose is", (" red", " blue"), (0,), "")
    form = next(form for form in FORMS if form.name == "choices")
    shown = [Demonstration((Message("user", "a?"), Message("assistant", "b.")))]
    result = lm_metrics(
        sft,
        Suites({}, texts=texts, text_tokens=50, demonstrations=shown, tasks={"facts": Task(form, [row])}),
        by,
        GENERATION,
    )
    assert result["figures"] == {**text_metrics(sft, texts, 50, by), **demonstration_metrics(sft, shown, by)}
    expected = form.measure(Examinee(sft, 1000, GENERATION, silent), [row])
    assert result["tasks"] == {"facts": {"form": "choices", **expected, "cut": 0}}
    assert lm_metrics(sft, Suites({}), by, GENERATION) == {"figures": {"bpb": None}, "tasks": {}}
