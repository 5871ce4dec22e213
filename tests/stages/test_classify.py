"""`amenable classify`: each task is learned, resumes to the bit, and opens in transformers with the same logits."""

import importlib.util
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions
from amenable.recipes import verify
from amenable.rewards.classifier import describe_training
from amenable.rewards.spec import load_reward
from amenable.stages import classify
from amenable.text.task_inputs import TASK_TOKENS, task_rows
from amenable.text.tokenizer import Tokenizer
from amenable.train import classification, forward, loading
from amenable.train.classification import Labels
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import DeviceOptions, Runtime
from tests.conftest import MANNERS, THINGS, say, write_rows

PAIRS = [(colour, thing) for colour, things in THINGS.items() for thing in things]


def labelled_rows(task: str, count: int) -> list[dict[str, Any]]:
    """Rows of a task about things and their colours."""
    draw, rows = random.Random(3), []
    for i in range(count):
        colour, thing = draw.choice(PAIRS)
        if task == "classification":
            rows.append({"text": f"{say(colour, thing, MANNERS[i % 2])} {i}", "label": MANNERS[i % 2]})
        elif task == "entailment":
            rows.append({"premise": f"{i}: it is {colour}.", "hypothesis": f"{MANNERS[i % 2]} so.", "label": i % 2})
        elif task == "similarity":
            score = float(i % 2) * 4 + 0.5
            second = f"{MANNERS[0] if i % 2 else MANNERS[1]}, {thing}"
            rows.append({"sentence1": f"{MANNERS[0]}, {thing} {i}", "sentence2": second, "label": score})
        else:
            choices = [f"{manner}: a {thing}" for manner in (MANNERS if i % 2 else MANNERS[::-1])]
            rows.append({"context": f"A {thing} {i}", "choices": choices, "answer": 1 - i % 2})
    return rows


@pytest.fixture(scope="module")
def config(base: Path, tmp_path_factory: pytest.TempPathFactory) -> classify.Config:
    folder = tmp_path_factory.mktemp("classify")
    return classify.Config(
        model=base,
        data=(write_rows(folder / "classification.jsonl", labelled_rows("classification", 96)),),
        out=folder / "run",
        lm_coef=0.1,
        epochs=8,
        batch_size=8,
        optimizer=OptimizerConfig(learning_rate=5e-3),
        head_learning_rate=0.03,
        warmup_steps=2,
        validation_split=0.25,
        save_steps=0,
        device=DeviceOptions("cpu", "fp32", 1),
    )


@pytest.fixture(scope="module")
def classifier(config: classify.Config) -> Path:
    """A finished run on texts of two manners."""
    return classify.run(config)


def finished(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "finished.json").read_text("utf-8"))


