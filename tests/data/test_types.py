import dataclasses

import pytest

from amenable.data.types import Demonstration, Message, Ranking, conversation_error, last_trained
from amenable.errors import InputError

U, A, S = Message("user", "hi"), Message("assistant", "hello"), Message("system", "be kind")


def test_examples_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Demonstration((U, A)).id = "other"  # type: ignore[misc]


def test_every_completion_has_a_rank():
    Ranking((U,), ("a", "b", "c"), (1, 2, 2))
    with pytest.raises(InputError, match="row 7: 3 completions and 2 ranks"):
        Ranking((U,), ("a", "b", "c"), (1, 2), id="row 7")


def test_a_margin_belongs_to_a_pair_and_is_finite():
    assert Ranking((U,), ("a", "b"), (1, 2), margin=-0.5).margin == -0.5
    for completions, ranks, margin in ((("a", "b", "c"), (1, 2, 2), 0.5), (("a", "b"), (1, 2), float("inf"))):
        with pytest.raises(InputError, match="row 7: a margin of"):
            Ranking((U,), completions, ranks, id="row 7", margin=margin)


@pytest.mark.parametrize("messages", [(U,), (U, A), (S, U), (S,), (U, A, U), (U, U, A, A)])
def test_conversations_without_error(messages):
    assert conversation_error(messages) is None


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ((), "empty"),
        ((A,), "assistant speaks before"),
        ((S, A), "assistant speaks before"),
        ((S, S, U), "two system"),
        ((U, S), "not the first"),
        ((Message("User", "hi"),), "unknown role 'User'"),
    ],
)
def test_conversations_with_an_error(messages, says):
    assert says in (conversation_error(messages) or "")


def test_only_the_last_trained_turn_stays_trained():
    off = Message("assistant", "no", trained=False)
    for turns, expected in (
        ((U, A, U, A), [3]),
        ((U, A, U, off), [1]),
        ((U, off, U, A), [3]),
        ((U, off), []),
        ((S, U, A), [2]),
    ):
        changed = last_trained(turns)
        assert changed == turns
        assert [i for i, turn in enumerate(changed) if turn.role == "assistant" and turn.trained] == expected
