"""`amenable ngram`: a baseline that other commands take like a transformer."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.evaluation.answering import LoadedModel
from amenable.evaluation.entries import ModelEntry
from amenable.generation.engine import Stream
from amenable.generation.sampling import Sampling
from amenable.library.model import Model
from amenable.recipes import verify
from amenable.serve.conversation import load_models
from amenable.stages import evaluate, ngram, sample, sft
from amenable.train.runtime import start_runtime
from tests.conftest import ONE_THREAD, write_rows


@pytest.fixture(scope="module")
def config(files: Any, tokenizer_folder: Path) -> ngram.Config:
    return ngram.Config(data=(files.text,), tokenizer=tokenizer_folder, device=ONE_THREAD, validation_split=0.1)


@pytest.fixture(scope="module")
def counted(config: ngram.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ngram.run(replace(config, out=tmp_path_factory.mktemp("ngram") / "run"))


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "finished.json").read_text("utf-8"))


def test_longer_contexts_predict_better(config: ngram.Config, counted: Path, tmp_path: Path) -> None:
    orders = [facts(ngram.run(replace(config, order=n, out=tmp_path / str(n))))["eval/bpb"] for n in (1, 2)]
    assert orders[0] > orders[1] > facts(counted)["eval/bpb"] > 0.1
    texts = [json.loads(line)["text"] for line in (counted / "samples.jsonl").read_text("utf-8").splitlines()]
    assert len(texts) == 3 and all(text.startswith("The ") for text in texts)


def test_the_same_command_gives_the_same_files(config: ngram.Config, counted: Path, tmp_path: Path) -> None:
    again = ngram.run(replace(config, out=tmp_path / "again"))
    assert (again / "model.safetensors").read_bytes() == (counted / "model.safetensors").read_bytes()
    assert (again / "samples.jsonl").read_bytes() == (counted / "samples.jsonl").read_bytes()


def test_a_run_that_was_killed_begins_again(config: ngram.Config, counted: Path, tmp_path: Path) -> None:
    out = ngram.run(replace(config, out=tmp_path / "run"))
    (out / "finished.json").unlink()
    again = ngram.run(replace(config, out=out))
    for name in ("metrics.jsonl", "samples.jsonl", "model.safetensors"):
        assert (again / name).read_bytes() == (counted / name).read_bytes()


def test_text_beyond_a_block_is_counted_on_disk(
    config: ngram.Config, counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("stages.ngram", "train.ngram_text", "models.ngram.counting"):
        monkeypatch.setattr(f"amenable.{module}.BLOCK", 500)
    parts = ngram.run(replace(config, out=tmp_path / "parts"))
    assert (parts / "model.safetensors").read_bytes() == (counted / "model.safetensors").read_bytes()


@pytest.mark.parametrize("unit", ["words", "bytes"])
def test_units_are_compared_by_bits_per_byte(config: ngram.Config, unit: Any, tmp_path: Path) -> None:
    own = facts(ngram.run(replace(config, unit=unit, tokenizer=None, out=tmp_path / "run")))
    assert 0.1 < own["eval/bpb"] < 2 and math.isfinite(own["eval/perplexity"])


def test_maximum_likelihood_gives_what_is_new_no_chance(config: ngram.Config, tmp_path: Path) -> None:
    new = write_rows(tmp_path / "new.jsonl", [{"text": "A wholly new text."}])
    own = facts(ngram.run(replace(config, smoothing="mle", validation=new, out=tmp_path / "run")))
    assert own["eval/bpb"] is None and own["eval/impossible_tokens"] > 0


def test_an_arpa_file_gives_the_same_model(config: ngram.Config, files: Any, tmp_path: Path) -> None:
    words = replace(config, unit="words", tokenizer=None, min_count=2, write_arpa=True, out=tmp_path / "words")
    first = ngram.run(words)
    second = ngram.run(
        ngram.Config(
            data=(files.text,),
            arpa=first / "model.arpa",
            device=ONE_THREAD,
            validation_split=0.1,
            out=tmp_path / "read",
        )
    )
    assert facts(second)["eval/perplexity"] == pytest.approx(facts(first)["eval/perplexity"], rel=1e-5)
    assert facts(second)["num_ngrams"] == facts(first)["num_ngrams"]
    tokens = ngram.run(replace(config, write_arpa=True, out=tmp_path / "tokens"))
    third = ngram.run(replace(config, arpa=tokens / "model.arpa", out=tmp_path / "tokens read"))
    assert facts(third)["eval/bpb"] == pytest.approx(facts(tokens)["eval/bpb"], rel=1e-5)


def test_evaluation_compares_it_with_a_transformer(counted: Path, base: Path, files: Any, tmp_path: Path) -> None:
    tasks = write_rows(
        tmp_path / "tasks.jsonl", [{"id": "1", "context": "The rose is", "choices": [" red", " blue"], "answer": 0}] * 4
    )
    out = evaluate.run(
        evaluate.Config(
            models=(f"base={base}", f"ngram={counted}"),
            data=files.prompts,
            lm_data=files.text,
            tasks=(str(tasks),),
            reference=str(base),
            max_prompts=3,
            max_new_tokens=6,
            device=ONE_THREAD,
            out=tmp_path / "evaluation",
        )
    )
    evaluation = json.loads((out / "evaluation.json").read_text("utf-8"))
    models = evaluation["models"]
    assert 0 < models["ngram"]["bpb"] < 1 and 0 < models["base"]["bpb"] < 1
    assert models["ngram"]["kl"] is None
    assert evaluation["tasks"]["tasks"]["ngram"]["accuracy"] == 1


def test_it_is_sampled_from(counted: Path, files: Any, tmp_path: Path) -> None:
    options = sample.SamplingOptions(max_new_tokens=8, top_p=0.9)
    out = sample.run(
        sample.Config(
            model=counted,
            data=(files.prompts,),
            out=tmp_path / "run",
            max_prompts=2,
            sampling=options,
            device=ONE_THREAD,
        )
    )
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 2 and all(row["completions"][0] for row in rows)


def test_it_answers_in_chat_and_in_the_library(counted: Path) -> None:
    runtime = start_runtime(ONE_THREAD)
    first, second = load_models([("a", counted), ("b", counted)], runtime)
    model = LoadedModel.load(ModelEntry("n", counted), runtime)
    streams = [
        Stream(
            each.decoder,
            model.tokenizer.opening_ids,
            Sampling(max_new_tokens=9),
            eos_id=5,
            decode=each.tokenizer.decode,
        )
        for each in (first, second, model)
    ]
    texts = ["".join(stream) for stream in streams]
    assert texts[0] and len(set(texts)) == 1
    assert Model(counted, device="cpu").generate(["The"], max_new_tokens=5)[0]


def test_verify_checks_its_files(counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    verify.run(verify.Config(counted))
    folder = tmp_path / "copy"
    shutil.copytree(counted, folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    with pytest.raises(InputError):
        verify.run(verify.Config(folder))


def test_stages_that_train_refuse_it(counted: Path, files: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n-gram model, which is counted, not trained") as caught:
        sft.run(sft.Config(model=counted, data=files.demonstrations, out=tmp_path / "run"))
    assert "name a transformer's folder" in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "order is 0"),
        ({"order": 33}, "order is 33; it is at most 32"),
        ({"k": 0.0}, "k is 0"),
        ({"validation_split": 0.0}, "validation_split is 0"),
        ({"unit": "words"}, "a tokenizer for units of words"),
        ({"smoothing": "add-k", "write_arpa": True}, "add-k in an ARPA file"),
        ({"data": ("a.jsonl=2",)}, "data has weights"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], message: str, config: ngram.Config) -> None:
    with pytest.raises(InputError, match=message):
        replace(config, **options)


def test_an_arpa_file_that_is_none_stops_it(config: ngram.Config, files: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ARPA file"):
        ngram.run(ngram.Config(data=(files.text,), arpa=files.text, out=tmp_path / "run"))
    with pytest.raises(InputError, match="there is no file"):
        ngram.run(ngram.Config(data=(files.text,), arpa=tmp_path / "none.arpa", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_its_tokenizer_must_be_its_own(counted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(counted, folder)
    words = ngram.word_tokenizer(["a"])
    words.save(folder)
    with pytest.raises(InputError, match="the tokenizer has 4 tokens"):
        LoadedModel.load(ModelEntry("n", folder), start_runtime(ONE_THREAD))
