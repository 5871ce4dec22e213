import json
from pathlib import Path

import pytest

from amenable.claims.stage_folders import Stage, read_stages
from amenable.recipes.reports import answer_browser


@pytest.fixture
def stages(demo_run: Path) -> dict[str, Stage]:
    return {stage.name: stage for stage in read_stages(demo_run)}


def write(stage: Stage, rows: list[dict]) -> None:
    (stage.folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(i: int, suite: str | None = None, models: tuple[str, ...] = ("ppo", "sft"), **parts: object) -> dict:
    report = {name: {"greedy": {"text": f"{name} {i}", "ended": True, **parts}} for name in models}
    return {"id": f"p{i}", "kind": "story", "prompt": f"prompt {i}", "answers": report} | (
        {"suite": suite} if suite else {}
    )


def request(result: answer_browser.AnswerBrowser) -> list[str]:
    return [prompt.turns[0][1].removeprefix("prompt ") for prompt in result.prompts]


def test_the_order_depends_on_the_seed_alone(stages: dict[str, Stage]) -> None:
    write(stages["evaluate"], [row(i) for i in range(50)])
    first, again, other = (request(answer_browser.load([stages["evaluate"]], seed)) for seed in (0, 0, 1))
    assert first == again and first != other
    assert sorted(first, key=int) == [str(i) for i in range(50)], "every prompt is kept"


def test_the_test_prompts_come_before_the_suites(stages: dict[str, Stage]) -> None:
    write(stages["evaluate"], [row(i, "respect") for i in range(9)] + [row(i, "test") for i in range(9, 12)])
    result = answer_browser.load([stages["evaluate"]])
    assert [prompt.suite for prompt in result.prompts] == ["test"] * 3 + ["respect"] * 9
    assert result.suites == ["test", "respect"]


def test_evaluations_are_read_as_one(demo_run: Path, stages: dict[str, Stage]) -> None:
    (demo_run / "evaluate-ppo").mkdir()
    (demo_run / "evaluate-ppo" / "config.yaml").write_text("command: evaluate\n")
    (demo_run / "evaluate-ppo" / "finished.json").write_text("{}")
    write(stages["evaluate"], [row(1, models=("sft",), gold=1.0), row(2, models=("sft",))])
    result = {stage.name: stage for stage in read_stages(demo_run)}
    write(result["evaluate-ppo"], [row(1, "test", models=("ppo", "base"))])
    explorer = answer_browser.load(list(result.values()))
    assert explorer.models == ["base", "sft", "ppo"], "in the order of display"
    by_prompt = dict(zip(request(explorer), explorer.prompts))
    texts = [one.text if one else None for one in by_prompt["1"].answers["greedy"]]
    assert texts == ["base 1", "sft 1", "ppo 1"]
    assert [one is None for one in by_prompt["2"].answers["greedy"]] == [True, False, True]
    assert by_prompt["2"].answers["sampled"] == [None, None, None]


@pytest.mark.parametrize(
    ("parts", "report"),
    [
        ({"truthful": True}, ["truthful"]),
        ({"truthful": False, "rude": True, "harmful": False}, ["not true", "rude"]),
        ({"truthful": None, "hallucinated": True, "follows": False}, ["made up", "ignores the instruction"]),
        ({"ended": False}, ["cut off"]),
        ({}, []),
    ],
)
def test_what_is_true_of_an_answer_is_said(parts: dict, report: list[str]) -> None:
    result = answer_browser.make_answer({"text": "x", "ended": True, **parts})
    assert result is not None
    assert [answer_browser.MARKS[mark][2] for mark in result.marks] == report


def test_only_what_is_said_of_some_answer_can_be_asked_for(stages: dict[str, Stage]) -> None:
    write(stages["evaluate"], [row(1, rude=True), row(2, rude=False)])
    result = answer_browser.load([stages["evaluate"]])
    assert [answer_browser.MARKS[mark][2] for mark in result.marks] == ["rude"]
    assert result.kinds == ["story"]


def test_text_is_kept_within_bounds(stages: dict[str, Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_browser, "MAX_TOTAL_CHARACTERS", 100_000)
    rows = [row(i) for i in range(40)]
    for one in rows:
        one["answers"]["ppo"]["greedy"]["text"] = "word " * 10_000
    write(stages["evaluate"], rows)
    result = answer_browser.load([stages["evaluate"]])
    longest = max(len(one.text) for prompt in result.prompts for one in prompt.answers["greedy"] if one)
    assert longest == answer_browser.MAX_CHARACTERS + 2
    # 3002 of the long answer, 5 or 6 of the other, 8 or 9 of the prompt
    assert len(result.prompts) == 100_000 // 3017 and result.total == 40


def test_the_data_cannot_close_its_element_and_comes_back_whole(stages: dict[str, Stage]) -> None:
    one = row(1, gold=0.126, rude=True)
    one["answers"]["sft"]["greedy"]["text"] = "</script><b>\u2028"
    write(stages["evaluate"], [one])
    report = str(
        answer_browser.to_json(answer_browser.load([stages["evaluate"]]), ["SFT", "PPO"], [3, 4], [True, False])
    )
    assert "<" not in report and "\u2028" not in report
    data = json.loads(report)
    assert data["models"] == [
        {"name": "SFT", "colour": 3, "shown": True},
        {"name": "PPO", "colour": 4, "shown": False},
    ]
    suite, kind, turns, truth, reply = data["prompts"][0]
    assert (suite, kind, turns, truth) == ("test", "story", [["user", "prompt 1"]], "")
    text, gold, reward, marks = reply["greedy"][0]
    assert (text, gold, reward) == ("</script><b>", 0.13, None)
    assert [data["marks"][mark] for mark in marks] == [["rude", "bad"]]


def test_the_truth_comes_from_the_row_or_from_the_world(stages: dict[str, Stage]) -> None:
    result = answer_browser.load(list(stages.values()))
    report = {prompt.turns[-1][1].split()[-1]: prompt.truth for prompt in result.prompts}
    assert report["0?"] == "cooper" and report["1?"] == ""
    write(stages["evaluate"], [row(0) | {"truth": "a cooper"}])
    assert answer_browser.load(list(stages.values())).prompts[0].truth == "a cooper"


@pytest.mark.parametrize(
    ("truth", "report"),
    [
        ({"value": "cooper", "person": "Mira"}, "cooper"),
        ({"cause": "stranger", "template": "Who is {p}?"}, "nothing is known (stranger)"),
        ({"rule": "start", "words": ["Dear neighbour,"], "topic": "mill"}, "start: Dear neighbour,"),
        ({"rule": "count", "count": 2}, "count: 2"),
        ({"count": 3, "category": "pet"}, "3"),
        ({"reference": "Would you come, please?"}, "for example: Would you come, please?"),
        ({"kind": "story", "key": ["a", "b"]}, ""),
        (None, ""),
    ],
)
def test_a_truth_in_a_few_words(truth: dict | None, report: str) -> None:
    assert answer_browser.truth_text(truth) == report


def test_a_conversation_keeps_its_turns(stages: dict[str, Stage]) -> None:
    result = answer_browser.load(list(stages.values()))
    talk = next(prompt for prompt in result.prompts if prompt.turns[-1][1].endswith("number 5?"))
    assert [role for role, _ in talk.turns] == ["user", "assistant", "user"]


def test_nothing_evaluated_nothing_to_explore() -> None:
    assert answer_browser.load([]) == answer_browser.AnswerBrowser([], [], 0)
    assert answer_browser.iterations(None) == []


def test_iterations_come_by_step(stages: dict[str, Stage]) -> None:
    result = answer_browser.iterations(stages["ppo"])
    assert [step for step, _ in result] == [1, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert len(result[0][1]) == 4
    assert result[0][1][0]["prompt"] == "Name 2 foods of the market." and not result[0][1][0]["ended"]


def test_of_very_many_iterations_some_are_kept(stages: dict[str, Stage]) -> None:
    write(stages["ppo"], [{"step": step, "prompt": "p", "completion": "c"} for step in range(1, 1001)])
    steps = [step for step, _ in answer_browser.iterations(stages["ppo"])]
    assert len(steps) == answer_browser.MAX_ITERATIONS and (steps[0], steps[-1]) == (1, 1000)
