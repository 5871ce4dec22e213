"""Rewards of sampled answers: a reward as a function of a rollout.

    reward = load_reward(config.reward, runtime, config.max_tokens_per_pass)
    scores = total_score(reward, rollout, prompts, tokenizer, bars("scores"))        # [B], fp32 on the CPU

Reward models of the policy's tokenizer score the very ids that were sampled; functions, endpoints and models of other
tokenizers read the texts, and functions also the columns of the prompts' rows, with `ended` and `id`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from amenable.data.types import Prompt
from amenable.generation.rollout import Rollout
from amenable.rewards.functions import columns_of
from amenable.rewards.spec import Reward
from amenable.text.chat import decode_completion
from amenable.text.tokenizer import Tokenizer
from amenable.train.log import Progress, silent


def score_rollout(
    reward: Reward, rollout: Rollout, prompts: Sequence[Prompt], tokenizer: Tokenizer, progress: Progress = silent
) -> dict[str, Tensor]:
    """Return the unweighted scores [B] of a rollout's answers by each part of the reward; `reward.total` sums them.

    prompts: those of the rollout, each once; its B / len(prompts) samples are neighbours. tokenizer: the policy's.
    """
    samples, rest = divmod(len(rollout.prompts), max(len(prompts), 1))
    if rest or not prompts:
        raise ValueError(f"{len(rollout.prompts)} answers do not belong to {len(prompts)} prompts")
    columns = {**columns_of(prompts, samples), "ended": rollout.ended.tolist()}
    messages = [prompt.messages for prompt in prompts for _ in range(samples)]
    texts = reward.reads_texts(tokenizer)
    completions = [decode_completion(tokenizer, ids) if texts else "" for ids in rollout.completions]
    return reward.scores(messages, completions, columns, rollout.rows(), tokenizer, progress)


def total_score(
    reward: Reward, rollout: Rollout, prompts: Sequence[Prompt], tokenizer: Tokenizer, progress: Progress = silent
) -> Tensor:
    """Return the summed score [B] of a rollout's answers (fp32, on the CPU)."""
    return reward.total(score_rollout(reward, rollout, prompts, tokenizer, progress))
