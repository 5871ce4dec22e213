"""A signal asks to stop, a second one interrupts, and handlers are restored."""

import os
import signal
import threading

import pytest

from amenable.train.graceful_stop import GracefulStop


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_the_second_interrupts(first: int, second: int) -> None:
    before, notes = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], list[str]()
    with pytest.raises(KeyboardInterrupt), GracefulStop(lambda: notes.append("stopping")) as stop:
        assert not stop.requested
        os.kill(os.getpid(), first)
        assert stop.requested and notes == ["stopping"]
        os.kill(os.getpid(), second)
    assert notes == ["stopping"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_leaves_the_handlers_alone() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), list[object]()

    def work() -> None:
        with GracefulStop(lambda: None):
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before] and signal.getsignal(signal.SIGTERM) == before
