"""What the first batch must prove, rule by rule, and how it is shown."""

import html
import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer as Backend

from amenable.data.types import Demonstration, Message, Ranking
from amenable.errors import InputError
from amenable.generation.rollout import Rollout, length_mask
from amenable.text.chat import render, render_completion, render_document, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import first_batch
from amenable.train.examples import LeftOut, ranking_rows, text_row
from amenable.train.first_batch import Example

ASKED = (Message("user", "Ann asks: name a red thing."),)
SAID = Demonstration((*ASKED, Message("assistant", "Gladly: a rose, it is red.")))


@pytest.fixture
def row(words: Tokenizer) -> Example:
    """A conversation that is as it should be."""
    rendered = render(words, SAID.messages)
    return Example(rendered.ids, rendered.loss_mask, rendered.roles, ended=True, opened=True)


def proof_of(words: Tokenizer, *rows: Example) -> first_batch.BatchCheck:
    return first_batch.BatchCheck(list(rows), "rows", words)


def shifted(row: Example, by: int) -> Example:
    """The marks moved to the right, the roles where they were."""
    marks = row.loss_mask[-by:] + row.loss_mask[:-by] if by > 0 else row.loss_mask[-by:] + [False] * -by
    return replace(row, loss_mask=marks)


def test_a_good_row_has_no_fault(row: Example, words: Tokenizer) -> None:
    assert first_batch.problem(row, words) is None
    assert row.roles.count("assistant") > 5 and row.roles.count("user") > 5


BREAKS: dict[str, tuple[Callable[[Example, Tokenizer], Example], str]] = {
    "no bos": (
        lambda row, _: replace(row, ids=row.ids[1:], loss_mask=row.loss_mask[1:], roles=row.roles[1:]),
        "token 0 is .* and not BOS",
    ),
    "two bos": (
        lambda row, words: replace(
            row, ids=[words.bos_id, *row.ids], loss_mask=[False, *row.loss_mask], roles=["template", *row.roles]
        ),
        "token 1 is another BOS",
    ),
    "bos inside": (
        lambda row, words: replace(row, ids=[*row.ids[:5], words.bos_id, *row.ids[6:]]),
        "token 5 is another BOS",
    ),
    "eos masked": (lambda row, _: replace(row, loss_mask=[*row.loss_mask[:-1], False]), "EOS, which is not trained"),
    "eos missing": (
        lambda row, _: replace(row, ids=row.ids[:-1], loss_mask=row.loss_mask[:-1], roles=row.roles[:-1]),
        "not learn to stop",
    ),
    "eos of an answer that was cut": (lambda row, _: replace(row, ended=False), "the answer did not end"),
    "nothing trained": (
        lambda row, _: replace(row, loss_mask=[False] * len(row.ids), ended=None),
        "none of its tokens is trained",
    ),
    "all trained": (lambda row, _: replace(row, loss_mask=[True] * len(row.ids)), "token 0 is trained"),
    "prompt trained": (
        lambda row, _: replace(row, loss_mask=[False] + [True] * (len(row.ids) - 1)),
        r"token \d+, .* is trained and belongs to the (template|user)",
    ),
    "mask one to the left": (lambda row, _: shifted(row, -1), "EOS, which is not trained"),
    "mask one to the right": (lambda row, _: shifted(row, 1), "token 0 is trained|not trained"),
    "a hole in the answer": (
        lambda row, _: replace(row, loss_mask=[*row.loss_mask[:-3], False, *row.loss_mask[-2:]]),
        "belongs to the assistant and is not trained",
    ),
    "an id too high": (
        lambda row, words: replace(row, ids=[*row.ids[:4], words.vocab_size, *row.ids[5:]]),
        "token 4 has id 320, and the vocabulary ends at 319",
    ),
    "an id below 0": (lambda row, _: replace(row, ids=[*row.ids[:4], -1, *row.ids[5:]]), "token 4 has id -1"),
    "padding": (
        lambda row, words: replace(
            row, ids=[*row.ids, words.pad_id], loss_mask=[*row.loss_mask, True], roles=[*row.roles, "assistant"]
        ),
        r"is padding \('<\|pad\|>' \(id \d\)\)",
    ),
    "a special token in the answer": (
        lambda row, words: replace(
            row, ids=[*row.ids[:-3], words.encode_with_special_tokens("<|user|>")[0], *row.ids[-2:]]
        ),
        "is a special token inside the assistant's message",
    ),
    "marks that are fewer": (lambda row, _: replace(row, loss_mask=row.loss_mask[:-1]), "tokens, "),
}


