"""A user's reward functions: every signature, every kind of score, and every mistake by its name."""

import asyncio
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amenable.data.types import Message, Prompt
from amenable.errors import InputError
from amenable.rewards.functions import checked, columns_of, load_function, required_columns

PROMPTS = [(Message("user", text),) for text in ("one", "two", "three")]
COMPLETIONS = ["a", "bb", "ccc"]


def lengths(prompts: Any, completions: Any) -> list[int]:
    return [len(text) for text in completions]


async def slow_lengths(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    await asyncio.sleep(0)
    return [float(len(text)) for text in completions]


async def slow_length(prompt: Any, completion: str) -> float:
    await asyncio.sleep(0.2)
    return len(completion)


@pytest.mark.parametrize(
    "function",
    [
        lengths,
        slow_lengths,
        slow_length,
        lambda completions, **columns: tuple(map(len, completions)),
        lambda prompts, completions: np.array([len(text) for text in completions]),
        lambda prompts, completions: torch.tensor([len(text) for text in completions]),
        lambda prompts, completions: [torch.tensor(float(len(text))) for text in completions],
        lambda prompts, completions: (np.float32(len(text)) for text in completions),
        lambda prompt, completion: len(completion),
        lambda completion, prompt: torch.tensor([len(completion)]),
    ],
)
def test_every_signature_and_every_kind_of_score(function: Callable[..., Any]) -> None:
    scores = checked(function, "f")(PROMPTS, COMPLETIONS, ended=[True] * 3)
    assert scores == [1.0, 2.0, 3.0] and all(type(score) is float for score in scores)


def test_async_calls_are_awaited_together() -> None:
    begun = time.monotonic()
    assert checked(slow_length, "f")(PROMPTS * 5, COMPLETIONS * 5) == [1.0, 2.0, 3.0] * 5
    assert time.monotonic() - begun < 15 * 0.2 / 2


def test_async_functions_work_within_a_running_event_loop() -> None:
    async def notebook() -> list[float]:
        return list(checked(slow_length, "f")(PROMPTS, COMPLETIONS))

    assert asyncio.run(notebook()) == [1.0, 2.0, 3.0]


def test_columns_go_to_whoever_names_them() -> None:
    columns = {"target": [3, 2, 1], "ended": [True, False, True], "id": ["x", "y", "z"]}
    named = checked(lambda completions, target: target, "f")
    each = checked(lambda completion, target, ended=False: target if ended else -target, "f")
    every = checked(lambda completions, **rest: [len(rest)] * 3, "f")
    assert named(PROMPTS, COMPLETIONS, **columns) == [3.0, 2.0, 1.0]
    assert each(PROMPTS, COMPLETIONS, **columns) == [3.0, -2.0, 1.0]
    assert every(PROMPTS, COMPLETIONS, **columns) == [4.0] * 3  # the prompts are among them
    with pytest.raises(InputError, match=r"f: needs the column 'target'; .* columns are: id"):
        named(PROMPTS, COMPLETIONS, id=["x", "y", "z"], ended=[True] * 3)


def test_columns_of_prompts() -> None:
    prompts = [
        Prompt(PROMPTS[0], "p0", {"target": 4, "ended": 1}),
        Prompt(PROMPTS[1], "p1", {"prompts": 1, "kind": "k"}),
    ]
    assert columns_of(prompts, samples=2) == {
        "id": ["p0", "p0", "p1", "p1"],
        "target": [4, 4, None, None],
        "kind": [None, None, "k", "k"],
    }


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0, 2.0], "f: returned 2 scores for 3 completions; return one for each, in their order"),
        ([1.0, math.nan, 2.0], "f: scored completion 2 of 3 with nan; a score is a finite number"),
        ([1.0, 2.0, math.inf], "f: scored completion 3 of 3 with inf"),
        ([None, 1.0, 2.0], "f: scored completion 1 of 3 with None"),
        (["0.5", 1.0, 2.0], "f: scored completion 1 of 3 with '0.5'"),
        ([torch.zeros(2), 1.0, 2.0], r"f: scored completion 1 of 3 with tensor\(\[0., 0.\]\)"),
        (0.5, "f: returned 0.5, not a list of scores"),
        (None, "f: returned None, not a list of scores"),
        ("abc", "f: returned 'abc', not a list of scores"),
        ({"a": 1.0}, "f: returned {'a': 1.0}, not a list"),
    ],
)
def test_unusable_scores_name_function_row_and_value(returned: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked(lambda prompts, completions: returned, "f")(PROMPTS, COMPLETIONS)


def test_a_score_that_is_nan_one_at_a_time() -> None:
    with pytest.raises(InputError, match="f: scored completion 2 of 3 with nan"):
        checked(lambda prompt, completion: math.nan if completion == "bb" else 0.0, "f")(PROMPTS, COMPLETIONS)


async def fails_at_two(prompt: Any, completion: str) -> float:
    return 1 / (len(completion) - 2)


def test_exceptions_name_function_and_row() -> None:
    one = "f: raised ZeroDivisionError: division by zero for completion 2 of 3"
    with pytest.raises(InputError, match=one):
        checked(lambda prompt, completion: 1 / (len(completion) - 2), "f")(PROMPTS, COMPLETIONS)
    with pytest.raises(InputError, match=one):
        checked(fails_at_two, "f")(PROMPTS, COMPLETIONS)
    with pytest.raises(InputError, match=r"f: raised ZeroDivisionError: division by zero$") as raised:
        checked(lambda prompts, completions: 1 / 0, "f")(PROMPTS, COMPLETIONS)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("function", [lambda x, y: 0.0, lambda: 0.0, lambda *texts: 0.0, max])
def test_other_signatures_are_refused_at_once(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"f: .*; give it the parameters \(prompts, completions, \*\*columns\), or"):
        checked(function, "f")


def test_functions_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "LIKED = 'b'\ndef polite(prompts, completions):\n    return [text.count(LIKED) for text in completions]\n"
        "def fails(completions):\n    return None.x\n"
    )
    assert checked(load_function(file, "polite"), "polite")(PROMPTS, COMPLETIONS) == [0.0, 2.0, 0.0]
    with pytest.raises(InputError, match=r"mine\.py:fails, line 5: raised AttributeError"):
        checked(load_function(file, "fails"), f"{file}:fails")(PROMPTS, COMPLETIONS)
    with pytest.raises(InputError, match=r"mine\.py: has no function 'pollite'; did you mean 'polite'\?"):
        load_function(file, "pollite")
    with pytest.raises(InputError, match=r"mine\.py: 'LIKED' is str, not a function"):
        load_function(file, "LIKED")
    with pytest.raises(InputError, match=r"none\.py: no such file"):
        load_function(tmp_path / "none.py", "polite")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nimport no_such_module\n", r"mine\.py, line 2: cannot be imported: ModuleNotFoundError"),
        ("def f(:\n", r"mine\.py: cannot be imported: SyntaxError: .*line 1"),
    ],
)
def test_a_file_that_cannot_be_imported(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_function(tmp_path / "mine.py", "f")


def hangs(prompt: Any, completion: str) -> float:
    time.sleep(10 if completion == "bb" else 0)
    return 1.0


async def hangs_async(prompt: Any, completion: str) -> float:
    await asyncio.sleep(10 if completion == "bb" else 0)
    return 1.0


@pytest.mark.parametrize("function", [hangs, hangs_async])
def test_a_call_that_hangs_is_left_behind(function: Callable[..., Any]) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"gave no score for completion 2 of 3 within 0.2 s; .*--reward-timeout"):
        checked(function, "f", 0.2)(PROMPTS, COMPLETIONS)
    assert time.monotonic() - begun < 5
    assert checked(function, "f", 0.2)(PROMPTS[:1], COMPLETIONS[:1]) == [1.0]


