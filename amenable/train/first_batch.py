"""The first batch as proof: what will be trained is checked, shown and saved before the first step.

Every row has the BOS that its template writes, and never two in a row; an answer that ended ends in an EOS that is
trained; at least one token a row is trained, and none that is context; no id is outside the vocabulary, and none is
padding. A row that breaks a rule stops the run before anything is written. Then the rows of the first step are shown
in colour on the screen, and in first_batch.html, one file that opens anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.text import Text

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
"""how a kind of token looks on the screen; first_batch.jinja has the same names"""
NOTHING = "(says nothing)"
"""stands before the end of an answer that is empty"""
NOTES = {"reward": "; a reward is read at the last token of each row, and nowhere else"}
"""what a stage does otherwise than train on every trained token"""


@dataclass(frozen=True)
class Example:
    """One row of N tokens as it is trained, with what is known of it apart from its marks."""

    ids: list[int]
    trained: list[bool]
    roles: list[str]
    """whose each token is: those of `text.chat.Rendered`; or "context" with "answer" or "text";
    or "sampled", which may be any token that the policy drew"""
    ended: bool | None
    """whether it must end in EOS, or must not; None where that is not known"""
    opened: bool
    """whether it must begin with BOS"""
    bos_inside: bool = False
    """whether the template writes BOS further on too, as ChatML's `<|im_start|>` or Llama 2's `<s>`"""


@dataclass(frozen=True)
class BatchCheck:
    """The first step's rows, all checked, and how many of all the rows known at the start were checked."""

    rows: list[Example]
    checked: int
    what: str
    """what a row is, in the plural"""
    tokenizer: Tokenizer


def check_chunks(rows: Sequence[Row], tokenizer: Tokenizer) -> BatchCheck:
    """Pieces of documents: everything is trained but the first token. A piece that goes on from another has no BOS."""
    examples = [
        Example(ids, trained, ["context"] + ["text"] * (len(ids) - 1), None, opened=ids[:1] == [tokenizer.bos_id])
        for ids, trained in rows
    ]
    return check_rows(examples, range(len(examples)), tokenizer, "pieces of documents")


def check_conversations(
    rows: Sequence[Row], first: Sequence[int], demonstrations: Sequence[Demonstration], tokenizer: Tokenizer
) -> BatchCheck:
    """Conversations, each with its row, with every speaker's tokens by name in the `first` rows; rows end in EOS.

    It is trained, but where the last turn is context only.
    """
    opened, bos_inside = bos_places(tokenizer)
    shown = set(first)
    examples = [
        Example(
            ids,
            trained,
            render(tokenizer, one.messages).roles if place in shown else roles_by_mark(trained),
            ended=True if one.messages[-1].trained else None,
            opened=opened,
            bos_inside=bos_inside,
        )
        for place, ((ids, trained), one) in enumerate(zip(rows, demonstrations, strict=True))
    ]
    return check_rows(examples, first, tokenizer, "conversations")


def check_completions(groups: Sequence[Sequence[Row]], first: Sequence[int], tokenizer: Tokenizer) -> BatchCheck:
    """Prompts with an answer each, a group for each ranking or pair; the `first` groups are those of the first step."""
    opened, bos_inside = bos_places(tokenizer)
    examples = [
        [
            Example(ids, trained, roles_by_mark(trained), ended=None, opened=opened, bos_inside=bos_inside)
            for ids, trained in group
        ]
        for group in groups
    ]
    shown = [row for i in first for row in examples[i]]
    check = check_rows([row for group in examples for row in group], (), tokenizer, "answers")
    return replace(check, rows=shown)


def check_samples(
    prompts: Sequence[list[int]], responses: Sequence[list[int]], ended: Sequence[bool], tokenizer: Tokenizer
) -> BatchCheck:
    """Sampled answers: the prompt is context, the answer is trained. Those that the length limit cut have no EOS."""
    opened, bos_inside = bos_places(tokenizer)
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
    return check_rows(examples, range(len(examples)), tokenizer, "sampled answers")


def bos_places(tokenizer: Tokenizer) -> tuple[bool, bool]:
    """(BOS begins every conversation, BOS is written elsewhere too), by what the template writes around its turns."""
    template = PLAIN_TEMPLATE if tokenizer.chat_template is None else tokenizer.chat_template
    begins, inside = set[bool](), False
    for roles in (("user",), ("system", "user"), ("user", "assistant", "user")):
        try:
            pieces = template_with_slots(template, roles, tokenizer.special_tokens_map, add_generation_prompt=True)
        except InputError:  # a template may refuse some turns, and does so again where a row has them
            continue
        ids = [part for piece in pieces if isinstance(piece, str) for part in tokenizer.split_special_tokens(piece)]
        begins.add(ids[:1] == [tokenizer.bos_id] and isinstance(pieces[0], str))
        inside |= tokenizer.bos_id in ids[1:]
    return begins == {True}, inside or len(begins) > 1


