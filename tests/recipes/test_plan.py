"""amenable plan: tables, data, and what cannot be planned."""

import json
import re
from pathlib import Path

import pytest

from amenable import cli
from amenable.models.hf_config import published_config
from amenable.models.published_shapes import PUBLISHED
from amenable.recipes import plan


def printed(arguments: str, capsys: pytest.CaptureFixture) -> str:
    assert cli.main(["plan", *arguments.split()]) == 0
    return capsys.readouterr().out


def test_a_plan_of_ppo(capsys: pytest.CaptureFixture) -> None:
    text = printed("ppo --model Qwen3-8B --gpus 8xH100 --top 3", capsys)
    assert text.startswith("plan      ppo of Qwen3-8B (8.19B parameters) on 8 x H100 (79.1 GiB each)\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    layouts = rows[2 : rows.index(next(line for line in rows if line.startswith("| GiB a GPU")))]
    seconds = [float(line.split("|")[7]) for line in layouts]
    assert len(layouts) == 3 and seconds == sorted(seconds)
    for part in ("weights that train", "moments", "gradients", "activations", "KV cache", "sampler's weights"):
        assert f"| {part}" in text
    assert "A GPU exchanges in a step" in text and "Assumed:" in text and "on paper" in text


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture) -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")
    commands = [line for line in page.splitlines() if line.startswith("amenable plan ")]
    text = printed(commands[0].removeprefix("amenable plan "), capsys).splitlines()
    shown = text[: text.index("Assumed:")]
    assert len(shown) > 20 and not [line for line in shown if line not in page], "put its output into docs/scale.md"


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "dpo", "grpo", "rloo"])
def test_every_stage_is_planned(stage: str, capsys: pytest.CaptureFixture) -> None:
    text = printed(f"{stage} --model Qwen2.5-0.5B --gpus A100 --batch-size 64", capsys)
    online = stage in ("grpo", "rloo")
    assert ("samples on" in text) == ("KV cache" in text) == online
    assert "nothing" in text, "one GPU exchanges nothing"


def test_a_pair_is_two_rows() -> None:
    assert plan.Config("dpo", batch_size=7).work.rows == plan.Config("reward", batch_size=7).work.rows == 14
    assert plan.Config("sft", batch_size=7).work.rows == plan.Config("ppo", batch_size=7).work.rows == 7


def test_the_data_of_a_plan(capsys: pytest.CaptureFixture) -> None:
    text = printed("sft --model Llama-3.1-8B --gpus 8xH100 --train weights --top 2 --json --simulate 32", capsys)
    data = json.loads(text)
    first = data["layouts"][0]
    assert first["shards"] * first["replicas"] * first["tensor"] == 8 and first["rank"] == 0
    assert first["memory"]["training"]["total"] < 80 * 2**30 and 0.2 < first["mfu"] < 0.6
    assert list(data["simulated"]) == ["8", "16", "32"] and data["simulated"]["32"]["rows"] == 2048
    assert data["config"]["model"] == "Llama-3.1-8B" and data["assumed"]


def test_more_gpus_on_paper(capsys: pytest.CaptureFixture) -> None:
    text = printed("grpo --model Qwen3-8B --gpus 8xH100 --train weights --batch-size 64 --simulate 64", capsys)
    starts = tuple(f"| {count} |" for count in (8, 16, 32, 64))
    table = [line.split(" | ") for line in text.splitlines() if line.startswith(starts)]
    assert len(table) == 4 and [cells[1] for cells in table] == ["1", "2", "4", "8"]
    assert table[0][5] == "100 %" and all(60 <= int(cells[5].removesuffix(" %")) <= 110 for cells in table)
    assert "nothing fails" in text


def test_the_batch_of_a_cluster_may_be_too_small(capsys: pytest.CaptureFixture) -> None:
    text = printed("sft --model SmolLM2-135M --gpus 2xH100 --batch-size 2 --train weights --simulate 8", capsys)
    assert "fewer rows than ranks" in text


def test_a_folder_and_a_processor(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    fields = published_config(PUBLISHED["SmolLM2-135M"], "llama")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    text = printed(f"sft --model {tmp_path} --gpus cpu --batch-size 4 --train adapters", capsys)
    assert "on 1 x cpu" in text and "fragments, libraries" in text and "(135M parameters)" in text


def test_options_change_the_plan() -> None:
    base = plan.Config("ppo", train="weights")
    times = {
        name: plan.run(config)[0].times.step
        for name, config in {
            "base": base,
            "slow": plan.Config("ppo", train="weights", efficiency=0.2),
            "short": plan.Config("ppo", train="weights", max_new_tokens=64),
            "mean": plan.Config("ppo", train="weights", mean_new_tokens=64),
            "rule": plan.Config("ppo", train="weights", reward_model="none"),
            "twice": plan.Config("ppo", train="weights", num_ppo_epochs=2),
        }.items()
    }
    assert times["short"] < times["rule"] < times["base"] < times["twice"] and times["base"] < times["slow"]
    assert times["short"] < times["mean"] < times["base"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ppo --model Qwen3-9B", "no folder, published shape or preset is called 'Qwen3-9B'; did you mean"),
        ("ppo --gpus 8xH1000", "no GPU is known as 'H1000'; did you mean 'H100'"),
        ("ppo --reward-model Qwen9", "called 'Qwen9'"),
        (
            "sft --model Llama-3.1-70B --gpus 2xH100 --train weights",
            r"sft of Llama-3.1-70B fits in no layout of 2 x H100 \(79.1 GiB each\): the smallest needs \d+ GiB of a "
            r"GPU, and 73 can be filled; \d+xH100 would do",
        ),
        ("sft --model Qwen3-32B --gpus 2xH100 --train weights", "--train adapters would do"),
        ("ppo --model Qwen3-8B --gpus 4090", "would do"),
        ("sft --model Llama-2-7B --prompt-tokens 8000", r"rows of 8,512 tokens are beyond the 4,096 of Llama-2-7B"),
        ("sft --model Qwen3-8B --prompt-tokens 40000", "no layout .* has a row for each rank"),
        ("ppo --batch-size 0", "batch_size is 0; it must be 1 or more"),
        ("grpo --batch-size 9", "batch_size 9 is not a multiple of the 8 completions of a prompt"),
        ("ppo --mean-new-tokens 600", "mean_new_tokens 600 is above max_new_tokens 512; give a smaller one"),
        ("sft --mean-new-tokens 64", "mean_new_tokens with sft, which samples nothing; leave it out"),
        ("ppo --overlap 2", r"overlap is 2.0; it must lie in \[0, 1\]"),
        ("ppo --efficiency -1", "efficiency is -1.0"),
        ("ppo --simulate 12", "simulate 12 is below twice the 8 GPUs"),
        ("ppo --simulate 999999999", "at most 100,000 can be planned"),
        ("ppo --network -5", "network is -5.0"),
        ("tokenizer", "invalid choice"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["plan", *arguments.split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(message, lines[0]), lines