@pytest.mark.parametrize("name", BREAKS)
def test_every_broken_rule_is_named(name: str, row: Example, words: Tokenizer) -> None:
    change, reply = BREAKS[name]
    with pytest.raises(InputError, match=f"row 2 of the rows can't be trained on: .*{reply}"):
        first_batch.check_rows([row, change(row, words)], words, "rows")


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_WITH_A_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
)
BOS_EVERY_TURN = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% elif m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
NO_BOS = BOS_EVERY_TURN.replace("bos_token + ", "")
TEMPLATES = {  # the template, its bos and eos, and what of bos it writes: at the front, elsewhere
    "ChatML": (CHATML, "<|im_start|>", "<|im_end|>", (True, True)),
    "ChatML with a system message of its own": (CHATML_WITH_A_SYSTEM, "<|im_start|>", "<|im_end|>", (True, True)),
    "ChatML, its end before all": ("{{ bos_token }}" + CHATML, "<|im_end|>", "<|im_end|>", (True, True)),
    "ChatML, another bos": (CHATML, "<s>", "<|im_end|>", (False, False)),
    "ChatML after a bos": ("{{ bos_token }}" + CHATML, "<s>", "<|im_end|>", (True, False)),
    "bos at every turn": (BOS_EVERY_TURN, "<s>", "</s>", (True, True)),
    "no bos": (NO_BOS, "<s>", "</s>", (False, False)),
}


def with_template(words: Tokenizer, template: str, bos: str, eos: str) -> Tokenizer:
    backend = Backend.from_str(words._backend.to_str())
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>", "<s>", "</s>"])
    return Tokenizer(backend, bos=bos, eos=eos, pad=words.pad, chat_template=template)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_bos_that_a_template_writes_is_right_and_one_more_is_not(name: str, words: Tokenizer) -> None:
    template, bos, eos, places = TEMPLATES[name]
    tokenizer = with_template(words, template, bos, eos)
    assert first_batch.template_bos(tokenizer) == places
    for turns in (SAID.messages, (*SAID.messages, *SAID.messages)):
        rendered = render(tokenizer, turns)
        row = Example(rendered.ids, rendered.loss_mask, rendered.roles, True, *places)
        assert first_batch.problem(row, tokenizer) is None
        twice = replace(
            row, ids=[tokenizer.bos_id, *row.ids], loss_mask=[False, *row.loss_mask], roles=["template", *row.roles]
        )
        wrong = "token 1 is another BOS" if places[0] else "token 0 is a BOS"
        assert wrong in str(first_batch.problem(twice, tokenizer))
        prompt = render_prompt(tokenizer, turns[:-1])
        first_batch.check_samples([prompt], [render_completion(tokenizer, "A rose.")], [True], tokenizer)
        with pytest.raises(InputError, match=wrong):
            first_batch.check_samples([[tokenizer.bos_id, *prompt]], [prompt], [False], tokenizer)


def test_pieces_after_the_first_have_no_bos(words: Tokenizer) -> None:
    document = render_document(words, "The rose is red. " * 20)
    pieces = [document[:30], document[29:59]]
    proof = first_batch.check_chunks([text_row(piece) for piece in pieces], words)
    assert [row.opened for row in proof.rows] == [True, False]
    twice = [*pieces[1][:3], words.bos_id, *pieces[1][3:]]
    with pytest.raises(InputError, match="token 3 is a BOS"):
        first_batch.check_chunks([text_row(twice)], words)
    ids, _ = text_row(pieces[0])
    with pytest.raises(InputError, match="belongs to the text and is not trained"):
        first_batch.check_chunks([(ids, [False, False, *[True] * (len(ids) - 2)])], words)


def test_conversations_know_who_speaks(words: Tokenizer) -> None:
    rendered = render(words, SAID.messages)
    proof = first_batch.check_conversations([(rendered.ids, rendered.loss_mask)], [SAID], words)
    assert [row.roles for row in proof.rows] == [rendered.roles]


def test_a_conversation_without_its_end_is_refused(words: Tokenizer) -> None:
    rendered = render(words, SAID.messages)
    cut = rendered.ids[:-3], rendered.loss_mask[:-3]
    with pytest.raises(InputError, match=r"tokens, .* loss mask values and .* roles"):
        first_batch.check_conversations([cut], [SAID], words)


