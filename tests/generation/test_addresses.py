"""Addresses of servers: as they are, and in files that are read again."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.generation import addresses
from amenable.generation.addresses import are_rewritten, is_lost, read_addresses, wait_for_others

UNUSED = "http://127.0.0.1:9"


@pytest.fixture
def listener() -> Iterator[str]:
    """Address of a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_file_stands_for_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "samplers"
    file.write_text(f"{UNUSED}/v1/\n\nhttp://there:8100\n", "utf-8")
    assert read_addresses(["http://here:1/v1", str(file)]) == ["http://here:1", UNUSED, "http://there:8100"]
    assert are_rewritten([UNUSED, str(file)]) and not are_rewritten([UNUSED])


def test_a_file_that_is_not_there_or_empty_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"127\.0\.0\.1:8100: is neither an address nor a file of addresses; write"):
        read_addresses(["127.0.0.1:8100"])
    (tmp_path / "none").touch()
    with pytest.raises(InputError, match="none: has no address"):
        read_addresses([str(tmp_path / "none")])


def test_another_server_is_waited_for(listener: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, pauses = tmp_path / "samplers", list[float]()
    file.write_text(UNUSED, "utf-8")

    def rewrite(seconds: float) -> None:
        pauses.append(seconds)
        file.write_text(listener, "utf-8")

    monkeypatch.setattr(addresses.time, "sleep", rewrite)
    assert is_lost(UNUSED) and not is_lost(listener)
    assert wait_for_others([str(file)], UNUSED, 60) == [listener]
    assert pauses == [addresses.POLL]


def test_waiting_ends(tmp_path: Path) -> None:
    (tmp_path / "samplers").write_text(UNUSED, "utf-8")
    with pytest.raises(InputError, match=rf"{UNUSED}: has ended, and for 0 s no other has taken its place"):
        wait_for_others([str(tmp_path / "samplers")], UNUSED, 0.0)
