"""Examples of a task: their labels, rows and loss."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from amenable.data.mixture import Mixed
from amenable.data.task_columns import TaskExample
from amenable.errors import InputError
from amenable.models.heads import Classifier
from amenable.text.task_inputs import TASK_TOKENS, task_rows
from amenable.text.tokenizer import Tokenizer
from amenable.train import classification
from amenable.train.classification import Labels, TaskObjective
from amenable.train.objective import accumulate, require_zero_outputs

CLASSES = Labels(("no", "yes"), {"0": 0, "1": 1})


@dataclass(frozen=True)
class Options:
    task: str = "classification"
    labels: tuple[str, ...] = ()
    lm_coef: float = 0.5
    data: Path = Path("rows.jsonl")
    validation: Path | None = None
    validation_split: float = 0.25
    seed: int = 0
    columns: tuple[str, ...] = ()


def splits(training, validation=()):
    def examples(labels):
        return [TaskExample((f"text {i}",), label, f"rows:{i}") for i, label in enumerate(labels, start=1)]

    return {"train": Mixed([""], [examples(training)]), "validation": Mixed([""], [examples(validation)])}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return Tokenizer.load(tokenizer_folder).with_tokens(TASK_TOKENS)


@pytest.fixture
def make_classifier(make_decoder, tokenizer):
    return classifiers(make_decoder, tokenizer)


def classifiers(make_decoder, tokenizer):
    """Return a function that makes a classifier with a drawn head."""

    def make(labels=("no", "yes"), predicts=True, **changes):
        decoder = make_decoder(vocab_size=tokenizer.vocab_size, **changes)
        model = Classifier(decoder, labels, predicts)
        torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(3))
        return model.eval()

    return make


def elements(tokenizer, task, lm_coef, labels=CLASSES, count=4):
    texts = ["a rose is red", "the sea is blue", *(["snow"] if task == "multiple-choice" else [])]
    texts = texts[:1] if task == "classification" else texts
    label = 1.0 if task == "multiple-choice" else "1"
    options = Options(task, lm_coef=lm_coef)
    rows = [TaskExample((f"{i} {texts[0]}", *texts[1:]), label, f"r{i}") for i in range(count)]
    return [classification.labeled_rows(row, options, labels, tokenizer) for row in rows]


@pytest.mark.parametrize(
    ("training", "validation", "names", "expected"),
    [
        (["1", "0", "1"], ["0"], (), (("0", "1"), {"0": 0, "1": 1})),
        (["10", "9", "2"], [], (), (("2", "9", "10"), {"2": 0, "9": 1, "10": 2})),
        (["pos", "neg"], [], (), (("neg", "pos"), {"neg": 0, "pos": 1})),
        (["1", "0"], [], ("bad", "good"), (("bad", "good"), {"0": 0, "1": 1})),
        (["pos", "neg"], [], ("pos", "neg"), (("pos", "neg"), {"pos": 0, "neg": 1})),
    ],
)
def test_classes_are_in_the_order_of_their_labels(training, validation, names, expected):
    labels = classification.find_labels(splits(training, validation), "classification", names)
    assert (labels.names, labels.values) == expected


def test_numbers_become_standard_deviations():
    labels = classification.find_labels(splits(["1", 2.5, 4.0], [3.0]), "similarity")
    assert labels.values == {} and labels.encode(2.5) == 0 and labels.encode("4") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("training", "validation", "names", "message"),
    [
        (["1", "1"], [], (), "all 2 training rows have the label '1'"),
        ([2.5, 2.5], [], (), "all labels are 2.5"),
        (["1", "0"], ["2"], (), "the held-out label '2' is no training row's; labels of the training rows are 0, 1"),
        (["1", 2.5], ["pos"], (), "the label is 'pos', and those of other rows are numbers"),
        (["1", "0"], [], ("a", "b", "c"), "3 names for 2 labels; name each of 0, 1"),
    ],
)
def test_labels_that_do_not_match(training, validation, names, message):
    with pytest.raises(InputError) as error:
        classification.find_labels(splits(training, validation), "similarity", names)
    assert message in str(error.value)


def test_a_text_is_in_one_split_only(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"premise": f"p{i // 3}", "hypothesis": f"h{i}", "label": i % 2} for i in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    parts = classification.read_examples(Options("entailment", data=file))
    texts = [{example.texts[0] for example in parts[name]} for name in ("train", "validation")]
    assert len(parts["train"]) + len(parts["validation"]) == 60 and not texts[0] & texts[1] and texts[1]


def test_rows_longer_than_the_context_are_left_out(tokenizer, capsys):
    parts = splits(["0", "1", "1"])
    long = TaskExample(("a rose " * 90,), "0", "rows:9")
    parts["train"].parts[0].append(long)
    training, _ = classification.tokenize(parts, Options(), CLASSES, tokenizer, 64, Path("rows.jsonl"))
    assert len(training) == 3 and "1 of 4 examples left out" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of the 1 examples is within 64 tokens"):
        only = {"train": Mixed([""], [[long]]), "validation": Mixed([""], [[]])}
        classification.tokenize(only, Options(), CLASSES, tokenizer, 64, Path("rows.jsonl"))


def test_the_loss_mask_is_the_row_or_its_last_token(tokenizer):
    (first, *_) = elements(tokenizer, "entailment", 0.5)
    ids, mask = first.rows[0]
    assert mask == [False] + [True] * (len(ids) - 1) and first.tokens == len(ids)
    (ids, mask), (other, _) = elements(tokenizer, "similarity", 0.0)[0].rows
    assert mask == [False] * (len(ids) - 1) + [True] and sorted(ids) == sorted(other) and ids != other
    rows = elements(tokenizer, "multiple-choice", 0.0, Labels(("score",), {}))
    assert len(classification.check(rows, tokenizer).rows) == 8


@pytest.mark.parametrize("lm_coef", [0.0, 0.5])
@pytest.mark.parametrize("task", ["classification", "entailment", "similarity", "multiple-choice"])
def test_the_loss_by_hand(make_classifier, tokenizer, runtime, task, lm_coef):
    """Each row alone through the decoder; of similarity the hidden states are added before the head."""
    choices = task == "multiple-choice"
    model = make_classifier(("score",) if choices else ("no", "yes"))
    labels = Labels(("score",), {}) if choices else CLASSES
    rows = elements(tokenizer, task, lm_coef, labels)
    stats = accumulate(TaskObjective(model, task, labels, lm_coef), rows, runtime, 8192)
    task_losses, lm_losses = [], []
    with torch.no_grad():
        for element in rows:
            states, means = [], []
            for ids, _ in element.rows:
                hidden = model.decoder(torch.tensor(ids), classification.forward.Layout.of([len(ids)]))
                states.append(hidden[-1])
                logps = model.decoder.logits(hidden[:-1]).log_softmax(1)
                means.append(-logps[range(len(ids) - 1), ids[1:]].mean())
            logits = model.score(torch.stack(states) if choices else sum(states)).flatten()
            task_losses.append(-logits.log_softmax(0)[int(element.label)])
            lm_losses.append(torch.stack(means).mean())
    expected = torch.stack(task_losses).mean()
    assert stats["task_loss"] == pytest.approx(expected.item(), abs=1e-5)
    if lm_coef:
        lm_loss = torch.stack(lm_losses).mean()
        assert stats["lm_loss"] == pytest.approx(lm_loss.item(), abs=1e-5)
        expected = expected + lm_coef * lm_loss
    assert stats["loss"] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("lm_coef", [0.0, 0.5])
@pytest.mark.parametrize("task", ["classification", "similarity", "multiple-choice"])
@pytest.mark.parametrize("max_tokens", [1, 60])
def test_passes_change_nothing(make_classifier, tokenizer, runtime, task, lm_coef, max_tokens):
    choices = task == "multiple-choice"
    labels = Labels(("score",), {}) if choices else CLASSES
    rows, results = elements(tokenizer, task, lm_coef, labels), []
    for limit in (8192, max_tokens):
        model = make_classifier(labels.names, tie_embeddings=False)
        stats = accumulate(TaskObjective(model, task, labels, lm_coef), rows, runtime, limit)
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        results.append((stats, torch.cat(gradients)))
    (whole, gradient), (parts, same) = results
    assert parts == pytest.approx(whole, rel=1e-4) and gradient.norm() > 1e-3
    assert torch.allclose(gradient, same, atol=1e-5)


def test_a_regression_starts_at_the_mean_of_the_labels(make_classifier, tokenizer, runtime):
    labels = Labels(("score",), {}, 2.0, 0.5)
    model = make_classifier(("score",))
    torch.nn.init.zeros_(model.score.weight)
    rows = elements(tokenizer, "similarity", 0.5, labels)
    rows = [replace(row, label=labels.encode(value)) for row, value in zip(rows, (1.0, 2.0, 2.5, 3.0))]
    objective = TaskObjective(model, "similarity", labels, 0.5)
    stats = accumulate(objective, rows, runtime, 8192)
    assert stats["task_loss"] == pytest.approx((4 + 0 + 1 + 4) / 4) and "accuracy" not in stats
    require_zero_outputs(objective, rows, stats["task_loss"], objective.width)
    with pytest.raises(RuntimeError, match="the new head is zero"):
        require_zero_outputs(objective, rows, 1.0, objective.width)


def test_the_first_loss_of_classes_is_their_logarithm(make_classifier, tokenizer, runtime):
    model = make_classifier(("a", "b", "c"))
    torch.nn.init.zeros_(model.score.weight)
    labels = Labels(("a", "b", "c"), {"0": 0, "1": 1, "2": 2})
    objective = TaskObjective(model, "classification", labels, 0.0)
    rows = elements(tokenizer, "classification", 0.0, labels)
    stats = accumulate(objective, rows, runtime, 8192)
    assert stats["loss"] == pytest.approx(math.log(3)) and objective.width == 3
    require_zero_outputs(objective, rows, stats["task_loss"], objective.width)


def test_an_example_over_a_pass_needs_dropout_off(tokenizer):
    rows = elements(tokenizer, "multiple-choice", 0.5, Labels(("score",), {}))
    classification.require_whole(rows, 8, 0.0)
    classification.require_whole(rows, 8192, 0.1)
    with pytest.raises(InputError, match=r"r0: its 2 rows have .* raise --max-tokens-per-pass 8, or give --dropout 0"):
        classification.require_whole(rows, 8, 0.1)


def test_a_plan_names_labels_and_choices(tokenizer):
    rows = elements(tokenizer, "classification", 0.0)
    assert classification.describe(rows, CLASSES, "classification") == ["labels: no 0, yes 4"]
    choices = Labels(("score",), {})
    three = [replace(row, rows=row.rows * 2) for row in elements(tokenizer, "multiple-choice", 0.0, choices, 1)]
    rows = [*elements(tokenizer, "multiple-choice", 0.0, choices), *three]
    assert classification.describe(rows, choices, "multiple-choice") == ["choices: 2; 4 in 1 rows"]
    assert "around 2, standard deviation 0.5" in classification.describe([], Labels((), {}, 2.0, 0.5), "similarity")[0]


def test_the_task_is_in_the_folder(tmp_path):
    assert classification.task_of(tmp_path) is None
    classification.write_task(tmp_path, "similarity")
    assert classification.task_of(tmp_path) == "similarity"


def test_all_rows_of_an_example_have_the_same_number_of_tokens(tokenizer):
    first, second = task_rows(tokenizer, "similarity", ("a", "b c d"))
    assert len(first) == len(second)
