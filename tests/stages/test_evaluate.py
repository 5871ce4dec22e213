"""`amenable evaluate`: every figure can be worked out again from the models and from what they said."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable import cli
from amenable.data import sources
from amenable.errors import InputError
from amenable.evaluation.load_answers import read_answers
from amenable.evaluation.prompting import PromptingOptions
from amenable.evaluation.tasks.options import TaskOptions
from amenable.functional.statistics import best_of_n_kl, wilson
from amenable.rewards.spec import SPELLINGS
from amenable.stages import evaluate
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import chunk_texts, text_row
from amenable.train.runtime import DeviceOptions, Runtime
from amenable.world.closed_world import ClosedWorld


@pytest.fixture(scope="module")
def config(
    base: Path, assistant: Path, judge: Path, files: Any, tmp_path_factory: pytest.TempPathFactory
) -> evaluate.Config:
    return evaluate.Config(
        models=(f"base={base}", f"sft={assistant}"),
        data=files.prompts,
        world=None,
        reward=(str(judge),),
        lm_data=files.text,
        out=tmp_path_factory.mktemp("evaluate") / "run",
        max_prompts=12,
        max_new_tokens=20,
        text_tokens=500,
        device=DeviceOptions("cpu", "fp32", 1),
    )


@pytest.fixture(scope="module")
def done(config: evaluate.Config) -> Path:
    return evaluate.run(config)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text("utf-8"))


def spoken(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]


def test_fine_tuning_shows(done: Path) -> None:
    models = results(done)["models"]
    assert list(models) == ["base", "sft"]
    assert models["sft"]["ended"] > 0.8 and models["sft"]["greedy"]["ended"] > 0.8
    assert models["sft"]["kl"] == models["sft"]["greedy"]["kl"] == 0.0  # it is the reference
    assert models["base"]["kl"] is None
    assert "gold" not in models["sft"]


def test_figures_can_be_worked_out_from_what_was_said(
    done: Path, config: evaluate.Config, words: Tokenizer, runtime: Runtime
) -> None:
    models, rows = results(done)["models"], spoken(done)
    prompts = sources.read_prompts(config.data, limit=12).rows
    scorer = loading.load_reward_model(Path(str(config.reward[0])), runtime, words)
    assert [row["id"] for row in rows] == [prompt.id for prompt in prompts]
    for name in models:
        for decoding, figures in (("sampled", models[name]), ("greedy", models[name]["greedy"])):
            answers = [row["answers"][name][decoding] for row in rows]
            assert figures["reward"] == pytest.approx(sum(a["reward"] for a in answers) / 12, abs=1e-5)
            assert figures["length"] == pytest.approx(sum(len(a["text"].split()) for a in answers) / 12)
            assert figures["ended"] == pytest.approx(sum(a["ended"] for a in answers) / 12)
            # a sampled text may be other tokens than its encoding, a greedy one of a trained model is not
            if (name, decoding) == ("sft", "greedy"):
                conversations = [
                    render_prompt(words, prompt.messages) + words.encode(a["text"]) + [words.eos_id] * a["ended"]
                    for prompt, a in zip(prompts, answers)
                ]
                again = forward.compute_rewards(
                    scorer, [text_row(ids) for ids in conversations], runtime, 1000
                ).tolist()
                assert [a["reward"] for a in answers] == pytest.approx(again, abs=1e-3)


def test_bits_per_byte_are_of_the_raw_text(done: Path, config: evaluate.Config, runtime: Runtime) -> None:
    for one in config.entries:
        name, (decoder, words) = one.name, loading.load_policy(one.folder, runtime)
        assert config.lm_data is not None
        texts, tokens, chosen = sources.read_texts(config.lm_data).rows, 0, []
        for text in texts:
            tokens += sum(map(len, chunk_texts([text], words, 64)))
            if tokens > 500:
                break
            chosen.append(text)
        rows = [text_row(piece) for piece in chunk_texts(chosen, words, 64)]
        nats = forward.mean_loss(decoder, rows, runtime, 1000) * sum(sum(mask) for _, mask in rows)
        expected = nats / math.log(2) / sum(len(text.text.encode()) for text in chosen)
        assert results(done)["models"][name]["bpb"] == pytest.approx(expected, rel=1e-4)


def test_preferences_count_the_judges_choices(done: Path) -> None:
    table, rows = results(done)["preference"], spoken(done)
    assert [(row["a"], row["b"], row["decoding"], row["judges"]) for row in table] == [
        ("base", "sft", "sampled", "reward"),
        ("base", "sft", "greedy", "reward"),
    ]
    for row in table:
        wins = 0.0
        for prompt in rows:
            a, b = (prompt["answers"][name][row["decoding"]] for name in ("base", "sft"))
            same = a["text"] == b["text"] and a["ended"] == b["ended"]
            wins += 0.5 if same or a["reward"] == b["reward"] else float(a["reward"] > b["reward"])
        assert row["wins"] == pytest.approx(wins / 12) and row["n"] == 12
        assert (row["low"], row["high"]) == pytest.approx(wilson(wins, 12))


def test_a_stopped_run_goes_on_to_the_bit(
    config: evaluate.Config, done: Path, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    """What the first model said and got is in the checkpoint."""
    again = run_in_two(evaluate, replace(config, out=tmp_path / "two"), 1)
    assert outcome(again) == outcome(done) and results(again) == results(done)


def test_a_world_judges_by_the_truth(
    config: evaluate.Config, world_folder: Path, small_world: ClosedWorld, tmp_path: Path
) -> None:
    rows = small_world.rows["prompts/test.jsonl"]
    rows = sorted(rows, key=lambda row: sum(len(message["content"]) for message in row["prompt"]))
    short = [*rows[:7], rows[-1]]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in short))
    request = replace(config, data=file, world=world_folder, reward=(), lm_data=None, reference="none")
    out = evaluate.run(replace(request, out=tmp_path / "run", max_prompts=0, max_new_tokens=8))
    models, rows = results(out)["models"], spoken(out)
    for name in ("base", "sft"):
        for decoding, figures in (("sampled", models[name]), ("greedy", models[name]["greedy"])):
            answers = [row["answers"][name][decoding] for row in rows]
            parts = [small_world.gold(row["id"], a["text"], a["ended"]) for row, a in zip(rows, answers)]
            golds = [part.gold for part in parts]
            assert [a["gold"] for a in answers] == golds
            assert figures["gold"] == pytest.approx(sum(golds) / len(golds))
            assert figures["gold_low"] < figures["gold"] < figures["gold_high"]
            assert figures["rude"] == sum(part.rude for part in parts) / len(parts)
            applies = [part.truthful for part in parts if part.truthful is not None]
            assert figures["truthful"] == (sum(applies) / len(applies) if applies else None)
            assert sum(
                mean * sum(row["kind"] == kind for row in rows) for kind, mean in figures["gold_by_kind"].items()
            ) == pytest.approx(sum(golds))
            assert figures["reward"] is figures["kl"] is figures["bpb"] is None
    table = results(out)["preference"]
    assert {row["judges"] for row in table} == {"heldout", "training"} and len(table) == 4
    assert 4 <= len(rows) < 8  # the longest leaves a small context no room to answer


def few_shot_file(folder: Path) -> Path:
    turns = [{"role": "user", "content": "Name a thing."}, {"role": "assistant", "content": "Gladly: a rose."}]
    file = folder / "few_shot.jsonl"
    file.write_text(json.dumps({"messages": turns}) + "\n")
    return file


@pytest.fixture(scope="module")
def asked_otherwise(config: evaluate.Config, files: Any, base: Path, assistant: Path, tmp_path_factory: Any) -> Path:
    """One model in many ways, on two suites, against a reference that is none of them."""
    folder = tmp_path_factory.mktemp("otherwise")
    task = {"id": "t", "context": "The rose is", "choices": [" red.", " blue."], "answer": 0}
    (folder / "colours.jsonl").write_text(json.dumps(task) + "\n")
    models = (
        f"cold={assistant}@temperature-0.5",
        f"alike={assistant}@entropy-of-cold",
        f"best={assistant}@best-of-4",
        f"prompted={base}@few-shot",
    )
    request = replace(
        config,
        models=models,
        reference=str(assistant),
        suites=(f"more={files.pairs}",),
        suite_decoding=("greedy",),
        prompting=PromptingOptions(shots=(few_shot_file(folder),)),
        tasks=(str(folder / "colours.jsonl"),),
        demonstrations=files.demonstrations,
        best_of_prompts=5,
        max_prompts=8,
        out=folder / "run",
    )
    return evaluate.run(request)


def test_tasks_and_prompted_models_share_files_of_examples(config: evaluate.Config, base: Path, tmp_path: Path) -> None:
    """Rows of a task's form come before its rows, conversations before the prompts of models @few-shot alone."""
    task = {"context": "The rose is", "choices": [" red.", " blue."], "answer": 0}
    (tmp_path / "test.jsonl").write_text(json.dumps(task) + "\n")
    (tmp_path / "shots.jsonl").write_text(json.dumps({**task, "context": "A brick is"}) + "\n")
    options = replace(config, tasks=(str(tmp_path / "test.jsonl"),), lm_data=None, greedy=False, max_prompts=3)
    shots = (tmp_path / "shots.jsonl", few_shot_file(tmp_path))
    options = replace(options, prompting=PromptingOptions(shots, prefix="Hello."), tasking=TaskOptions(calibrate=True))
    models = (f"base={base}", f"prompted={base}@few-shot")
    out = evaluate.run(replace(options, models=models, out=tmp_path / "run"))
    figures = results(out)["tasks"]["test"]
    assert figures["base"] == figures["prompted"] and "acc_calibrated" in figures["base"]["metrics"]
    rows = spoken(out)
    assert any(
        row["answers"]["base"]["sampled"]["text"] != row["answers"]["prompted"]["sampled"]["text"] for row in rows
    )
    alone = replace(options, models=models[:1], data=None, reward=(), out=tmp_path / "alone")
    assert results(evaluate.run(alone))["tasks"]["test"]["base"] == figures["base"]
    lonely = replace(alone, prompting=PromptingOptions(shots[1:]), out=tmp_path / "none")
    with pytest.raises(InputError, match=r"few_shot\.jsonl: the examples have the form of no task"):
        evaluate.run(lonely)


