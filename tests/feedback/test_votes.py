import json

import pytest

from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.feedback.ratings import Comparison
from amenable.feedback.store import Store, payload_of
from amenable.feedback.votes import comparisons, from_ranking, model_columns, models_of, read_comparisons


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "labels.db") as store:
        yield store


def vote(store, left, right, choice, by="Ann", sha="1"):
    turns = [{"user": "x", "left": "four", "right": "five5"}, {"user": "y", "left": "", "right": "!"}]
    origins = {
        side: {"folder": f"runs/demo/{name}", "sha256": f"{name} {sha}"}
        for side, name in (("left", left), ("right", right))
    }
    payload = {
        "annotator": by,
        "models": {"left": left, "right": right},
        "origins": origins,
        "vote": choice,
        "turns": turns,
    }
    return store.append("vote", payload, 1.0)


def ranking(completions, ranks, models=None, annotator="judge"):
    return Ranking((Message("user", "x"),), tuple(completions), tuple(ranks), "r", annotator, {"models": models})


def labelled(store, ranks, folders, **about):
    """As the labelling page keeps a ranking: what each answer was sampled from is among its sources."""
    payload = {**payload_of(ranking([f"answer {i}" for i in range(len(ranks))], ranks, annotator="Bo")), "meta": {}}
    return store.append("ranking", {**payload, "sources": [{"model": folder} for folder in folders], **about}, 2.0)


@pytest.mark.parametrize(("choice", "score"), [("left", 1.0), ("right", 0.0), ("tie", 0.5), ("both_bad", 0.5)])
def test_a_vote_is_a_comparison_of_left_against_right(store, choice, score):
    event = vote(store, "ppo", "sft", choice)
    expected = Comparison(
        "ppo", "sft", score, (4, 6), choice == "both_bad", "Ann", f"event {event}", ("ppo 1", "sft 1")
    )
    assert comparisons(store) == [expected]


def test_a_ranking_is_a_comparison_of_every_two_models(store):
    store.append("ranking", payload_of(ranking(["a", "bb", "ccc"], [2, 1, 2], ["m", "n", "o"])), None)
    result = comparisons(store)
    assert [(one.a, one.b, one.score, one.lengths) for one in result] == [
        ("m", "n", 0.0, (1, 2)), ("m", "o", 0.5, (1, 3)), ("n", "o", 1.0, (2, 3)),
    ]  # fmt: skip
    assert {one.group for one in result} == {"event 1"} and result[0].annotator == "judge"


def test_answers_of_one_model_and_of_none_fight_nobody(store):
    store.append("ranking", payload_of(ranking(["a", "b", "c"], [1, 2, 3], ["m", "m", None])), None)
    store.append("ranking", payload_of(ranking(["a", "b"], [1, 2])), None)
    store.append("ranking", payload_of(ranking(["a", "b"], [1, 2], ["m"])), None)
    assert comparisons(store) == []


def test_what_people_ranked_is_under_the_names_of_the_arena(store):
    labelled(store, [1, 2], ["runs/demo/ppo", "runs/old"])
    assert [(one.a, one.b) for one in comparisons(store)] == [("runs/demo/ppo", "runs/old")]
    vote(store, "ppo", "sft", "left")
    assert [(one.a, one.b) for one in comparisons(store)] == [("ppo", "runs/old"), ("ppo", "sft")]
    assert [(one.a, one.b) for one in comparisons(store, ("rankings",))] == [("ppo", "runs/old")]
    assert [(one.a, one.b) for one in comparisons(store, ("arena",))] == [("ppo", "sft")]


def test_items_of_known_order_and_what_was_taken_back_do_not_count(store):
    labelled(store, [1, 2], ["m", "n"], purpose="calibration")
    labelled(store, [1, 2], ["m", "n"], purpose="screening")
    gone = labelled(store, [1, 2], ["m", "n"], purpose="label")
    store.append("retraction", {"retracts": gone}, 3.0)
    corrected = labelled(store, [1, 2], ["m", "n"])
    labelled(store, [2, 1], ["m", "n"], replaces=corrected)
    assert [one.score for one in comparisons(store)] == [0.0]


def test_some_peoples_word_alone(store):
    vote(store, "ppo", "sft", "left", by="Ann")
    vote(store, "ppo", "sft", "right", by="Bo")
    assert [one.score for one in comparisons(store, annotators=("Bo",))] == [0.0]


