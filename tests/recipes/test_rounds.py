"""Rounds of asking and learning over a tiny home: what they leave, where they go on, who is asked what."""

import importlib
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from amenable import cli
from amenable.data.rankings import from_scores
from amenable.errors import InputError
from amenable.feedback.store import Store
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions
from amenable.recipes import rounds, rounds_people, rounds_report
from amenable.recipes.pipeline import StageRun
from amenable.rewards.spec import SPELLINGS
from amenable.serve import label
from amenable.stages import annotate
from amenable.text.tokenizer import Tokenizer
from amenable.train.loading import save_model
from amenable.train.run import Run
from amenable.world.closed_world import ClosedWorld
from amenable.world.settings import Sizes

SIZES = Sizes(
    people=6,
    documents=20,
    validation_documents=4,
    demonstrations=20,
    validation_demonstrations=4,
    reward_prompts=60,
    ppo_prompts=8,
    validation_prompts=4,
    test_prompts=6,
    suite_prompts=6,
    public_demonstrations=6,
    validation_public_demonstrations=2,
    task_questions=20,
)
BAD = "You are a fool. I will not tell you."
WORSE = "No, you fool."


@pytest.fixture(scope="module")
def world() -> ClosedWorld:
    return ClosedWorld.make(0, SIZES)


@pytest.fixture(scope="module")
def home(world: ClosedWorld, tmp_path_factory: pytest.TempPathFactory, make_decoder: Callable[..., Decoder]) -> Path:
    """A world of six people, and a model that has learned nothing as its SFT."""
    root = tmp_path_factory.mktemp("home")
    world.write(root / "world")
    words = Tokenizer.train([row["text"] for row in world.rows["text/train.jsonl"]], 320, chat=True)
    save_model(root / "sft", make_decoder(vocab_size=words.vocab_size, context_length=320), words.with_chat_template())
    for name in ("world", "sft"):
        (root / name / "finished.json").write_text("{}")
    return root


@pytest.fixture
def config(home: Path, tmp_path: Path) -> rounds.Config:
    return rounds.Config(
        base_run=home,
        out=tmp_path / "rounds",
        rounds=2,
        prompts_per_round=8,
        num_generations=4,
        one_shot_baseline=False,
        size="smoke",
    )


@pytest.fixture
def calls(world: ClosedWorld, monkeypatch: pytest.MonkeyPatch) -> list[StageRun]:
    """The stages that were called for. Only annotators are really asked; models are played: see `answers_of`."""
    built: list[StageRun] = []

    def play(wanted: Sequence[StageRun], config: rounds.Config) -> None:
        built.extend(wanted)
        for call in wanted:
            if call.stage == "annotate":
                annotate.run(call.config)
                continue
            call.out.mkdir(parents=True, exist_ok=True)
            (call.out / "finished.json").write_text("{}")
            if call.stage == "sample":
                rows = [{**row, **answers_of(call.config.model, row["id"], world)} for row in read(call.config.data)]
                write(call.out / "samples.jsonl", rows)

    monkeypatch.setattr(rounds, "run_stages", play)
    monkeypatch.setattr(rounds_report, "write", lambda *_: None)
    return built


def answers_of(model: Path, id: str, world: ClosedWorld) -> dict[str, Any]:
    """The policy of the first round has learned to answer; all others are rude."""
    learned = model.parent.name == "round-1"
    answers = [world.best_answer(id), "It is"] if learned else [BAD, f"{WORSE} So says {model.parent.name}."]
    return {"completions": answers, "ended": [True, not learned], "model": str(model)}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def ids(path: Path) -> set[str]:
    return {row["id"] for row in read(path)}


def one_by_one(calls: Sequence[StageRun]) -> None:
    """Stages as they come: to run them side by side has its own tests."""
    for call in calls:
        importlib.import_module(f"amenable.stages.{call.stage}").run(call.config)


