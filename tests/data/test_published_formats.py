"""A row of each published format, written anew, and what every command makes of it."""

import json
from pathlib import Path

import pytest

from amenable.data import columns, published_formats
from amenable.data.record import InvalidRow, LeftOutRow, Record
from amenable.data.sources import read_demonstrations, read_prompts, read_rankings

ASK, TOLAN, NOBODY = "Who keeps the ferry?", "Tolan keeps it.", "Nobody does."
U, A = {"role": "user", "content": ASK}, {"role": "assistant", "content": TOLAN}
B = {"role": "assistant", "content": NOBODY}


def rating(score: int) -> dict:
    names = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    return {name: {"Rating": str(score), "Rationale": "It says so."} for name in names}


def completion(text: str, score: float, **more) -> dict:
    principle = {"principle": "helpfulness", "custom_system_prompt": "Be helpful."}
    return {
        "model": "north",
        "response": text,
        "annotations": rating(round(score)),
        "critique": "Fine.",
        **principle,
    } | more


ARENA = {
    "question_id": "q1", "model_a": "north", "model_b": "south", "winner": "model_a", "judge": "arena_user_7",
    "conversation_a": [U, A], "conversation_b": [U, B], "turn": 1, "anony": True, "language": "English", "tstamp": 1.5,
}  # fmt: skip
HELPSTEER = {"prompt": ASK, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}
POST = {"id": "t3_1", "post": "I keep a ferry.", "title": "Ferry", "subreddit": "boats", "site": None, "article": None}
ROWS = {
    "OpenAI's preferences": {
        "input": {"messages": [U], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [A],
        "non_preferred_output": [B],
    },
    "SHP": {
        "post_id": "p", "domain": "askboats_train", "upvote_ratio": 0.9, "history": ASK, "human_ref_A": NOBODY,
        "human_ref_B": TOLAN, "labels": 0, "score_A": 3, "score_B": 9, "seconds_difference": 10.0, "score_ratio": 3.0,
    },
    "UltraFeedback": {
        "source": "evol_instruct", "instruction": ASK, "models": ["north", "south"], "correct_answers": [],
        "completions": [completion(TOLAN, 4, overall_score=7.5), completion(NOBODY, 5, overall_score=6.0)],
        "incorrect_answers": [],
    },
    "HelpSteer2-Preference": {
        "split": "train", "prompt": ASK, "response_1": TOLAN, "response_2": NOBODY, "preference_strength": -2,
        "preference_statement": "The first is right.", "preference_elaboration": "It names him.",
    },
    "HelpSteer3": {
        "domain": "general", "language": "english", "context": [U], "response1": NOBODY, "response2": TOLAN,
        "overall_preference": 3, "individual_preference": [{"score": 3, "reasoning": "x"}],
    },
    "summarize-from-feedback": {
        "info": POST, "summaries": [{"text": f" {NOBODY}", "policy": "sup2", "note": None},
        {"text": f" {TOLAN}", "policy": "ref", "note": None}], "choice": 1, "worker": "w7", "batch": "batch9",
        "split": "train", "extra": {"confidence": 7},
    },
    "Nectar": {
        "prompt": f"\n\nHuman: {ASK}\n\nAssistant: ", "source": ["lmsys-chat-1m"], "turns": 1, "num_responses": 2,
        "good_natured": True, "answers": [
            {"answer": TOLAN, "model": "north", "rank": 1.0}, {"answer": NOBODY, "model": "south", "rank": 2.0},
        ],
    },
    "WebGPT": {
        "question": {"dataset": "eli5", "id": "9", "full_text": ASK}, "answer_0": NOBODY, "answer_1": TOLAN,
        "score_0": -0.5, "score_1": 0.5, "tokens_0": {"prefix": [1], "completion": [2]},
    },
    "Stack Exchange": {"qid": 3, "question": ASK, "date": "2020/01/01", "response_j": TOLAN, "response_k": NOBODY},
    "LLMBar": {"input": ASK, "output_1": NOBODY, "output_2": TOLAN, "label": 2},
    "a comparison of two models": ARENA,
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_every_format_is_a_ranking_a_prompt_and_no_demonstration(tmp_path: Path, jsonl, name: str) -> None:
    file = jsonl(tmp_path / "rows.jsonl", ROWS[name])
    (ranking,) = read_rankings(file).rows
    ordered = sorted(zip(ranking.ranks, ranking.completions))
    assert [text for _, text in ordered] == [TOLAN, NOBODY] and set(ranking.ranks) == {1.0, 2.0}
    expected = ASK if name != "summarize-from-feedback" else published_formats.TLDR.format(**POST)
    assert [(m.role, m.content) for m in ranking.prompt] == [("user", expected)]
    assert read_prompts(file).rows[0].messages == ranking.prompt
    with pytest.raises(ValueError, match="a preference, not a demonstration"):
        read_demonstrations(file)


@pytest.mark.parametrize("name", ROWS)
def test_every_column_of_a_format_is_used_or_named(name: str) -> None:
    record = Record(ROWS[name])
    columns.ranking(record, "f:1")
    roots = {path.split(".")[0] for path in (*record.used_sources(), *record.unused())}
    assert roots == {column for column, value in record.row.items() if value not in ([], None)}
    prompted = Record(ROWS[name])
    columns.prompt(prompted, "f:1")
    assert prompted.used_sources() <= record.used_sources()
    assert {path.split(".")[0] for path in (*prompted.used_sources(), *prompted.unused())} == roots


def test_columns_inside_objects_are_named_apart() -> None:
    record = Record(ROWS["UltraFeedback"])
    columns.ranking(record, "f:1")
    assert record.used_sources() == {"instruction", "completions.response", "completions.overall_score"}
    assert {"completions.annotations", "completions.critique", "models", "source"} <= set(record.unused())
    record = Record(ROWS["summarize-from-feedback"])
    assert columns.ranking(record, "f:1").annotator == "w7"
    assert {"info.id", "summaries.policy", "extra", "batch"} <= set(record.unused())


def test_strengths_of_preference_are_margins_and_score_gaps_are_not() -> None:
    margins = {name: columns.ranking(row, "f:1").margin for name, row in ROWS.items()}
    assert {name: margin for name, margin in margins.items() if margin is not None} == {
        "HelpSteer2-Preference": 2.0,
        "HelpSteer3": 3.0,
    }
    binarized = {"prompt": ASK, "chosen": [U, A], "rejected": [U, B], "score_chosen": 8.0, "score_rejected": 3.0}
    record = Record({**binarized, "prompt_id": "7", "messages": [U, A]})
    assert columns.ranking(record, "f:1").margin is None
    assert record.unused() == ["score_chosen", "score_rejected", "prompt_id"]


def test_ties_are_left_out_and_counted_and_are_no_bad_rows(tmp_path: Path, jsonl) -> None:
    rows = [
        ARENA,
        *({**ARENA, "question_id": f"t{i}", "winner": tie} for i, tie in enumerate(("tie", "tie (bothbad)"))),
    ]
    loaded = read_rankings(jsonl(tmp_path / "arena.jsonl", *rows))
    assert len(loaded.rows) == 1 and loaded.rejected == [] and [row.line for row in loaded.left_out] == [2, 3]
    assert loaded.plan()[0].endswith("; left out: 2 (all completions are tied)")
    assert loaded.rows[0].id == "q1" and loaded.rows[0].annotator == "arena_user_7"
    for name, row in (
        ("SHP", {"labels": 2}),
        ("LLMBar", {"label": 0}),
        ("HelpSteer2-Preference", {"preference_strength": 0}),
        ("WebGPT", {"score_0": 0.5}),
    ):
        with pytest.raises(
            InvalidRow if name in ("SHP", "LLMBar") else LeftOutRow,
            match={"SHP": "labels is 2", "LLMBar": "label is 0; known are 1"}.get(name, "tied"),
        ):
            columns.ranking({**ROWS[name], **row}, "f:1")


def test_rows_of_a_prompt_of_helpsteer_are_ranked_together(tmp_path: Path, jsonl) -> None:
    scored = [(TOLAN, 4), (NOBODY, 1), ("Otto?", 1)]
    rows = [{**HELPSTEER, "response": text, "helpfulness": score} for text, score in scored]
    other = {**HELPSTEER, "prompt": "And when?", "response": "At noon.", "helpfulness": 2}
    file = jsonl(tmp_path / "a.jsonl", *rows, other)
    loaded = read_rankings(file)
    (ranking,) = loaded.rows
    assert ranking.completions == (TOLAN, NOBODY, "Otto?") and ranking.ranks == (1.0, 2.0, 2.0)
    assert ranking.id == "a.jsonl:1" and [(row.line, row.reason) for row in loaded.rejected] == [
        (4, "completions is not a list of two or more")
    ]
    assert "columns prompt, response, helpfulness used; not used: correctness" in loaded.plan()[0]
    assert len(read_demonstrations(file).rows) == 4 and len(read_prompts(file).rows) == 4
    turns = f"Hi\n<extra_id_1>Assistant\nHello\n<extra_id_1>User\n{ASK}"
    messages = columns.demonstration({**rows[0], "prompt": turns}, "f:1").messages
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant"] and messages[
        2
    ].content == ASK


def test_rows_of_a_prompt_with_scores_are_ranked_together(tmp_path: Path, jsonl) -> None:
    votes = [("Who?", TOLAN, 12), ("Who?", NOBODY, -1), ("Who?", "Ann.", 12), ("Why?", "So.", 3)]
    rows = [{"prompt": prompt, "completion": text, "score": score} for prompt, text, score in votes]
    loaded = read_rankings(jsonl(tmp_path / "votes.jsonl", rows))
    (ranking,) = loaded.rows
    assert ranking.completions == (TOLAN, NOBODY, "Ann.") and ranking.ranks == (1.0, 3.0, 1.0)
    assert loaded.rejected == [] and "left out: 1 (the prompt has one completion" in loaded.plan()[0]
    assert len(read_demonstrations(tmp_path / "votes.jsonl").rows) == 4
    lists = [{"prompt": "Who?", "completions": [TOLAN, NOBODY], "scores": scores} for scores in ([1, 2], [1])]
    loaded = read_rankings(jsonl(tmp_path / "lists.jsonl", lists))
    assert loaded.rows[0].ranks == (2.0, 1.0) and "takes a list of numbers" in loaded.rejected[0].reason


def test_scored_summaries_of_a_post_are_ranked_by_worker(tmp_path: Path, jsonl) -> None:
    def row(text: str, overall: int, worker: str = "w1") -> dict:
        axes = {"overall": overall, "accuracy": 7, "coverage": 3, "coherence": 7}
        return {"info": POST, "summary": {"text": text, "policy": "x", "note": None, "axes": axes}, "worker": worker}

    rows = [row(" long", 3), row(" short", 6), row(" other", 2, "w2")]
    loaded = read_rankings(jsonl(tmp_path / "axis.jsonl", *rows))
    (ranking,) = loaded.rows
    assert ranking.completions == ("long", "short") and ranking.ranks == (2.0, 1.0) and ranking.annotator == "w1"
    assert [row.line for row in loaded.rejected] == [3]
    news = {**rows[0], "info": {"id": "n", "article": "A ferry sank.", "title": "x", "post": None}}
    assert read_prompts(jsonl(tmp_path / "news.jsonl", news)).rows[0].messages[0].content == (
        "Article:\nA ferry sank.\n\nTL;DR:\n"
    )


def test_ultrafeedback_without_overall_scores_is_ranked_by_its_ratings() -> None:
    entries = [completion(TOLAN, 4), completion(NOBODY, 5)]
    row = {"instruction": ASK, "completions": entries}
    assert columns.ranking(row, "f:1").ranks == (2.0, 1.0)
    finer = [{**entry, "fine-grained_score": score} for entry, score in zip(entries, (4.5, 2.0))]
    assert columns.ranking({**row, "completions": finer}, "f:1").ranks == (1.0, 2.0)
    entries[0]["annotations"] = {"helpfulness": {"Rating": "N/A"}}
    with pytest.raises(InvalidRow, match="annotations with a Rating"):
        columns.ranking(row, "f:1")


def test_a_row_that_fits_two_formats_is_refused_with_a_mapping() -> None:
    for more in (ROWS["WebGPT"], {"chosen": "x", "rejected": "y"}, {"completions": ["x", "y"], "ranking": [1, 2]}):
        with pytest.raises(InvalidRow, match=r"the columns fit SHP and .*--columns prompt="):
            columns.ranking({**ROWS["SHP"], **more}, "f:1")


def test_tags_of_llama_factory_are_labels(tmp_path: Path, jsonl) -> None:
    talk = [{"from": "human", "value": ASK}, {"from": "gpt", "value": TOLAN}]
    row = {"conversations": talk, "kto_tag": True}
    assert len(read_demonstrations(jsonl(tmp_path / "a.jsonl", row)).rows) == 1
    alpaca = {"instruction": ASK, "output": NOBODY, "kto_tag": False}
    loaded = read_demonstrations(jsonl(tmp_path / "b.jsonl", {**row, "kto_tag": False}, alpaca, row))
    assert len(loaded.rows) == 1 and loaded.plan()[0].endswith("left out: 2 (labelled as unwanted)")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("OpenAI's preferences", {"input": {"prompt": "x"}}, "input has no messages"),
        ("SHP", {"labels": "B"}, "labels is 'B', not a number"),
        ("summarize-from-feedback", {"choice": 2}, "it takes two of them, and 0 or 1"),
        ("summarize-from-feedback", {"info": {"title": "x"}}, "info has no subreddit and no post"),
        ("Nectar", {"answers": [{"answer": "a", "rank": "first"}] * 2}, "a rank is 'first'"),
        ("a comparison of two models", {"winner": "west"}, "the winner is 'west'"),
        ("a comparison of two models", {"conversation_b": [B]}, "differ before the last answers"),
    ],
)
def test_rows_of_a_format_that_cannot_be_used_say_why(name: str, change: dict, reason: str) -> None:
    with pytest.raises(InvalidRow, match=reason):
        columns.ranking({**ROWS[name], **change}, "f:1")


def test_every_format_has_a_row_here() -> None:
    own = {"HelpSteer", "summarize-from-feedback, axis", "Llama-Factory's KTO"}
    own |= {"scored completions", "completions with a score"}
    assert {format.name for format in published_formats.FORMATS} == set(ROWS) | own
    assert all(json.dumps(row) for row in ROWS.values())
