"""Context distillation: contexts before prompts, and the KL of a student from a teacher that reads one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from amenable.data.types import Message, Prompt
from amenable.errors import InputError
from amenable.functional.kl import exact_kl
from amenable.models.decoder import Decoder
from amenable.models.layout import Layout
from amenable.text.chat import render, render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import distillation
from amenable.train.distillation import HHH, Distillation, DistilledRow, read_context, tokenize, with_context
from amenable.train.objective import accumulate, mean_stats
from amenable.train.runtime import Runtime

SYSTEM, ASK = Message("system", "Be brief."), Message("user", "Why?")
ROWS = [
    DistilledRow([1, 5, 7], [1, 9, 11, 9, 5, 7], [4, 6, 2]),
    DistilledRow([1, 8], [1, 9, 11, 9, 8], [3, 3]),
    DistilledRow([1, 4, 4, 6], [1, 9, 11, 9, 4, 4, 6], [12]),
]


def test_a_context_comes_before_the_prompt_and_before_its_system_message() -> None:
    shots = (Message("user", "Hi."), Message("assistant", "Hello."))
    assert with_context((SYSTEM,), (ASK,)) == (SYSTEM, ASK)
    assert with_context((SYSTEM, *shots), (ASK,)) == (SYSTEM, *shots, ASK)
    theirs = Message("system", "Speak French.", tools="[]")
    merged = Message("system", "Be brief.\n\nSpeak French.", tools="[]")
    assert with_context((SYSTEM, *shots), (theirs, ASK)) == (merged, *shots, ASK)
    assert with_context(shots, (theirs, ASK)) == (theirs, *shots, ASK)
    tooled = Message("user", "Why?", tools="[]")
    assert with_context((SYSTEM,), (tooled,)) == (Message("system", "Be brief.", tools="[]"), ASK)


def test_a_context_is_a_text_or_conversations(tmp_path: Path) -> None:
    (tmp_path / "brief.txt").write_text("Be brief.\n", "utf-8")
    assert read_context(tmp_path / "brief.txt") == read_context(HHH, "Be brief.") == (SYSTEM,)
    messages = read_context(HHH)
    assert messages[0].role == "system" and len(messages) == 11 and not any(message.trained for message in messages)
    (tmp_path / "empty.txt").write_text(" \n", "utf-8")
    with pytest.raises(InputError, match="the context is empty"):
        read_context(tmp_path / "empty.txt")
    with pytest.raises(InputError, match=r"the context cannot be read: .*No such file"):
        read_context(tmp_path / "none.txt")
    turns = [{"role": role, "content": "x"} for role in ("system", "user", "assistant")]
    (tmp_path / "two.jsonl").write_text(2 * (json.dumps({"messages": turns}) + "\n"), "utf-8")
    with pytest.raises(InputError, match="a system message after the first"):
        read_context(tmp_path / "two.jsonl")


def test_the_context_that_ships_is_a_conversation_of_every_chat_template(words: Tokenizer) -> None:
    rendered = render(words, [*read_context(HHH), ASK])
    assert not any(rendered.loss_mask) and distillation.context_length(words, read_context(HHH)) > 200


def test_rows_of_student_and_teacher_have_the_same_completion(words: Tokenizer) -> None:
    prompts = [Prompt((Message("user", text),)) for text in ("Name a red thing.", "Name a red thing. " * 20)]
    stored, rows = tokenize("train", prompts, words, (SYSTEM,), room=60)
    assert stored == prompts[:1] and rows[0].completion == []
    assert rows[0].prompt == render_prompt(words, prompts[0].messages)
    assert rows[0].teacher_prompt == render_prompt(words, (SYSTEM, *prompts[0].messages))
    answer = render_completion(words, "A rose.")
    row = DistilledRow(rows[0].prompt, rows[0].teacher_prompt, answer)
    for ids, mask in (row.row, row.teacher_row):
        assert [token for token, trained in zip(ids, mask) if trained] == answer and mask.index(True) == len(
            mask
        ) - len(answer)


@pytest.mark.parametrize("limit", [4, 1000])
def test_the_loss_is_the_mean_kl_over_completion_tokens(
    make_decoder: Callable[..., Decoder], runtime: Runtime, limit: int
) -> None:
    student, teacher = make_decoder(1), make_decoder(2)

    def logits(model: Decoder, prompt: list[int], completion: list[int]) -> torch.Tensor:
        ids = torch.tensor(prompt + completion)
        return (model(ids, Layout.of([len(ids)])) @ model.unembedding.T)[len(prompt) - 1 : -1]

    kls = [
        exact_kl(
            logits(teacher, row.teacher_prompt, row.completion).detach(), logits(student, row.prompt, row.completion)
        )
        for row in ROWS
    ]
    expected = torch.cat(kls).mean()
    expected.backward()
    gradient = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
    student.zero_grad(set_to_none=True)
    stats = accumulate(Distillation(student, teacher, runtime, limit), ROWS, runtime, limit)
    ours = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
    assert stats["loss"] == pytest.approx(expected.item(), rel=1e-5) and gradient.norm() > 1e-3
    assert torch.allclose(gradient, ours, atol=1e-6)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_model_without_a_context_is_its_own_teacher(make_decoder: Callable[..., Decoder], runtime: Runtime) -> None:
    model = make_decoder(1)
    for parameter in model.parameters():
        parameter.data *= 3  # a fresh model reads little of its context
    rows = [DistilledRow(row.prompt, row.prompt, row.completion) for row in ROWS]
    for top_k in (0, 3):
        assert abs(mean_stats(Distillation(model, model, runtime, 1000, top_k), rows, runtime, 1000)["loss"]) < 1e-6
        assert mean_stats(Distillation(model, model, runtime, 1000, top_k), ROWS, runtime, 1000)["loss"] > 1e-4