def roles_by_mark(trained: Sequence[bool]) -> list[str]:
    """Roles where only the marks tell them."""
    return ["answer" if mark else "context" for mark in trained]


def check_rows(examples: Sequence[Example], first: Sequence[int], tokenizer: Tokenizer, what: str) -> BatchCheck:
    """The first step's rows, once every row has been checked. InputError for the first that breaks a rule."""
    for number, row in enumerate(examples, start=1):
        wrong = problem(row, tokenizer)
        if wrong is not None:
            raise InputError(
                f"row {number} of the {what} can't be trained on: {wrong}",
                how="the tokenizer or its chat template does not write what training needs: see that it opens a "
                "conversation with BOS, if at all, and closes the assistant's turn with EOS",
            )
    return BatchCheck([examples[i] for i in first], len(examples), what, tokenizer)


def problem(row: Example, tokenizer: Tokenizer) -> str | None:
    """What is wrong with a row, and at which token; None where all is well."""
    ids = row.ids
    if not len(ids) == len(row.trained) == len(row.roles):
        return f"it has {len(ids)} tokens, {len(row.trained)} marks and {len(row.roles)} roles"
    outside = [place for place, token in enumerate(ids) if not 0 <= token < tokenizer.vocab_size]
    if outside:
        return f"token {outside[0]} has id {ids[outside[0]]}, and the vocabulary ends at {tokenizer.vocab_size - 1}"
    given = [place for place, role in enumerate(row.roles) if role != "sampled"]
    padding = [place for place in given if is_padding(ids[place], tokenizer)]
    if padding:
        return f"token {padding[0]} is padding ({told(ids[padding[0]], tokenizer)}), and rows have none"
    return problem_at_ends(row, tokenizer) or problem_of_mask(row, tokenizer.end_of_turn_id, tokenizer)


def is_padding(token: int, tokenizer: Tokenizer) -> bool:
    """Whether an id can be nothing but padding: many published tokenizers pad with a token that has another use."""
    other_uses = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.end_of_turn_id)
    return token == tokenizer.pad_id and token in tokenizer.special_ids and token not in other_uses


def problem_at_ends(row: Example, tokenizer: Tokenizer) -> str | None:
    """BOS where the template writes it; a trained EOS last where the row ended, and none where it did not."""
    ids = row.ids
    if row.opened and ids[:1] != [tokenizer.bos_id]:
        return f"token 0 is {told(ids[0], tokenizer)} and not BOS" if ids else "it is empty"
    surplus = surplus_bos(row, tokenizer)
    if surplus is not None:
        return f"token {surplus} is {'another' if row.opened else 'a'} BOS ({told(ids[surplus], tokenizer)})"
    ends = tokenizer.stop_ids if row.roles[-1:] == ["sampled"] else (tokenizer.end_of_turn_id,)
    if row.ended and (ids[-1] not in ends or not row.trained[-1]):
        last = "EOS, which is not trained" if ids[-1] in ends else f"{told(ids[-1], tokenizer)} and not EOS"
        return f"its last token, {len(ids) - 1}, is {last}: the model would not learn to stop"
    if row.ended is False and row.trained[-1] and ids[-1] in ends:
        return f"token {len(ids) - 1} is a trained EOS, and the answer did not end"
    return None


def surplus_bos(row: Example, tokenizer: Tokenizer) -> int | None:
    """The place of the first BOS that no template writes: a second one in a row, or any inside where it has none."""
    bos = tokenizer.bos_id
    places = [place for place, token in enumerate(row.ids) if token == bos and row.roles[place] != "sampled"]
    if bos in (
        tokenizer.eos_id,
        tokenizer.end_of_turn_id,
    ):  # it ends turns as well: only a second one at the front is surely no end
        return 1 if row.opened and places[:2] == [0, 1] and not row.trained[1] else None
    if not row.bos_inside:
        return next(iter(places[row.opened :]), None)
    return next((place for before, place in itertools.pairwise(places) if place == before + 1), None)