def test_a_judge_grades_turns_and_compares_at_equal_length(
    config: evaluate.Config, chat_api: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MT-Bench's grades, and the win rate by a judge in both orders with length control."""

    def judge(body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        text = body["messages"][0]["content"]
        first, _, rest = text.partition("[Answer A]\n")[2].partition("\n\n[Answer B]\n")
        longer = len(first) > len(rest.partition("\n\nWhich answer")[0])
        grade = "It is blue." if "And a blue one?" in text else "Score: 7"
        reply = f"Verdict: {'A' if longer else 'B'}" if "[Answer A]" in text else grade
        return 200, {}, {"choices": [{"message": {"content": reply}, "finish_reason": "stop"}]}

    chat_api.reply = judge
    turns = {"turns": ["Bo asks: name a red thing.", "And a blue one?"], "category": "writing"}
    (tmp_path / "mt_bench.jsonl").write_text(json.dumps(turns) + "\n")
    options = replace(config, reward=(f"judge:{chat_api.url}:wise",), lm_data=None, greedy=False, out=tmp_path / "run")
    out = evaluate.run(replace(options, tasks=(str(tmp_path / "mt_bench.jsonl"),), max_prompts=8, max_new_tokens=8))
    figures = results(out)["tasks"]["mt_bench"]["sft"]
    assert figures["grades"] == [[7.0, None]] and len(figures["texts"][0]) == 2 and figures["form"] == "mt-bench"
    assert figures["metrics"]["graded"][0] == 0.5 and results(out)["judge"]["unclear"] >= 1
    assert f"judge: {results(out)['judge']['questions']:.0f} questions" in capsys.readouterr().err
    (row,) = [each for each in results(out)["preference"] if each["judges"] == "judge"]
    equal = row["length_controlled"]
    assert equal["low"] < equal["wins"] < equal["high"] and equal["length_effect"] > 0
    assert abs(equal["wins"] - 0.5) <= abs(row["wins"] - 0.5)


def test_greedy_answers_can_be_left_out(config: evaluate.Config, tmp_path: Path) -> None:
    models = results(evaluate.run(replace(config, greedy=False, max_prompts=4, out=tmp_path / "run")))["models"]
    assert all(figures["greedy"] is None and figures["length"] > 0 for figures in models.values())


def test_a_model_is_asked_in_many_ways(asked_otherwise: Path) -> None:
    result = results(asked_otherwise)
    models = result["models"]
    assert list(models) == ["cold", "alike", "best", "prompted"]
    assert models["cold"]["temperature"] == 0.5 and 0.05 <= models["alike"]["temperature"] < 1
    assert models["cold"]["kl"] > 0  # from itself at temperature 1
    assert models["best"]["kl"] == pytest.approx(best_of_n_kl(4)) and models["best"]["greedy"] is None
    assert models["prompted"]["kl"] is None
    assert models["cold"]["bpb"] == models["best"]["bpb"] != models["prompted"]["bpb"]
    size = models["cold"]["text_bytes"]
    assert sum(models["cold"]["text_bits"]) / size == pytest.approx(models["cold"]["bpb"])
    assert len(models["cold"]["demonstration_nats"]) == 96 and models["cold"]["demonstration_tokens"] > 96
    assert [row["n"] for row in result["best_of"]["best"]] == [1, 2, 4]
    assert list(result["tasks"]["colours"]) == list(models) and result["tasks"]["colours"]["cold"]["n"] == 1
    assert list(result["suites"]) == ["more"] and list(result["suites"]["more"]) == ["cold", "alike", "prompted"]
    assert result["suites"]["more"]["cold"]["greedy"]["length"] > 0
    sizes = {(row["a"], row["b"], row["decoding"]): row["n"] for row in result["preference"]}
    assert sizes["cold", "best", "sampled"] == 5 and sizes["cold", "alike", "greedy"] == 8
    assert ("cold", "best", "greedy") not in sizes and len(sizes) == 6 + 3


def test_tasks_alone_need_no_prompts(
    config: evaluate.Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is generated; two entries of one folder share their figures."""
    task = tmp_path / "words.jsonl"
    task.write_text("".join(json.dumps({"text": f"The {thing} is red."}) + "\n" for thing in ("rose", "sea")))
    models = (config.models[0], config.models[0].replace("base=", "again="))
    alone = replace(config, models=models, data=None, reward=(), lm_data=None, tasks=(str(task),), reference="")
    out = evaluate.run(replace(alone, out=tmp_path / "run"))
    tasks = results(out)["tasks"]["words"]
    assert tasks["base"]["form"] == "lambada" and tasks["base"] == tasks["again"] and tasks["base"]["n"] == 2
    assert spoken(out) == [] and results(out)["preference"] == []
    inputs = json.loads((out / "lineage.json").read_text())["inputs"]
    assert inputs[f"task {task}"]["path"] == str(task) and "data" not in inputs
    assert "words (lambada, 2 rows)" in capsys.readouterr().err


def test_answers_are_read_again_by_suite(asked_otherwise: Path, done: Path) -> None:
    answers = read_answers([asked_otherwise, done])
    assert answers.models == ["cold", "alike", "best", "prompted", "base", "sft"]
    assert len(answers.of("best")) == 5 and answers.of("best", "greedy") == {}
    assert len(answers.of("cold", "greedy", "more")) == 8 and answers.of("cold", "sampled", "more") == {}
    same = answers.of("sft", "greedy")
    assert {name: spoken["text"] for name, spoken in answers.of("cold", "greedy").items()} == {
        name: same[name]["text"] for name in answers.of("cold", "greedy")
    }


def test_sizes_and_their_intervals_are_said(
    config: evaluate.Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = (config.models[1].replace("sft=", "best="), config.models[1] + "@best-of-2")
    evaluate.run(replace(config, models=models, best_of_prompts=3, out=tmp_path / "run", lm_data=None))
    report = capsys.readouterr().err
    assert "test ±28.3% (12 prompts), best of n ±56.6% (3 prompts)" in report
    assert "no KL: the reference 'sft'" not in report


def test_a_reference_that_is_nowhere_is_said(
    config: evaluate.Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = replace(config, reference="nobody", models=config.models[1:], out=tmp_path / "run", max_prompts=2)
    assert results(evaluate.run(request))["models"]["sft"]["kl"] is None
    assert "no KL: the reference 'nobody' is none of the models" in capsys.readouterr().err
    with pytest.raises(InputError, match="no such model folder"):
        evaluate.run(replace(request, reference="runs/nobody", out=tmp_path / "other"))


def test_an_evaluation_of_many_ways_goes_on_after_a_stop(
    config: evaluate.Config, run_in_two: Callable, outcome: Callable, assistant: Path, tmp_path: Path
) -> None:
    request = replace(
        config,
        models=(f"sft={assistant}", f"best={assistant}@best-of-2", f"alike={assistant}@entropy-of-sft"),
        max_prompts=4,
        best_of_prompts=2,
    )
    whole_run = evaluate.run(replace(request, out=tmp_path / "one"))
    again = run_in_two(evaluate, replace(request, out=tmp_path / "two"), 2)
    assert outcome(again) == outcome(whole_run) and results(again) == results(whole_run)
    assert results(again)["models"]["alike"]["temperature"] == 1.0


def test_models_are_named_with_their_folders() -> None:
    shots = Path("shots.jsonl")
    named = {"models": ("a=runs/x=1", "b=y@few-shot"), "prompting": PromptingOptions(shots=(shots,))}
    config = evaluate.Config(**named, reference="b", suites=("more=p.jsonl",))
    assert [one.folder for one in config.entries] == [Path("runs/x=1"), Path("y")]
    assert config.reference_folder == Path("y")
    assert evaluate.inputs(config)["shots shots.jsonl"] == shots and evaluate.inputs(config)["prefix"] is None
    assert evaluate.Config(models=("a=x",), reference="").reference_folder is None


@pytest.mark.parametrize(
    ("wrong", "report"),
    [
        ({"models": ("runs/x",)}, "not a model: 'runs/x'; write name=folder"),
        ({"models": ("a=x@best-of-4",)}, "nobody can tell the best of 4"),
        ({"models": ("a=x@few-shot",)}, "a model @few-shot needs examples; give --shots FILE"),
        ({"models": ("a=x@instructed",)}, "a model @instructed needs an instruction; give --instruction"),
        ({"suites": ("more",)}, "not a suite: 'more'; write name=path"),
        ({"suites": ("test=x",)}, "two suites are called 'test'"),
        ({"suites": ("more=x", "more=y")}, "two suites are called 'more'"),
        ({"max_prompts": -1}, "max_prompts is -1"),
        ({"best_of_prompts": 0}, "best_of_prompts is 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_at_once(wrong: dict[str, Any], report: str) -> None:
    with pytest.raises(InputError, match=report):
        evaluate.Config(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"temperature": -1.0}, {"max_new_tokens": 0}, {"max_batch_size": 0}]
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        evaluate.Config(**wrong)


def test_any_reward_scores_and_judges(config: evaluate.Config, other_judge: Path, tmp_path: Path) -> None:
    """A reward model of another tokenizer, too; with weights, from the command line, in the lineage."""
    file, out = tmp_path / "mine.py", tmp_path / "run"
    file.write_text("def words(completions):\n    return [len(text.split()) for text in completions]\n")
    options = ["--data", str(config.data), "--out", str(out), "--max-prompts", "4", "--max-new-tokens", "8"]
    options += ["--reward", f"{file}:words", "ends=-100", f"{other_judge}=1e-9", "--device", "cpu", "--threads", "1"]
    assert cli.main(["evaluate", "--models", *config.models, *options]) == 0
    for row in spoken(out):
        for answers in row["answers"].values():
            for answer in answers.values():
                expected = len(answer["text"].split()) - 100 * answer["ended"]
                assert answer["reward"] == pytest.approx(expected, abs=1e-4)
    assert {row["judges"] for row in results(out)["preference"]} == {"reward"}
    paths = {name: fact["path"] for name, fact in json.loads((out / "lineage.json").read_text())["inputs"].items()}
    assert (paths["reward 1"], paths["reward 2"]) == (str(file), str(other_judge)) and "reward" not in paths


def test_a_wrong_reward_is_refused_before_anything_is_made(config: evaluate.Config, tmp_path: Path) -> None:
    for spec, message in (
        ("lenght:4-30", "'lenght:4-30' is no reward; "),
        (str(tmp_path / "x"), "no such model folder"),
    ):
        with pytest.raises(InputError, match=rf"{message}.*{re.escape(SPELLINGS)}"):
            evaluate.run(replace(config, reward=(spec,), out=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_answers_of_a_server_of_vllm_have_our_figures(
    done: Path, config: evaluate.Config, vllm_api: Any, tmp_path: Path
) -> None:
    """It draws as ours does; KL, log-probabilities and rewards are computed here."""
    few = replace(config, out=tmp_path / "served", max_prompts=4, sampler="vllm", sampler_url=(vllm_api.url,))
    out = evaluate.run(few)
    for ours, theirs in zip(spoken(done)[:4], spoken(out), strict=True):
        for name, decodings in ours["answers"].items():
            for decoding, answer in decodings.items():
                assert theirs["answers"][name][decoding] == pytest.approx(answer, abs=1e-3)
    assert json.loads((out / "lineage.json").read_text())["versions"]["vllm"] == vllm_api.url
