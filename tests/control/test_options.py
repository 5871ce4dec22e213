"""Options that are None take the algorithm's own values."""

import pytest

from amenable.control.options import AgentOptions, fill
from amenable.control.ppo import PPO
from amenable.errors import InputError


def test_only_what_is_not_given_is_filled() -> None:
    options = fill(AgentOptions(num_steps=7), PPO.defaults)
    assert (options.num_steps, options.num_epochs, options.minibatch_size, options.lam) == (7, 10, 64, 0.95)
    assert options.adam.learning_rate == 3e-4 and options.adam.eps == 1e-5 and options.adam.weight_decay == 0
    assert fill(AgentOptions(learning_rate=0.1), PPO.defaults).adam.learning_rate == 0.1


def test_layers_without_width_are_refused() -> None:
    for hidden in ((), (8, 0), (2**17,)):
        with pytest.raises(InputError, match="hidden is"):
            AgentOptions(hidden=hidden)
