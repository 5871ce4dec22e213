"""A classifier as a reward: the log-odds of a label, of the completion or of prompt and completion."""

import json
from pathlib import Path

import pytest
import torch

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.models.heads import Classifier
from amenable.rewards.classifier import ClassifierReward
from amenable.rewards.spec import load_reward
from amenable.text.task_inputs import TASK_TOKENS, task_rows
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.classification import write_task

PROMPTS = [(Message("user", "Name a thing."),), (Message("user", "And a red one?"),)]
TEXTS = ["A rose.", "The sea is blue, and so is the sky."]


@pytest.fixture
def make_folder(tokenizer_folder, make_decoder, tmp_path):
    tokenizer = Tokenizer.load(tokenizer_folder).with_tokens(TASK_TOKENS)

    def make(task="classification", labels=("negative", "positive")) -> Path:
        model = Classifier(make_decoder(vocab_size=tokenizer.vocab_size), labels).eval()
        torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(5))
        loading.save_model(tmp_path / task, model, tokenizer)
        write_task(tmp_path / task, task)
        return tmp_path / task

    return make


def logits_of(folder, runtime, task, texts):
    model, tokenizer = loading.load_classifier(folder, runtime)
    rows = task_rows(tokenizer, task, texts)
    outputs = forward.compute_rewards(model, [(ids, [False] * len(ids)) for ids in rows], runtime, 8192)
    return outputs.view(len(rows), -1).sum(0)


def test_the_log_odds_of_a_label(make_folder, runtime):
    folder = make_folder(labels=("bad", "fair", "good"))
    reward = load_reward(f"{folder}:good", runtime)
    scores = reward(PROMPTS, TEXTS)
    for text, score in zip(TEXTS, scores):
        p = logits_of(folder, runtime, "classification", [text]).softmax(0)[2]
        assert score == pytest.approx(float((p / (1 - p)).log()), abs=1e-5)
    assert load_reward(f"{folder}:bad", runtime)(PROMPTS, TEXTS) != scores
    assert reward.models == [] and reward.name == f"{folder}:good"


@pytest.mark.parametrize("task", ["entailment", "similarity"])
def test_two_texts_are_prompt_and_completion(make_folder, runtime, task):
    folder = make_folder(task)
    (score, _) = load_reward(f"{folder}:positive", runtime)(PROMPTS, TEXTS)
    negative, positive = logits_of(folder, runtime, task, ["Name a thing.", TEXTS[0]]).tolist()
    assert score == pytest.approx(positive - negative, abs=1e-5)


def test_numbers_and_choices_need_no_label(make_folder, runtime):
    folder = make_folder("multiple-choice", ("score",))
    (score, _) = load_reward(str(folder), runtime)(PROMPTS, TEXTS)
    expected = logits_of(folder, runtime, "multiple-choice", ["Name a thing.", TEXTS[0]])
    assert score == pytest.approx(expected.item(), abs=1e-5)


def test_labels_that_it_does_not_have(make_folder, runtime):
    folder = make_folder()
    with pytest.raises(InputError, match="has no label 'positiv'; did you mean 'positive'"):
        load_reward(f"{folder}:positiv", runtime)
    with pytest.raises(InputError, match=r"has 2 labels; name one as .*:LABEL; its labels are negative, positive"):
        load_reward(str(folder), runtime)


def test_a_text_beyond_the_context_is_cut_and_counted(make_folder, runtime):
    folder = make_folder()
    reward = ClassifierReward.load(folder, runtime, "positive")
    long, cut = "A rose is red. " * 60, reward.row(list(range(100)))
    assert cut[0] == [*range(63), 99] and cut[1][-1] and reward.take_counts() == {"cut": 1.0}
    assert len(reward(PROMPTS, [long, ""])) == 2 and reward.take_counts() == {"cut": 1.0}
    assert reward.take_counts() == {"cut": 0.0}


def test_the_log_names_what_it_was_trained_on(make_folder, runtime):
    folder = make_folder()
    assert load_reward(f"{folder}:positive", runtime).notes == []
    inputs = {"model": {"path": "runs/base"}, "data 1": {"path": "a.jsonl"}, "data 2": {"path": "b.jsonl"}}
    (folder / "lineage.json").write_text(json.dumps({"inputs": inputs}))
    (folder / "finished.json").write_text(json.dumps({"validation": {"accuracy": {"value": 0.875}}}))
    expected = f"{folder} was trained on a.jsonl, b.jsonl; held-out accuracy 0.875"
    assert load_reward(f"{folder}:positive", runtime).notes == [expected]
