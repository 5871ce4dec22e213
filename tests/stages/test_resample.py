"""`amenable resample`: answers are drawn again by their rewards, each of them also ended after its sentences."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.data import sources
from amenable.data.samples import Sample
from amenable.data.types import Message
from amenable.errors import InputError
from amenable.stages import resample
from amenable.stages.resample import Pool, log_weights, pool_of
from amenable.text.chat import render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.runtime import DeviceOptions, Runtime

PROMPT = [{"role": "user", "content": "a rose"}]
ANSWERS = ["No. Go on", "No. Go on", "Yes!", "Red", "lime plum"]
ENDED = [False, False, True, True, False]


@pytest.fixture
def config(assistant: Path, tmp_path: Path) -> resample.Config:
    data = tmp_path / "samples.jsonl"
    rows = [{"id": f"p{i}", "prompt": PROMPT, "completions": ANSWERS, "ended": ENDED, "topic": "sea"} for i in range(4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    device = DeviceOptions("cpu", "fp32", 1)
    return resample.Config(
        assistant, data, ("ended:characters:1-500",), out=tmp_path / "run", kl_coef=0.1, device=device
    )


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "demonstrations.jsonl").open()]


def test_the_answers_of_a_prompt_as_sampled_and_after_each_sentence() -> None:
    row = Sample("1", (Message("user", "Hi"),), tuple(ANSWERS), tuple(ENDED))
    assert pool_of(row, with_ends=True) == Pool(
        ("No.", "No. Go on", "Yes!", "Red", "lime plum"),
        (True, False, True, True, False),
        (2, 2, 1, 1, 1),
        (True, False, True, False, False),
    )
    whole = pool_of(row, with_ends=False)
    assert whole.texts == ("No. Go on", "Yes!", "Red", "lime plum") and whole.counts == (2, 1, 1, 1)
    assert not any(whole.weighed)


def test_an_end_weighs_as_much_as_the_model_would_end_there(
    config: resample.Config, words: Tokenizer, runtime: Runtime
) -> None:
    model, _ = loading.load_policy(config.model, runtime)
    (row, *_), temperature = [row for _, row in resample.read_samples(config.data)], 0.5
    pool = pool_of(row, with_ends=True)
    colder = replace(config, temperature=temperature)
    (weights,) = log_weights(
        model, words, [replace(row, completions=pool.texts, ended=pool.ended)], [pool], runtime, colder
    )
    ids = [*render_prompt(words, row.prompt, "No."), *render_completion(words, "No.")]
    hidden = forward.compute_logprobs(model, [(ids, [False] * (len(ids) - 1) + [True])], runtime, 500, temperature)
    assert float(weights[0]) == pytest.approx(math.log(2) + float(hidden[0]), abs=1e-4)
    assert weights.exp()[[1, 3, 4]].tolist() == pytest.approx([2, 1, 1])


def test_an_answer_that_fills_the_context_is_not_ended_there(config: resample.Config, words: Tokenizer) -> None:
    """With the token that ends it the answer would be one token longer than the context of 64."""
    room = 64 - len(render_prompt(words, (Message("user", "a rose"),)))
    full = words.decode((words.encode("Yes!") + words.encode(" red" * 64))[: room - 1]) + "."
    assert len(words.encode(full)) == room
    row = {"id": "p", "prompt": PROMPT, "completions": [full, "No."], "ended": [False, True]}
    config.data.write_text(json.dumps(row) + "\n")
    assert {row["completion"] for row in read(resample.run(config))} <= {"Yes!", "No."}


def test_what_is_rewarded_is_drawn_and_can_be_trained_on(config: resample.Config) -> None:
    rows = read(resample.run(config))
    assert {row["completion"] for row in rows} <= {"No.", "Yes!", "Red"} and len(rows) > 4 * 6
    assert all(row["topic"] == "sea" for row in rows)
    assert len(sources.read_demonstrations(config.out / "demonstrations.jsonl").rows) == len(rows)
    facts = json.loads((config.out / "finished.json").read_text())
    assert facts["demonstrations"] == len(rows) and facts["prompts"] == 4
    assert 0.9 < facts["reward"] <= 1 and 0.3 < facts["kl"] < 3


def test_a_dear_nat_leaves_the_answers_as_they_were_sampled(config: resample.Config) -> None:
    dear = replace(config, kl_coef=1e6, sentence_ends=False, num_draws=2000)
    rows = read(resample.run(dear))
    for text in ("Yes!", "Red"):
        assert sum(row["completion"] == text for row in rows) / 8000 == pytest.approx(0.2, abs=0.03)
    facts = json.loads((dear.out / "finished.json").read_text())
    assert facts["kl"] == pytest.approx(0, abs=1e-3) and facts["reward"] == pytest.approx(0.4, abs=1e-3)


def test_the_same_seed_draws_the_same(config: resample.Config, tmp_path: Path) -> None:
    first = read(resample.run(config))
    assert read(resample.run(replace(config, out=tmp_path / "again"))) == first
    assert read(resample.run(replace(config, out=tmp_path / "other", seed=1))) != first


def test_bad_input(config: resample.Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no reward; give --reward"):
        resample.run(replace(config, reward=()))
    cut = [{"prompt": PROMPT, "completions": ["lime", "plum"], "ended": [False, False]}]
    (tmp_path / "cut.jsonl").write_text(json.dumps(cut[0]) + "\n")
    with pytest.raises(InputError, match=r"cut\.jsonl: no answer that ended was drawn; sample more"):
        resample.run(replace(config, data=tmp_path / "cut.jsonl"))
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="has no row"):
        resample.run(replace(config, data=tmp_path / "empty.jsonl", out=tmp_path / "none"))
