"""Ports on loopback, handed out so that two Servescopes that start together do not get the same."""

from __future__ import annotations

import os
import socket
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from base.errors import PortInUseError
from base.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Callable

_TRIES = 200


class Ports:
    """Hands out ports: a default that is taken gives way, one that was asked for is an error.

    A port that was handed out is kept from every other process that asks here, for as long as this object lives: its
    part takes a second to listen on it.

    Args:
        say: Prints a line about a port that gave way.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._given: dict[int, int] = {}
        weakref.finalize(self, _close, self._given)

    def take(self, what: str, default: int, asked: int | None = None) -> int:
        """A free port for ``what``.

        Raises:
            PortInUseError: ``asked`` is taken, or nothing near the default is free.
        """
        if asked is not None:
            if not self._reserve(asked):
                raise PortInUseError(f"port {asked}, asked for {what}, is in use", "Free it or choose another one")
            return asked
        for port in range(default, min(default + _TRIES, 65536)):
            if self._reserve(port):
                if port != default:
                    self.say(f"port {default} is taken; {what} uses {port}")
                return port
        raise PortInUseError(f"no free port for {what} from {default} on", "Free one or give --port-base")

    def take_row(self, what: str, default: int, count: int) -> int:
        """First of ``count`` free ports one after another.

        Raises:
            PortInUseError: No such row near the default is free.
        """
        for first in range(default, min(default + _TRIES, 65536 - count)):
            row = range(first, first + count)
            got = [port for port in row if self._reserve(port)]
            if len(got) == count:
                if first != default:
                    self.say(f"one of the ports {default} to {default + count - 1} is taken; {what} uses {first} on")
                return first
            for port in got:
                os.close(self._given.pop(port))
        raise PortInUseError(f"no {count} free ports in a row for {what} from {default} on", "Free some")

    def close(self) -> None:
        """Let others have what was handed out and is not listened on."""
        _close(self._given)

    def _reserve(self, port: int) -> bool:
        if port in self._given or not _free(port):
            return False
        folder = Path(tempfile.gettempdir()) / f"servescope-ports-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # no such folder here: as far as we can see
            self._given[port] = descriptor
            return True
        if not try_lock(descriptor):
            os.close(descriptor)
            return False
        self._given[port] = descriptor
        return True


def _close(given: dict[int, int]) -> None:
    while given:
        os.close(given.popitem()[1])


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
