"""Best-of-n at inference: of n completions of a prompt the one that a reward scores highest.

Search in place of training: the chosen completion is KL log n - (n - 1) / n nats from the model at most, and costs n
completions. `evaluation/best_of.py` measures its gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from amenable.data.types import Prompt
from amenable.errors import InputError
from amenable.generation.requests import Completion
from amenable.rewards.functions import columns_of
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.spec import Reward, Specs, load_reward
from amenable.text.chat import decode_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import to_row
from amenable.train.runtime import Runtime

MAX_BEST_OF = 1024


@dataclass(frozen=True, kw_only=True)
class BestOfOptions:
    """Options of commands whose answers may be chosen by a reward."""

    best_of: int = 1
    """completions that are drawn of each one that is answered: the one of highest reward"""
    reward: Specs = ()
    """chooses among them: a reward model's folder, FOLDER:LABEL, FILE.py:FUNCTION, a rule or an http address; several
    are added, each SPEC or SPEC=WEIGHT"""
    scoring: Scoring = field(default_factory=RewardOptions)

    def __post_init__(self) -> None:
        if not 1 <= self.best_of <= MAX_BEST_OF:
            raise InputError(f"best_of is {self.best_of}", how=f"it must be 1 to {MAX_BEST_OF:,}")
        if self.best_of > 1 and not self.reward:
            raise InputError(f"best_of is {self.best_of} without a reward", how="give --reward, which chooses")
        if self.reward and self.best_of == 1:
            raise InputError("a reward chooses among one completion", how="give --best-of 2 or more, or no --reward")


def load_best_of(options: BestOfOptions, runtime: Runtime, own_columns: bool = True) -> BestOf | None:
    """Return the choice that options describe; None for one completion. InputError for a reward that is not there, and
    without `own_columns` of the prompts for one that needs some."""
    if options.best_of == 1:
        return None
    reward = load_reward(options.reward, runtime, options=options.scoring)
    if not own_columns:
        reward.require_columns([{}])
    return BestOf(reward, options.best_of)


@dataclass(frozen=True)
class BestOf:
    """Choice of one among n completions of a prompt by a reward."""

    reward: Reward
    n: int

    def choose(
        self,
        prompt: Prompt,
        ids: Sequence[int],
        completions: Sequence[Completion],
        tokenizer: Tokenizer,
        cut: bool = False,
    ) -> tuple[list[int], Tensor]:
        """Return the index of the best of every n neighbouring completions (of equal ones the first), and the scores of
        all, [len(completions)].

        ids: the prompt's, by `tokenizer`. cut: let a reward model read the beginning of a longer row, in place of an
        InputError. RewardError where the reward fails.
        """
        count = len(completions)
        texts = [decode_completion(tokenizer, each.ids) for each in completions]
        rows = [to_row(ids, each.ids) for each in completions]
        columns = {**columns_of([prompt], count), "ended": [each.ended for each in completions]}
        scores = self.reward.total(
            self.reward.scores([prompt.messages] * count, texts, columns, rows, tokenizer, cut=cut)
        )
        best = scores.view(-1, self.n).argmax(1).tolist()
        return [group * self.n + k for group, k in enumerate(best)], scores

    def choose_groups(
        self,
        prompts: Sequence[Prompt],
        groups: Sequence[list[Completion]],
        tokenizer: Tokenizer,
    ) -> tuple[list[list[Completion]], list[list[float]]]:
        """Return the chosen completions of each prompt, and their scores after the prompt alone: what came before it
        when they were sampled does not count."""
        chosen, rewards = list[list[Completion]](), list[list[float]]()
        for prompt, group in zip(prompts, groups, strict=True):
            best, scores = self.choose(prompt, render_prompt(tokenizer, prompt.messages), group, tokenizer)
            chosen.append([group[i] for i in best])
            rewards.append(scores[best].tolist())
        return chosen, rewards
