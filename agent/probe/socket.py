"""The agent's end of the probe's socket: a Unix datagram socket that only its owner may write to."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from base import locks
from base.errors import ServescopeError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "SERVESCOPE_PROBE_SOCKET"
MAX_PATH_BYTES: Final = 107
"""``sun_path`` of ``unix(7)``, without its last zero."""
_RECEIVE_BUFFER: Final = 8 << 20


class SocketUnusableError(ServescopeError):
    """The probe's socket can't be listened on."""


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a probe of the same user looks for an agent unless told otherwise; the same in ``servescope_probe``."""
    if given := environment.get(VARIABLE):
        return Path(given)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "servescope", "probe.sock")
    user = os.getuid()
    return Path("/run/servescope/probe.sock" if user == 0 else f"/tmp/servescope-{user}/probe.sock")  # noqa: S108 - it is checked whose it is


class Listening:
    """A socket that is listened on; another agent's is never taken away.

    Args:
        path: The socket's file.

    Raises:
        SocketUnusableError: Another agent listens there, the folder is somebody else's, or the path can't be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise SocketUnusableError(f"the path {path} is too long for a socket", "Set agent.probe_socket shorter.")
        try:
            self._lock = _own(path)
            try:
                path.unlink(missing_ok=True)  # a killed agent's
                self.socket = _bind(path)
            except OSError:
                self._lock.close()
                raise
        except locks.HeldError as error:
            raise SocketUnusableError(
                f"the probe's socket {path} is another agent's (process {error.holder})",
                "Set agent.probe_socket, and SERVESCOPE_PROBE_SOCKET for the model server.",
            ) from None
        except OSError as error:
            raise SocketUnusableError(
                f"the probe's socket {path} can't be made: {error.strerror}", "Set agent.probe_socket."
            ) from error

    def close(self) -> None:
        """Stop listening; repeating it does nothing."""
        self.socket.close()
        if self._lock.descriptor >= 0:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._lock.close()


def _own(path: Path) -> locks.Lock:
    folder = path.parent
    if not folder.exists():
        folder.mkdir(parents=True, mode=0o700)
    found = folder.lstat()  # a link would lead wherever its owner likes, whenever he likes
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid in {0, os.getuid()}
    if not ours or found.st_mode & stat.S_IWOTH:
        raise SocketUnusableError(
            f"{folder} is no folder of this user's, or everybody may write there",
            "Set agent.probe_socket in a folder of yours.",
        )
    return locks.take(path.with_name(f"{path.name}.lock"), signed=True)


def _bind(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
    except OSError:
        made.close()
        raise
    return made
