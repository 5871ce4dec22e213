"""Scores of groups of completions are those of the completions one by one."""

from pathlib import Path
from typing import Any

import pytest

from amenable.data.samples import Sample
from amenable.data.types import Message
from amenable.rewards import samples as module
from amenable.rewards.samples import batches, score_samples
from amenable.rewards.spec import load_reward
from amenable.train.runtime import Runtime

SAMPLES = [
    Sample(str(i), (Message("user", f"{i}?"),), tuple("abcde"[: i + 1]), (True,) * i + (False,), kind=f"k{i}")
    for i in range(5)
]


def test_batches_keep_the_order_and_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COMPLETIONS", 4)
    assert list(batches(SAMPLES, range(5))) == [[0, 1], [2], [3], [4]]
    assert list(batches(SAMPLES, [4, 0, 2])) == [[4], [0, 2]] and list(batches(SAMPLES, [])) == []


@pytest.mark.parametrize("size", [1, 4, 256])
def test_a_function_has_rows_and_columns(size: int, monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    monkeypatch.setattr(module, "MAX_COMPLETIONS", size)
    calls, bar = list[dict[str, Any]](), list[tuple[int, int]]()

    def score(prompt: Any, completion: str, ended: bool, id: str, kind: str) -> float:
        calls.append({"prompt": prompt, "ended": ended, "id": id, "kind": kind})
        return 10 * float(id) + ord(completion)

    scores = score_samples(load_reward(score, runtime), SAMPLES, lambda done, total: bar.append((done, total)))
    assert scores == [[10.0 * i + ord(text) for text in row.completions] for i, row in enumerate(SAMPLES)]
    assert calls == [
        {"prompt": row.prompt, "ended": end, "id": row.id, "kind": row.kind} for row in SAMPLES for end in row.ended
    ]
    assert bar[0][0] == 0 and bar[-1][0] == bar[-1][1]


def test_samples_that_a_model_cannot_read_have_no_scores(judge: Path, runtime: Runtime) -> None:
    long = Sample("l", SAMPLES[0].prompt, ("a", "rose " * 60), (True, True))
    reward = load_reward([str(judge), "ends=0.5"], runtime)
    empty = Sample("e", SAMPLES[0].prompt, (), ())
    first, none, nothing, last = score_samples(reward, [SAMPLES[1], long, empty, SAMPLES[4]])
    assert (
        none is nothing is None and score_samples(reward, [empty]) == [None] and first is not None and last is not None
    )
    for row, values in ((SAMPLES[1], first), (SAMPLES[4], last)):
        own = reward([row.prompt] * len(row.completions), row.completions, ended=row.ended)
        assert values == pytest.approx(own, abs=1e-5) and len(set(values)) > 1
