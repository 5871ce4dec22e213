"""`amenable sft`: held-out loss falls, answers end, nothing but the assistant is trained."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from amenable.data.types import Demonstration, Message
from amenable.errors import InputError
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.rewards.model import ModelReward
from amenable.rewards.spec import Reward, load_reward
from amenable.stages import sft
from amenable.text.chat import render, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.row_cache import Examples
from amenable.train.runtime import Runtime


@pytest.fixture
def short(sft_config: sft.Config, tmp_path: Path) -> sft.Config:
    """Two epochs of five steps."""
    return replace(sft_config, out=tmp_path / "short", epochs=2, batch_size=16, dropout=0.2)


def weights(folder: Path, runtime: Runtime) -> dict[str, torch.Tensor]:
    return loading.load_policy(folder, runtime)[0].state_dict()


def test_held_out_loss_falls(assistant: Path, rows_of: Callable[[Path], list[dict[str, Any]]]) -> None:
    report = [row["eval/loss"] for row in rows_of(assistant) if "eval/loss" in row]
    assert report == sorted(report, reverse=True) and report[-1] < report[0] / 2


def test_it_answers_and_ends(assistant: Path, files: Any, runtime: Runtime) -> None:
    decoder, words = loading.load_policy(assistant, runtime)
    assert words.chat_template is not None
    prompts = [json.loads(line)["prompt"] for line in files.prompts.read_text().splitlines()][::4]
    ids = [render_prompt(words, [Message(**message) for message in prompt]) for prompt in prompts]
    answers = [
        group[0]
        for group in generate(decoder, ids, Sampling(temperature=0.0, max_new_tokens=24), eos_id=words.eos_id, seeds=0)
    ]
    assert sum(answer.ended for answer in answers) >= 0.9 * len(answers)
    texts = [words.decode(answer.ids) for answer in answers]
    assert all("it is" in text for text in texts), texts


def test_the_base_model_is_left_as_it_was(sft_config: sft.Config, assistant: Path, runtime: Runtime) -> None:
    before, after = weights(sft_config.model, runtime), weights(assistant, runtime)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert Tokenizer.load(sft_config.model).chat_template is None


def test_a_stopped_run_goes_on_to_the_bit(
    short: sft.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    whole = outcome(sft.run(replace(short, out=tmp_path / "whole")))
    for stop in (3, 7):
        parted = run_in_two(sft, replace(short, out=tmp_path / f"stopped-{stop}"), stop)
        assert outcome(parted) == whole, f"stopped at {stop}"


def test_small_passes_give_the_same_losses(short: sft.Config, rows_of: Callable, tmp_path: Path) -> None:
    plain = replace(short, dropout=0.0)
    one = rows_of(sft.run(plain))
    many = rows_of(sft.run(replace(plain, max_tokens_per_pass=50, out=tmp_path / "many")))
    assert [row["loss"] for row in many] == pytest.approx([row["loss"] for row in one], rel=1e-3)


def test_the_loss_is_over_the_assistants_tokens_alone(words: Tokenizer) -> None:
    """Rows are trained where the assistant speaks: each turn and the token that ends it."""
    reply = (
        Message("user", "name a rose"),
        Message("assistant", "a rose"),
        Message("user", "more"),
        Message("assistant", "lime"),
    )
    rendered = render(words, reply)
    ids, trained = rendered.ids, rendered.loss_mask
    stored = [token for token, mark in zip(ids, trained) if mark]
    assert stored == [*words.encode("a rose"), words.eos_id, *words.encode("lime"), words.eos_id]


@pytest.mark.parametrize(
    ("train_on", "weights", "wanted"),
    [
        ("all", [1, 1], ["a rose", "lime"]),
        ("all", [0, 1], ["lime"]),
        ("all", [1, 0], ["a rose"]),
        ("last", [1, 1], ["lime"]),
        ("last", [1, 0], ["a rose"]),
        ("exchange", [1, 1], ["lime"]),
    ],
)
def test_turns_without_weight_are_context(
    short: sft.Config, words: Tokenizer, tmp_path: Path, train_on: Any, weights: list[int], wanted: list[str]
) -> None:
    request, more = ({"role": "user", "content": text} for text in ("name a rose", "more"))
    first, last = (
        {"role": "assistant", "content": text, "weight": weight} for text, weight in zip(("a rose", "lime"), weights)
    )
    data = tmp_path / "turns.jsonl"
    data.write_text((json.dumps({"messages": [request, first, more, last]}) + "\n") * 4, "utf-8")
    config = replace(short, data=data, validation=data, train_on=train_on)
    for split in sft.read(config, words, 64):
        rows = split.map(Examples.as_rows)
        stored = [token for token, mark in zip(*rows[0]) if mark]
        assert stored == [token for text in wanted for token in (*words.encode(text), words.eos_id)]
        assert words.decode(rows[0][0]).count("a rose") == 2 and len(rows) == 4
    sft.run(replace(config, epochs=1, inspect_batch=True))


def test_a_published_base_model_gains_the_tokens_of_a_conversation(
    short: sft.Config,
    runtime: Runtime,
    make_decoder: Callable[..., Decoder],
    files: Any,
    tmp_path: Path,
) -> None:
    """As with GPT-2: one added token that ends documents, no role tokens, no pad; the model knows no others."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=299, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([files.text.read_text()], trainer)
    backend.add_special_tokens(["<|endoftext|>"])
    folder = tmp_path / "published"
    pretrained.save(folder, make_decoder(vocab_size=300), eos_id=299)
    backend.save(str(folder / "tokenizer.json"))
    out = sft.run(replace(short, model=folder, epochs=1))
    decoder, words = loading.load_policy(out, runtime)
    assert words.eos == "<|endoftext|>" and words.pad_id >= 300
    assert words.vocab_size == 304  # pad, system, user, assistant
    assert decoder.config.vocab_size == 320


