"""Starts the parts of one Servescope as processes, watches them, restarts what dies and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

import structlog

from agent.errors import DataFolderInUseError, PortInUseError, ServescopeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

log = structlog.get_logger()

_LOG_BYTES = 20_000_000
_STOP_SECONDS = 15.0
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class StartError(ServescopeError):
    """A part ended or stayed silent while it was being started."""


@dataclass
class Part:
    """One process.

    Attributes:
        name: Short name, also of its log file.
        command: Program and arguments.
        ready_url: URL that answers 200 once the part is ready, or "" when a running process is enough.
        ready_seconds: How long that may take.
        environment: Additions to the environment.
        required: Whether a failed start stops everything; others are retried in the background.
    """

    name: str
    command: Sequence[str]
    ready_url: str = ""
    ready_seconds: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict)
    required: bool = True
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    restarts: int = field(default=0, init=False)
    started: float = field(default=0.0, init=False)
    log_file: IO[bytes] | None = field(default=None, init=False, repr=False)


class Supervisor:
    """Runs parts in the given order until told to stop.

    Args:
        data: Data folder; locked while running.
        parts: Parts in the order of their start; stopped in the reverse.
        urls: What ``run.json`` tells other commands.
        say: Prints a line for the person at the terminal.
    """

    def __init__(
        self, data: Path, parts: Sequence[Part], urls: Mapping[str, object], say: Callable[[str], None]
    ) -> None:
        self.data = data
        self.parts = list(parts)
        self.urls = dict(urls)
        self.say = say
        self._lock: IO[str] | None = None
        self._stopping = asyncio.Event()

    async def run(
        self, announce: Callable[[], None] | None = None, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Start everything, call ``announce``, watch until SIGTERM or SIGINT, stop everything.

        Args:
            announce: Called once everything has started.
            meanwhile: Runs beside the watch until the stop; a fault of its own is said and stops nothing.

        Raises:
            DataFolderInUseError: Another Servescope holds the data folder.
            StartError: A required part did not start; names its log file.
        """
        self._take_lock()
        beside: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            for part in self.parts:
                if self._stopping.is_set():
                    return
                await self._start(part)
            self._write_run_file()
            if announce is not None and not self._stopping.is_set():
                announce()
            if meanwhile is not None:
                beside = asyncio.create_task(self._beside(meanwhile))
            await self._watch()
        finally:
            if beside is not None:
                beside.cancel()
            await asyncio.shield(self._stop_all())
            (self.data / "run.json").unlink(missing_ok=True)
            if self._lock is not None:
                self._lock.close()

    async def add(self, parts: Sequence[Part]) -> None:
        """Start further parts while running; they are watched and restarted like the others."""
        for part in parts:
            await self._start(part)
            self.parts.append(part)
        self._write_run_file()

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a part, if it runs now."""
        for part in self.parts:
            if part.name == name and part.process is not None and part.process.poll() is None:
                part.process.send_signal(number)

    async def _beside(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        try:
            await meanwhile()
        except Exception as error:
            log.exception("beside_failed")
            self.say(f"{type(error).__name__}: {error}")

    async def _start(self, part: Part) -> None:
        self._launch(part)
        if not part.ready_url:
            return
        deadline = time.monotonic() + part.ready_seconds
        while time.monotonic() < deadline and not self._stopping.is_set():
            if part.process is not None and part.process.poll() is not None:
                break
            if await asyncio.to_thread(answers, part.ready_url):
                return
            await asyncio.sleep(0.1)
        if self._stopping.is_set():
            return
        last = _last_line(self.data / "logs" / f"{part.name}.log")
        code = part.process.poll() if part.process is not None else None
        ended = f"ended with code {code}" if code is not None else f"was silent for {part.ready_seconds:g} s"
        message = f"{part.name} did not start, it {ended}" + (f": {last}" if last else "")
        if part.required:
            raise StartError(message, f"See {self.data / 'logs' / (part.name + '.log')}")
        self.say(f"{message}; trying again in the background")

    def _launch(self, part: Part) -> None:
        folder = self.data / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        if part.log_file is None:
            path = folder / f"{part.name}.log"
            if path.exists():
                path.replace(path.with_suffix(".log.1"))
            part.log_file = path.open("ab")
        part.process = subprocess.Popen(
            list(part.command),
            env={**os.environ, "PYTHONUNBUFFERED": "1", **part.environment},
            stdin=subprocess.DEVNULL,
            stdout=part.log_file,
            stderr=part.log_file,
            start_new_session=True,  # Ctrl-C reaches us alone: the order of stopping is ours
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call; a killed supervisor must not leave parts
        )
        part.started = time.monotonic()

    async def _watch(self) -> None:
        due: dict[str, float] = {}
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), timeout=1.0)
            for part in self.parts:
                if self._stopping.is_set():
                    return
                _bound(part)
                if part.process is None or part.process.poll() is None:
                    continue
                if part.name not in due:
                    if time.monotonic() - part.started > _STEADY_SECONDS:
                        part.restarts = 0
                    wait = _BACKOFF_SECONDS[min(part.restarts, len(_BACKOFF_SECONDS) - 1)]
                    due[part.name] = time.monotonic() + wait
                    log.warning("part_ended", part=part.name, code=part.process.returncode, restart_in_seconds=wait)
                    self.say(f"{part.name} ended (code {part.process.returncode}); restarting")
                elif time.monotonic() >= due[part.name]:
                    del due[part.name]
                    part.restarts += 1
                    self._launch(part)
                    self._write_run_file()

    async def _stop_all(self) -> None:
        for part in reversed(self.parts):
            process = part.process
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    await asyncio.to_thread(process.wait, _STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    log.warning("part_killed", part=part.name, pid=process.pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if part.log_file is not None:
                part.log_file.close()
                part.log_file = None

    def _take_lock(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        self._lock = (self.data / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise DataFolderInUseError(
                f"the data folder {self.data} is in use by process {owner}",
                "Stop that one, or give another folder with --data",
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _write_run_file(self) -> None:
        facts = {
            "pid": os.getpid(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "urls": self.urls,
            "pids": {part.name: part.process.pid for part in self.parts if part.process is not None},
            "restarts": {part.name: part.restarts for part in self.parts},
        }
        temporary = self.data / f".run.json.{os.getpid()}"
        temporary.write_text(json.dumps(facts, indent=1))
        temporary.replace(self.data / "run.json")


class Ports:
    """Hands out ports on loopback: a default that is taken gives way, one that was asked for is an error."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._given: set[int] = set()

    def take_row(self, what: str, default: int, count: int) -> int:
        """First of ``count`` free ports one after another, by default from ``default`` on.

        Raises:
            PortInUseError: No such row is free.
        """
        for first in range(default, min(default + 200, 65536 - count)):
            row = range(first, first + count)
            if all(port not in self._given and _free(port) for port in row):
                if first != default:
                    self.say(f"one of the ports {default} to {default + count - 1} is taken; {what} uses {first} on")
                self._given.update(row)
                return first
        raise PortInUseError(f"no {count} free ports in a row for {what} from {default} on", "Free some")

    def take(self, what: str, default: int, asked: int | None = None) -> int:
        """A free port for ``what``.

        Raises:
            PortInUseError: ``asked`` is taken.
        """
        if asked is not None:
            if asked in self._given or not _free(asked):
                raise PortInUseError(f"port {asked}, asked for {what}, is in use", "Free it or choose another one")
            self._given.add(asked)
            return asked
        for port in range(default, min(default + 200, 65536)):
            if port not in self._given and _free(port):
                if port != default:
                    self.say(f"port {default} is taken; {what} uses {port}")
                self._given.add(port)
                return port
        raise PortInUseError(f"no free port for {what} from {default} on", "Free one or give --port-base")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(url: str) -> bool:
    """Whether a loopback URL answers 200 within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback URLs
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP's own number
    except (urllib.error.URLError, OSError):
        return False


def die_with_parent() -> None:
    """Between fork and exec: have the kernel send this process SIGTERM when its parent dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _bound(part: Part) -> None:
    if part.log_file is not None and os.fstat(part.log_file.fileno()).st_size > _LOG_BYTES:
        os.ftruncate(part.log_file.fileno(), 0)


def _last_line(path: Path) -> str:
    try:
        lines: Iterable[str] = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    kept = [line.strip() for line in lines if line.strip()]
    return kept[-1][:300] if kept else ""
