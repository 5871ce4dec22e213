"""Best-of-n at inference: the completion that a reward scores highest, of each n."""

from dataclasses import replace

import pytest

from amenable.data.types import Message, Prompt
from amenable.errors import InputError
from amenable.generation.requests import Completion
from amenable.rewards.best_of import BestOf, BestOfOptions, load_best_of
from amenable.rewards.spec import load_reward
from amenable.text.chat import render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.runtime import Runtime

PROMPT = Prompt((Message("user", "Name a red thing."),), "a", {"answer": "rose"})


def completion(words: Tokenizer, text: str, ended: bool = True) -> Completion:
    ids = render_completion(words, text, ended)
    return Completion(ids, [0.0] * len(ids), "eos" if ended else "length", text)


def test_of_every_n_neighbours_the_best_and_of_equal_ones_the_first(words: Tokenizer, runtime: Runtime) -> None:
    texts = ["a brick", "a rose", "a ruby, a rose", "none", "a rose", "nothing"]
    completions = [completion(words, text) for text in texts]
    best_of = BestOf(load_reward(("regex:rose",), runtime), 3)
    best, scores = best_of.choose(PROMPT, render_prompt(words, PROMPT.messages), completions, words)
    assert best == [1, 4] and scores.tolist() == [0, 1, 1, 0, 1, 0]


def test_a_reward_reads_columns_and_whether_an_answer_ended(words: Tokenizer, runtime: Runtime) -> None:
    def scored(completions: list[str], ended: list[bool], answer: list[str], **_: object) -> list[float]:
        return [end + (word in text) for text, end, word in zip(completions, ended, answer)]

    completions = [completion(words, "a rose", ended=False), completion(words, "a rose"), completion(words, "a brick")]
    best, scores = BestOf(load_reward(scored, runtime), 3).choose(PROMPT, [1], completions, words)
    assert best == [1] and scores.tolist() == [1, 2, 1]


def test_a_reward_model_scores_the_ids(words: Tokenizer, runtime: Runtime, judge: object) -> None:
    reward = load_reward(str(judge), runtime)
    texts = ["Gladly: a rose, it is red.", "Grimly: a rose, it is red.", "a", "b"]
    completions, ids = [completion(words, text) for text in texts], render_prompt(words, PROMPT.messages)
    best, scores = BestOf(reward, 2).choose(PROMPT, ids, completions, words)
    assert scores.tolist() == pytest.approx(reward([PROMPT.messages] * 4, texts), abs=1e-5)
    assert best == [int(scores[1] > scores[0]), 2 + int(scores[3] > scores[2])]
    long = [completion(words, "a rose " * 60), completions[0]]
    with pytest.raises(InputError, match="the reward model reads"):
        BestOf(reward, 2).choose(PROMPT, ids, long, words)
    assert len(BestOf(reward, 2).choose(PROMPT, ids, long, words, cut=True)[0]) == 1


def test_options_that_choose_nothing_are_refused(runtime: Runtime) -> None:
    assert load_best_of(BestOfOptions(), runtime) is None
    for wrong, message in (
        ({"best_of": 4}, "best_of is 4 without a reward"),
        ({"reward": ("ends",)}, "a reward chooses among one completion"),
        ({"best_of": 0}, "best_of is 0"),
        ({"best_of": 10**12, "reward": ("ends",)}, "best_of is 1000000000000"),
    ):
        with pytest.raises(InputError, match=message):
            BestOfOptions(**wrong)  # type: ignore[arg-type]
    needy = BestOfOptions(best_of=2, reward=("match:answer",))
    with pytest.raises(InputError, match="the reward 'match:answer' needs the column 'answer'"):
        load_best_of(replace(needy), runtime, own_columns=False)
