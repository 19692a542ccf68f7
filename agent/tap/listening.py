"""The tap's listening socket: opened here, or handed over by who holds it across restarts."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

from base.errors import PortInUseError, ServescopeError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

LEAVING: Final = b"L"
BACKLOG: Final = 1_024
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_FIRST: Final = 3  # sd_listen_fds(3): descriptors from here on


def inherited(environment: MutableMapping[str, str]) -> socket.socket | None:
    """The first socket of systemd's protocol (``LISTEN_FDS``, ``LISTEN_PID``), taken out of the environment.

    Raises:
        ServescopeError: The descriptor is no listening TCP socket.
    """
    count, pid = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if not count.isdecimal() or int(count) < 1 or pid != str(os.getpid()):
        return None
    return adopt(_FIRST)


def adopt(descriptor: int) -> socket.socket:
    """A socket that somebody else listens on too.

    Raises:
        ServescopeError: The descriptor is no listening TCP socket.
    """
    try:
        found = socket.socket(fileno=descriptor)
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and found.family in _FAMILIES:
            found.set_inheritable(False)
            found.setblocking(False)
            return found
        found.detach()
    except OSError:
        pass
    raise ServescopeError(
        f"descriptor {descriptor} is no listening TCP socket", "Give none, and the tap opens --port by itself."
    )


def tell_leaving(descriptor: int) -> None:
    """Tell who started this process that it takes no more connections, so that another can at once."""
    with contextlib.suppress(OSError):  # that one is gone
        os.write(descriptor, LEAVING)
        os.close(descriptor)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket to hand over; connections wait in it for as long as nobody takes them.

    Args:
        host: An address of this machine.
        port: 0 for any.

    Raises:
        PortInUseError: The port is taken or can't be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise in_use(host, port, error) from error


def in_use(host: str, port: int, error: OSError) -> PortInUseError:
    """Says that a tap can't listen there."""
    return PortInUseError(f"the tap can't listen on {host}:{port}: {error.strerror}", "Choose another --port.")