def write(path, rows, whole=False):
    path.write_text(json.dumps(rows) if whole else "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("whole", [False, True])
def test_comparisons_as_arenas_publish_them(tmp_path, whole):
    talk = [{"role": "user", "content": "long question"}, {"role": "assistant", "content": "four"}]
    rows = [
        {"model_a": "x", "model_b": "y", "winner": "model_a", "judge": "Cy"},
        {"model_a": "x", "model_b": "y", "winner": "tie (bothbad)", "conversation_a": talk, "conversation_b": talk * 2},
        {"model_a": "y", "model_b": "x", "winner": "model_b", "answer_a": "ab", "answer_b": "c"},
        {"model_a": "x", "model_b": "x", "winner": "tie"},
    ]
    result = read_comparisons(write(tmp_path / "battles.json", rows, whole))
    assert result == [
        Comparison("x", "y", 1.0, annotator="Cy"),
        Comparison("x", "y", 0.5, (4, 8), both_bad=True),
        Comparison("y", "x", 0.0, (2, 1)),
    ]
    assert read_comparisons(tmp_path / "battles.json", ("Cy",)) == result[:1]


def test_rankings_of_a_file(tmp_path):
    row = {"prompt": "x", "completions": ["a", "bb"], "ranking": [2, 1], "models": ["m", "n"], "annotator": "Ann"}
    (one,) = read_comparisons(write(tmp_path / "rankings.jsonl", [row]))
    assert (one.a, one.b, one.score, one.lengths, one.annotator) == ("m", "n", 0.0, (1, 2), "Ann")


def test_alpaca_eval_and_lmsys_are_rated_too(tmp_path):
    rows = [
        {"instruction": "x", "output_1": "a", "generator_1": "m", "output_2": "bb", "generator_2": "n",
         "preference": 1.25},
        {"model_a": "m", "model_b": "n", "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1,
         "prompt": '["x", "y"]', "response_a": '["one","two"]', "response_b": '["four","five"]'},
    ]  # fmt: skip
    result = read_comparisons(write(tmp_path / "battles.jsonl", rows))
    assert [(one.a, one.b, one.score, one.lengths) for one in result] == [
        ("m", "n", 0.75, (1, 2)), ("m", "n", 0.5, (6, 8)),
    ]  # fmt: skip


def test_the_winner_may_be_called_as_a_side_is(tmp_path):
    rows = [{"model_a": "B", "model_b": "A", "winner": winner} for winner in ("A", "model_a", "B")]
    assert [one.score for one in read_comparisons(write(tmp_path / "battles.jsonl", rows))] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"model_a": "x", "model_b": "y"}, "no column 'winner'"),
        ({"model_a": "x", "model_b": "y", "winner": "z"}, "the winner is 'z'"),
        ({"model_a": "x", "model_b": "y", "winner": 1}, "the winner is a number, not text"),
        ({"model_a": None, "model_b": "y", "winner": "model_a"}, "model_a is missing, or null"),
        ({"model_a": ["x"], "model_b": "y", "winner": "model_a"}, "model_a is a list, not text"),
        ({"model_a": "B", "model_b": "A", "winner": "a"}, "is a side and also the name of a model"),
        ({"completions": ["a", "b"], "ranking": [1, 2]}, "which model wrote"),
        ({"completions": ["a", "b"], "ranking": [1, 2], "models": ["m", None]}, "which model wrote"),
        ({"completions": ["a", "b"], "ranking": [1], "models": ["m", "n"]}, "not two lists of one length"),
        ({"completions": ["a", 3], "ranking": [1, 2], "models": ["m", "n"]}, "not texts"),
        ({"completions": ["a", "b"], "ranking": [1, None], "models": ["m", "n"]}, "the ranks not numbers"),
        (
            {"model_a": "x", "model_b": "y", "winner": "tie", "conversation_a": [1], "conversation_b": []},
            "message 1 of conversation_a is a number, not an object",
        ),
        ({"text": "x"}, "no columns model_a and model_b, or completions among text"),
        (["model_a"], "it is a list, not an object"),
        (7, "it is a number, not an object"),
    ],
)
def test_a_row_that_compares_nothing_is_named(tmp_path, row, why):
    good = {"model_a": "x", "model_b": "y", "winner": "tie"}
    with pytest.raises(InputError, match=r"battles.jsonl: line 3 is not a comparison") as error:
        read_comparisons(write(tmp_path / "battles.jsonl", [good, good, row]))
    assert why in str(error.value)
    (tmp_path / "battles.json").write_text(json.dumps([good, row], indent=1))
    with pytest.raises(InputError, match=r"battles.json: row 2 \(line 7\) is not a comparison"):
        read_comparisons(tmp_path / "battles.json")


def test_a_file_that_is_none_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_comparisons(tmp_path / "nowhere.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"model_a": "x", "model_b": "y", "winner": "tie"}\n\n{')
    with pytest.raises(InputError, match="line 3 is not JSON"):
        read_comparisons(tmp_path / "broken.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is UTF-16, not UTF-8"):
        read_comparisons(tmp_path / "bytes.jsonl")


def test_a_text_that_two_models_gave_counts_for_both(store, tmp_path):
    """The pool shows a text once: what is said of it is said of everybody who gave it."""
    sources = [{"model": "m"}, {"model": "o"}]
    labelled(store, [1, 2], ["m", "o"], sources=sources, other_sources=[[{"model": "n"}], []])
    expected = [("m", "o", 1.0), ("n", "o", 1.0)]
    assert [(one.a, one.b, one.score) for one in comparisons(store)] == expected
    row = {"completions": ["a", "bb"], "ranking": [1, 2], **model_columns([("m", "n"), ("o",)])}
    assert row["other_models"] == [["n"], []]
    result = read_comparisons(write(tmp_path / "rankings.jsonl", [row]))
    assert [(one.a, one.b, one.score) for one in result] == expected
    ranked = ranking(["a", "bb"], [1, 2])
    ranked.meta.update(model_columns([("m", "n"), ("o",)]))
    store.append("ranking", payload_of(ranked), None)
    assert [(one.a, one.b, one.score) for one in comparisons(store)][2:] == expected


def test_models_that_share_one_text_and_differ_in_another():
    result = from_ranking([("m", "n"), ("n",), ()], ["a", "b", "c"], [2, 1, 3], "?", "g")
    assert [(one.a, one.b, one.score) for one in result] == [("m", "n", 0.0)]
    for odd in ({"models": "mn"}, {"models": ["m"]}, {"models": [{}, [1]]}, {"models": 7}):
        assert models_of({"completions": ["a", "b"], "meta": odd}) == [(), ()]
    assert models_of({"completions": ["a", "b"], "models": ["m", "n"], "other_models": ["o", 3]}) == [("m",), ("n",)]
    assert models_of({"completions": ["a", "b"], "sources": [{"model": "m"}, {"model": None}]}) == [("m",), ()]
    assert model_columns([("m",), ()]) == {"models": ["m", None]}
