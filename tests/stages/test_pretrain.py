"""`amenable pretrain`: the loss falls far below log V, and a run in two halves is the run in one."""

import gzip
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from amenable import hash_cache
from amenable.data.readers import list_files
from amenable.errors import InputError, Interrupted
from amenable.models.lora import LoraOptions
from amenable.stages import pretrain, tokenizer
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.runtime import Runtime
from amenable.train.text_chunks import TextSplits, read_chunks


def read(config: pretrain.Config, words: Tokenizer) -> TextSplits:
    assert config.context is not None
    return read_chunks(config, words, config.context, config.eval_tokens)


@pytest.fixture
def short(pretrain_config: pretrain.Config, tmp_path: Path) -> pretrain.Config:
    """Eight steps with everything that has a state: two optimizers, a schedule, dropout."""
    return replace(pretrain_config, out=tmp_path / "short", max_steps=8, dropout=0.1, eval_steps=4)


def test_it_learns(base: Path, rows_of: Callable[[Path], list[dict[str, Any]]]) -> None:
    rows = rows_of(base)
    assert rows[0]["loss"] == pytest.approx(math.log(320), rel=0.02)  # as if every token were as likely
    assert rows[-1]["loss"] < 1.0
    report = [row["eval/bpb"] for row in rows if "eval/bpb" in row]
    assert len(report) == 2 and report[1] < report[0] < 1.0


def test_the_saved_model_has_the_loss_that_was_told(
    base: Path, pretrain_config: pretrain.Config, runtime: Runtime, rows_of: Callable[[Path], list[dict[str, Any]]]
) -> None:
    decoder, words = loading.load_policy(base, runtime)
    texts = read(pretrain_config, words)
    held_out, byte_count = texts.held_out, sum(texts.byte_counts)
    nats = forward.mean_loss(decoder, held_out, runtime, 500) * sum(sum(trained) for _, trained in held_out)
    report = rows_of(base)[-1]["eval/bpb"]
    assert nats / math.log(2) / byte_count == pytest.approx(report, rel=1e-4)
    assert json.loads((base / "finished.json").read_text())["eval/bpb"] == report