def test_turns_that_are_context_are_shown_as_that(words: Tokenizer) -> None:
    first, last = (Message("assistant", "A brick.", trained=False), Message("assistant", "A rose."))
    for turns, roles in (((first, *ASKED, last), "assistant"), ((last, *ASKED, first), "assistant")):
        row = render(words, (*ASKED, *turns))
        proof = first_batch.check_conversations(
            [(row.ids, row.loss_mask)], [Demonstration((*ASKED, *turns))], words
        ).rows[0]
        assert {role for role, mark in zip(proof.roles, proof.loss_mask) if mark} <= {roles, "template"}
        assert "untrained assistant" in proof.roles
        wrong = replace(
            proof, loss_mask=render(words, [replace(turn, trained=True) for turn in (*ASKED, *turns)]).loss_mask
        )
        assert "belongs to the untrained assistant" in (first_batch.problem(wrong, words) or "")


def test_an_answer_that_says_nothing_is_shown_as_such(words: Tokenizer) -> None:
    empty, full = ranking_rows(Ranking(ASKED, ("", "A rose."), (2.0, 1.0)), words, 64) or []
    proof = first_batch.check_completions([full, empty], words)
    assert [first_batch.NOTHING in first_batch.shortened(row, words).plain for row in proof.rows] == [False, True]
    assert first_batch.page(proof, "reward").count(f'<i>{first_batch.NOTHING}</i><span class="eos"') == 1


def test_what_was_left_out_is_in_the_summary(row: Example, words: Tokenizer) -> None:
    left = [LeftOut("train", 3, 200, "conversations", 512), LeftOut("validation", 1, 9, "conversations", 512)]
    proof = proof_of(words, row)
    for reply in (first_batch.summary(proof, "sft", left), first_batch.page(proof, "sft", left)):
        assert "no padding; train: 3 of 200 conversations left out: longer than 512 tokens; validation: 1 of 9" in reply
    assert first_batch.summary(proof, "sft").endswith("no padding")


def test_a_rollout_is_its_prompts_and_what_was_said(words: Tokenizer) -> None:
    prompt, ended, open_end = (
        render_prompt(words, ASKED),
        render_completion(words, "A rose."),
        render_completion(words, "A", ended=False),
    )
    mask = length_mask([len(ended), len(open_end)])
    rollout = Rollout([prompt] * 2, [ended, open_end], torch.tensor([True, False]), mask, torch.zeros(mask.shape))
    rows = first_batch.check_samples(rollout.prompts, rollout.completions, rollout.ended.tolist(), words).rows
    assert [sum(row.loss_mask) for row in rows] == [len(ended), len(open_end)]
    odd = replace(rollout, completions=[[words.bos_id, words.pad_id, *ended[2:]], open_end])
    assert (
        len(first_batch.check_samples(odd.prompts, odd.completions, odd.ended.tolist(), words).rows) == 2
    )  # a policy may draw any token
    for wrong in ([False, False], [True, True]):
        with pytest.raises(InputError, match=r"did not end|learn to stop"):
            first_batch.check_samples(rollout.prompts, rollout.completions, wrong, words)


def test_the_page_shows_every_token_and_escapes_what_was_said(words: Tokenizer) -> None:
    reply = Demonstration((Message("user", "<script>alert(1)</script> & more"), Message("assistant", "No <b>.")))
    rendered = render(words, reply.messages)
    page = first_batch.page(
        proof_of(words, Example(rendered.ids, rendered.loss_mask, rendered.roles, True, True)), "sft"
    )
    shown = page[page.index('<div class="row">') :]
    tokens = re.findall(r'<span class="(\w+)" title="(\d+), (\w+)">(.*?)</span>', shown, re.DOTALL)
    assert [int(token) for _, token, _, _ in tokens] == rendered.ids
    assert [role for _, _, role, _ in tokens] == rendered.roles
    assert "".join(html.unescape(text) for *_, text in tokens) == words.decode(rendered.ids, skip_special_tokens=False)
    assert [kind in ("trained", "eos") for kind, *_ in tokens] == rendered.loss_mask and tokens[-1][0] == "eos"
    assert "<script" not in page and "http" not in page and "prefers-color-scheme: dark" in page


def test_a_row_on_the_screen_is_six_lines_at_most(row: Example, words: Tokenizer) -> None:
    long = replace(row, ids=row.ids * 40, loss_mask=row.loss_mask * 40, roles=row.roles * 40)
    for one in (row, long):
        console = Console(file=io.StringIO(), width=80, force_terminal=False)
        console.print(first_batch.shortened(one, words))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert len(lines) <= 6 and "Gladly" in "".join(lines)
    assert {span.style for span in first_batch.shortened(row, words).spans} >= {"dim", "green", "bold black on green"}
