"""The comparison with a peer: both sides are handed the same ids, and ours makes its steps.

The peer is not here: small scripts that are told what to say stand for the sides.
"""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from amenable.stages import ppo
from amenable.train.runtime import DeviceOptions, Runtime, start_runtime
from benchmarks import machine, peer_work, peers, speed, targets, workloads
from benchmarks.peer_work import EOS, PAD, WORK
from benchmarks.workloads import SIZES, Size

SMOKE = SIZES["smoke"]
HANDED = ("sft", "reward", "dpo", "ppo", "grpo", "rloo", "online-dpo", "decode")


@pytest.fixture(scope="module")
def one_thread() -> Runtime:
    return start_runtime(DeviceOptions(device="cpu", precision="fp32", threads=1))


@pytest.mark.parametrize("row", WORK)
def test_our_side_makes_steps(row: str, one_thread: Runtime) -> None:
    work = WORK[row](SMOKE)
    step = work.ours(one_thread)
    step()
    step()
    assert work.tokens > 0 and json.loads(json.dumps(work.handed))["row"] in HANDED


def test_tokens_are_counted_as_the_peer_has_them() -> None:
    sft = WORK["sft"](SMOKE)
    assert sft.tokens == sum(len(row["prompt"]) + len(row["answer"]) for row in sft.handed["rows"])
    ranked = WORK["reward-k9"](SMOKE)
    assert len(ranked.handed["rows"]) == 36, "nine answers are 36 pairs"
    assert ranked.tokens == sum(
        2 * len(r["prompt"]) + len(r["chosen"]) + len(r["rejected"]) for r in ranked.handed["rows"]
    )
    assert WORK["decode-32"](SMOKE).tokens == 32 * 16
    for row in ("ppo", "grpo", "rloo", "online-dpo"):
        assert WORK[row](SMOKE).tokens == SMOKE.prompts * 16, "of an iteration, what is generated"


