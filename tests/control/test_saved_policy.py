"""A saved policy acts as it did."""

from pathlib import Path

import numpy as np
import pytest
import torch

from amenable.control import saved_policy
from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Policy
from amenable.errors import InputError


def test_it_acts_as_it_did(tmp_path: Path) -> None:
    policy = Policy([3], 2, False, (8,), "relu", torch.Generator().manual_seed(0))
    normalizer = ObservationNormalizer((3,), True)
    normalizer.update(np.random.default_rng(0).normal(5, 2, (9, 3)))
    description = saved_policy.Description("Pendulum-v1", {"g": 9}, [3], 2, False, [8], "relu", True)
    saved_policy.save(tmp_path, policy, normalizer, description)
    again, moments, same = saved_policy.load(tmp_path)
    observations = np.random.default_rng(1).normal(5, 2, (4, 3)).astype(np.float32)
    own, other = policy.act(normalizer.normalize(observations), 0.0), again.act(moments.normalize(observations), 0.0)
    assert (own == other).all() and same == description


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no policy"):
        saved_policy.load(tmp_path)
