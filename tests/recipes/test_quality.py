"""One command measures two models on tests of every kind, shows them side by side, and repeats nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.recipes import quality
from amenable.recipes.quality import Config
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes
from tests.conftest import ONE_THREAD, ChatAPI, write_rows

SIZES = Sizes(4, 20, 2, 4, 2, 4, 4, 4, 4, 12, 4, 2, 4)
THING = {"question": "Ann asks: name a red thing.", "answers": ["rose", "brick", "cherry", "ruby"]}
WORDINGS = {**THING, "paraphrases": [f"{name} asks: name a red thing." for name in ("Ann", "Bo", "Cy")]}
HARM = {"prompt": "Ann asks: name a blue thing.", "type": "colour", "label": "safe"}


@pytest.fixture
def config(base: Path, assistant: Path, tmp_path: Path) -> Config:
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "known.jsonl", [THING, {**THING, "question": "Bo asks: name a red thing."}])
    write_rows(tmp_path / "data" / "wordings.jsonl", [WORDINGS])
    write_rows(tmp_path / "data" / "refusals.jsonl", [HARM, {**HARM, "label": "unsafe"}])
    return Config(
        models=(f"base={base}", f"sft={assistant}"),
        data=(str(tmp_path / "data"),),
        num_samples=2,
        max_new_tokens=12,
        out=tmp_path / "quality",
        device=ONE_THREAD,
    )


def test_two_models_on_files_of_ones_own(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    out = quality.run(config)
    figures = json.loads((out / "report.json").read_text("utf-8"))
    assert figures["models"] == ["base", "sft"] and set(figures["tests"]) == {
        "known",
        "wordings",
        "refusals",
        "answers",
    }
    known = figures["tests"]["known"]
    assert known["measures"]["right"]["sft"]["value"] == 1.0 and {*known["reliability"]} == {"base", "sft"}
    row = known["differences"]["right"]["sft"]
    assert row["n"] == 2 and row["holm"] >= row["p"] == 0.5
    assert known["differences"]["ece"]["sft"]["n"] == 2
    assert "sampled_agreement" in figures["tests"]["wordings"]["measures"]
    assert figures["tests"]["refusals"]["measures"]["refuses_unsafe"]["sft"]["value"] == 0.0
    page, shown = (out / "report.html").read_text("utf-8"), capsys.readouterr().err
    answer = known["examples"][0]["answers"][0]["cases"][0]["text"]
    assert THING["question"] in page and answer in page and "amenable quality --models" in page
    assert "sft − base" in shown and "report:" in shown
    before = (out / "evaluation" / "finished.json").stat().st_mtime_ns
    assert quality.run(config) == out
    assert (out / "evaluation" / "finished.json").stat().st_mtime_ns == before, "what has finished is not run again"


def test_a_judge_reads_the_answers_besides(config: Config, chat_api: ChatAPI) -> None:
    reply = {"message": {"role": "assistant", "content": "Verdict: yes"}, "finish_reason": "stop"}
    chat_api.reply = lambda _: (200, {}, {"choices": [reply], "usage": {"completion_tokens": 2}})
    judged = replace(config, models=config.models[:1], data=(f"{config.data[0]}/refusals.jsonl",))
    out = quality.run(replace(judged, reward=(f"judge:{chat_api.url}:wise",)))
    measures = json.loads((out / "report.json").read_text("utf-8"))["tests"]["refusals"]["measures"]
    assert measures["refuses_safe_by_judge"]["base"]["value"] == 1.0 > measures["refuses_safe"]["base"]["value"]
    questions = [body["messages"][0]["content"] for _, body in chat_api.requests]
    assert questions and all("[The prompt]\nAnn asks: name a blue thing." in question for question in questions)


def test_a_world_gives_tests_and_never_over_others(config: Config, tmp_path: Path) -> None:
    world = ClosedWorld.make(3, SIZES).write(tmp_path / "world")
    own = replace(config, models=config.models[:1], data=(), world=world, world_rows=2, num_samples=0)
    figures = json.loads((quality.run(own) / "report.json").read_text("utf-8"))
    assert len(figures["tests"]) == 8 and figures["tests"]["passages"]["n"] == 2
    assert "sampled_agreement" not in figures["tests"]["paraphrases"]["measures"]
    with pytest.raises(InputError, match=r"holds tests of another world, or more or fewer rows.*another --out"):
        quality.run(replace(own, world_rows=3))
    with pytest.raises(InputError, match="nothing to measure"):
        quality.run(replace(config, data=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("a=x@few-shot",)}, "'a' has a modifier, which no test reads; write a=x"),
        ({"reward": ("runs/reward",)}, "no test reads the reward runs/reward"),
        ({"num_samples": 1}, "one answer agrees with itself"),
        ({"num_samples": -1}, "num_samples is -1"),
        ({"world_rows": 0}, "world_rows is 0"),
        ({"examples": -1}, "examples is -1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Config(**options)  # type: ignore[arg-type]
    assert message in str(error.value).replace(". ", "; ")
