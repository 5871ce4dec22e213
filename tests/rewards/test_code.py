"""Code as a reward: the program in a completion, its tests in a column, and what was counted."""

import sys
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.rewards.code import CodeReward, listed_tests, program_of
from amenable.rewards.options import RewardOptions
from amenable.rewards.sandbox import Limits
from amenable.rewards.spec import load_reward
from amenable.train.runtime import Runtime

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sandbox needs POSIX")


def test_the_program_is_the_last_block() -> None:
    assert program_of("x = 1") == "x = 1"
    assert program_of("First:\n```python\nx = 1\n```\nBetter:\n```\nx = 2\n```\ndone") == "x = 2\n"
    assert program_of("```py\nx = '```'\n```") == "x = '```'\n"


def test_tests_are_a_text_or_a_list_or_one_as_json() -> None:
    assert listed_tests("assert x", "tests") == ["assert x"] == listed_tests(["assert x"], "tests")
    assert listed_tests('["assert x", "assert y"]', "tests") == ["assert x", "assert y"]
    assert listed_tests("[1][0]\nassert x", "tests") == ["[1][0]\nassert x"]
    for wrong in (None, "", [], [1], 3):
        with pytest.raises(InputError, match="code:tests: the column 'tests' has"):
            listed_tests(wrong, "tests")


def test_the_share_of_the_tests_and_the_counts() -> None:
    reward = CodeReward("tests", Limits(1.0, 512), workers=2)
    texts = ["```python\ndef f(x):\n    return x + 1\n```", "def f(x): return 2", "sorry", "while True: pass"]
    tests = [["assert f(1) == 2", "assert f(2) == 3"]] * 4
    assert reward([()] * 4, texts, tests=tests) == [1.0, 0.5, 0.0, 0.0]
    assert reward.take_counts() == {"passed": 1.0, "failed": 2.0, "killed": 1.0}
    assert reward.take_counts() == {"passed": 0.0, "failed": 0.0, "killed": 0.0}


def test_code_runs_only_where_it_is_allowed(runtime: Runtime) -> None:
    allowed: dict[str, Any] = {"options": RewardOptions(allow_code_execution=True, code_timeout=5.0, code_workers=1)}
    reward = load_reward(["ends", "code:tests=2"], runtime, **allowed)
    scores = reward.scores([()], ["x = 1"], {"tests": ["assert x == 1"], "ended": [True]})
    metrics = reward.metrics(scores)
    assert metrics["rewards/code:tests/passed"] == 1.0 and metrics["rewards/code:tests/mean"] == 1.0
    with pytest.raises(InputError, match="needs the column 'tests', and 1 of 2 rows lack it"):
        reward.require_columns([{"tests": "assert x"}, {}])
    with pytest.raises(InputError, match=r"code:tests: runs programs .*--allow-code-execution"):
        load_reward("code:tests", runtime)
    with pytest.raises(InputError, match="names no column of tests"):
        load_reward("code:", runtime, **allowed)