def test_rounds_learn_from_all_labels_so_far_and_the_same_command_changes_nothing(
    config: rounds.Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(rounds, "run_all", one_by_one)
    out = rounds.run(config)
    first, second = (read(out / f"round-{number}" / "labels" / "train.jsonl") for number in (1, 2))
    assert second[: len(first)] == first and len(second) > len(first)
    assert not ids(out / "round-1" / "prompts.jsonl") & ids(out / "round-2" / "prompts.jsonl")
    assert {model for row in second[len(first) :] for model in row["models"]} == {
        str(config.base_run / "sft"),
        str(out / "round-1" / "ppo"),
    }
    result = json.loads((out / "rounds.json").read_text())
    assert list(result["models"]) == ["sft", "round-1", "round-2"]
    assert [(one["new"], one["old"]) for one in result["against"]] == [
        ("round-1", "sft"),
        ("round-2", "round-1"),
        ("round-2", "sft"),
    ]
    assert [one["labels"]["prompts"] for one in result["rounds"]] == [8, 8]
    assert "page: " in capsys.readouterr().out

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(Run, "begin", lambda run: pytest.fail(f"{run.stage} begins again"))
        rounds.run(config)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_all_at_once_asks_about_the_same_prompts_as_the_rounds_and_of_sft_alone(
    config: rounds.Config, calls: list[StageRun]
) -> None:
    out = rounds.run(replace(config, one_shot_baseline=True))
    request = {name: ids(out / name / "prompts.jsonl") for name in ("round-1", "round-2", "once-2")}
    assert request["once-2"] == request["round-1"] | request["round-2"] and len(request["once-2"]) == 16
    sampled = {call.out.relative_to(out): call.config for call in calls if call.stage == "sample"}
    report = {str(name): (one.model.parent.name, one.num_generations) for name, one in sampled.items()}
    root = config.base_run.name
    assert report == {
        "round-1/sample": (root, 4),
        "once-2/sample": (root, 4),
        "round-2/sample": ("round-1", 2),
        "round-2/sample-best": (root, 2),
    }
    assert {call.config.agreement for call in calls if call.stage == "annotate"} == {0}  # the same people everywhere
    trained = {str(call.out.relative_to(out)): call.config for call in calls if call.stage in ("reward", "ppo")}
    assert {one.model for one in trained.values()} == {config.base_run / "sft"}
    assert trained["once-2/ppo"].reward == (str(out / "once-2" / "reward"),)
    (last,) = (call.config for call in calls if call.stage == "evaluate")
    assert [entry.split("=")[0] for entry in last.models] == ["sft", "round-1", "round-2", "once-2"]
    assert last.reward == (str(out / "round-2" / "reward"),)


def test_the_policy_that_the_labels_prefer_goes_on(config: rounds.Config, calls: list[StageRun]) -> None:
    """Round 1's policy is preferred to SFT in round 2; round 2's is not preferred to round 1's in round 3."""
    out = rounds.run(replace(config, rounds=4, prompts_per_round=12))
    best = {call.out.parent.name: call.config.model for call in calls if call.out.name == "sample-best"}
    assert best == {
        "round-2": config.base_run / "sft",
        "round-3": out / "round-1" / "ppo",
        "round-4": out / "round-1" / "ppo",
    }
    assert (
        rounds_report.sampled_policies(
            replace(config, rounds=4).adaptive_rounds[2],
            read(out / "round-3" / "annotate" / "train.jsonl"),
            {"sft": config.base_run / "sft"},
        )["newest_preferred"]["wins"]
        < 0.3
    )


def test_further_rounds_go_on_from_those_that_are_there(config: rounds.Config, calls: list[StageRun]) -> None:
    out = rounds.run(replace(config, rounds=1))
    first = {path: path.read_bytes() for path in (out / "round-1").rglob("*") if path.is_file()}
    rounds.run(replace(config, rounds=3))
    assert {path: path.read_bytes() for path in (out / "round-1").rglob("*") if path.is_file()} == first
    assert [call.out.name for call in calls if call.stage == "evaluate"] == ["evaluate-1", "evaluate-3"]


@pytest.fixture
def lived_in(home: Path, world: ClosedWorld, tmp_path: Path) -> Path:
    """The home of a demo: answers that were drawn, comparisons made of them, a policy trained on these."""
    root = tmp_path / "demo"
    root.mkdir()
    for name in ("world", "sft"):
        (root / name).symlink_to(home / name)
    rows = world.rows["prompts/reward.jsonl"][:30]
    answers = [{"completions": [BAD, world.best_answer(row["id"]), WORSE], "model": "demo/sft"} for row in rows]
    drawn = [{"id": row["id"], "prompt": row["prompt"], **reply} for row, reply in zip(rows, answers)]
    write(root / "sample" / "samples.jsonl", drawn)
    ranked = [{**row, "ranking": [3, 1, 2], "annotator": "simulated"} for row in drawn]
    write(root / "annotate" / "train.jsonl", ranked[10:])
    write(root / "annotate" / "heldout.jsonl", ranked[:10])
    for name in ("sample", "annotate", "ppo"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "finished.json").write_text("{}")
    return root


def rank_on_the_page(command: str, count: int, tied: int = 0) -> None:
    """What somebody does who types a command and ranks `count` prompts, the first of them all equal."""
    name, *options = shlex.split(command)[1:]
    assert name == "label"
    request = cli.parse(label.Config, options, "label", "")
    with Store(request.labels_db) as store:
        label_app = label.make_label_app(request, store, label.load_tasks(request), None, None, None)
        client = TestClient(label.protect(request, label_app), base_url="http://127.0.0.1:8017")
        for number in range(count):
            task = client.post("/api/next", json={"kind": "rank"}).json()["task"]
            texts = task["completions"]
            ranks = [1] * len(texts) if number < tied else [1 + (BAD in text or WORSE in text) for text in texts]
            reply = {"assignment": task["assignment"], "ranks": ranks, "seconds": 6.0}
            assert client.post("/api/rank", json=reply).status_code == 200


def commands(reply: str, name: str) -> list[str]:
    return [line.strip() for line in reply.splitlines() if line.strip().startswith(f"amenable {name}")]


def test_people_rank_on_the_page_and_one_command_learns_from_it(
    config: rounds.Config,
    lived_in: Path,
    calls: list[StageRun],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    request = replace(config, base_run=lived_in, rounds=1, people=True, new_label_weight=3)
    looked: list[int] = []

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    def rank_two(seconds: float) -> None:
        looked.append(len(looked))
        rank_on_the_page(command, 2)

    monkeypatch.setattr(rounds_people.time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        rounds.run(request)
    (command,) = commands(capsys.readouterr().err, "label")
    rank_on_the_page(command, 2, tied=1)
    monkeypatch.setattr(rounds_people.time, "sleep", rank_two)
    out = rounds.run(request)
    report = capsys.readouterr().err
    assert len(looked) == 3 and all(f"{count} of 8 prompts" in report for count in (2, 4, 6, 8))
    stored = read(out / "round-1" / "people" / "labels.jsonl")
    assert len(stored) == 8 and all(row["models"] == ["demo/sft"] * 3 for row in stored)
    train, validation, heldout = (
        read(out / "round-1" / "labels" / f"{name}.jsonl") for name in ("train", "validation", "heldout")
    )
    new = [row for row in train if row["annotator"] == "owner"]
    mine, apart = {row["id"] for row in new}, {row["id"] for row in validation}
    assert len(mine) == 6 and len(new) == 3 * 6 and len(apart) == 1  # the eighth is tied and teaches nothing
    assert not apart & {row["id"] for row in train}  # the home's own rankings of these prompts are left out
    assert {row["id"] for row in heldout} == ids(lived_in / "annotate" / "heldout.jsonl") - mine
    assert f"{len(mine)} rankings of people, each 3 times, beside" in report

    (arena,) = commands(report, "arena")
    options = cli.parse(importlib.import_module("amenable.serve.arena").Config, shlex.split(arena)[2:], "arena", "")
    assert options.models == (f"before={lived_in / 'ppo'}", f"after={out / 'round-1' / 'ppo'}")
    assert options.labels_db == lived_in / "labels.db"

    (out / "round-1" / "people" / "train.jsonl").unlink()  # as if it had been killed once the labels were kept
    rank_on_the_page(command, 3)  # later labels belong to a later round
    monkeypatch.setattr(rounds_people.time, "sleep", stop)
    rounds.run(request)
    assert read(out / "round-1" / "people" / "labels.jsonl") == stored
    assert read(out / "round-1" / "labels" / "train.jsonl") == train


def test_a_second_round_asks_people_about_the_new_policys_answers(
    config: rounds.Config,
    lived_in: Path,
    calls: list[StageRun],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    request = replace(config, base_run=lived_in, people=True)
    report: list[str] = []

    def rank(seconds: float) -> None:
        report.append(capsys.readouterr().err)
        rank_on_the_page(commands(report[-1], "label")[0], 8)

    monkeypatch.setattr(rounds_people.time, "sleep", rank)
    out = rounds.run(request)
    assert len(report) == 2 and str(out / "round-2" / "sample-best" / "samples.jsonl") in report[1]
    first, second = (read(out / f"round-{number}" / "people" / "labels.jsonl") for number in (1, 2))
    assert len(first) == len(second) == 8
    assert not {json.dumps(row["prompt"]) for row in first} & {json.dumps(row["prompt"]) for row in second}
    assert len(ids(out / "round-2" / "prompts.jsonl")) == 11  # three to spare
    judged = rounds_report.round_row(request.adaptive_rounds[1], {"sft": lived_in / "sft"})
    assert judged["newest_preferred"]["wins"] > 0.7 and judged["labels"]["seconds"] == pytest.approx(48)


def test_without_a_world_people_can_be_asked_about_prompts_that_are_named(
    config: rounds.Config, home: Path, tmp_path: Path, calls: list[StageRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "sft").symlink_to(home / "sft")
    with pytest.raises(InputError, match="no world whose annotators"):
        rounds.run(replace(config, base_run=bare))
    with pytest.raises(InputError, match="name --prompts and --test"):
        rounds.run(replace(config, base_run=bare, people=True))
    data = {"prompts": home / "world" / "prompts" / "reward.jsonl", "test": home / "world" / "prompts" / "test.jsonl"}
    monkeypatch.setattr(rounds_people, "wait", lambda pool, *_: [{**row, "id": str(n)} for n, row in enumerate(RANKED)])
    out = rounds.run(replace(config, base_run=bare, people=True, rounds=1, **data))
    (last,) = (call.config for call in calls if call.stage == "evaluate")
    assert last.world is None and last.data == data["test"] and last.reward == (str(out / "round-1" / "reward"),)
    assert len(read(out / "round-1" / "labels" / "train.jsonl")) == 7


def test_a_judge_ranks_instead_of_the_worlds_annotators(
    config: rounds.Config, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A base run needs no world then; rounds without stages replaced, from the command line."""
    bare, file = tmp_path / "bare", tmp_path / "mine.py"
    bare.mkdir()
    (bare / "sft").symlink_to(home / "sft")
    file.write_text("def shorter(completions):\n    return [-len(text) for text in completions]\n")
    monkeypatch.setattr(rounds, "run_all", one_by_one)
    world = home / "world" / "prompts"
    options = ["--base-run", str(bare), "--out", str(config.out), "--rounds", "1", "--prompts-per-round", "8"]
    options += ["--num-generations", "3", "--size", "smoke", "--judge", f"{file}:shorter", "ends=0.5"]
    options += ["--prompts", str(world / "reward.jsonl"), "--test", str(world / "test.jsonl")]
    assert cli.main(["rounds", *options]) == 0
    annotated = config.out / "round-1" / "annotate"
    inputs = json.loads((annotated / "lineage.json").read_text())["inputs"]
    assert inputs["judge"]["path"] == str(file) and "world" not in inputs
    for row in [*read(annotated / "train.jsonl"), *read(annotated / "validation.jsonl")]:
        scores = [-len(text) + 0.5 * end for text, end in zip(row["completions"], row["ended"])]
        assert row["ranking"] == from_scores(scores) and row["annotator"] == f"{file}:shorter ends=0.5"
    assert "rankings of the judge alone" in capsys.readouterr().err
    (round_1,) = json.loads((config.out / "rounds.json").read_text())["rounds"]
    assert round_1["agreement"] is None and round_1["labels"]["prompts"] == 8
    judged = replace(config, base_run=bare, judge=(f"{file}:shorter", "ends=0.5"))
    assert cli.parse(rounds.Config, shlex.split(rounds.command_of(judged))[2:], "rounds", "") == judged


def test_a_wrong_judge_is_refused_before_any_work(config: rounds.Config, calls: list[StageRun]) -> None:
    with pytest.raises(InputError, match=re.escape(SPELLINGS)):
        rounds.run(replace(config, judge=("lenght:4-30",)))
    with pytest.raises(InputError, match="people and a judge cannot both rank"):
        replace(config, judge=("ends",), people=True)
    assert not calls and not config.out.exists()


def test_rounds_of_a_chat_model_train_adapters_on_comparisons(
    config: rounds.Config, home: Path, calls: list[StageRun], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    data = {"prompts": home / "world" / "prompts" / "reward.jsonl", "test": home / "world" / "prompts" / "test.jsonl"}
    monkeypatch.setattr(rounds_people, "wait", lambda pool, *_: [{**row, "id": str(n)} for n, row in enumerate(RANKED)])
    given = replace(
        config, base_run=home / "sft", people=True, num_generations=2, rounds=1, lora=LoraOptions(4), **data
    )
    with pytest.raises(InputError, match="name --prompts and --test"):
        rounds.run(replace(given, prompts=None))
    out = rounds.run(given)
    assert f"--labels-db {out / 'labels.db'} --tasks compare --one-key" in capsys.readouterr().err
    trained = {call.stage: call.config for call in calls if call.stage in ("reward", "ppo")}
    assert {each.lora.rank for each in trained.values()} == {4}
    assert {each.model for each in trained.values()} == {home / "sft"}
    (last,) = (call.config for call in calls if call.stage == "evaluate")
    assert last.models[0] == f"sft={home / 'sft'}" and last.reference == str(home / "sft")
    given = replace(given, policy="dpo", out=given.out / "dpo")
    assert cli.parse(rounds.Config, shlex.split(rounds.command_of(given))[2:], "rounds", "") == given
    rounds.run(given)
    (policy,) = (call.config for call in calls if call.stage == "dpo")
    labels = given.out / "round-1" / "labels"
    assert policy.data == (labels / "train.jsonl",) and policy.validation == labels / "validation.jsonl"
    assert policy.lora.rank == 4 and policy.model == home / "sft"
    assert [call.config.models[-1] for call in calls if call.stage == "evaluate"][-1] == f"round-1={policy.out}"


RANKED = [
    {"prompt": [{"role": "user", "content": f"{n}?"}], "completions": ["a", "b"], "ranking": [1, 2], "annotator": "ann"}
    for n in range(8)
]


def test_the_command_that_it_tells_is_the_one_that_was_given(config: rounds.Config) -> None:
    given = replace(
        config,
        prompts_per_round=30,
        one_shot_baseline=True,
        labels_db=Path("my labels.db"),
        include_base_comparisons="always",
    )
    name, *options = shlex.split(rounds.command_of(given))[1:]
    assert name == "rounds" and cli.parse(rounds.Config, options, "rounds", "") == given
    given = replace(config, people=True, size="demo")
    assert cli.parse(rounds.Config, shlex.split(rounds.command_of(given))[2:], "rounds", "") == given


def test_more_prompts_than_there_are_is_told_before_any_work(config: rounds.Config, calls: list[StageRun]) -> None:
    with pytest.raises(InputError, match="62 more prompts are needed and 60 are left"):
        rounds.run(replace(config, prompts_per_round=31))
    assert not calls and not config.out.exists()


def test_a_home_that_is_none_is_refused(config: rounds.Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'amenable demo' makes one"):
        rounds.run(replace(config, base_run=tmp_path / "nowhere"))
    (tmp_path / "full" / "seed-3").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--base-run .*seed-3"):
        rounds.run(replace(config, base_run=tmp_path / "full"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"prompts_per_round": 7},
        {"num_generations": 1},
        {"new_label_weight": 0},
        {"validation_split": 1.0},
        {"seed": -1},
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        rounds.Config(**wrong)
