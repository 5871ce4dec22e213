import pytest

from amenable.errors import InputError
from amenable.generation.requests import check_stops, completion_limit, eos_tuple, make_requests
from amenable.generation.sampling import Sampling


def test_requests_of_long_prompts_come_first_and_have_seeds_of_their_own():
    requests = make_requests([[5], [5, 6, 7], [8, 9]], Sampling(max_new_tokens=4), 1, 2, 6)
    assert [(request.prompt, request.sample, request.limit) for request in requests] == [
        (1, 0, 3), (1, 1, 3), (2, 0, 4), (2, 1, 4), (0, 0, 4), (0, 1, 4)
    ]  # fmt: skip
    assert len({request.seed for request in requests}) == 6
    assert make_requests([[5]], Sampling(), [7], 3, 6)[:1] == make_requests([[5]], Sampling(), [7], 1, 6)
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        make_requests([[5], [6]], Sampling(), [7], 1, 6)


def test_prompts_without_room_or_without_tokens_are_refused_by_number():
    with pytest.raises(InputError, match="prompt 1 has 40 tokens and leaves no room in a context of 40"):
        make_requests([[5], [5] * 40], Sampling(), 0, 1, 40)
    with pytest.raises(InputError, match="prompt 0 is empty"):
        make_requests([[]], Sampling(), 0, 1, 40)
    with pytest.raises(InputError, match="samples is 0"):
        make_requests([[5]], Sampling(), 0, 0, 40)
    assert completion_limit([5] * 36, 9, 40, "the prompt") == 4


def test_stop_strings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="decode"):
        check_stops(["x"], None)
    for stop in ([""], "x"):
        with pytest.raises(ValueError, match="not empty"):
            check_stops(stop, str)


def test_eos_ids_are_none_an_id_or_several():
    assert (eos_tuple(None), eos_tuple(2), eos_tuple([2, 7])) == ((), (2,), (2, 7))
