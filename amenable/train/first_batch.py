"""First batch: all rows are checked as they are tokenized, and those of the first step shown and saved.

Rules: every row has the BOS that its template writes, and never two in succession; a completion that ended has EOS in
the loss mask; the loss mask has at least one token and none of the context; no id is padding or outside the vocabulary.
A row that breaks a rule is an InputError before anything is written. The rows of the first step are printed in colour
and written to first_batch.html.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.text import Text

from amenable import processes
from amenable.data.types import Demonstration
from amenable.errors import InputError
from amenable.text.chat import render
from amenable.text.template import PLAIN_TEMPLATE, template_with_slots
from amenable.text.tokenizer import Tokenizer
from amenable.train import checkpoint
from amenable.train.examples import LeftOut
from amenable.train.forward import Row
from amenable.train.run import Run, write_text

HERE = Path(__file__).parent
FILE = "first_batch.html"
ON_SCREEN, ON_SCREEN_CHARACTERS = 3, 400
"""rows on the screen, and characters a row: at most six lines of a narrow terminal"""
IN_FILE = 256
"""rows of the first step that the page shows"""
STYLES = {"context": "dim", "trained": "green", "eos": "bold black on green", "end": "bold yellow", "pad": "red"}
"""style on the screen of each token class; first_batch.jinja has the same names"""
NOTHING = "(says nothing)"
"""shown before the EOS of an empty completion"""
NOTES = {
    "reward": "; a reward is read at the last token of each row, and nowhere else",
    "classify": "; the label is read at the last token of each row",
}
"""added to the summary of a stage whose loss is not one over the loss mask's tokens"""


@dataclass(frozen=True)
class Example:
    """Row of N tokens as it will be trained on, with facts that its loss mask is checked against."""

    ids: list[int]
    loss_mask: list[bool]
    roles: list[str]
    """role of each token, as in `text.chat.Rendered`; or "context" with "answer" or "text"; or "sampled", which may be
    any token"""
    ended: bool | None
    """True if it must end in EOS, False if it must not, None if unknown"""
    opened: bool
    """True if it must begin with BOS"""
    bos_inside: bool = False
    """True if the template writes BOS later too, such as ChatML's `<|im_start|>` or Llama 2's `<s>`"""


@dataclass(frozen=True)
class BatchCheck:
    """Rows of the first step."""

    rows: list[Example]
    unit: str
    """plural name of a row, such as "conversations" """
    tokenizer: Tokenizer


def check_chunks(rows: Sequence[Row], tokenizer: Tokenizer) -> BatchCheck:
    """Check chunks of documents: all tokens but the first are trained. Only a document's first chunk has BOS."""
    examples = [
        Example(ids, loss_mask, ["context"] + ["text"] * (len(ids) - 1), None, opened=ids[:1] == [tokenizer.bos_id])
        for ids, loss_mask in rows
    ]
    return check_rows(examples, tokenizer, "pieces of documents")


def check_conversations(
    rows: Sequence[Row], demonstrations: Sequence[Demonstration], tokenizer: Tokenizer
) -> BatchCheck:
    """Check the rows of conversations: each must end in a trained EOS, unless its last turn is context."""
    roles = [render(tokenizer, demonstration.messages).roles for demonstration in demonstrations]
    bos = template_bos(tokenizer)
    examples = [conversation_example(*each, bos) for each in zip(rows, roles, demonstrations, strict=True)]
    return check_rows(examples, tokenizer, "conversations")


def conversation_example(row: Row, roles: list[str], demonstration: Demonstration, bos: tuple[bool, bool]) -> Example:
    """Return the row of a conversation with the facts it is checked against. bos: those of `template_bos`."""
    opened, inside = bos
    return Example(*row, roles, True if demonstration.messages[-1].trained else None, opened, inside)


def check_completions(rows: Sequence[Row], tokenizer: Tokenizer) -> BatchCheck:
    """Check prompts with completions."""
    bos = template_bos(tokenizer)
    return check_rows([completion_example(row, bos) for row in rows], tokenizer, "answers")


def completion_example(row: Row, bos: tuple[bool, bool]) -> Example:
    """Return the row of a completion with the facts it is checked against. bos: those of `template_bos`."""
    ids, loss_mask = row
    return Example(ids, loss_mask, ["answer" if trained else "context" for trained in loss_mask], None, *bos)


def check_samples(
    prompts: Sequence[list[int]], responses: Sequence[list[int]], ended: Sequence[bool], tokenizer: Tokenizer
) -> BatchCheck:
    """Check sampled completions: all their tokens are trained. Those cut by the length limit have no EOS."""
    opened, bos_inside = template_bos(tokenizer)
    examples = [
        Example(
            prompt + response,
            [False] * len(prompt) + [True] * len(response),
            ["context"] * len(prompt) + ["sampled"] * len(response),
            end,
            opened,
            bos_inside,
        )
        for prompt, response, end in zip(prompts, responses, ended, strict=True)
    ]
    return check_rows(examples, tokenizer, "sampled answers")


