"""Closed-domain hallucination, with SQuAD's columns (Rajpurkar et al., 2016, 2018): answers against their passage.

grounded     no claim of the answer lacks support in the passage, by names, numbers and words (evaluation/grounding)
right        a reference answer stands in it, as words in a row; of questions that the passage answers
abstains     it says that it does not know: `abstains_rightly` of questions that the passage does not answer,
             `abstains_wrongly` of the others
overlap      share of the answer's words, without those of the question, that stand in the passage
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amenable.evaluation.content import precision, words_of
from amenable.evaluation.declining import is_admission
from amenable.evaluation.grounding import unsupported_claims
from amenable.evaluation.stability import mentions
from amenable.evaluation.tasks.form import Columns, Examinee, Form, Metrics, measured_rows, text
from amenable.evaluation.tasks.generated import PromptRow, reply
from amenable.evaluation.tasks.verdicts import clear, verdicts

QUESTION = """\
[The passage]
{passage}

[The question]
{question}

[The answer]
{answer}

Does every claim of the answer follow from the passage alone? An answer that says that the passage does not tell claims
nothing."""


def closed_domain(columns: Columns) -> list[PromptRow]:
    """Convert a question about a passage, `context`. `answers` is a list of right answers, or SQuAD's {text: [...]},
    empty where the passage has none; `prompt` is the whole prompt, by default the question after the passage."""
    passage, question = text(columns, "context", "question")
    answers = columns["answers"]
    right = list(answers["text"] if isinstance(answers, Mapping) else answers)
    if not all(isinstance(answer, str) and answer.strip() for answer in right):
        raise ValueError("answers are texts")
    prompt = columns["prompt"] if columns.get("prompt") is not None else f"{passage}\n\n{question}"
    if not isinstance(prompt, str):
        raise ValueError("prompt must be text")
    fields = {"passage": passage, "question": question, "answers": right}
    return [PromptRow(prompt, right[0] if right else "", is_turn=True, fields=fields)]


def measure(examinee: Examinee, rows: Sequence[PromptRow]) -> Metrics:
    """Return the share of answers whose claims all stand in the passage, and of those that are right or abstain."""
    answers = [group[0] for group in reply(examinee, [row.messages for row in rows])]
    given = [(answer, row.fields["passage"], row.fields["question"]) for answer, row in zip(answers, rows)]
    claims = [unsupported_claims(*each) for each in given]
    answerable = [bool(row.fields["answers"]) for row in rows]
    admits = [is_admission(answer) for answer in answers]
    questions = [QUESTION.format(answer=answer, passage=a, question=b) for answer, a, b in given]
    judged = verdicts(examinee.judge, questions)
    measures: dict[str, Sequence[float | None]] = {
        "grounded": [not own for own in claims],
        "right": [
            any(mentions(answer, right) for right in row.fields["answers"]) if row.fields["answers"] else None
            for answer, row in zip(answers, rows)
        ],
        "abstains_rightly": [None if known else own for own, known in zip(admits, answerable)],
        "abstains_wrongly": [own if known else None for own, known in zip(admits, answerable)],
        "overlap": [
            None if own else precision(words_of(answer), question, passage)
            for own, (answer, passage, question) in zip(admits, given)
        ],
        "grounded_by_judge": judged,
        "judged": clear(examinee.judge, judged),
    }
    examples = [
        {"prompt": row.context, "answers": [answer], "note": note(row), "remark": remark(own)}
        for row, answer, own in zip(rows, answers, claims)
    ]
    return measured_rows("grounded", measures, examples)


def note(row: PromptRow) -> str:
    """Return the right answer as a line."""
    return f"right: {row.answer}" if row.answer else "the passage does not say it"


def remark(claims: Sequence[str]) -> str:
    """Return the claims that the passage does not support as a line; empty without any."""
    return f"not in the passage: {' '.join(claims)}" if claims else ""


FORMS = (Form("closed-domain", ("context", "question", "answers"), closed_domain, measure, generates=True),)
