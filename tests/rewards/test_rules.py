"""Rewards by rule, and rules that cannot be read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.rewards.rules import is_rule, parse_rule
from amenable.text.tokenizer import Tokenizer

TEXTS = ["", "one", "one two three", "I think  so\n"]
ENDED = [True, False, True, False]


@pytest.mark.parametrize(
    ("spec", "scores"),
    [
        ("length:1-3", [0, 1, 1, 1]),
        ("length:3-3", [0, 0, 1, 1]),
        ("length:2-", [0, 0, 1, 1]),
        ("length:-1", [1, 1, 0, 0]),
        ("not:length:2-", [1, 1, 0, 0]),
        ("ends", [1, 0, 1, 0]),
        ("not:ends", [0, 1, 0, 1]),
        (r"regex:\bI think\b", [0, 0, 0, 1]),
        (r"not:regex:^one", [1, 0, 0, 1]),
        ("regex:a:b|two", [0, 0, 1, 0]),
        ("not:not:ends", [1, 0, 1, 0]),
        ("ended:not:regex:^one", [1, 0, 0, 0]),
        ("characters:1-5", [0, 1, 0, 0]),
        ("characters:-3", [1, 1, 0, 0]),
    ],
)
def test_one_where_it_is_kept_else_nought(spec: str, scores: list[int]) -> None:
    assert is_rule(spec)
    assert parse_rule(spec)([()] * 4, TEXTS, ended=ENDED, other=[1, 2, 3, 4]) == scores


def test_a_completion_without_a_mark_ended() -> None:
    assert parse_rule("ends")([()], ["text"]) == [1.0]


def scores(spec: str, texts: list[str], **columns: list[Any]) -> list[float]:
    return parse_rule(spec)([()] * len(texts), texts, **columns)


def test_tokens_are_those_of_the_model_that_answers_or_of_a_folder(assistant: Path, words: Tokenizer) -> None:
    texts = ["Gladly: a rose, it is red.", "a rose"]
    most = len(words.encode(texts[0]))
    assert most > len(words.encode(texts[1])) > 0
    rule = parse_rule(f"ended:tokens:{most}-")
    with pytest.raises(InputError, match="no model's tokens are counted; name a folder with a tokenizer"):
        rule([()] * 2, texts)
    for given in (replace(rule, tokenizer=words), parse_rule(f"ended:tokens:{most}-:{assistant}")):
        assert given([()] * 2, texts) == [1.0, 0.0] and given([()] * 2, texts, ended=[False, True]) == [0.0, 0.0]
    assert scores(f"tokens:-{most - 1}:{assistant}", texts) == [0.0, 1.0]
    with pytest.raises(InputError, match="is no range of tokens; write tokens:4-30"):
        parse_rule("tokens:many")
    with pytest.raises(InputError, match="none: "):
        parse_rule("tokens:1-4:none")


def test_answers_are_those_of_a_column() -> None:
    texts = ["The answer is 1,000.", "#### 999", r"\boxed{1000}"]
    assert scores("match:gold", texts, gold=["#### 1000", 999, ["1", "1000"]]) == [1, 1, 1]
    assert scores("match:gold", texts, gold=["999", "1000", "x"]) == [0, 0, 0]
    assert scores("not:match:gold", texts, gold=["1000"] * 3) == [0, 1, 0]
    with pytest.raises(InputError, match="needs the column 'gold'"):
        scores("match:gold", texts)
    assert parse_rule("match:gold").column == "gold" == parse_rule("not:number:gold:0.1").column


def test_numbers_are_those_of_a_column() -> None:
    texts = ["about 3.1", "3.14159", "three"]
    assert scores("number:pi", texts, pi=[3.14159] * 3) == [0, 1, 0]
    assert scores("number:pi:0.05", texts, pi=["3.14159"] * 3) == [1, 1, 0]
    assert scores("number:pi", texts, pi=[[3.0, 3.1]] * 3) == [1, 0, 0]


def test_tags_are_there_once_and_in_order() -> None:
    spec = "format:<think>...</think><answer>...</answer>"
    right = ["<think>a</think><answer>b</answer>", "\n<think>\na\n</think>\n\n<answer>b</answer> \n"]
    wrong = [
        "<think>a</think>",
        "<answer>b</answer><think>a</think>",
        "<think>a</think> so <answer>b</answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "well, <think>a</think><answer>b</answer>",
    ]
    assert scores(spec, right + wrong) == [1] * 2 + [0] * 5
    assert scores("format:<think>...</think>...", ["<think>a</think> b", "b <think>a</think>"]) == [1, 0]


def test_json_and_its_schema(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema_rs")
    texts = ['{"a": 1}', " [1, 2] ", '{"a": "x"}', "{", "Sure: {}", "[" * 10**5]
    assert scores("json", texts) == [1, 1, 1, 0, 0, 0]
    (tmp_path / "s.json").write_text('{"type": "object", "properties": {"a": {"type": "integer"}}}')
    assert scores(f"json:{tmp_path}/s.json", texts) == [1, 0, 0, 0, 0, 0]
    (tmp_path / "bad.json").write_text('{"type": 3}')
    with pytest.raises(InputError, match="is no JSON schema"):
        parse_rule(f"json:{tmp_path}/bad.json")
    with pytest.raises(InputError, match="no such file"):
        parse_rule(f"json:{tmp_path}/none.json")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("length:x", "length:x: 'x' is no range of words; write length:4-30"),
        ("length:4", "'4' is no range"),
        ("length:-", "'-' is no range"),
        ("length:5-2", "no text has 5 to 2 words"),
        ("regex:(", r"regex:\(: is no regular expression: missing \)"),
        ("regex:", "'regex:' is no rule; rules are length:MIN-MAX"),
        ("not:", "'' is no rule"),
        ("not:runs/reward", "'runs/reward' is no rule"),
        ("ends:well", "'ends:well' is no rule"),
        ("characters:x", "'x' is no range of characters; write characters:4-30"),
        ("number:pi:2", "the tolerance is 2; write number:COLUMN:0.01"),
        ("match:", "'match:' is no rule"),
        ("not:mach:gold", "'mach:gold' is no rule; did you mean 'match:gold'"),
        ("format:<a>...<a>", "a format is tags, each once"),
    ],
)
def test_rules_that_cannot_be_read(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_rule(spec)


@pytest.mark.parametrize("spec", ["runs/ends", "ending", "lengths:3-4", "http://127.0.0.1/regex:x"])
def test_other_spellings_are_no_rules(spec: Any) -> None:
    assert not is_rule(spec)
