"""Options of online algorithms: impossible ones are refused before any work."""

from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError
from amenable.models.lora import LoraOptions
from amenable.rl.options import ClipOptions, OnlineOptions
from amenable.stages import online_dpo, rloo


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
        ({"kl_in": "loss", "kl_estimator": "k1"}, "gradient 0 in expectation"),
        ({"kl_estimator": "full"}, "does not depend on the token drawn.*--kl-in loss"),
        ({"dynamic_sampling": 1}, "dynamic_sampling compares .* num_generations is 1"),
        ({"overlong_buffer": -1}, "overlong_buffer is -1"),
        ({"max_staleness": 2}, "max_staleness is 2; it must be 0 or 1"),
        ({"max_staleness": 1}, "older policy's; add --sampler-correction truncate"),
        ({"max_staleness": 1, "sampler": "vllm", "sampler_correction": "mask"}, "in this process .*use --sampler-url"),
        ({"sampler": "vllm", "prompt_tuning": 4}, "vLLM takes no virtual tokens"),
        ({"sampler": "vllm", "lora": LoraOptions(rank=2, dora=True)}, "lora.dora with --sampler vllm"),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnlineOptions(**wrong)


def test_samples_are_prompts_times_generations() -> None:
    assert OnlineOptions(prompts_per_step=6, num_generations=4).samples == 24
    assert OnlineOptions(ptx_coef=1.0, ptx_data=Path("text")).ptx_coef == 1.0


def test_the_estimator_is_by_default_one_with_the_right_gradient() -> None:
    assert (OnlineOptions().estimator, OnlineOptions(kl_in="loss").estimator) == ("k1", "k2")
    assert OnlineOptions(kl_estimator="k3").estimator == "k3"


def test_the_clips_bounds_are_checked() -> None:
    assert ClipOptions(cliprange=0.1, cliprange_high=0.3, dual_clip=2.0).clips == (0.1, 0.3, 2.0)
    for wrong in ({"cliprange": -0.1}, {"cliprange_high": -1.0}, {"dual_clip": 1.2}, {"dual_clip": -3.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ClipOptions(**wrong)


def test_pairs_are_learned_from_at_any_age() -> None:
    """Their loss is on log-probabilities alone, with nothing to weigh."""
    assert online_dpo.Config(max_staleness=1).max_staleness == 1
    with pytest.raises(InputError, match="add --sampler-correction"):
        rloo.Config(max_staleness=1)
