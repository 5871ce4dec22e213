"""The loss of a reward model that options choose, from the scores of its rankings."""

from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.functional import losses
from amenable.train.ranking_objective import RankingLossOptions, RankingObjective
from amenable.train.rankings import TokenizedRanking

ROW = ([1, 2], [False, True])
ELEMENTS = [
    TokenizedRanking([ROW] * 3, [1.0, 2.0, 3.0], [1] * 3, "a"),
    TokenizedRanking([ROW] * 2, [2.0, 1.0], [1] * 2, "a", margin=0.5),
]
SCORES = torch.tensor([1.0, 0.2, -0.5, 0.3, 0.6])
RANKS, PROMPTS, MARGINS = torch.tensor([1.0, 2, 3, 2, 1]), torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0.0, 0.5])


def loss_of(**changes: Any) -> float:
    objective = RankingObjective(None, RankingLossOptions(**changes))  # type: ignore[arg-type]
    return objective.loss(ELEMENTS, SCORES)[0].item()


def test_each_type_is_its_function() -> None:
    arguments = (SCORES, RANKS, PROMPTS, MARGINS)
    expected = {
        "bradley-terry": losses.ranking_loss(*arguments),
        "plackett-luce": losses.plackett_luce_loss(*arguments),
        "best-of-k": losses.plackett_luce_loss(*arguments, best_only=True),
        "binary": losses.binary_ranking_loss(*arguments),
    }
    assert {name: loss_of(loss_type=name) for name in expected} == {k: v[0].item() for k, v in expected.items()}
    assert len({round(loss_of(loss_type=name), 4) for name in expected}) == 4
    smooth = losses.ranking_loss(*arguments, label_smoothing=0.2)[0].item()
    assert loss_of(label_smoothing=0.2) == smooth > loss_of()


def test_penalties_are_added_by_hand() -> None:
    centering = (((1.0 + 0.2) ** 2 + (1.0 - 0.5) ** 2 + (0.2 - 0.5) ** 2) / 3 + 0.9**2) / 2
    squares = ((1.0 + 0.04 + 0.25) / 3 + (0.09 + 0.36) / 2) / 2
    assert loss_of(center_rewards_coefficient=0.1) - loss_of() == pytest.approx(0.1 * centering, abs=1e-6)
    assert loss_of(score_penalty=0.5) - loss_of() == pytest.approx(0.5 * squares, abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5"),
        ({"label_smoothing": 0.1, "loss_type": "binary"}, "label_smoothing is 0.1 and loss_type is binary"),
        ({"score_penalty": -1.0}, "score_penalty"),
        ({"center_rewards_coefficient": -0.1}, "center_rewards_coefficient"),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RankingLossOptions(**wrong)
