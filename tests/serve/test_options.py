from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.serve.options import PageOptions, ServerOptions, parse_models


def test_models_have_names() -> None:
    assert parse_models(["a=runs/x", "runs/demo/ppo"]) == [("a", Path("runs/x")), ("ppo", Path("runs/demo/ppo"))]
    for wrong in ("=runs/x", "a="):
        with pytest.raises(InputError, match="names no model"):
            ServerOptions(models=(wrong,))
    with pytest.raises(InputError, match="two models have one name"):
        ServerOptions(models=("a=runs/x", "a=runs/y"))


def test_tokens_are_needed_where_others_reach_the_page() -> None:
    assert not PageOptions().needs_tokens and not PageOptions(host="localhost").needs_tokens
    assert PageOptions(host="0.0.0.0").needs_tokens and PageOptions(require_tokens=True).needs_tokens


@pytest.mark.parametrize(
    "wrong", [{"port": -1}, {"max_batch_size": 0}, {"max_queue": -1}, {"rate_limit_per_minute": 0}]
)
def test_options_have_bounds(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} is .*must lie between"):
        ServerOptions(**wrong)  # type: ignore[arg-type]