def test_it_learns_to_tell_texts_apart(classifier: Path, rows_of: Callable) -> None:
    rows, done = rows_of(classifier), finished(classifier)
    assert rows[0]["task_loss"] == pytest.approx(0.693147, abs=1e-5), "the head starts at zero"
    assert rows[0]["loss"] == pytest.approx(rows[0]["task_loss"] + 0.1 * rows[0]["lm_loss"], rel=1e-5)
    figures = done["validation"]
    assert figures["accuracy"]["value"] > 0.9 and figures["n"] == 24 and figures["labels"] == ["Gladly", "Grimly"]
    assert sum(map(sum, figures["confusion"])) == 24 and figures["matthews"]["low"] > 0.5
    predictions = [json.loads(line) for line in (classifier / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 24 and predictions[0]["loss"] >= predictions[-1]["loss"]
    assert "A classifier by `amenable classify`" in (classifier / "README.md").read_text()
    accuracy = figures["accuracy"]["value"]
    assert re.search(rf"was trained on .*\.jsonl; held-out accuracy {accuracy:.3f}$", describe_training(classifier))
    assert [check.line for check in verify.checks(verify.Config(classifier)) if check.state != "good"] == []


def test_the_plan_names_the_new_tokens(config: classify.Config, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    classify.run(replace(config, out=tmp_path / "run", inspect_batch=True))
    shown = " ".join(capsys.readouterr().err.split())
    assert f"3 new tokens, with embeddings that train: {' '.join(TASK_TOKENS)}" in shown
    assert "labels: Gladly 3" in shown and "the label is read at the last token of each row" in shown
    page = (tmp_path / "run" / "first_batch.html").read_text("utf-8")
    assert "task_start" in page and "task_extract" in page


@pytest.mark.parametrize("task", ["entailment", "similarity", "multiple-choice"])
def test_each_task_is_learned(task: str, config: classify.Config, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", labelled_rows(task, 96))
    out = classify.run(replace(config, task=task, data=(data,), out=tmp_path / "run"))
    figures = finished(out)["validation"]
    if task == "similarity":
        assert figures["pearson"]["value"] > 0.7 and figures["spearman"]["low"] > 0.2
    elif task == "multiple-choice":
        assert figures["accuracy"]["value"] > 0.9 and figures["chance"] == 0.5
    else:
        assert figures["accuracy"]["value"] > 0.8
    assert classification.task_of(out) == task


def test_a_stopped_run_goes_on_to_the_bit(
    config: classify.Config, run_in_two: Callable, outcome: Callable, tmp_path: Path
) -> None:
    """With dropout, and with adapters beside the new tokens."""
    short = replace(config, epochs=1, dropout=0.1, lora=LoraOptions(rank=2), out=tmp_path / "two")
    whole = outcome(classify.run(replace(short, out=tmp_path / "whole")))
    assert outcome(run_in_two(classify, short, 3)) == whole


@pytest.mark.parametrize(
    "options",
    [{"lora": LoraOptions(rank=4)}, {"frozen_layers": 1}, {"lm_coef": 0.0}, {"keep_weights": "loss"}],
    ids=["lora", "frozen", "no lm", "best"],
)
def test_adapters_frozen_layers_and_no_auxiliary_loss(
    options: dict[str, Any], config: classify.Config, runtime: Runtime, rows_of: Callable, tmp_path: Path
) -> None:
    frozen = "lora" in options or "frozen_layers" in options
    config = replace(config, out=tmp_path / "run", epochs=1 if frozen else config.epochs, **options)
    out, labels = classify.run(config), Labels(("Gladly", "Grimly"), {})
    ours, tokenizer = loading.load_classifier(out, runtime)
    start, _, _ = classify.load(replace(config, lora=LoraOptions(), frozen_layers=0, dropout=0.0), labels, runtime)
    before, after = start.decoder.token_embedding.weight, ours.decoder.token_embedding.weight
    count = tokenizer.vocab_size
    assert torch.equal(before[: count - 3], after[: count - 3]) == frozen
    assert not torch.isclose(before[count - 3 : count], after[count - 3 : count]).all(1)[[0, 2]].any()
    assert frozen or finished(out)["validation"]["accuracy"]["value"] > 0.7
    assert ("lm_loss" in rows_of(out)[0]) == ("lm_coef" not in options)


@pytest.mark.parametrize("option", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_train_beside_the_head_and_the_new_tokens(
    option: str, config: classify.Config, runtime: Runtime, rows_of: Callable, tmp_path: Path
) -> None:
    """The folder is peft's adapter, whose base is the classifier beside it."""
    quick = OptimizerConfig(learning_rate=0.03)
    out = classify.run(replace(config, out=tmp_path / "run", optimizer=quick, lm_coef=0.0, **{option: 4}))
    losses = [row["task_loss"] for row in rows_of(out) if "task_loss" in row]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5) and sum(losses[-9:]) < sum(losses[:9])
    (model, tokenizer), (base, _) = (loading.load_classifier(folder, runtime) for folder in (out, out / "base"))
    start, _ = loading.load_policy(config.model, runtime)
    before, after = start.layers.parameters(), model.decoder.layers.parameters()
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))
    assert model.decoder.num_virtual_tokens == 4 and torch.equal(model.score.weight, base.score.weight)
    assert [check.line for check in verify.checks(verify.Config(out)) if check.state != "good"] == []
    ids = task_rows(tokenizer, "classification", ["Gladly: a rose."])[0]
    rows = [(ids, [False] * len(ids))]
    logits, plain = (forward.compute_rewards(each, rows, runtime, 8192) for each in (model, base))
    assert not torch.allclose(logits, plain, atol=1e-3)
    scores = load_reward(f"{out}:Grimly", runtime)([(Message("user", "?"),)], ["Gladly: a rose."])
    assert scores == pytest.approx([float(logits[0, 1] - logits[0, 0])], abs=1e-4)
    if importlib.util.find_spec("peft"):
        lines = verify.checks(verify.Config(out, transformers=True))
        assert [check.state for check in lines if check.name == "transformers"] == ["good"]
    assert '"FOLDER/base"), "FOLDER")' in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"positions": "learned", "norm": "layer", "activation": "gelu", "bias": True, "qk_norm": False},
        {
            **{"positions": "learned", "norm": "layer", "norm_placement": "post", "activation": "gelu", "bias": True},
            "qk_norm": False,
        },
    ],
    ids=["qwen3", "gpt2", "gpt1"],
)
def test_transformers_reads_the_same_logits(
    shape: dict[str, Any],
    config: classify.Config,
    make_decoder: Callable[..., Decoder],
    runtime: Runtime,
    tmp_path: Path,
) -> None:
    """At the extract token, the last that is no padding, of rows that are padded there."""
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer.load(config.model)
    loading.save_model(tmp_path / "base", make_decoder(vocab_size=tokenizer.vocab_size, **shape), tokenizer)
    out = classify.run(replace(config, model=tmp_path / "base", out=tmp_path / "run", epochs=1, dropout=0.0))
    model, tokenizer = loading.load_classifier(out, runtime)
    texts = ("Gladly: a rose.", "Grimly: a frog, it is green.")
    rows = [task_rows(tokenizer, "classification", [text])[0] for text in texts]
    logits = forward.compute_rewards(model, [(ids, [False] * len(ids)) for ids in rows], runtime, 8192)
    try:
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    except ValueError:
        assert not shape or "norm_placement" in shape, "transformers has no classifier of this family"
        pytest.skip("transformers has no classifier of this family")
    assert theirs.config.id2label == {0: "Gladly", 1: "Grimly"}
    longest = max(map(len, rows))
    padded = torch.tensor([ids + [tokenizer.pad_id] * (longest - len(ids)) for ids in rows])
    with torch.no_grad():
        outputs = theirs(input_ids=padded, attention_mask=(padded != tokenizer.pad_id).long()).logits
    torch.testing.assert_close(outputs, logits, atol=1e-5, rtol=1e-4)
    pipeline = transformers.AutoTokenizer.from_pretrained(out)
    marked = [f"{TASK_TOKENS[0]}{text}{TASK_TOKENS[2]}" for text in texts]
    assert [pipeline(text, add_special_tokens=False)["input_ids"] for text in marked] == rows


def test_names_of_classes_and_a_language_model_is_no_classifier(
    config: classify.Config, runtime: Runtime, tmp_path: Path
) -> None:
    out = classify.run(replace(config, labels=("glad", "grim"), epochs=1, out=tmp_path / "run"))
    assert loading.load_classifier(out, runtime)[0].labels == ("glad", "grim")
    with pytest.raises(InputError, match="holds no classifier"):
        pretrained.load_classifier(config.model)
    with pytest.raises(InputError, match="holds a reward model, not a language model"):
        classify.run(replace(config, model=out, out=tmp_path / "again"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lm_coef": -1.0}, "lm_coef is -1.0"),
        ({"prompt_tuning": 4, "frozen_layers": 1}, "virtual tokens are trained alone"),
        ({"labels": ("a",)}, "labels are a"),
        ({"epochs": 0}, "epochs is 0"),
        ({"columns": ("chosen=a",)}, "unknown target 'chosen'"),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        classify.Config(**wrong)
    assert message in str(error.value)
