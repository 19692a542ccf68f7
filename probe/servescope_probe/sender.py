"""Hands records to the agent: never waits, never raises, counts what it drops."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import time

from servescope_probe import wire

SOCKET_VARIABLE = "SERVESCOPE_PROBE_SOCKET"
INSTANCE_VARIABLE = "SERVESCOPE_PROBE_INSTANCE"
GATHER_SECONDS = 0.02
"""Records of so long travel together: one call of the kernel costs more than packing ten of them."""
_RETRY_SECONDS = 1.0
_HELD_BYTES = 1 << 20
_DUE_BYTES = wire.MAX_DATAGRAM // 2
"""So many wait for no others."""
_SEND_BUFFER = 4 << 20

log = logging.getLogger("servescope_probe")


def default_path() -> str:
    """Where an agent of the same user listens unless it is told otherwise.

    ``$XDG_RUNTIME_DIR/servescope/probe.sock``; without that variable ``/run/servescope/probe.sock`` for root and
    ``/tmp/servescope-UID/probe.sock`` for others.
    """
    given = os.environ.get(SOCKET_VARIABLE)
    if given:
        return given
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, "servescope", "probe.sock")
    user = os.getuid()
    return "/run/servescope/probe.sock" if user == 0 else f"/tmp/servescope-{user}/probe.sock"  # noqa: S108 - the agent checks whose it is


class Sender:
    """One process's way to the agent.

    Args:
        path: The agent's socket.
        instance: Name of this server, or "" where the agent is to find out.

    Attributes:
        dropped: Records that nobody took.
        connections: How often an agent was found: another one knows nothing of what was told before.
    """

    def __init__(self, path: str | None = None, instance: str | None = None) -> None:
        self.dropped = 0
        self.connections = 0
        self._path = path or default_path()
        given = os.environ.get(INSTANCE_VARIABLE, "") if instance is None else instance
        self._instance = given.encode("utf-8", "replace")[: wire.MAX_TEXT]
        self._number = 0
        self._held: list[bytes] = []
        self._bytes = 0
        self._socket: socket.socket | None = None
        self._pid = os.getpid()
        self._retry_at = 0.0
        self._flushed_at = 0.0
        self._asked = False
        self._told = False

    def put(self, kind: int, rank: int, body: bytes, *, now: bool = False) -> None:
        """Send a record, with others of the same moment.

        Args:
            kind: What it is.
            rank: Data-parallel rank, -1 for none.
            body: Its bytes.
            now: Nothing may follow for a while: send what is held too.
        """
        self.put_record(wire.RECORD.pack(len(body), kind, rank) + body, now=now)

    def put_record(self, record: bytes, *, now: bool = False) -> None:
        """The same of a record that has its head already."""
        size = self._bytes + len(record)
        if size > _HELD_BYTES:
            self.dropped += 1
            return
        self._held.append(record)
        self._bytes = size
        clock = time.monotonic()
        if now or size >= _DUE_BYTES or clock - self._flushed_at >= GATHER_SECONDS:
            self._flush(clock)

    def put_soon(self, record: bytes) -> None:
        """Hold a record, its head in it, for the others of its moment; the running event loop sends them."""
        size = self._bytes + len(record)
        if size > _HELD_BYTES:
            self.dropped += 1
            return
        self._held.append(record)
        self._bytes = size
        if size >= _DUE_BYTES:
            self._flush(time.monotonic())
        if not self._asked:
            self._ask()

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            self._flush(time.monotonic())

    def close(self) -> None:
        """Send what is held, and let go of the socket; what comes later opens it again."""
        self.flush()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask_anew(self) -> None:
        """Forget which event loop was asked to flush: it may have ended before it did."""
        self._asked = False

    def _ask(self) -> None:
        """Let the running event loop flush."""
        try:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush_asked)
        except RuntimeError:  # another event loop than asyncio's
            self.flush()
        else:
            self._asked = True

    def _flush_asked(self) -> None:
        self._asked = False
        try:
            self.flush()
            if self._held:  # the agent is busy, and perhaps no other comes: it would take this request to be open still
                self._ask()
        except Exception as error:  # noqa: BLE001 - nothing of ours may be felt by the server
            log.warning("servescope-probe could not send: %s: %s", type(error).__name__, error)

    def _flush(self, clock: float) -> None:
        self._flushed_at = clock
        if self._pid != os.getpid():  # a child after a fork: the counts and what is held are its parent's
            self._begin_anew()
            return
        if self._socket is None and not self._connect(clock):
            return
        room = wire.MAX_DATAGRAM - wire.HEAD.size - len(self._instance)
        while self._held:
            records, size = self._held, self._bytes
            if size > room:
                records, size = _as_many_as_fit(records, room)
                if not records:  # nobody makes records of this size
                    self._give_up(1)
                    continue
            count = len(records)
            head = wire.HEAD.pack(
                wire.MAGIC, wire.VERSION, len(self._instance), count, self._pid, self._number, self.dropped
            )
            try:
                assert self._socket is not None
                self._socket.send(b"".join((head, self._instance, *records)))
            except BlockingIOError:
                return  # the agent is busy: it gets them with the next ones, as long as there is room
            except OSError:
                self._lose(clock)
                return
            self._number = (self._number + 1) & 0xFFFFFFFF
            self._bytes -= size
            del self._held[:count]

    def _connect(self, clock: float) -> bool:
        if clock >= self._retry_at:
            self._retry_at = clock + _RETRY_SECONDS
            made = None
            try:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
                if self._is_ours():
                    made.connect(self._path)
                    self._socket = made
                    self.connections += 1
                    return True
            except OSError:
                pass  # nobody listens, or the server has no descriptor left
            if made is not None:
                made.close()
        # Nobody is there: what is held would be old news by the time somebody is.
        self._give_up(len(self._held))
        return False

    def _is_ours(self) -> bool:
        """Whether nobody else can have put something there: it gets keys and prompts.

        Raises:
            OSError: There is nothing.
        """
        folder, found = os.lstat(os.path.dirname(self._path) or "."), os.lstat(self._path)
        ours = (0, os.getuid())
        good = (
            stat.S_ISDIR(folder.st_mode)
            and not folder.st_mode & stat.S_IWOTH
            and folder.st_uid in ours
            and stat.S_ISSOCK(found.st_mode)
            and found.st_uid in ours
        )
        if not good and not self._told:
            self._told = True
            log.warning("servescope-probe tells nothing to %s: it, or its folder, is not this user's alone", self._path)
        return good

    def _lose(self, clock: float) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        if self._connect(clock):  # an agent that was started again
            self._flush(clock)

    def _give_up(self, count: int) -> None:
        self.dropped += count
        self._bytes -= sum(len(record) for record in self._held[:count])
        del self._held[:count]

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._held, self._bytes = [], 0
        self._asked = False
        self.dropped = self._number = 0
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._retry_at = 0.0


def _as_many_as_fit(records: list[bytes], room: int) -> tuple[list[bytes], int]:
    """The first of them that are together no larger than ``room`` bytes, and their bytes."""
    size = count = 0
    for record in records:
        if size + len(record) > room:
            break
        size += len(record)
        count += 1
    return records[:count], size


_shared: Sender | None = None


def shared() -> Sender:
    """The sender of this process."""
    global _shared  # noqa: PLW0603 - a process has one socket, whoever asks first
    if _shared is None:
        _shared = Sender()
    return _shared
