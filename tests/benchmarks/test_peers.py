"""The comparison with a peer: both sides are handed the same ids, and ours makes its steps. The peer is not here."""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from amenable.stages import ppo
from amenable.train import runtime
from amenable.train.runtime import Runtime
from benchmarks import peers
from benchmarks.peers import EOS, PAD, WORK
from benchmarks.speed import SIZES, Size

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
    assert work.tokens > 0 and json.loads(json.dumps(work.handed))["row"] in ("sft", "reward", "dpo", "ppo", "decode")


def test_tokens_are_counted_as_the_peer_has_them() -> None:
    sft = WORK["sft"](SMOKE)
    assert sft.tokens == sum(len(row["prompt"]) + len(row["answer"]) for row in sft.handed["rows"])
    ranked = WORK["reward-k9"](SMOKE)
    assert len(ranked.handed["rows"]) == 36, "nine answers are 36 pairs"
    assert ranked.tokens == sum(
        2 * len(r["prompt"]) + len(r["chosen"]) + len(r["rejected"]) for r in ranked.handed["rows"]
    )
    assert WORK["decode-32"](SMOKE).tokens == 32 * 16
    assert WORK["ppo"](SMOKE).tokens == SMOKE.prompts * 16, "of an iteration, what is generated"


def test_all_rows_of_the_iteration_have_full_length(one_thread: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """So both sides do the same work, however likely EOS is."""
    seen = []
    monkeypatch.setattr(peers, "objective_metrics", lambda experience, *_: seen.append(experience.rollout))
    step = WORK["ppo"](replace(SMOKE, shape=replace(SMOKE.shape, vocab_size=32))).ours(one_thread)
    for _ in range(3):
        step()
    assert any(peers.EOS in ids for rollout in seen for ids in rollout.responses), "EOS is a token like any other"
    assert all(len(ids) == 16 for rollout in seen for ids in rollout.responses)
    assert seen[0].responses != seen[1].responses, "every iteration draws anew"


def test_the_peer_is_handed_the_settings_of_our_stage() -> None:
    work, config = WORK["ppo"](SMOKE).handed, ppo.Config()
    assert (work["epochs"], work["minibatches"]) == (config.num_ppo_epochs, config.num_mini_batches)
    assert work["temperature"] == config.temperature and len(work["rows"]) % work["minibatches"] == 0


@pytest.mark.parametrize("size", [SMOKE, peers.SIZES["5M"], peers.SIZES["124M"]], ids=["smoke", "5M", "124M"])
def test_the_peers_passes_make_up_a_step(size: Size) -> None:
    for row in ("reward-pairs", "reward-k9"):
        work = WORK[row](size).handed
        assert len(work["rows"]) % work["at_once"] == 0 and 0 < work["at_once"] <= size.rows


def test_answers_end_and_nothing_else_does() -> None:
    for prompt, answers in peers.asked(SMOKE, 3, 4):
        assert not {EOS, PAD} & set(prompt)
        assert all(answer[-1] == EOS and not {EOS, PAD} & set(answer[:-1]) for answer in answers)


@pytest.mark.parametrize(("allocators", "ratio"), [("both", "**2.0**"), ("tuned", "**4.0**")])
def test_the_better_of_the_peers_counts(allocators: str, ratio: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours takes a second, the tuned peer four, the default one two; the tuned has the least memory."""

    def side(command: list[str], environment: dict[str, str]) -> AbstractContextManager[dict[str, float]]:
        if "ours" in command:
            return nullcontext({"seconds": 1.0, "peak": 100.0})
        return nullcontext({"seconds": 4.0, "peak": 200.0} if environment else {"seconds": 2.0, "peak": 400.0})

    monkeypatch.setattr(peers, "side", side)
    monkeypatch.setattr(peers, "step", lambda one: one)
    cells = peers.line("ppo", peers.Config(size="smoke", allocators=allocators)).split(" | ")
    assert cells[-2:] == [ratio, "0.50 |"]
    assert cells[1:4] == ["64", "32" if allocators == "both" else "", "16"]


def test_a_peer_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert peers.main(["--peer", str(tmp_path / "python")]) == 2
    assert "make bench-peers" in capsys.readouterr().err
    there = ["--peer", sys.executable, "--only", "ppo"]
    assert peers.main([*there, "--peer-ppo", str(tmp_path / "python")]) == 2
    assert str(tmp_path) in capsys.readouterr().err, "PPO has a peer of its own"
    with pytest.raises(SystemExit):
        peers.main(["--only", "sfd"])
    assert "there is no row 'sfd'" in capsys.readouterr().err.replace("\n", " ")
