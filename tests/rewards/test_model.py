"""A reward model as a reward function: its scores are those of the rows that it was always given."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.data.types import Message, Ranking
from amenable.errors import InputError
from amenable.rewards.model import ModelReward
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading
from amenable.train.examples import ranking_rows
from amenable.train.runtime import Runtime

PROMPTS = [(Message("user", "Ann asks: name a red thing."),), (Message("user", "Bo asks: name a blue thing."),)]
ANSWERS = [("Gladly: a rose, it is red.", "Grimly: a brick", ""), ("Gladly: a jay, it is blue.", "No")]
ENDED = [(True, False, True), (True, True)]


def test_texts_are_scored_as_a_rankings_rows_are(judge: Path, runtime: Runtime) -> None:
    reward, tokenizer = ModelReward.load(judge, runtime), Tokenizer.load(judge)
    model, rows = loading.load_reward_model(judge, runtime, tokenizer, frozen=True), list[forward.Row]()
    for prompt, answers, ended in zip(PROMPTS, ANSWERS, ENDED):
        ranking = Ranking(prompt, answers, (1.0,) * len(answers), meta={"ended": list(ended)})
        rows += ranking_rows(ranking, tokenizer, 64) or []
    expected = forward.compute_rewards(model, rows, runtime, 8192)
    prompts = [prompt for prompt, answers in zip(PROMPTS, ANSWERS) for _ in answers]
    completions, ended = ([item for group in groups for item in group] for groups in (ANSWERS, ENDED))
    assert reward(prompts, completions, ended=ended, target=[0] * 5) == expected.tolist()
    assert torch.equal(reward.score_rows(rows), expected) and expected.std() > 0
    assert reward(prompts, completions) != expected.tolist()  # what was cut is another text than what ended
    assert not any(parameter.requires_grad for parameter in reward.model.parameters())


def test_nothing_is_cut(judge: Path, runtime: Runtime) -> None:
    reward = ModelReward.load(judge, runtime)
    long = "rose " * 60
    assert reward.fits(PROMPTS[0], ANSWERS[0]) and not reward.fits(PROMPTS[0], ["a", long])
    assert reward.fits(PROMPTS[0], [])
    with pytest.raises(InputError, match=r"a completion with its prompt has \d+ tokens, and the reward model reads 64"):
        reward(PROMPTS, ["a", long])


def test_whose_ids_it_reads(judge: Path, other_judge: Path, runtime: Runtime) -> None:
    reward = ModelReward.load(judge, runtime)
    assert reward.reads(Tokenizer.load(judge)) and not reward.reads(Tokenizer.load(other_judge))


def test_no_passes_above_the_budget(judge: Path, runtime: Runtime) -> None:
    whole = ModelReward.load(judge, runtime)
    small = replace(whole, max_tokens=40)
    scores = [torch.tensor(reward(PROMPTS * 3, [*ANSWERS[0], *ANSWERS[0]])) for reward in (whole, small)]
    assert torch.allclose(*scores, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_a_published_classifier_is_read_where_transformers_reads_it(
    side: str, judge: Path, runtime: Runtime, tmp_path: Path
) -> None:
    """Its padding is the token that ends a turn: the score is then that of the last token before."""
    transformers = pytest.importorskip("transformers")
    shutil.copytree(judge, tmp_path / "published")
    pad = Tokenizer.load(judge).end_of_turn_id
    fields = json.loads((judge / "config.json").read_text()) | {"pad_token_id": pad, "score_bias": 0.0}
    (tmp_path / "published" / "config.json").write_text(json.dumps(fields))
    reward = ModelReward.load(tmp_path / "published", runtime)
    prompts = [prompt for prompt, answers in zip(PROMPTS, ANSWERS) for _ in answers]
    completions = [answer for answers in ANSWERS for answer in answers]
    rows = [torch.tensor(ids) for ids, _ in reward.rows(prompts, completions)]
    assert all(row[-1] == pad for row in rows)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "published").eval()
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad, padding_side=side)
    lengths = torch.tensor([len(row) for row in rows])
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    mask = (inside if side == "right" else inside.flip(1)).long()
    expected = theirs(ids, attention_mask=mask).logits[:, 0]
    scores = torch.tensor(reward(prompts, completions))
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores, torch.tensor(ModelReward.load(judge, runtime)(prompts, completions)), atol=1e-3)


def test_scores_are_those_of_transformers_text_classification(judge: Path, runtime: Runtime) -> None:
    transformers = pytest.importorskip("transformers")
    reward = ModelReward.load(judge, runtime)
    chats = [
        [{"role": "user", "content": prompt[0].content}, {"role": "assistant", "content": answer}]
        for prompt, answers in zip(PROMPTS, ANSWERS)
        for answer in answers
    ]
    classify = transformers.pipeline("text-classification", model=str(judge), batch_size=2, device="cpu")
    texts = [classify.tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    outputs = classify(texts, function_to_apply="none", add_special_tokens=False)
    scores = reward([prompt for prompt, answers in zip(PROMPTS, ANSWERS) for _ in answers], sum(ANSWERS, ()))
    bias = json.loads((judge / "config.json").read_text())["score_bias"]
    assert [output["score"] + bias for output in outputs] == pytest.approx(scores, abs=1e-4)
