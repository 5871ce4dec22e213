"""The benchmark at its smallest: every row runs and is printed, and what it counts is counted right."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.models.decoder import DecoderConfig
from amenable.train.runtime import Runtime
from benchmarks import machine, speed, workloads

SMOKE = workloads.SIZES["smoke"]
COMMAND = ["--size", "smoke", "--precision", "fp32", "--repeats", "1", "--threads", "1"]


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(torch.device("cpu"), bf16=False, threads=1)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure without starting processes, against a ceiling of 1 GFLOP/s."""

    def here(function: Callable[..., Any], *arguments: Any) -> Any:
        return machine.Ceiling(1e9, 2e9, 3e9) if function is machine.measure_ceiling else function(*arguments)

    monkeypatch.setattr(speed, "alone", here)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_every_row_is_printed_and_written(
    in_this_process: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "table.md"
    assert speed.main([*COMMAND, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert out.read_text("utf-8") == printed
    assert f"torch {torch.__version__}" in printed.splitlines()[0]
    assert "product 1 GFLOP/s in fp32, 2 in bf16; memory copy 3.0 GB/s" in printed
    rows = [cells(line) for line in printed.splitlines() if line.startswith("| smoke")]
    assert [row[2] for row in rows] == [
        "pretrain-muon",
        "pretrain-adamw",
        "sft",
        "reward",
        "dpo",
        "ppo, generated",
        "ppo, all",
        "decode-32",
        "decode-128",
    ]
    for row in rows:
        assert row[3] == row[4] == row[5] and float(row[3].replace(",", "")) > 0  # one repeat: median, least and most
        assert row[6].endswith("%") != row[2].startswith("decode")
        assert float(row[7].replace(",", "")) >= 0


def test_tokens_of_a_step(runtime: Runtime) -> None:
    """64 = 2 x 32; 32 x 16 and 128 x 16; PPO's prompts have 2 to 16 tokens, its 4 answers 12 unless EOS is drawn."""

    def tokens(row: str) -> dict[str, int]:
        return workloads.ROWS[row](SMOKE, runtime).step(0).tokens

    assert tokens("pretrain-adamw") == {"pretrain-adamw": 64}
    assert tokens("decode-32") == {"decode-32": 512}
    assert tokens("decode-128") == {"decode-128": 2048}
    ppo = tokens("ppo")
    assert 4 <= ppo["ppo, generated"] <= 48
    assert ppo["ppo, all"] - ppo["ppo, generated"] == sum(workloads.prompt_lengths(SMOKE, 4))
    items = workloads.rankings(SMOKE, 1)  # 8 prompts for 16 rows are 1 for 2
    assert tokens("reward") == {"reward": sum(len(ids) for ids, _ in items[0].rows)}


def test_training_rows_train(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step updates the weights: on the same rows the loss falls."""
    rows = [workloads.text_row(ids) for ids in workloads.sequences(SMOKE, [32, 32])]
    losses: list[float] = []
    workload = workloads.pretrain_row(SMOKE, runtime)
    original = workloads.accumulate

    def recording(*arguments: Any) -> dict[str, float]:
        assert arguments[1] == rows
        stats = original(*arguments)
        losses.append(stats["loss"])
        return stats

    monkeypatch.setattr(workloads, "accumulate", recording)
    for number in range(5):
        workload.step(number)
    assert losses[-1] < losses[0] - 0.5


def test_operations_by_hand() -> None:
    """Width 4, two layers of 12 x 16 weights; rows of 1 and 3 tokens have 1 and 6 pairs of query and key.

    Matrices 2 x 384 x 4 = 3072; a pair costs 2 x 4 for its score and 2 x 4 for its sum: 16 x 2 layers x 7 = 224;
    unembedding 2 x 10 x 4 = 80 for each of 3 predicted tokens; the last layer's 16 + 128 weights after its attention
    spare 288 for each token that is not read.
    """
    shape = DecoderConfig(10, context_length=8, num_layers=2, hidden_size=4, num_heads=2)
    assert workloads.forward_flops(shape, [1, 3], 0, 4) == 3072 + 224
    assert workloads.forward_flops(shape, [1, 3], 3, 4) == 3072 + 224 + 240
    assert workloads.forward_flops(shape, [1, 3], 0, 1) == 3072 + 224 - 3 * 288
    # two epochs: 2 + 3 x 2 passes of policy and reference, 1 + 3 x 2 of the critic, one of the scorer, read once a row
    predicting, valuing, scoring = 3296 + 240 - 288, 3296 - 288, 3296 - 2 * 288
    assert workloads.ppo_flops(shape, [1, 3], 3, epochs=2) == 8 * predicting + 7 * valuing + scoring


def test_operations_are_6n_a_token_where_all_are_predicted() -> None:
    """Long width, short row: attention is nearly nothing, and N is GPT-2's 124M without its positions."""
    shape = workloads.SIZES["124M"].shape
    weights = 12 * 12 * 768**2 + 50257 * 768
    assert 3 * workloads.forward_flops(shape, [4], 4, 4) / 4 == pytest.approx(6 * weights, rel=1e-3)


def test_dialogues_are_ragged_and_free_of_control_tokens() -> None:
    rows = workloads.dialogues(workloads.SIZES["5M"], 200)
    lengths = [len(ids) for ids, _ in rows]
    assert min(lengths) >= 32 and max(lengths) <= 256 and len(set(lengths)) > 50
    assert min(min(ids) for ids, _ in rows) >= 6
    assert all(len(ids) == len(trained) and not trained[0] and trained[-1] for ids, trained in rows)
    assert rows == workloads.dialogues(workloads.SIZES["5M"], 200)


def test_rankings_share_their_prompt() -> None:
    item = workloads.rankings(SMOKE, 3)[2]
    assert len(item.rows) == 6 and sorted(item.ranks) == [1, 2, 3, 4, 5, 6]
    (first, marks), *others = item.rows
    prompt = marks.index(True)
    assert all(ids[:prompt] == first[:prompt] and trained.index(True) == prompt for ids, trained in others)


def test_alone_is_another_process_and_tells_when_it_was_killed() -> None:
    assert machine.alone(os.getpid) not in (None, os.getpid())
    assert machine.alone(os._exit, 1) is None
    assert "killed" in speed.table_lines("5M", "fp32", "ppo", None, 1e9)[0]


def test_median_share_and_memory_in_the_table() -> None:
    """Rates 1, 4, 2 have median 2; 3 GFLOP/s of 12 are 25 %; 2^21 bytes are 2 MiB."""
    measured = speed.Measured({"sft": [1.0, 4.0, 2.0]}, [3e9, 9e9, 1e9], 2**21, "16 rows")
    (line,) = speed.table_lines("5M", "bf16", "sft", measured, 12e9)
    assert cells(line) == ["5M", "bf16", "sft", "2", "1", "4", "25%", "2", "16 rows"]


def test_only_takes_names_and_beginnings() -> None:
    assert speed.Config(only="pretrain,ppo").rows == ["pretrain-muon", "pretrain-adamw", "ppo"]
    assert speed.Config(only="decode-128").rows == ["decode-128"]
    assert speed.Config().rows == list(workloads.ROWS)
    with pytest.raises(InputError, match="no row 'rlhf'"):
        speed.Config(only="ppo,rlhf")


def test_a_mistake_ends_with_code_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert speed.main(["--out", str(tmp_path / "nowhere" / "table.md")]) == 2
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        speed.main(["--only", "rlhf"])
    assert "no row 'rlhf'" in capsys.readouterr().err
