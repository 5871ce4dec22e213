"""Options that tests of online algorithms share."""

from pathlib import Path
from typing import Any

import pytest

from amenable.rl.options import OnlineOptions
from amenable.train.runtime import DeviceOptions


@pytest.fixture
def online_options(assistant: Path, judge: Path, files: Any) -> OnlineOptions:
    """Two answers to each prompt, in fp32 on one thread."""
    return OnlineOptions(
        model=assistant,
        reward=(str(judge),),
        data=files.prompts,
        num_generations=2,
        num_mini_batches=1,
        temperature=0.7,
        device=DeviceOptions("cpu", "fp32", 1),
    )
