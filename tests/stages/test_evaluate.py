"""`amenable evaluate`: every figure can be worked out again from the models and from what they said."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.data import columns, sources
from amenable.errors import InputError
from amenable.functional.statistics import wilson
from amenable.stages import evaluate
from amenable.text.chat import render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import artifacts, passes
from amenable.train.feed import pieces_of, whole
from amenable.train.runtime import Machine, Runtime
from amenable.world.closed import ClosedWorld


@pytest.fixture(scope="module")
def config(
    base: Path, assistant: Path, judge: Path, files: Any, tmp_path_factory: pytest.TempPathFactory
) -> evaluate.Config:
    return evaluate.Config(
        models=(f"base={base}", f"sft={assistant}"),
        data=files.prompts,
        world=None,
        reward_model=judge,
        text=files.text,
        out=tmp_path_factory.mktemp("evaluate") / "run",
        limit=12,
        max_new_tokens=20,
        text_tokens=500,
        machine=Machine("cpu", "fp32", 1),
    )


@pytest.fixture(scope="module")
def done(config: evaluate.Config) -> Path:
    return evaluate.run(config)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text("utf-8"))


def said(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]


def test_fine_tuning_shows(done: Path) -> None:
    models = results(done)["models"]
    assert list(models) == ["base", "sft"]
    assert models["sft"]["ended"] > 0.8 and models["sft"]["greedy"]["ended"] > 0.8
    assert models["sft"]["kl"] == models["sft"]["greedy"]["kl"] == 0.0  # it is the reference
    assert models["base"]["kl"] is None
    assert "gold" not in models["sft"]


def test_figures_can_be_worked_out_from_what_was_said(
    done: Path, config: evaluate.Config, words: Tokenizer, machine: Runtime
) -> None:
    models, rows = results(done)["models"], said(done)
    prompts = sources.read_prompts(config.data, limit=12).rows
    assert config.reward_model is not None
    scorer = artifacts.load_reward_model(config.reward_model, machine, words)
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
                again = passes.row_rewards(scorer, [whole(ids) for ids in conversations], machine, 1000).tolist()
                assert [a["reward"] for a in answers] == pytest.approx(again, abs=1e-3)


def test_bits_per_byte_are_of_the_raw_text(done: Path, config: evaluate.Config, machine: Runtime) -> None:
    for name, folder in config.folders.items():
        decoder, words = artifacts.load_policy(folder, machine)
        assert config.text is not None
        texts, tokens, chosen = sources.read_texts(config.text).rows, 0, []
        for text in texts:
            tokens += sum(map(len, pieces_of([text], words, 64)))
            if tokens > 500:
                break
            chosen.append(text)
        rows = [whole(piece) for piece in pieces_of(chosen, words, 64)]
        expected = passes.bits_per_byte(decoder, rows, sum(len(t.text.encode()) for t in chosen), machine, 1000)
        assert results(done)["models"][name]["bpb"] == pytest.approx(expected, rel=1e-4)


def test_preferences_count_the_judges_choices(done: Path) -> None:
    table, rows = results(done)["preference"], said(done)
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
    short = [row for row in rows if sum(len(message["content"]) for message in row["prompt"]) < 45][:8]
    assert len(short) == 8
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in short))
    asked = replace(config, data=file, world=world_folder, reward_model=None, text=None, reference="none")
    out = evaluate.run(replace(asked, out=tmp_path / "run", limit=0, max_new_tokens=8))
    models, rows = results(out)["models"], said(out)
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
    assert 4 <= len(rows) < 8  # the longest leave a small context no room to answer


def test_both_orders_are_shown_and_ties_are_half(config: evaluate.Config, small_world: ClosedWorld) -> None:
    prompt = columns.prompt(small_world.rows["prompts/test.jsonl"][0], "")
    best = {"text": small_world.best_answer(prompt.id), "ended": True}
    bad = {"text": "You fool.", "ended": True}
    for judges in ("heldout", "training"):
        forth = evaluate.preferred(prompt, best, bad, judges, small_world, config)
        back = evaluate.preferred(prompt, bad, best, judges, small_world, config)
        assert forth > 0.5 and 0 <= back <= 1
        assert evaluate.preferred(prompt, best, dict(best), judges, small_world, config) == 0.5


@pytest.mark.parametrize(("favours", "share"), [("the first shown", 0.5), ("the better", 1.0), ("the worse", 0.0)])
def test_a_judge_that_looks_at_the_order_alone_prefers_none(
    config: evaluate.Config, favours: str, share: float
) -> None:
    class Biased:
        def prefer(self, prompt: str, first: tuple[str, bool], second: tuple[str, bool], *_: Any) -> float:
            return {"the first shown": 1.0, "the better": first > second, "the worse": first < second}[favours]

    better, worse = {"text": "b", "ended": True}, {"text": "a", "ended": True}
    asked = columns.prompt({"prompt": "?"}, "")
    assert evaluate.preferred(asked, better, worse, "heldout", Biased(), config) == share  # type: ignore[arg-type]


def test_models_are_named_with_their_folders() -> None:
    config = evaluate.Config(models=("a=runs/x=1", "b=y"))
    assert config.folders == {"a": Path("runs/x=1"), "b": Path("y")}
    with pytest.raises(InputError, match="'runs/x' is no model; write name=folder"):
        evaluate.Config(models=("runs/x",))


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"temperature": -1.0}, {"max_new_tokens": 0}, {"rows": 0}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        evaluate.Config(**wrong)


def test_a_judge_of_another_tokenizer_is_refused_before_anything_is_made(
    config: evaluate.Config, other_judge: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="another tokenizer"):
        evaluate.run(replace(config, reward_model=other_judge, out=tmp_path / "new"))
    assert not (tmp_path / "new").exists()
