"""Selection of the examples before a prompt, each rule by hand; a file that leaks a row of the test is refused."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from amenable.errors import InputError
from amenable.evaluation.shots import Selection, ShotSelector, TfIdf, digest, require_no_leak

TEXTS = ["a red rose", "the blue sea", "a white swan", "red red brick"]


def test_the_first_are_the_same_for_every_prompt() -> None:
    assert ShotSelector(TEXTS, count=2).choose("x") == ShotSelector(TEXTS, count=2).choose("y") == [0, 1]
    assert ShotSelector(TEXTS).choose("x") == [0, 1, 2, 3]


def test_random_ones_are_a_function_of_seed_and_prompt() -> None:
    selector = ShotSelector(TEXTS, count=2, selection="random")
    draws = {prompt: selector.choose(prompt) for prompt in map(str, range(200))}
    assert draws == {prompt: replace(selector).choose(prompt) for prompt in draws}
    assert all(len(set(drawn)) == 2 for drawn in draws.values())
    assert draws != {prompt: replace(selector, seed=1).choose(prompt) for prompt in draws}
    counts = Counter(i for drawn in draws.values() for i in drawn)
    assert all(70 < counts[i] < 130 for i in range(4)), "each is drawn for about half of the prompts"
    assert 60 < sum(drawn[0] < drawn[1] for drawn in draws.values()) < 140, "in any order"


def test_balanced_ones_are_of_all_classes_equally_often() -> None:
    classes = ["yes"] * 8 + ["no"] * 2
    selector = ShotSelector([str(i) for i in range(10)], classes, 4, "balanced")
    draws = [selector.choose(str(i)) for i in range(100)]
    assert all(Counter(classes[i] for i in drawn) == {"yes": 2, "no": 2} for drawn in draws)
    assert {i for drawn in draws for i in drawn} == set(range(10))
    assert len({tuple(classes[i] for i in drawn) for drawn in draws}) == 6, "the classes come in every order"
    odd = [Counter(classes[i] for i in replace(selector, count=3).choose(str(i))) for i in range(20)]
    assert all(sorted(count.values()) == [1, 2] for count in odd)


def test_similar_ones_share_the_rarest_words_and_the_nearest_comes_last() -> None:
    selector = ShotSelector(TEXTS, count=3, selection="similar")
    assert selector.choose("A RED rose!") == [2, 3, 0]
    assert selector.choose("swan") == [1, 0, 2], "of texts without a word in common the first are nearer"


def test_similarity_is_the_cosine_of_tf_idf() -> None:
    idf = {word: math.log(5 / (1 + df)) + 1 for word, df in {"a": 2, "red": 2, "rose": 1, "brick": 1}.items()}
    query = [2 * idf["red"], idf["rose"]]
    rose = [idf["a"], idf["red"], idf["rose"]]
    first = (query[0] * idf["red"] + query[1] * idf["rose"]) / (math.hypot(*query) * math.hypot(*rose))
    brick = [2 * idf["red"], idf["brick"]]
    last = query[0] * brick[0] / (math.hypot(*query) * math.hypot(*brick))
    assert TfIdf(TEXTS).similarities("red rose red unknown").tolist() == pytest.approx([first, 0, 0, last])
    assert TfIdf(["", "a"]).similarities("").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("count", "selection", "classes", "message"),
    [
        (5, "first", "", "f.jsonl: 4 examples for 5 shots; lower --num-shots"),
        (2, "balanced", "aaaa", "4 examples of 1 classes cannot be balanced; give examples of two classes"),
        (2, "balanced", "abcd", "4 examples of 4 classes cannot be balanced"),
    ],
)
def test_selections_that_are_impossible_are_refused(
    count: int, selection: Selection, classes: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ShotSelector(TEXTS, list(classes), count, selection).require_possible("f.jsonl")
    ShotSelector(TEXTS, list("aabb"), 4, selection).require_possible("f.jsonl")


def test_an_example_of_the_test_is_refused() -> None:
    assert digest(" A  rose\n") == digest("a Rose") != digest("arose")
    require_no_leak(["a rose"], ["a rose?"], "mine", "f.jsonl")
    with pytest.raises(InputError, match=r"f\.jsonl: example 2 is a row of the test 'mine'; take examples from ano"):
        require_no_leak(["x", "A  Rose"], ["y", "a rose"], "mine", "f.jsonl")
