"""Reward functions: one signature for models, rules, endpoints and a user's own Python, as TRL has it.

    (prompts, completions, **columns) -> scores

prompts: B conversations (tuples of `Message`); completions: B texts; columns: the other columns of the prompts' rows, B
values each, with `ended`, True for a completion that ended by itself. A function gets the columns that it names, or all
of them by `**columns`.
A user's function may take one (prompt, completion, ...) at a time, may be async (all calls are awaited together), and
may return floats, numpy or torch scalars. It is called in a thread, so that one that hangs can be left behind.
"""

from __future__ import annotations

import asyncio
import difflib
import importlib.util
import inspect
import math
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amenable.data.types import Prompt
from amenable.errors import InputError, describe

RewardFunction = Callable[..., Sequence[float]]
"""(prompts, completions, **columns) -> a score for each completion, higher is better"""

SIGNATURES = "give it the parameters (prompts, completions, **columns), or (prompt, completion, **columns)"
RESERVED = {"prompt", "prompts", "completion", "completions", "ended"}
"""names of arguments: columns of these names are not handed over"""


def load_function(file: Path, name: str) -> Callable[..., Any]:
    """Load the function `name` of a Python file, as it is there. InputError where either cannot be used."""
    if not file.is_file():
        raise InputError("no such file", file, "name a Python file: --reward my_rewards.py:polite")
    spec = importlib.util.spec_from_file_location(f"reward_functions_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError("is no Python file", file, "its name ends with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"cannot be imported: {describe(error)}", location_of(error, file)) from error
    function = getattr(module, name, None)
    if function is None:
        known = [each for each, value in vars(module).items() if inspect.isfunction(value)]
        near = difflib.get_close_matches(name, known, n=1)
        raise InputError(f"has no function '{name}'", file, f"did you mean '{near[0]}'?" if near else SIGNATURES)
    if not callable(function):
        raise InputError(f"'{name}' is {type(function).__name__}, not a function", file)
    return function


def checked(function: Callable[..., Any], name: str, timeout: float = math.inf) -> RewardFunction:
    """Return a user's function with the common signature. Its exceptions, invalid scores and calls longer than
    `timeout` seconds become InputErrors, with `name` as their place."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise InputError("its parameters cannot be read", name, SIGNATURES) from None
    if not {"completion", "completions"} & parameters.keys():
        raise InputError(f"takes ({', '.join(parameters)})", name, SIGNATURES)
    single = "completion" in parameters

    def reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        given: dict[str, Any] = {"prompts": prompts, "completions": completions, **columns}
        if single:
            by_row = {**columns, "prompt": prompts, "completion": completions}
            calls = [{key: values[row] for key, values in by_row.items()} for row in range(len(completions))]
        else:
            calls = [given]
        results = call_all(function, [arguments(parameters, call, name) for call in calls], name, single, timeout)
        return finite_scores(results if single else results[0], len(completions), name)

    return reward


def required_columns(function: Callable[..., Any]) -> set[str]:
    """Return the columns that a user's function cannot be called without."""
    return required(inspect.signature(function).parameters) - RESERVED - {"id"}


def named_columns(function: Callable[..., Any]) -> set[str] | None:
    """Return the columns that a user's function has parameters for; None for all columns, by **columns."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return set(parameters) - RESERVED


def required(parameters: Mapping[str, inspect.Parameter]) -> set[str]:
    """Return the names of parameters without a default."""
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {k for k, p in parameters.items() if p.default is inspect.Parameter.empty and p.kind not in variadic}


def arguments(parameters: Mapping[str, inspect.Parameter], given: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the arguments that a function has parameters for. InputError for a missing column."""
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        taken = given
    else:
        taken = {key: value for key, value in given.items() if key in parameters}
    if missing := sorted(required(parameters) - taken.keys()):
        columns = ", ".join(sorted(given.keys() - RESERVED)) or "none"
        raise InputError(f"needs the column '{missing[0]}'", name, f"the data's further columns are: {columns}")
    return taken