def template_bos(tokenizer: Tokenizer) -> tuple[bool, bool]:
    """Return (the chat template begins every conversation with BOS, it writes BOS elsewhere too)."""
    template = PLAIN_TEMPLATE if tokenizer.chat_template is None else tokenizer.chat_template
    begins, inside = set[bool](), False
    for roles in (("user",), ("system", "user"), ("user", "assistant", "user")):
        try:
            pieces = template_with_slots(template, roles, tokenizer.special_tokens_map, add_generation_prompt=True)
        except InputError:  # a template may reject some roles; a row with them is an error when it is rendered
            continue
        ids = [part for piece in pieces if isinstance(piece, str) for part in tokenizer.split_special_tokens(piece)]
        begins.add(ids[:1] == [tokenizer.bos_id] and isinstance(pieces[0], str))
        inside |= tokenizer.bos_id in ids[1:]
    return begins == {True}, inside or len(begins) > 1


def check_rows(examples: Sequence[Example], tokenizer: Tokenizer, unit: str) -> BatchCheck:
    """Check rows and return them. InputError for the first that breaks a rule."""
    for number, row in enumerate(examples, start=1):
        require_sound(row, tokenizer, f"row {number} of the {unit}")
    return BatchCheck(list(examples), unit, tokenizer)


def require_sound(row: Example, tokenizer: Tokenizer, name: str) -> None:
    """Raise InputError for a row that breaks a rule; name: what the message calls it."""
    wrong = problem(row, tokenizer)
    if wrong is not None:
        raise InputError(
            f"{name} can't be trained on: {wrong}",
            how="the tokenizer or its chat template does not write what training needs: see that it opens a "
            "conversation with BOS, if at all, and closes the assistant's turn with EOS",
        )


def problem(row: Example, tokenizer: Tokenizer) -> str | None:
    """Describe the first broken rule of a row, with its token; None if there is none."""
    ids = row.ids
    if not len(ids) == len(row.loss_mask) == len(row.roles):
        return f"it has {len(ids)} tokens, {len(row.loss_mask)} loss mask values and {len(row.roles)} roles"
    outside = [i for i, token in enumerate(ids) if not 0 <= token < tokenizer.vocab_size]
    if outside:
        return f"token {outside[0]} has id {ids[outside[0]]}, and the vocabulary ends at {tokenizer.vocab_size - 1}"
    padding = [i for i, role in enumerate(row.roles) if role != "sampled" and is_padding(ids[i], tokenizer)]
    if padding:
        return f"token {padding[0]} is padding ({describe(ids[padding[0]], tokenizer)}), and rows have none"
    return problem_at_ends(row, tokenizer) or problem_of_mask(row, tokenizer.end_of_turn_id, tokenizer)


def is_padding(token: int, tokenizer: Tokenizer) -> bool:
    """Return True for an id that is only used as padding: many published tokenizers pad with another special token."""
    other_uses = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.end_of_turn_id)
    return token == tokenizer.pad_id and token in tokenizer.special_ids and token not in other_uses


def problem_at_ends(row: Example, tokenizer: Tokenizer) -> str | None:
    """Describe a missing or surplus BOS, a missing EOS of a row that ended, or an EOS of one that did not; or None."""
    ids = row.ids
    if row.opened and ids[:1] != [tokenizer.bos_id]:
        return f"token 0 is {describe(ids[0], tokenizer)} and not BOS" if ids else "it is empty"
    surplus = surplus_bos(row, tokenizer)
    if surplus is not None:
        return f"token {surplus} is {'another' if row.opened else 'a'} BOS ({describe(ids[surplus], tokenizer)})"
    any_end = row.roles[-1:] in (["sampled"], ["assistant template"])
    ends = tokenizer.stop_ids if any_end else (tokenizer.end_of_turn_id,)
    if row.ended and (ids[-1] not in ends or not row.loss_mask[-1]):
        last = "EOS, which is not trained" if ids[-1] in ends else f"{describe(ids[-1], tokenizer)} and not EOS"
        return f"its last token, {len(ids) - 1}, is {last}: the model would not learn to stop"
    if row.ended is False and row.loss_mask[-1] and ids[-1] in ends:
        return f"token {len(ids) - 1} is a trained EOS, and the answer did not end"
    return None


def surplus_bos(row: Example, tokenizer: Tokenizer) -> int | None:
    """Return the index of the first BOS that the template does not write: the second of two in succession, or any later
    one if the template writes none inside."""
    bos = tokenizer.bos_id
    indices = [i for i, token in enumerate(row.ids) if token == bos and row.roles[i] != "sampled"]
    if bos in (
        tokenizer.eos_id,
        tokenizer.end_of_turn_id,
    ):  # later ones may end turns: only the second token is not one
        return 1 if row.opened and indices[:2] == [0, 1] and not row.loss_mask[1] else None
    if not row.bos_inside:
        return next(iter(indices[row.opened :]), None)
    return next((i for before, i in itertools.pairwise(indices) if i == before + 1), None)


