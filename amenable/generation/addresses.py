"""Addresses of servers: given as they are, or in a file that is read again when a server is lost.

    http://127.0.0.1:8100        an address
    runs/ppo.samplers            a file, an address a line

A program that starts a lost server again writes its new address into the file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from amenable.errors import InputError
from amenable.http_client import require_listener

POLL = 0.5
"""seconds between two looks at the files"""


def read_addresses(entries: Sequence[str]) -> list[str]:
    """Return the addresses of entries, each an address or a file of them. InputError for a file that is not there, or
    is empty."""
    addresses: list[str] = []
    for entry in entries:
        if "://" in entry:
            addresses.append(entry)
            continue
        try:
            lines = Path(entry).read_text("utf-8").split()
        except (OSError, UnicodeDecodeError):
            raise InputError("is neither an address nor a file of addresses", entry, "write http://host:port") from None
        if not lines:
            raise InputError("has no address", entry, "write an address a line")
        addresses += lines
    return [address.rstrip("/").removesuffix("/v1") for address in addresses]


def are_rewritten(entries: Sequence[str]) -> bool:
    """Return True if any of the entries is a file, whose addresses may change."""
    return any("://" not in entry for entry in entries)


def is_lost(address: str) -> bool:
    """Return True for an address where nothing listens."""
    try:
        require_listener(address)
    except InputError:
        return True
    return False


def wait_for_others(entries: Sequence[str], lost: str, seconds: float) -> list[str]:
    """Return the addresses of entries once the lost one is no longer among them and all others listen. InputError after
    some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(InputError):  # of a file that is just being written
            addresses = read_addresses(entries)
            if lost not in addresses and not any(map(is_lost, addresses)):
                return addresses
        time.sleep(POLL)
    hint = "start it again, and repeat the command"
    raise InputError(f"has ended, and for {seconds:.0f} s no other has taken its place", lost, hint)