def call_all(
    function: Callable[..., Any],
    calls: Sequence[dict[str, Any]],
    name: str,
    single: bool = False,
    timeout: float = math.inf,
) -> list[Any]:
    """Call a function with each of `calls` in a thread, and await all results together. InputError for the first
    exception, and for a call, or for results that are awaited, of more than `timeout` seconds."""
    thread = CallThread(function, calls, timeout)
    thread.start()
    while thread.is_alive():
        left = thread.begun + timeout - time.monotonic()
        if left <= 0:
            break
        thread.join(None if math.isinf(left) else left)
    hangs = thread.is_alive()
    results = thread.results if not hangs else [*thread.results, TimeoutError()]
    for row, result in enumerate(results, start=1):
        if isinstance(result, InputError):
            raise result
        row_name = f" for completion {row} of {len(calls)}" if single and row <= len(calls) else ""
        if isinstance(result, TimeoutError) and (hangs or thread.cancelled):
            where = line_of(thread.stack(), name) if hangs else name
            problem = f"gave no score{row_name or 's'} within {timeout:g} s"
            raise InputError(problem, where, "mend it, or raise --reward-timeout")
        if isinstance(result, BaseException):
            raise InputError(f"raised {describe(result)}{row_name}", location_of(result, name)) from result
    return results


class CallThread(threading.Thread):
    """Calls of a function, one after another; what it returned, or raised, is in `results`."""

    def __init__(self, function: Callable[..., Any], calls: Sequence[dict[str, Any]], timeout: float):
        super().__init__(daemon=True)
        self.function, self.calls, self.timeout = function, calls, timeout
        self.results: list[Any] = []
        self.begun = time.monotonic()
        """the time at which the current call began"""
        self.cancelled = False
        """True where an awaited result took too long"""

    def run(self) -> None:
        for call in self.calls:
            self.begun = time.monotonic()
            try:
                self.results.append(self.function(**call))
            except BaseException as error:
                self.results.append(error)
                break
        if any(inspect.isawaitable(result) for result in self.results):
            self.begun = time.monotonic() + 1.0  # results that are awaited end by themselves at their timeout
            try:
                self.results = asyncio.run(self.gather(self.results))
            except BaseException as error:
                self.results = [error]

    async def gather(self, results: Sequence[Any]) -> list[Any]:
        """Await all awaitable results together, with exceptions as results."""

        async def value_of(result: Any | Awaitable[Any]) -> Any:
            if not inspect.isawaitable(result):
                return result
            try:
                async with asyncio.timeout(None if math.isinf(self.timeout) else self.timeout) as limit:
                    return await result
            except TimeoutError:
                self.cancelled |= limit.expired()
                raise

        return await asyncio.gather(*map(value_of, results), return_exceptions=True)

    def stack(self) -> traceback.StackSummary:
        """Return the calls that the thread is in."""
        return traceback.extract_stack(sys._current_frames().get(self.ident or 0))


def finite_scores(values: Any, count: int, name: str) -> list[float]:
    """Convert `count` scores to floats. InputError for another number of them, and for one that is no finite number."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InputError(f"returned {values!r:.80}, not a list of scores", name, "return one score a completion")
    values = list(values)
    if len(values) != count:
        raise InputError(
            f"returned {len(values)} scores for {count} completions", name, "return one for each, in their order"
        )
    return [finite_score(value, f"completion {row} of {count}", name) for row, value in enumerate(values, start=1)]


def finite_score(value: Any, row: str, name: str) -> float:
    """Convert one score to a float. InputError with the row where it is no finite number."""
    try:
        score = math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError):
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"scored {row} with {value!r:.80}", name, "a score is a finite number")
    return score


def columns_of(prompts: Sequence[Prompt], samples: int = 1) -> dict[str, list[Any]]:
    """Collect the further columns of prompts' rows, and their ids, as lists; None where a row lacks a column. Each row
    stands `samples` times, as its completions do."""
    names = dict.fromkeys(key for prompt in prompts for key in prompt.meta if key not in RESERVED)
    rows = [prompt for prompt in prompts for _ in range(samples)]
    columns = {name: [prompt.meta.get(name) for prompt in rows] for name in names}
    return {"id": [prompt.id for prompt in rows], **columns}


def location_of(error: BaseException, name: str | Path) -> str:
    """Return the name with the line of the user's file at which an exception was raised, if the traceback has one."""
    return line_of(traceback.extract_tb(error.__traceback__), name)


def line_of(frames: traceback.StackSummary, name: str | Path) -> str:
    """Return the name with the innermost line of the user's file in some frames, if it is in them."""
    file = str(name).partition(".py:")[0].removesuffix(".py") + ".py"
    lines = [frame.lineno for frame in frames if frame.filename.endswith(file)]
    return f"{name}, line {lines[-1]}" if lines else str(name)
