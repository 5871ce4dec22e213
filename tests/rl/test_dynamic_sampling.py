"""Dynamic sampling: prompts whose answers all have one score give way to others, a bounded number of times."""

from collections.abc import Sequence

import pytest
import torch

from amenable.data.mixture import Mixed
from amenable.data.types import Prompt
from amenable.generation.rollout import Rollout, length_mask
from amenable.rl.dynamic_sampling import collect_varied, equal_groups, replacements
from amenable.rl.experience import Experience, TokenizedPrompt
from amenable.rl.options import OnlineOptions

PROMPTS = Mixed(["all"], [[TokenizedPrompt(Prompt((), str(i)), [i]) for i in range(6)]])
SOURCES = Mixed(["low", "high"], [PROMPTS[:3], PROMPTS[3:]])


class Answers:
    """Two answers to each prompt, as long as the prompt's number; only some prompts have answers that differ."""

    def __init__(self, varied: set[int]):
        self.varied, self.purposes = varied, list[tuple[object, ...]]()

    def __call__(self, prompts: Sequence[TokenizedPrompt], purpose: tuple[object, ...], samples: int) -> Experience:
        self.purposes.append(purpose)
        numbers = [prompt.ids[0] for prompt in prompts for _ in range(samples)]
        mask = length_mask([number + 1 for number in numbers])
        scores = torch.tensor([float(i % 2) if n in self.varied else 1.0 for i, n in enumerate(numbers)])
        logps = -torch.tensor(numbers)[:, None].float() * mask
        ids = [[n] * (n + 1) for n in numbers]
        rollout = Rollout([[n] for n in numbers], ids, torch.tensor(numbers) > 2, mask, logps)
        columns = {"ref_logps": 2 * logps}
        return Experience(rollout, scores, scores, columns, [p.prompt for p in prompts], {"all": scores})


def sample(
    answers: Answers, rounds: int, places: Sequence[int] = (0, 3, 1), prompts: Mixed[TokenizedPrompt] = PROMPTS
) -> tuple[Experience, dict[str, float]]:
    options = OnlineOptions(num_generations=2, prompts_per_step=3, num_mini_batches=1, dynamic_sampling=rounds)
    return collect_varied(answers, prompts, places, 7, options)


def test_groups_of_equal_scores_are_replaced_with_all_their_numbers() -> None:
    experience, metrics = sample(Answers({3, 2, 4, 5}), 3)
    numbers = [ids[0] for ids in experience.rollout.prompts]
    assert numbers[2:4] == [3, 3] and set(numbers) <= {2, 3, 4, 5} and len(set(numbers)) == 3
    assert [prompt.id for prompt in experience.prompts] == [str(n) for n in numbers[::2]]
    assert metrics == {"sampling/equal_groups": 0.0, "sampling/redrawn": 2}
    assert equal_groups(experience.scores, 2) == []
    for row, number in enumerate(numbers):
        assert experience.rollout.completions[row] == [number] * (number + 1)
        assert experience.rollout.ended[row] == (number > 2)
        assert experience.rollout.mask[row].sum() == number + 1
        assert experience.rollout.logps[row].sum() == -number * (number + 1)
        assert experience.columns["ref_logps"][row].sum() == -2 * number * (number + 1)
    assert torch.equal(experience.scores, experience.reward_scores["all"])


def test_it_ends_after_the_rounds_and_takes_prompts_again_where_none_is_left() -> None:
    answers = Answers(set())
    experience, metrics = sample(answers, 2)
    assert answers.purposes == [("rollout", 7), ("rollout", 7, 1), ("rollout", 7, 2)]
    assert metrics == {"sampling/equal_groups": 1.0, "sampling/redrawn": 6} and len(experience.scores) == 6


def test_without_rounds_nothing_is_drawn_anew() -> None:
    answers = Answers({3})
    _, metrics = sample(answers, 0)
    assert answers.purposes == [("rollout", 7)] and metrics == {"sampling/equal_groups": pytest.approx(2 / 3)}


def test_others_are_those_not_drawn_in_an_order_of_the_seed() -> None:
    assert sorted(replacements(PROMPTS, [0, 3, 1], [0, 3, 1, 1], 1)) == [1, 2, 4, 5]
    orders = {tuple(replacements(PROMPTS, [0, 1, 2], [0, 1, 2], seed)) for seed in range(8)}
    assert len(orders) > 2 and replacements(PROMPTS, [0], [0], 1) == replacements(PROMPTS, [0], [0], 1)


def test_a_prompt_gives_way_to_one_of_its_source() -> None:
    experience, _ = sample(Answers({2, 4}), 3, (0, 5, 2), SOURCES)
    numbers = [ids[0] for ids in experience.rollout.prompts][::2]
    assert numbers[1:] == [4, 2] and numbers[0] in (0, 1), "of the low ones 2 is drawn already, and none else varies"
    assert [replacements(SOURCES, [0, 4], [0, 4], seed)[1] > 2 for seed in range(8)] == [True] * 8
