"""Rankings by a reward: higher scores are better ranks, and each part's scores go with them."""

from pathlib import Path

import pytest

from amenable.data.types import Message
from amenable.feedback.candidates import Candidates
from amenable.rewards.rankings import rank_by_reward, ranking_of
from amenable.rewards.spec import load_reward
from amenable.train.log import Log
from amenable.train.runtime import Runtime

PROMPT = (Message("user", "6 * 7?"),)
ROW = Candidates("a", PROMPT, ("42", "It is 42.", "41"), (True, False, True), kind="sums", meta={"gold": 42})


def test_ranks_and_the_scores_behind_them(tmp_path: Path, runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    reward = load_reward(["number:gold", "ends=0.5"], runtime)
    (ranking,) = rank_by_reward("train", [ROW], reward, Log(tmp_path, "annotate"))
    assert ranking.ranks == (1.0, 2.0, 3.0) and ranking.annotator == "number:gold ends=0.5"
    assert ranking.meta["rewards"] == {"number:gold": [1.0, 1.0, 0.0], "ends": [1.0, 0.0, 1.0]}
    line = " ".join(capsys.readouterr().err.split())
    assert "train: rewards/number:gold/mean 0.667 rewards/number:gold/std 0.471 rewards/ends/mean 0.667" in line


def test_a_ranking_keeps_models_and_ends() -> None:
    row = Candidates("a", PROMPT, ("x", "y"), (True, False), models=(("m",), ("n", "o")))
    assert ranking_of(row, (1.0, 2.0), "someone").meta["ended"] == [True, False]
    assert "rewards" not in ranking_of(row, (1.0, 2.0), "someone").meta