def problem_of_mask(row: Example, eos: int, tokenizer: Tokenizer) -> str | None:
    """Describe an empty loss mask, a context token in it, or a completion's token outside it; or None."""
    if not any(row.loss_mask):
        return "none of its tokens is trained"
    if row.loss_mask[0]:
        return "token 0 is trained, and nothing comes before it"
    for i, (token, trained, role) in enumerate(zip(row.ids, row.loss_mask, row.roles)):
        learned = role in ("assistant", "assistant template", "answer", "text", "sampled")
        if trained and not learned and not (role == "template" and token == eos):
            return f"token {i}, {describe(token, tokenizer)}, is trained and belongs to the {role}"
        if learned and not trained:
            return f"token {i}, {describe(token, tokenizer)}, belongs to the {role} and is not trained"
        if trained and token != eos and token in tokenizer.special_ids and role == "assistant":
            return f"token {i}, {describe(token, tokenizer)}, is a special token inside the assistant's message"
    return None


def describe(token: int, tokenizer: Tokenizer) -> str:
    return f"{tokenizer.decode([token], skip_special_tokens=False)!r} (id {token})"


def show(run: Run, check: BatchCheck, inspect: bool = False) -> bool:
    """Print the first rows and write them to first_batch.html, unless the run resumes from a checkpoint.

    Returns True with `inspect`: the run ends here, and its folder is that of a run killed before its first step.
    """
    if checkpoint.steps(run.out) and not inspect:
        return False
    processes.from_first(lambda: write_text(run.out / FILE, page(check, run.stage, run.rejected.left_out)))
    for number, row in enumerate(check.rows[:ON_SCREEN], start=1):
        run.log.console.print(Text(f"row {number}  ", style="bold") + shortened(row, check.tokenizer))
    run.log.info(f"first batch: {summary(check, run.stage, run.rejected.left_out)}; all of it in {run.out / FILE}")
    if not inspect:
        return False
    run.config = replace(run.config, inspect_batch=False)  # the folder gets the options of the real run
    processes.from_first(lambda: write_text(run.out / "config.yaml", run.yaml()))
    run.log.info("nothing was trained; the same command without --inspect-batch trains")
    return True


def token_classes(row: Example, tokenizer: Tokenizer) -> list[str]:
    """Return the class of each token, a key of STYLES: a trained EOS is "eos", another one "end"."""
    return [
        "pad"
        if is_padding(token, tokenizer)
        else ("eos" if trained else "end")
        if token in (tokenizer.eos_id, *tokenizer.stop_ids)
        else ("trained" if trained else "context")
        for token, trained in zip(row.ids, row.loss_mask)
    ]


def empty_answers(token_classes: Sequence[str]) -> list[bool]:
    """Return True for each token that is the trained EOS of an empty completion."""
    return [name == "eos" and before != "trained" for before, name in zip(["", *token_classes], token_classes)]


def shortened(row: Example, tokenizer: Tokenizer) -> Text:
    """Return a row in colour; of a long one the beginning and the end, ON_SCREEN_CHARACTERS in all."""
    classes = token_classes(row, tokenizer)
    parts = [
        (
            (NOTHING if empty else "") + tokenizer.decode([token], skip_special_tokens=False).replace("\n", "↵"),
            STYLES[name],
        )
        for token, name, empty in zip(row.ids, classes, empty_answers(classes))
    ]
    room = ON_SCREEN_CHARACTERS
    if sum(len(text) for text, _ in parts) > room:
        parts = [*within(parts, room // 2), (" … ", "bold"), *within(parts[::-1], room // 2)[::-1]]
    return Text.assemble(*parts)


def within(parts: Sequence[tuple[str, str]], room: int) -> list[tuple[str, str]]:
    """Return the first parts that have together at most `room` characters."""
    used = itertools.accumulate(len(text) for text, _ in parts)
    return [part for part, size in zip(parts, used) if size <= room]


def summary(check: BatchCheck, stage: str, left_out: Sequence[LeftOut] = ()) -> str:
    """Return a line with the number of rows and tokens, the trained share, rows left out, and the stage's note."""
    tokens = sum(len(row.ids) for row in check.rows)
    trained = sum(sum(row.loss_mask) for row in check.rows)
    counts = f"{len(check.rows)} {check.unit}, {tokens:,} tokens, {trained / max(tokens, 1):.1%} trained, no padding"
    return "; ".join([counts, *map(str, left_out)]) + NOTES.get(stage, "")


def page(check: BatchCheck, stage: str, left_out: Sequence[LeftOut] = ()) -> str:
    """Return first_batch.html: every token with its id and role, a legend, the counts."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    rows = [
        [
            (check.tokenizer.decode([token], skip_special_tokens=False), token, role, name, empty)
            for token, role, name, empty in zip(row.ids, row.roles, classes, empty_answers(classes))
        ]
        for row in check.rows[:IN_FILE]
        for classes in [token_classes(row, check.tokenizer)]
    ]
    template = environment.get_template("first_batch.jinja")
    return template.render(
        nothing=NOTHING, stage=stage, rows=rows, total=len(check.rows), summary=summary(check, stage, left_out)
    )
