"""The comparison with a peer: both sides are handed the same ids, and ours makes its steps. The peer is not here."""

import json
from pathlib import Path

import pytest

from amenable.train import runtime
from amenable.train.runtime import Runtime
from benchmarks import peers
from benchmarks.peers import EOS, PAD, WORK
from benchmarks.speed import SIZES

SMOKE = SIZES["smoke"]


@pytest.fixture(scope="module")
def one_thread() -> Runtime:
    return runtime.start(runtime.Machine(device="cpu", precision="fp32", threads=1))


@pytest.mark.parametrize("row", WORK)
def test_our_side_makes_steps(row: str, one_thread: Runtime) -> None:
    work = WORK[row](SMOKE)
    step = work.ours(one_thread)
    step()
    step()
    assert work.tokens > 0 and json.loads(json.dumps(work.handed))["row"] in ("sft", "reward", "dpo", "decode")


def test_tokens_are_counted_as_the_peer_has_them() -> None:
    sft = WORK["sft"](SMOKE)
    assert sft.tokens == sum(len(row["prompt"]) + len(row["answer"]) for row in sft.handed["rows"])
    ranked = WORK["reward-k9"](SMOKE)
    assert len(ranked.handed["rows"]) == 36, "nine answers are 36 pairs"
    assert ranked.tokens == sum(
        2 * len(r["prompt"]) + len(r["chosen"]) + len(r["rejected"]) for r in ranked.handed["rows"]
    )
    assert WORK["decode-32"](SMOKE).tokens == 32 * 16


def test_answers_end_and_nothing_else_does() -> None:
    for prompt, answers in peers.asked(SMOKE, 3, 4):
        assert not {EOS, PAD} & set(prompt)
        assert all(answer[-1] == EOS and not {EOS, PAD} & set(answer[:-1]) for answer in answers)


def test_a_peer_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert peers.main(["--peer", str(tmp_path / "python")]) == 2
    assert "make bench-peers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        peers.main(["--only", "sfd"])
    assert "there is no row 'sfd'" in capsys.readouterr().err.replace("\n", " ")
