"""Ways to fine-tune over a tiny demo: what trains in each, on the same examples, and what stands in the report."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.recipes import compare_peft
from amenable.recipes.compare_peft import WAYS
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.runtime import start_runtime
from tests.conftest import ONE_THREAD, write_rows


@pytest.fixture
def config(small_demo: Path, tmp_path: Path) -> compare_peft.Config:
    reviews = [{"text": f"{('bad', 'good')[i % 2]} soup {i}", "label": i % 2} for i in range(8)]
    chats = [{"prompt": f"Name thing {i}.", "completion": "A rose."} for i in range(6)]
    return compare_peft.Config(
        base_run=small_demo,
        data=(write_rows(tmp_path / "reviews.jsonl", reviews),),
        demonstrations=(write_rows(tmp_path / "chats.jsonl", chats[:4]),),
        held_out=write_rows(tmp_path / "held_out.jsonl", chats[4:]),
        out=tmp_path / "peft",
        rank=2,
        virtual_tokens=3,
        learning_rates=("prefix=0.25",),
        epochs=1,
        seeds=1,
        device=ONE_THREAD,
    )


def test_ways_train_side_by_side_and_are_measured_on_the_same_examples(
    in_turn: None, config: compare_peft.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(config, ways=("full", "prefix"))
    out = compare_peft.run(config)
    figures = json.loads((out / "peft.json").read_text())["stages"]
    for stage, examples in (("classify", 2), ("sft", 2)):
        rows = figures[stage]
        assert list(rows) == ["full", "prefix"] and {row["examples"] for row in rows.values()} == {examples}
        assert rows["full"]["difference"] is None and rows["full"]["share"] == pytest.approx(1, abs=0.01)
        assert rows["prefix"]["share"] < 0.2 and rows["prefix"]["learning_rate"] == 0.25
        for row in rows.values():
            assert row["quality"]["low"] <= row["quality"]["value"] <= row["quality"]["high"]
            assert row["seconds"] > 0 and row["training_bytes"] >= 0 and len(row["seeds"]) == 1
    # the loss is that of the stage's own evaluation
    finished = json.loads((out / "seed-0" / "sft-full" / "finished.json").read_text())
    assert figures["sft"]["full"]["quality"]["value"] == pytest.approx(finished["eval/loss"], rel=1e-3)
    page = (out / "peft.html").read_text()
    assert "Supervised fine-tuning" in page and "prefix tuning" in page and "by seed" in page
    assert f"--stages classify sft --data {config.data[0]}" in page and "--ways full prefix --epochs 1" in page
    assert "held-out loss" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    compare_peft.run(config)
    assert before and {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before


def test_every_way_trains_its_own_weights(config: compare_peft.Config, tmp_path: Path) -> None:
    shape = pretrained.read_config(config.base_model)
    width, layers = shape.hidden_size, shape.num_layers
    for stage, extra in (("classify", 2 * width + 3 * width), ("sft", 0)):  # a head, and new tokens
        plans = compare_peft.plan_of(config, stage, tmp_path, 0)
        configs = {way: each.config for way, each in plans.items()}
        counts = compare_peft.count_parameters(configs, start_runtime(config.device))
        trained = {way: count for way, (count, _) in counts.items()}
        assert list(counts) == list(WAYS) and trained["full"] == pytest.approx(counts["full"][1], abs=2)
        assert trained["prompt"] == 3 * width + extra
        assert trained["prefix"] == 3 * 2 * layers * shape.kv_head_count * shape.head_size + extra
        assert trained["prompt"] < trained["lora"] < trained["top"] < trained["full"]
        assert configs["top"].frozen_layers == layers - layers // 2


def test_without_data_the_closed_worlds_are_used(small_demo: Path, tmp_path: Path) -> None:
    config = compare_peft.Config(base_run=small_demo, out=tmp_path, top_layers=1)
    classifier = compare_peft.plan_of(config, "classify", tmp_path, 0)["top"].config
    assert classifier.task == "multiple-choice" and all(path.is_file() for path in classifier.data)
    assert classifier.frozen_layers == pretrained.read_config(config.base_model).num_layers - 1
    assistant = compare_peft.plan_of(config, "sft", tmp_path, 3)["lora"].config
    assert assistant.validation == small_demo / "world" / "demonstrations" / "validation.jsonl"
    assert (assistant.seed, assistant.lora.rank, assistant.out) == (3, 8, tmp_path / "sft-lora")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rates": ("lra=1e-3",)}, "learning rate 'lra=1e-3'; write WAY=RATE"),
        ({"learning_rates": ("lora=fast",)}, "learning rate 'lora=fast'"),
        ({"learning_rates": ("lora=0",)}, "learning rate 'lora=0'"),
        ({"ways": ("full",)}, "fewer than two ways"),
        ({"stages": ()}, "no stage is given"),
        ({"seeds": 0}, "seeds is 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_peft.Config(**wrong)


def test_what_it_starts_from_is_checked_before_any_run(
    config: compare_peft.Config,
    tokenizer_folder: Path,
    make_decoder: Callable[..., Decoder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare_peft, "run_all", lambda *arguments, **options: pytest.fail("a run began"))
    with pytest.raises(InputError, match="no such model folder"):
        compare_peft.run(replace(config, model=tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"there is no world/world.json; make it by `amenable demo`"):
        compare_peft.run(replace(config, data=(), base_run=tmp_path, model=config.base_model))
    tokenizer = Tokenizer.load(tokenizer_folder)
    loading.save_model(tmp_path / "base", make_decoder(vocab_size=tokenizer.vocab_size), tokenizer)
    monkeypatch.setattr(Tokenizer, "with_chat_template", lambda self: self.with_tokens(("<|user|>", "<|extra|>")))
    with pytest.raises(InputError, match=r"the chat template adds \d tokens, whose embeddings train in 'full' alone"):
        compare_peft.run(replace(config, model=tmp_path / "base"))