def test_a_batch_that_hangs_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ndef f(completions):\n    time.sleep(10)\n")
    reward = checked(load_function(tmp_path / "slow.py", "f"), f"{tmp_path}/slow.py:f", 0.2)
    with pytest.raises(InputError, match=r"slow\.py:f, line 3: gave no scores within 0.2 s"):
        reward(PROMPTS, COMPLETIONS)


def test_a_function_that_ends_the_process_is_an_error() -> None:
    with pytest.raises(InputError, match="f: raised SystemExit"):
        checked(lambda completions: exit(0), "f")(PROMPTS, COMPLETIONS)


def test_a_functions_own_timeout_is_an_exception_of_it() -> None:
    async def gives_up(completion: str) -> float:
        raise TimeoutError("the server is slow")

    with pytest.raises(InputError, match="raised TimeoutError: the server is slow for completion 1 of 3"):
        checked(gives_up, "f", 5.0)(PROMPTS, COMPLETIONS)


def test_columns_that_a_function_needs() -> None:
    def reward(completions: Any, id: Any, target: Any, hint: Any = None, **rest: Any) -> list[float]:
        return []

    assert required_columns(reward) == {"target"}


def test_an_async_function_that_blocks_is_left_behind() -> None:
    async def blocks(completion: str) -> float:
        time.sleep(5)
        return 1.0

    with pytest.raises(InputError, match=r"f: gave no scores within 0.2 s"):
        checked(blocks, "f", 0.2)(PROMPTS, COMPLETIONS)