def test_all_rows_of_the_iteration_have_full_length(one_thread: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """So both sides do the same work, however likely EOS is."""
    rollouts = []
    monkeypatch.setattr(workloads, "objective_metrics", lambda experience, *_: rollouts.append(experience.rollout))
    step = WORK["ppo"](replace(SMOKE, shape=replace(SMOKE.shape, vocab_size=32))).ours(one_thread)
    for _ in range(3):
        step()
    assert any(EOS in ids for rollout in rollouts for ids in rollout.completions), "EOS is a token like any other"
    assert all(len(ids) == 16 for rollout in rollouts for ids in rollout.completions)
    assert rollouts[0].completions != rollouts[1].completions, "every iteration draws anew"


def test_the_peer_is_handed_the_settings_of_our_stage() -> None:
    work, config = WORK["ppo"](SMOKE).handed, ppo.Config()
    assert (work["epochs"], work["minibatches"]) == (config.num_ppo_epochs, config.num_mini_batches)
    assert work["temperature"] == 0.7 and len(work["rows"]) % work["minibatches"] == 0


@pytest.mark.parametrize("size", [SMOKE, peer_work.SIZES["5M"], peer_work.SIZES["124M"]], ids=["smoke", "5M", "124M"])
def test_the_peers_passes_make_up_a_step(size: Size) -> None:
    for row in ("reward-pairs", "reward-k9"):
        work = WORK[row](size).handed
        assert len(work["rows"]) % work["at_once"] == 0 and 0 < work["at_once"] <= size.rows


def test_answers_end_and_nothing_else_does() -> None:
    for prompt, answers in peer_work.prompts_with_answers(SMOKE, 3, 4):
        assert not {EOS, PAD} & set(prompt)
        assert all(answer[-1] == EOS and not {EOS, PAD} & set(answer[:-1]) for answer in answers)


@pytest.mark.parametrize(("allocators", "ratio"), [("both", 2.0), ("tuned", 4.0)])
def test_the_better_of_the_peers_counts(allocators: str, ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours takes a second, the tuned peer four, the default one two; the tuned has the least memory."""

    def start_side(
        name: str, command: list[str], environment: dict[str, str]
    ) -> AbstractContextManager[dict[str, float]]:
        if "ours" in command:
            return nullcontext({"seconds": 1.0, "peak": 100.0})
        return nullcontext({"seconds": 4.0, "peak": 200.0} if environment else {"seconds": 2.0, "peak": 400.0})

    monkeypatch.setattr(peers, "start_side", start_side)
    monkeypatch.setattr(peers, "step", lambda one: one)
    measured = peers.compare("ppo", "smoke", peers.Config(size="smoke", allocators=allocators))
    assert (measured.ours, measured.tuned, measured.default) == (64, 16, 32 if allocators == "both" else None)
    assert (measured.ratio, measured.memory) == (ratio, 0.5)


def acting(script: str) -> list[str]:
    return [sys.executable, "-c", script]


WORKING = (
    "print('warning', 'ready', sep='\\n', flush=True); input(); print('{\"seconds\": 2, \"peak\": 8}', flush=True)"
)


def test_a_side_makes_a_step_and_then_no_more() -> None:
    with peers.start_side("ours", acting(WORKING), {}) as one:
        assert peers.step(one) == {"seconds": 2, "peak": 8}
        with pytest.raises(peers.Failed, match="ours: ended with code 0"):
            peers.step(one)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "import sys; print('loading', file=sys.stderr); raise ValueError('no such shape')",
            "ValueError: no such shape",
        ),
        ("print('ready', flush=True); input(); raise SystemExit('out of paper')", "out of paper"),
        ("print('ready', flush=True); import os; os._exit(3)", "ended with code 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    ],
    ids=["building", "in a step", "between", "killed"],
)
def test_a_side_that_dies_says_why(script: str, said: str) -> None:
    with (
        peers.start_side("the peer", acting(script), {}) as one,
        pytest.raises(peers.Failed, match=f"^the peer: {said}$"),
    ):
        peers.step(one)
        peers.step(one)


@pytest.fixture
def without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row has the same numbers, but for DPO, which fails; pretraining reaches half of the ceiling."""

    def compare(row: str, size: str, config: peers.Config) -> targets.Measured:
        if row == "dpo":
            raise peers.Failed("the peer: ended with code 1")
        return targets.Measured(500.0, 5.0, 80.0, 100.0, 0.5)

    def alone(function: object, *_: object) -> machine.Ceiling | speed.Measured:
        if function is machine.measure_ceiling:
            return machine.Ceiling(1e9, 2e9, 3e9)
        return speed.Measured({"pretrain-adamw": [300.0, 400.0]}, [1e9, 1e9], 8, "")

    monkeypatch.setattr(peers, "compare", compare)
    monkeypatch.setattr(machine, "alone", alone)


THERE = ["--peer", sys.executable, "--peer-ppo", sys.executable, "--peer-vllm", "nowhere"]


def test_the_table_goes_on_after_a_row_that_fails(
    without_measuring: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "table.md"
    assert peers.main([*THERE, "--out", str(out), "--repeats", "2"]) == 1
    printed = capsys.readouterr().out
    assert out.read_text("utf-8") == printed
    lines = printed.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][2:]
    rows = [row for row in peers.ROWS if row not in (peers.VLLM, *peers.ONLY_135M)]
    assert [(line[0], line[1]) for line in table] == [(size, row) for size in ("5M", "124M") for row in rows]
    assert [line[2:] for line in table if line[1] == "dpo"] == [
        ["failed", *[""] * 5, "the peer: ended with code 1"]
    ] * 2
    by_row = {(line[0], line[1]): line for line in table}
    assert by_row["5M", "sft"][5:] == ["5.00", "6 / 8", "no", "0.50"]
    assert by_row["124M", "sft"][5:] == ["5.00", "4 / 6", "yes", "0.50"]
    assert by_row["124M", "pretrain"][2:] == ["350", "", "", "50.0%", "40% / 55%", "yes", ""]
    assert "    python -m benchmarks.peers --size 124M --only reward-k9 --repeats 2" in lines
    assert any("make bench-vllm" in line for line in lines)


def test_all_well_is_code_0(without_measuring: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.main([*THERE, "--only", "sft,ppo", "--size", "5M"]) == 0
    printed = capsys.readouterr().out
    assert "pretrain" not in printed and "Ceiling" not in printed and "124M" not in printed


def test_both_sizes_are_the_default() -> None:
    assert peers.Config().sizes == ["5M", "124M"] and peers.Config(size="124M").sizes == ["124M"]


def test_a_command_keeps_what_was_asked_for() -> None:
    assert peers.command("5M", "sft", peers.Config()) == "python -m benchmarks.peers --size 5M --only sft"
    config = peers.Config(precision="fp32", threads=4, allocators="tuned", peer=Path("elsewhere"))
    assert peers.command("5M", "ppo", config).endswith(" ppo --precision fp32 --threads 4 --allocators tuned")


def test_pretraining_that_is_killed_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "alone", lambda *_: None)
    for ceiling in (None, machine.Ceiling(1.0, 1.0, 1.0)):
        with pytest.raises(peers.Failed, match="killed"):
            peers.pretraining("smoke", peers.Config(size="smoke"), ceiling)


def test_vllm_is_measured_where_it_is_set_up_or_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    assert peers.VLLM not in peers.Config(peer_vllm=python).rows
    assert peers.VLLM in peers.Config(peer_vllm=python, only=f"sft,{peers.VLLM}").rows
    python.touch()
    assert peers.VLLM in peers.Config(peer_vllm=python).rows
    assert peers.VLLM not in peers.Config(peer_vllm=python, size="smoke").rows, "its heads are too small for vLLM"


def test_every_row_has_the_peer_that_can_do_it() -> None:
    config = peers.Config()
    scripts = {row: config.peer_of(row)[1] for row in WORK}
    assert scripts["ppo"] == scripts["ppo-lora"] == "peer_ppo.py" and scripts[peers.VLLM] == "peer_vllm.py"
    others = {script for row, script in scripts.items() if row not in ("ppo", "ppo-lora", peers.VLLM)}
    assert others == {"peer_trl.py"}
    assert all((peers.HERE / script).exists() for script in scripts.values())


def test_a_peer_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert peers.main(["--peer", str(tmp_path / "python")]) == 2
    assert "make bench-peers" in capsys.readouterr().err
    there = ["--peer", sys.executable, "--only", "ppo"]
    assert peers.main([*there, "--peer-ppo", str(tmp_path / "python")]) == 2
    assert str(tmp_path) in capsys.readouterr().err, "PPO has a peer of its own"
    assert peers.main(["--only", peers.VLLM, "--peer-vllm", str(tmp_path / "python")]) == 2
    assert "make bench-vllm" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        peers.main(["--only", "sfd"])
    assert "unknown row: sfd" in capsys.readouterr().err.replace("\n", " ")
