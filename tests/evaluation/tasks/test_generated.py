"""GSM8K's extraction and IFEval's shares by hand; answers of a model that was trained on them."""

from dataclasses import replace
from pathlib import Path

import pytest

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.evaluation.answering import GenerationConfig, LoadedModel
from amenable.evaluation.base_prompts import Transcript
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.tasks import generated
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.generated import PromptRow, reply
from amenable.evaluation.tasks.options import TaskOptions
from amenable.generation.requests import Completion
from amenable.text.chat import render_prompt
from amenable.train.log import silent
from amenable.train.runtime import Runtime

PROBLEM = {"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\n#### 2"}
INSTRUCTED = {"prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"keywords": None}]}


@pytest.mark.parametrize(
    ("answer", "strict", "flexible"),
    [
        ("So 3.\n#### 1,234", "1234", "1234"),
        ("#### 5 and then 7.", "5", "7"),
        ("She has $42.", "[invalid]", "42"),
        ("#### -3.", "-3", "-3"),
        ("none", "[invalid]", "[invalid]"),
    ],
)
def test_numbers_are_extracted_in_two_ways(answer: str, strict: str, flexible: str) -> None:
    assert generated.plain_number(generated.strict_answer(answer)) == strict
    assert generated.plain_number(generated.flexible_answer(answer)) == flexible


def test_a_problem_is_a_prompt_with_its_worked_answer_as_a_shot() -> None:
    (row,) = generated.gsm8k(PROBLEM)
    assert row.context == "Question: 1 + 1?\nAnswer:" and "Question:" in row.stop
    assert row.example == f"Question: 1 + 1?\nAnswer: {PROBLEM['answer']}"
    assert generated.plain_number(row.answer) == "2"
    with pytest.raises(ValueError, match="no number after ####"):
        generated.gsm8k({"question": "q", "answer": "####"})


def test_instructions_without_a_checker_are_counted() -> None:
    (row,) = generated.ifeval(
        {
            **INSTRUCTED,
            "instruction_id_list": ["language:response_language", "punctuation:no_comma"],
            "kwargs": [{}, {}],
        }
    )
    assert row.unchecked == 1 and [name for name, _ in row.instructions] == ["punctuation:no_comma"]
    with pytest.raises(ValueError, match="1 kwargs for 2 instructions"):
        generated.ifeval({**INSTRUCTED, "instruction_id_list": ["a", "b"]})
    with pytest.raises(KeyError, match="num_words"):
        generated.ifeval({**INSTRUCTED, "instruction_id_list": ["length_constraints:number_words"]})
    with pytest.raises(ValueError, match="the prompt is empty"):
        PromptRow(" ").require_complete()


def test_loose_answers_lack_lines_and_asterisks() -> None:
    assert generated.variants("Sure:\n*A*\nBye") == [
        *("Sure:\n*A*\nBye", "*A*\nBye", "Sure:\n*A*", "*A*"),
        *("Sure:\nA\nBye", "A\nBye", "Sure:\nA", "A"),
    ]


def test_answers_are_measured(examinee: Examinee, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [generated.gsm8k({**PROBLEM, "question": f"{i}?"})[0] for i in range(3)]
    monkeypatch.setattr(generated, "generate_texts", lambda *_: ["#### 2", "it is 2", "3"])
    metrics = generated.exact_match(examinee, rows)
    assert metrics["right"] == [True, False, False] and metrics["metrics"]["flexible"][0] == pytest.approx(2 / 3)
    checks = (("punctuation:no_comma", {}), ("startend:end_checker", {"end_phrase": "end"}))
    prompts = [PromptRow("a", instructions=checks), PromptRow("b", instructions=checks), PromptRow("c", unchecked=1)]
    monkeypatch.setattr(generated, "generate_texts", lambda *_: ["the end", "well,\nthe end"])
    metrics = generated.instruction_following(examinee, prompts)
    assert metrics["right"] == [True, False] and metrics["unchecked"] == 1
    assert metrics["metrics"]["instruction_strict"][0] == 0.75
    assert metrics["metrics"]["prompt_loose"][0] == metrics["metrics"]["instruction_loose"][0] == 1.0
    with pytest.raises(InputError, match="no row of the task has instructions"):
        generated.instruction_following(examinee, prompts[2:])


def test_self_consistency_is_the_majority_of_sampled_numbers(
    examinee: Examinee, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three answers each: two agree; all differ, so that the first counts; and two have no number at all."""
    rows = [generated.gsm8k({**PROBLEM, "question": f"{i}?"})[0] for i in range(3)]
    sampled = [
        ["#### 3", "It is 2", "#### 2."],
        ["#### 4", "#### 2", "#### 5"],
        ["none", "#### 2", "nothing"],
    ]
    monkeypatch.setattr(generated, "decode", lambda *given: sampled if len(given) == 4 else [["1"]] * 3)
    settings = replace(examinee, options=TaskOptions(self_consistency=3))
    metrics = generated.exact_match(settings, rows)
    shares = {name: values[0] for name, values in metrics["metrics"].items()}
    # strict: 3 and 2 have a vote each in the first row, and 3 comes first
    assert shares == {"strict": 0, "flexible": 0, "strict maj@3": 1 / 3, "flexible maj@3": 2 / 3}
    assert metrics["sampled"] == sampled and metrics["texts"] == ["1"] * 3


def test_sampled_answers_are_a_function_of_seed_and_row(examinee: Examinee) -> None:
    rows = [PromptRow(f"The {thing} is") for thing in ("rose", "sea")]
    first = generated.decode(examinee, rows, 1.0, 4)
    assert [len(group) for group in first] == [4, 4] and len(set(first[0])) > 1
    assert generated.decode(examinee, rows[::-1], 1.0, 4) == first[::-1]
    other = replace(examinee, generation=replace(examinee.generation, seed=1))
    assert generated.decode(other, rows, 1.0, 4) != first
    assert generated.majority(["[invalid]"]) == "[invalid]"


def test_a_chat_model_gets_examples_as_turns(
    examinee: Examinee, assistant: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a base model plain text, and a chat model too where no chat template is wanted."""
    chat = LoadedModel.load(ModelEntry("sft", assistant), runtime)
    prompts = list[list[int]]()

    def complete(_: LoadedModel, ids: list[list[int]], *__: object, **___: object) -> list[list[Completion]]:
        prompts.extend(ids)
        return [[Completion([], [], "stop", "")] for _ in ids]

    monkeypatch.setattr(LoadedModel, "complete", complete)
    row = PromptRow("2 + 2?", "4", description="Add.\n\n", shots=(PromptRow("1 + 1?", "2"),))
    settings = Examinee(chat, 200, GenerationConfig(max_new_tokens=4), silent, TaskOptions(chat_template=True))
    for model in (settings, replace(settings, options=TaskOptions()), replace(settings, model=examinee.model)):
        generated.generate_texts(model, [row])
    words = chat.tokenizer
    turns = (Message("user", "1 + 1?"), Message("assistant", "2"), Message("user", "2 + 2?"))
    assert prompts[0] == render_prompt(words, (Message("system", "Add."), *turns))
    plain = "Add.\n\n1 + 1? 2\n\n2 + 2?"
    assert [words.decode(ids) for ids in prompts[1:]] == [plain, plain]


def test_a_base_model_goes_on_and_a_chat_model_answers(examinee: Examinee, assistant: Path, runtime: Runtime) -> None:
    (text,) = generated.generate_texts(examinee, [PromptRow("The rose is", stop=(".",))])
    assert text and "." not in text
    chat = LoadedModel.load(ModelEntry("sft", assistant), runtime)
    turn = PromptRow("name a red thing.", is_turn=True)
    (answer,) = generated.generate_texts(Examinee(chat, 200, GenerationConfig(max_new_tokens=20), silent), [turn])
    assert answer and "name a" not in answer


def test_a_model_answers_in_its_own_format(examinee: Examinee, assistant: Path, runtime: Runtime) -> None:
    chat = LoadedModel.load(ModelEntry("sft", assistant), runtime)
    conversations = [(Message("user", "Ann asks: name a red thing."),)]
    settings = GenerationConfig(max_new_tokens=20)
    ((answer,),) = reply(Examinee(chat, 200, settings, silent), conversations)
    ((text,),) = reply(examinee, conversations)
    assert "it is red" in answer and "\n\n" not in text
    labels = {"zero-shot": Transcript("Post:", "Reply:", " ")}
    ((word,),) = reply(replace(examinee, generation=replace(settings, transcripts=labels)), conversations)
    assert " " not in word
    (sampled,) = reply(replace(examinee, generation=replace(settings, temperature=2.0)), conversations, samples=3)
    assert len(set(sampled)) == 3