def test_the_best_epoch_so_far_survives_a_stop(
    short: sft.Config, run_in_two: Callable, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[torch.Tensor] = []

    def evaluate(decoder: Decoder, *_: Any) -> dict[str, float]:
        observed.append(decoder.token_embedding.weight.detach().clone())
        return {"eval/loss": float(len(observed))}

    monkeypatch.setattr(sft, "evaluate", evaluate)
    out = run_in_two(sft, replace(short, epochs=3, keep_weights="loss"), 7)
    assert torch.equal(weights(out, runtime)["token_embedding.weight"], observed[0])
    assert json.loads((out / "finished.json").read_text())["selected_step"] == 5 and len(observed) == 3


@pytest.mark.parametrize(("select", "stored"), [("loss", 1), ("last", 3)])
def test_the_epoch_that_is_kept(
    short: sft.Config, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, select: str, stored: int
) -> None:
    observed: list[dict[str, torch.Tensor]] = []

    def evaluate(decoder: Decoder, *_: Any) -> dict[str, float]:
        observed.append({name: value.clone() for name, value in decoder.state_dict().items()})
        return {"eval/loss": [3.0, 1.0, 2.0, 4.0][len(observed) - 1]}

    monkeypatch.setattr(sft, "evaluate", evaluate)
    out = sft.run(replace(short, epochs=4, keep_weights=select))  # type: ignore[arg-type]
    saved = weights(out, runtime)
    same = [all(torch.equal(saved[name], value) for name, value in epoch.items()) for epoch in observed]
    assert same == [place == stored for place in range(4)]
    assert json.loads((out / "finished.json").read_text())["selected_step"] == 5 * (stored + 1)


def test_the_best_epoch_by_score_is_kept(
    short: sft.Config, judge: Path, rows_of: Callable, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    config = replace(short, epochs=3, keep_weights="score", reward=judge, reward_prompts=6)
    out = sft.run(config)
    report = {row["step"]: row["eval/score"] for row in rows_of(out) if "eval/score" in row}
    assert len(report) == 3 and len(set(report.values())) > 1
    selected = json.loads((out / "finished.json").read_text())["selected_step"]
    assert selected == max(report, key=lambda step: report[step])
    # the best weights so far are part of a checkpoint
    assert outcome(run_in_two(sft, replace(config, out=tmp_path / "two"), 7)) == outcome(out)


def test_any_reward_scores_the_answers(short: sft.Config, rows_of: Callable, tmp_path: Path) -> None:
    """One score for a step, of the first prompts; files are in the lineage, rules are not."""
    file = tmp_path / "mine.py"
    file.write_text("def ten(prompts, completions):\n    assert len(prompts) == 3\n    return [10.0] * 3\n")
    config = replace(short, epochs=1, reward=(f"{file}:ten", "length:1-=0.5"), reward_prompts=3)
    out = sft.run(config)
    assert [row["eval/score"] for row in rows_of(out) if "eval/score" in row] == [10.5]
    assert json.loads((out / "lineage.json").read_text())["inputs"]["reward"]["path"] == str(file)


def test_held_out_prompts_leave_room_for_their_answers(
    short: sft.Config, words: Tokenizer, runtime: Runtime, make_scalar_model: Callable, tmp_path: Path
) -> None:
    """In every reward model's context, too."""
    rows = [Demonstration((Message("user", "a rose " * n), Message("assistant", "x"))) for n in (1, 9, 2)]
    config = replace(short, reward_prompts=2, max_new_tokens=16)

    def prompts(context: int, reward: Reward) -> list[int]:
        messages = [prompt.messages for prompt in sft.scored_prompts(rows, reward, words, context, config)]
        return [index for index, row in enumerate(rows) if row.messages[:-1] in messages]

    model = ModelReward(make_scalar_model(context_length=32, vocab_size=words.vocab_size), words, runtime)
    assert prompts(64, load_reward("ends", runtime)) == [0, 1] and prompts(32, load_reward("ends", runtime)) == [0, 2]
    assert prompts(64, load_reward(model, runtime)) == [0, 2]
    with pytest.raises(InputError, match="no held-out prompt is within 0 tokens; lower --max-new-tokens"):
        prompts(16, load_reward("ends", runtime))
    assert (
        sft.scored_prompts([], load_reward(model, runtime), words, 64, config)
        == sft.scored_prompts(rows, None, words, 64, config)
        == []
    )


def test_selecting_by_score_needs_a_reward() -> None:
    with pytest.raises(InputError, match="give --reward"):
        sft.Config(keep_weights="score")