def problem_of_mask(row: Example, eos: int, tokenizer: Tokenizer) -> str | None:
    """Something is trained; nothing that is context; and all of the answer."""
    if not any(row.trained):
        return "none of its tokens is trained"
    if row.trained[0]:
        return "token 0 is trained, and nothing comes before it"
    for place, (token, trained, role) in enumerate(zip(row.ids, row.trained, row.roles)):
        mine = role in ("assistant", "answer", "text", "sampled")
        if trained and not mine and not (role == "template" and token == eos):
            return f"token {place}, {told(token, tokenizer)}, is trained and belongs to the {role}"
        if mine and not trained:
            return f"token {place}, {told(token, tokenizer)}, belongs to the {role} and is not trained"
        if trained and token != eos and token in tokenizer.special_ids and role == "assistant":
            return f"token {place}, {told(token, tokenizer)}, is a special token inside what the assistant says"
    return None


def told(token: int, tokenizer: Tokenizer) -> str:
    return f"{tokenizer.decode([token], skip_special_tokens=False)!r} (id {token})"


def show(run: Run, check: BatchCheck, inspect: bool = False) -> bool:
    """Print the first rows and save all of them as first_batch.html; nothing of a run that goes on after a stop.

    True where the run was asked to stop here. Its folder then is as that of a run killed before its first step.
    """
    if checkpoint.steps(run.out) and not inspect:
        return False
    write_text(run.out / FILE, page(check, run.stage, run.rejected.left_out))
    for number, row in enumerate(check.rows[:ON_SCREEN], start=1):
        run.log.console.print(Text(f"row {number}  ", style="bold") + shortened(row, check.tokenizer))
    run.log.info(f"first batch: {summary(check, run.stage, run.rejected.left_out)}; all of it in {run.out / FILE}")
    if not inspect:
        return False
    run.config = replace(run.config, inspect_batch=False)  # what it leaves behind are the options of the real run
    write_text(run.out / "config.yaml", run.yaml())
    run.log.info("nothing was trained; the same command without --inspect-batch trains")
    return True


def token_classes(row: Example, tokenizer: Tokenizer) -> list[str]:
    """Of each token one of STYLES: a trained EOS is "eos", another one "end"."""
    return [
        "pad"
        if is_padding(token, tokenizer)
        else ("eos" if trained else "end")
        if token in (tokenizer.eos_id, *tokenizer.stop_ids)
        else ("trained" if trained else "context")
        for token, trained in zip(row.ids, row.trained)
    ]


def empty_answers(token_classes: Sequence[str]) -> list[bool]:
    """Of each token, whether it is the trained end of an answer that says nothing."""
    return [kind == "eos" and before != "trained" for before, kind in zip(["", *token_classes], token_classes)]


def shortened(row: Example, tokenizer: Tokenizer) -> Text:
    """A row in a few lines of colour: its beginning and its end, where it is long."""
    shown = token_classes(row, tokenizer)
    parts = [
        (
            (NOTHING if empty else "") + tokenizer.decode([token], skip_special_tokens=False).replace("\n", "↵"),
            STYLES[kind],
        )
        for token, kind, empty in zip(row.ids, shown, empty_answers(shown))
    ]
    room = ON_SCREEN_CHARACTERS
    if sum(len(text) for text, _ in parts) > room:
        parts = [*within(parts, room // 2), (" … ", "bold"), *within(parts[::-1], room // 2)[::-1]]
    return Text.assemble(*parts)


def within(parts: Sequence[tuple[str, str]], room: int) -> list[tuple[str, str]]:
    """The first parts of at most `room` characters together."""
    kept, used = list[tuple[str, str]](), 0
    for text, style in parts:
        used += len(text)
        if used > room:
            break
        kept.append((text, style))
    return kept


def summary(check: BatchCheck, stage: str, left_out: Sequence[LeftOut] = ()) -> str:
    """Rows, tokens, the share that is trained, what was left out as too long, and what the stage makes of its rows."""
    tokens = sum(len(row.ids) for row in check.rows)
    trained = sum(sum(row.trained) for row in check.rows)
    counts = f"{len(check.rows)} {check.what}, {tokens:,} tokens, {trained / max(tokens, 1):.1%} trained, no padding"
    return "; ".join([counts, *map(str, left_out)]) + NOTES.get(stage, "")


def page(check: BatchCheck, stage: str, left_out: Sequence[LeftOut] = ()) -> str:
    """first_batch.html: every token with its id and role, a legend, the counts."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    rows = [
        [
            (check.tokenizer.decode([token], skip_special_tokens=False), token, role, kind, empty)
            for token, role, kind, empty in zip(row.ids, row.roles, shown, empty_answers(shown))
        ]
        for row in check.rows[:IN_FILE]
        for shown in [token_classes(row, check.tokenizer)]
    ]
    template = environment.get_template("first_batch.jinja")
    return template.render(
        nothing=NOTHING, stage=stage, rows=rows, total=len(check.rows), summary=summary(check, stage, left_out)
    )