def test_a_stopped_run_goes_on_to_the_bit(
    short: pretrain.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    whole = outcome(pretrain.run(replace(short, out=tmp_path / "whole")))
    for stop in (3, 8):
        parted = run_in_two(pretrain, replace(short, out=tmp_path / f"stopped-{stop}"), stop)
        assert outcome(parted) == whole, f"stopped at {stop}"


def test_another_seed_is_another_run(short: pretrain.Config, outcome: Callable, tmp_path: Path) -> None:
    other = replace(short, seed=1, out=tmp_path / "other", max_steps=6)
    first = outcome(pretrain.run(replace(short, max_steps=6)))
    assert outcome(pretrain.run(other))["metrics.jsonl"] != first["metrics.jsonl"]


def test_small_passes_give_the_same_losses(short: pretrain.Config, rows_of: Callable, tmp_path: Path) -> None:
    plain = replace(short, dropout=0.0, max_steps=6)
    one = rows_of(pretrain.run(plain))
    many = rows_of(pretrain.run(replace(plain, max_tokens_per_pass=60, out=tmp_path / "many")))
    assert [row["loss"] for row in many] == pytest.approx([row["loss"] for row in one], rel=1e-3)


def test_validation_text_of_its_own(short: pretrain.Config, tokenizer_folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("The rose is red.")
    words = Tokenizer.load(tokenizer_folder)
    texts = read(replace(short, validation=own), words)
    assert [ids for ids, _ in texts.held_out] == [[words.bos_id, *words.encode("The rose is red."), words.eos_id]]
    assert texts.byte_counts == [16] and len(texts.training) == 240


def test_held_out_text_is_not_trained_on_and_keeps_to_its_budget(
    short: pretrain.Config, tokenizer_folder: Path
) -> None:
    words = Tokenizer.load(tokenizer_folder)
    texts = read(short, words)
    assert not {tuple(ids) for ids, _ in texts.held_out} & {tuple(ids) for ids, _ in texts.training}
    small = read(replace(short, eval_tokens=60), words)
    few = small.held_out
    assert 0 < sum(len(ids) for ids, _ in few) <= 60
    assert sum(small.byte_counts) == sum(len(words.decode(ids).encode()) for ids, _ in few)


@pytest.mark.parametrize("wrong", [{"context": 1}, {"max_steps": -1}, {"epochs": 0}, {"tokens_per_step": 0}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        pretrain.Config(**wrong)  # type: ignore[arg-type]


def test_a_warm_up_longer_than_the_run_shrinks(short: pretrain.Config, capsys: pytest.CaptureFixture) -> None:
    pretrain.run(replace(short, warmup_steps=20))
    assert "8 steps, 1 of them warm-up (the 20 given do not fit)" in capsys.readouterr().err


@pytest.fixture
def further(base: Path, short: pretrain.Config) -> pretrain.Config:
    """Eight more steps of the session's base model, at the rate that follows from it, with dropout."""
    return replace(short, model=str(base), tokenizer=None, context=None, optimizer=pretrain.Config().optimizer)


def test_a_trained_model_is_trained_on_from_what_it_knows(
    further: pretrain.Config, base: Path, rows_of: Callable, capsys: pytest.CaptureFixture
) -> None:
    out = pretrain.run(further)
    rows, before = rows_of(out), rows_of(base)[-1]["eval/bpb"]
    assert [row["step"] for row in rows if "health" not in row] == [*range(9)]
    assert rows[0]["eval/bpb"] == pytest.approx(before, rel=1e-5)
    assert f"step 0: {before:.4g} bits per byte" in capsys.readouterr().err
    assert rows[8]["eval/bpb"] < 1.05 * before and rows[1]["loss"] < 1.5
    assert "model" in json.loads((out / "lineage.json").read_text())["inputs"]
    assert loading.load_policy(out, Runtime(torch.device("cpu"), False, 1))[1].vocab_size == 320
    assert "muon_lr" not in rows[1] and rows[1]["lr"] <= 4e-4  # a tenth of the smallest models' peak


def test_more_pretraining_that_was_stopped_goes_on_to_the_bit(
    further: pretrain.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    whole = outcome(pretrain.run(replace(further, out=tmp_path / "whole")))
    assert outcome(run_in_two(pretrain, further, 3)) == whole


def test_adapters_are_pretrained_on_a_model_and_not_on_a_preset(further: pretrain.Config, base: Path) -> None:
    adapted = replace(further, max_steps=2, lora=LoraOptions(rank=2))
    out = pretrain.run(adapted)
    assert (out / "adapter" / "adapter_config.json").exists()
    assert yaml.safe_load((out / "config.yaml").read_text())["optimizer"]["learning_rate"] == 4e-3  # ten times
    with pytest.raises(InputError, match="a new model has no weights for adapters; name a model's folder"):
        pretrain.run(replace(adapted, model="two-layers"))


def test_what_does_not_belong_to_the_model_is_refused(
    further: pretrain.Config, tokenizer_folder: Path, files: Any, tmp_path: Path
) -> None:
    assert pretrain.prepare(replace(further, tokenizer=tokenizer_folder), Path(further.model))[2].vocab_size == 320
    other = tokenizer.run(tokenizer.Config(files.text, files.demonstrations, tmp_path / "words", vocab_size=300))
    for change, message in (
        ({"tokenizer": other}, "is not the tokenizer of .*; leave out --tokenizer"),
        ({"context": 65}, "context is 65; the model's is 64"),
        ({"model": "tw-layers"}, "no preset is called 'tw-layers'; did you mean 'two-layers'"),
        ({"model": "no/where"}, "no such model folder"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain.run(replace(further, **change))


def test_a_run_on_shards_behind_a_url_is_the_run_on_one_file(
    short: pretrain.Config,
    stop_at: Callable[[int], None],
    outcome: Callable[[Path], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shards of three kinds, tokenized one by one; after a stop it refuses another number of them, and goes on."""
    fs = pytest.importorskip("fsspec").filesystem("memory")
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    zstandard = pytest.importorskip("zstandard")
    (file,) = list_files(short.data)
    rows, last = Path(file).read_bytes().splitlines(keepends=True), io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist([json.loads(row) for row in rows[200:]]), last)
    shards = {
        "0.jsonl.zst": zstandard.compress(b"".join(rows[:100])),
        "1.jsonl.gz": gzip.compress(b"".join(rows[100:200])),
    }
    fs.pipe({f"/shards/{name}": content for name, content in {**shards, "2.parquet": last.getvalue()}.items()})
    expected = outcome(pretrain.run(replace(short, out=tmp_path / "whole", max_steps=4)))
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "LARGE", 1)
    config = replace(short, data=("memory://shards/*",), max_steps=4)
    stop_at(2)
    with pytest.raises(Interrupted):
        pretrain.run(config)
    fs.pipe("/shards/3.jsonl", rows[0])
    with pytest.raises(InputError, match="was begun with other files: data had 3 and has 4; restore it, or give"):
        pretrain.run(config)
    fs.rm("/shards/3.jsonl")
    assert outcome(pretrain.run(config)) == expected
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 4, "three shards, and what is joined"
    fs.rm("/shards", recursive=True)
