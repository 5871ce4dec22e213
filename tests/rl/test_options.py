"""Options of online algorithms: impossible ones are refused before any work."""

from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.rl.options import OnlineOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0"),
        ({"kl_coef": -0.1}, "kl_coef is -0.1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"num_mini_batches": 5, "prompts_per_step": 8}, "num_mini_batches 5 does not divide the 8 samples"),
        ({"ptx_coef": 1.0}, "--ptx-coef needs raw text"),
        ({"keep_weights": "score"}, "--keep-weights score needs prompts"),
        ({"final_lr_frac": 1.5}, "final_lr_frac is 1.5"),
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnlineOptions(**wrong)


def test_samples_are_prompts_times_generations() -> None:
    assert OnlineOptions(prompts_per_step=6, num_generations=4).samples == 24
    assert OnlineOptions(ptx_coef=1.0, ptx_data=Path("text")).ptx_coef == 1.0
