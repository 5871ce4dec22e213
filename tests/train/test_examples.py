"""What a step is fed is decided by seed and step, and by nothing else."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from amenable.data import sources
from amenable.data.types import Message, Ranking, Text
from amenable.errors import InputError
from amenable.text.chat import render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import examples

ASKED = (Message("user", "Ann asks: name a red thing."),)


def ranking(*completions: str, **meta: object) -> Ranking:
    return Ranking(ASKED, completions, tuple(range(1, len(completions) + 1)), meta=meta)


def test_prompts_that_fit_are_kept_with_their_ids(files: Any, words: Tokenizer, tmp_path: Path) -> None:
    prompts, ids = examples.fitting_prompts(files.prompts, words, room=64)
    assert len(prompts) == len(ids) == 32
    assert ids[3] == render_prompt(words, prompts[3].messages)
    middle = sorted(map(len, ids))[16]
    stored, short = examples.fitting_prompts(files.prompts, words, room=middle)
    assert {len(prompt) <= middle for prompt in short} == {True}
    assert [prompt.id for prompt in stored] == [p.id for p, i in zip(prompts, ids) if len(i) <= middle]
    assert len(examples.fitting_prompts(files.prompts, words, room=64, limit=5)[0]) == 5


def test_an_id_of_two_sources_gets_the_name_of_its_source(files: Any, words: Tokenizer, tmp_path: Path) -> None:
    rows = files.prompts.read_text("utf-8").splitlines(keepends=True)
    paths = [tmp_path / name / "train.jsonl" for name in ("easy", "hard")]
    for path, part in zip(paths, (rows[:3], rows[3:5])):
        path.parent.mkdir()
        path.write_text("".join(part), "utf-8")
    prompts, ids = examples.fitting_prompts(paths, words, room=64, limit=2)
    assert prompts.names == ["easy/train", "hard/train"] and prompts.sizes == ids.sizes == [2, 2]
    assert [prompt.id for prompt in prompts] == [
        f"{name}/train:train.jsonl:{line}" for name in ("easy", "hard") for line in (1, 2)
    ]
    three = examples.read_prompts(paths)
    assert [prompt.id for prompt in three][2] == "train.jsonl:3", "an id of one source stays as it is"
    alone = examples.read_prompts(paths[1])
    assert [prompt.id for prompt in alone] == ["train.jsonl:1", "train.jsonl:2"]
    room = max(map(len, ids))
    paths[1].write_text("".join(row.replace("name a", "name a very, very, very") for row in rows[3:5]), "utf-8")
    with pytest.raises(InputError, match=rf"^{paths[1]}: none of the 2 prompts is within {room} tokens"):
        examples.fitting_prompts(paths, words, room)


@pytest.mark.parametrize("room", [3, 0, -20])
def test_no_fitting_prompt_is_an_error(files: Any, words: Tokenizer, room: int) -> None:
    with pytest.raises(InputError, match=f"none of the 32 prompts is within {room} tokens; lower"):
        examples.fitting_prompts(files.prompts, words, room)


def test_documents_become_pieces_with_bos_and_eos(words: Tokenizer) -> None:
    texts = [Text("The rose is red."), Text("The sea is blue. " * 8)]
    pieces = examples.chunk_texts(texts, words, context=16)
    assert max(map(len, pieces)) <= 16
    assert pieces[0] == [words.bos_id, *words.encode("The rose is red."), words.eos_id]
    # a piece begins with the last token of the one before it: undone, the document is whole again
    rest = pieces[1] + [token for piece in pieces[2:] for token in piece[1:]]
    assert all(a[-1] == b[0] for a, b in pairwise(pieces[1:]))
    assert rest == [words.bos_id, *words.encode(texts[1].text), words.eos_id]


def test_whole_trains_all_but_the_first() -> None:
    assert examples.text_row([7, 8, 9]) == ([7, 8, 9], [False, True, True])


def test_raw_rows_fill_the_wish_and_follow_seed_step_and_update() -> None:
    pieces = [[i] * (3 + i % 4) for i in range(40)]
    rows = examples.raw_rows(pieces, 50, 0, 1, 0)
    sizes = [len(ids) for ids, _ in rows]
    assert sum(sizes) >= 50 > sum(sizes[:-1])
    assert max(Counter(ids[0] for ids, _ in rows).values()) == 1
    assert rows == examples.raw_rows(pieces, 50, 0, 1, 0)
    others = [examples.raw_rows(pieces, 50, *change) for change in ((1, 1, 0), (0, 2, 0), (0, 1, 1))]
    assert all(rows != other for other in others)
    assert len(examples.raw_rows(pieces, 10**6, 0, 1, 0)) == 40  # there is no more


def test_raw_rows_are_drawn_without_shuffling_all_text() -> None:
    class Pieces(list):
        def __len__(self) -> int:
            return 10**12

        def __getitem__(self, place: Any) -> list[int]:
            return [place % 7] * 10

    rows = examples.raw_rows(Pieces(), 95, 0, 1, 0)
    assert [len(ids) for ids, _ in rows] == [10] * 10


def test_an_answer_is_trained_and_its_end_with_it(words: Tokenizer) -> None:
    rows = examples.ranking_rows(ranking("a rose", "a brick"), words, 64)
    assert rows is not None
    prompt = render_prompt(words, ASKED)
    for (ids, trained), text in zip(rows, ("a rose", "a brick")):
        assert ids == prompt + render_completion(words, text)
        assert ids[-1] == words.eos_id
        assert trained == [i >= len(prompt) for i in range(len(ids))]


def test_an_answer_that_was_cut_has_no_end(words: Tokenizer) -> None:
    rows = examples.ranking_rows(ranking("a rose", "a brick", ended=[True, False]), words, 64)
    assert rows is not None
    assert [ids[-1] == words.eos_id for ids, _ in rows] == [True, False]


@pytest.mark.parametrize("ended", [True, [True], "yes", [True] * 3])
def test_a_column_of_that_name_that_says_something_else_is_no_news(words: Tokenizer, ended: object) -> None:
    rows = examples.ranking_rows(ranking("a rose", "a brick", ended=ended), words, 64)
    assert rows == examples.ranking_rows(ranking("a rose", "a brick"), words, 64)


def test_what_is_longer_than_the_context_is_left_out_whole(words: Tokenizer) -> None:
    longest = len(render_prompt(words, ASKED)) + len(render_completion(words, "a rose and a brick"))
    both = ranking("a rose", "a rose and a brick")
    assert examples.ranking_rows(both, words, longest - 1) is None
    assert examples.ranking_rows(both, words, longest) == examples.ranking_rows(both, words, 64) is not None


def test_an_empty_answer_is_its_end_alone(words: Tokenizer) -> None:
    prompt = render_prompt(words, ASKED)
    for ended in ([True, True], [False, True]):
        rows = examples.ranking_rows(ranking("", "a brick", ended=ended), words, 64)
        assert rows is not None
        assert rows[0] == ([*prompt, words.eos_id], [False] * len(prompt) + [True]), "nothing said is said to its end"


def loaded(good: int, bad: int) -> sources.Loaded[int]:
    rejected = [sources.Rejected("rows.jsonl", line, "the answer is empty") for line in range(1, bad + 1)]
    return sources.Loaded(list(range(good)), rejected, ("rows.jsonl",))


@pytest.mark.parametrize(
    ("max_bad_rows", "good", "bad"), [(0.01, 99, 1), (0.01, 3, 0), (0.0, 3, 0), (0.29, 71, 29), (1.0, 1, 99)]
)
def test_filter_returns_good_rows_and_keeps_the_bad_ones(max_bad_rows: float, good: int, bad: int) -> None:
    rejected = examples.RejectedRows(max_bad_rows)
    assert rejected.filter(loaded(good, bad)) == list(range(good))
    assert [row.line for row in rejected.rows] == list(range(1, bad + 1))


@pytest.mark.parametrize(
    ("max_bad_rows", "good", "bad"), [(0.01, 98, 1), (0.0, 10**4, 1), (0.29, 70, 29), (0.99, 0, 1)]
)
def test_more_bad_rows_than_the_limit_are_an_error(max_bad_rows: float, good: int, bad: int) -> None:
    rejected = examples.RejectedRows(max_bad_rows)
    with pytest.raises(InputError, match=f"the answer is empty; {bad} of {good + bad} rows") as caught:
        rejected.filter(loaded(good, bad))
    assert caught.value.where == "rows.jsonl:1" and "--max-bad-rows" in str(caught.value.how)
    assert rejected.rows == []


def test_a_row_that_was_read_twice_is_listed_once() -> None:
    rejected = examples.RejectedRows()
    for _ in range(2):
        rejected.filter(loaded(1, 2))
    rows = [json.loads(line) for line in rejected.to_jsonl().splitlines()]
    assert rows == [{"file": "rows.jsonl", "line": line, "reason": "the answer is empty"} for line in (1, 2)]
    assert examples.RejectedRows().to_jsonl() == ""


def test_rejected_rows_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "good"}\n{"txt": "bad"}\n')
    assert [text.text for text in examples.keep_usable(sources.read_texts(file))] == ["good"]
    report = capsys.readouterr().err
    assert "1 rejected" in report and f"{file}" in report and "2" in report
    file.write_text('{"text": "good"}\n')
    examples.keep_usable(sources.read_texts(file))
    assert capsys.readouterr().err == ""


def test_what_was_left_out_is_told_and_warned_of_where_it_is_much(capsys: pytest.CaptureFixture) -> None:
    rejected = examples.RejectedRows(0.0)
    for count, line in (
        (0, ""),
        (5, "data  train: 5 of 100 rankings left out: longer than 64 tokens\n"),
        (6, "data  warning: train: 6 of 100 rankings left out: longer than 64 tokens\n"),
    ):
        rows = [None] * count + list(range(count, 100))
        assert (
            examples.keep_fitting("train", list(range(100)), rows, "rankings", 64, rejected, Path("x"))[0]
            == rows[count:]
        )
        assert capsys.readouterr().err == line
    assert [left.count for left in rejected.left_out] == [5, 6] and rejected.rows == [], "they are no bad rows"


def test_only_a_required_split_must_have_something_left(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(InputError, match=r"x.jsonl: none of the 2 rankings is within 64 tokens; shorten"):
        examples.keep_fitting("train", [1, 2], [None, None], "rankings", 64, required=Path("x.jsonl"))
    assert examples.keep_fitting("validation", [1, 2], [None, None], "rankings", 64) == ([], [])
    reply = capsys.readouterr().err
    assert "validation: 2 of 2 rankings left out" in reply and "validation: nothing is left to validate on" in reply
    assert examples.keep_fitting("validation", [], [], "rankings", 64) == ([], []) and capsys.readouterr().err == ""


def test_held_out_prompts_may_all_be_too_long(files: Any, words: Tokenizer, capsys: pytest.CaptureFixture) -> None:
    assert [*map(list, examples.fitting_prompts(files.prompts, words, 3, split="validation", required=False))] == [
        [],
        [],
    ]
    assert "nothing is left to validate on" in capsys.readouterr().err


def test_the_columns_of_what_a_run_reads_are_told(files: Any, capsys: pytest.CaptureFixture) -> None:
    examples.keep_usable(sources.read_rankings(files.pairs), examples.RejectedRows())
    assert capsys.readouterr().err == "data  pairs.jsonl: 96 rankings; columns prompt, chosen, rejected, id used\n"
