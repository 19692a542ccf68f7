"""Starts the parts of one Servescope as processes, watches them, restarts what dies and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import structlog

from agent.tap.listening import LEAVING, open_socket
from base import locks, stopping
from base.errors import DataFolderInUseError, PortInUseError, ServescopeError
from base.formats import spell
from servescope.launch.running import noted

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

log = structlog.get_logger()

_LOG_BYTES = 20_000_000
_STOP_SECONDS = 15.0
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_SECONDS = 60.0
_TURN_SECONDS = 60.0
_LAST_LINES = 8
_LAST_LETTERS = 800
_PR_SET_PDEATHSIG = 1
_LEAVING = "--leaving-fd"
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
        listen: Host and port to listen on for it: the socket is held here and handed over (``--listen-fd``), so that
            connections wait while it is restarted. It says so when it takes no more of them (``--leaving-fd``): another
            is started beside it then.
        stop_seconds: How long it may take to stop.
    """

    name: str
    command: Sequence[str]
    ready_url: str = ""
    ready_seconds: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    required: bool = True
    listen: tuple[str, int] | None = None
    stop_seconds: float = _STOP_SECONDS
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    restarts: int = field(default=0, init=False)
    started: float = field(default=0.0, init=False)
    log_file: IO[bytes] | None = field(default=None, init=False, repr=False)
    listener: socket.socket | None = field(default=None, init=False, repr=False)
    leaving: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False, repr=False)


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
        self._lock: locks.Lock | None = None
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()
        self._started = datetime.now(UTC).isoformat(timespec="seconds")

    async def run(
        self, announce: Callable[[], None] | None = None, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Start everything, call ``announce``, watch until told to end, stop everything.

        Args:
            announce: Called once everything has started.
            meanwhile: Runs beside the watch until the stop; a fault of its own is said and stops nothing.

        Raises:
            DataFolderInUseError: Another Servescope holds the data folder.
            StartError: A required part did not start; names its log file.
        """
        self._take_lock()
        turn = await asyncio.to_thread(take_turn, self.data, _TURN_SECONDS)
        beside: asyncio.Task[None] | None = None
        held = contextlib.ExitStack()
        loop = asyncio.get_running_loop()
        for number in stopping.signals():
            loop.add_signal_handler(number, self._stop)
        try:
            for part in self.parts:
                if self._stopping.is_set():
                    return
                await self._start(part)
            self._write_run_file()
            held.enter_context(noted(self.data))
            if announce is not None and not self._stopping.is_set():
                announce()
            if meanwhile is not None:
                beside = asyncio.create_task(self._beside(meanwhile))
            await self._watch()
        finally:
            if beside is not None:
                beside.cancel()
            if self._stopping.is_set():
                with contextlib.suppress(OSError):  # a terminal that is gone must not keep parts running
                    self.say("Stopping, the last started first; what was taken is kept")
            await asyncio.shield(self._stop_all())
            (self.data / "run.json").unlink(missing_ok=True)
            held.close()
            if turn is not None:
                turn.close()
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
            if await asyncio.to_thread(ready, part):
                return
            await asyncio.sleep(0.1)
        if self._stopping.is_set():
            return
        last = _last_words(self.data / "logs" / f"{part.name}.log")
        code = part.process.poll() if part.process is not None else None
        ended = f"ended with code {code}" if code is not None else f"was silent for {spell(part.ready_seconds)}"
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
        handed = self._hand_over(part)
        named = [text for name, fd in handed.items() for text in (name, str(fd))]
        part.process = subprocess.Popen(
            [*part.command, *named],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **part.environment},
            stdin=subprocess.DEVNULL,
            stdout=part.log_file,
            stderr=part.log_file,
            start_new_session=True,  # Ctrl-C reaches us alone: the order of stopping is ours
            pass_fds=list(handed.values()),
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call; a killed supervisor must not leave parts
        )
        part.started = time.monotonic()
        if _LEAVING in handed:
            os.close(handed[_LEAVING])

    def _hand_over(self, part: Part) -> dict[str, int]:
        """Descriptors for a part that others wait for, by option."""
        if part.listen is None:
            return {}
        if part.listener is None:
            try:
                part.listener = open_socket(*part.listen)
            except PortInUseError as error:  # the part says so too, and is tried again
                log.warning("part_has_no_port", part=part.name, error=str(error))
                return {}
        ours, theirs = os.pipe()
        asyncio.get_running_loop().add_reader(ours, self._hear, part, ours)
        return {"--listen-fd": part.listener.fileno(), _LEAVING: theirs}

    def _hear(self, part: Part, descriptor: int) -> None:
        """A part says that it leaves, or is dead."""
        leaves = os.read(descriptor, 1) == LEAVING
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        if leaves and part.process is not None and not self._stopping.is_set():
            log.info("part_leaves", part=part.name, pid=part.process.pid)
            part.leaving.append(part.process)
            part.restarts += 1
            self._launch(part)
            self._write_run_file()
        self._news.set()

    def _stop(self) -> None:
        self._stopping.set()
        self._news.set()

    async def _watch(self) -> None:
        due: dict[str, float] = {}
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), timeout=1.0)
            self._news.clear()
            for part in self.parts:
                if self._stopping.is_set():
                    return
                _bound(part)
                part.leaving = [process for process in part.leaving if process.poll() is None]
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
        for part in self.parts:
            if part.listener is not None:  # they drain side by side
                part.listener.close()
                part.listener = None
                _terminate(part.process)
        for part in reversed(self.parts):
            for process in (*part.leaving, part.process):
                if process is None or process.poll() is not None:
                    continue
                _terminate(process)
                try:
                    await asyncio.to_thread(process.wait, part.stop_seconds)
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
        try:
            self._lock = locks.take(self.data / "lock", signed=True, mode=0o644)
        except locks.HeldError as error:
            raise DataFolderInUseError(
                f"the data folder {self.data} is in use by process {error.holder}",
                "Stop that one, or give another folder with --data",
            ) from None

    def _write_run_file(self) -> None:
        facts = {
            "pid": os.getpid(),
            "started": self._started,
            "urls": self.urls,
            "pids": {part.name: part.process.pid for part in self.parts if part.process is not None},
            "restarts": {part.name: part.restarts for part in self.parts},
        }
        temporary = self.data / f".run.json.{os.getpid()}"
        temporary.write_text(json.dumps(facts, indent=1))
        temporary.replace(self.data / "run.json")


def take_turn(data: Path, seconds: float) -> locks.Lock | None:
    """Wait until no command has a store of its own over this folder, and keep others from starting one.

    Returns:
        What to close in the end; None when it could not be had in time.
    """
    try:
        return locks.take(data / "turn", seconds=seconds)
    except locks.HeldError:
        return None


def answers(url: str) -> bool:
    """Whether a loopback URL answers 200 within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback URLs
            return bool(response.status == 200)  # noqa: PLR2004 - HTTP's own number
    except (urllib.error.URLError, OSError):
        return False


def ready(part: Part) -> bool:
    """Whether a part answers – and not somebody else who took its port a moment earlier."""
    return part.process is not None and answers(part.ready_url) and _listens(part.process.pid, part.ready_url)


def _listens(pid: int, url: str) -> bool:
    """Whether a process or one of its children listens on the port of a URL."""
    port = urlsplit(url).port
    try:
        process = psutil.Process(pid)
        found = (one.net_connections("tcp") for one in (process, *process.children(recursive=True)))
        return any(c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port for each in found for c in each)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True  # the system does not let us look


def _terminate(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        process.terminate()


def die_with_parent() -> None:
    """Between fork and exec: have the kernel send this process SIGTERM when its parent dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _bound(part: Part) -> None:
    if part.log_file is not None and os.fstat(part.log_file.fileno()).st_size > _LOG_BYTES:
        os.ftruncate(part.log_file.fileno(), 0)


def _last_words(path: Path) -> str:
    """The plain lines at the end of a log, which a part told people before it ended; else the last line."""
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    plain = list(takewhile(lambda line: not line.startswith("{"), reversed(lines[-_LAST_LINES:])))
    return " ".join(reversed(plain))[:_LAST_LETTERS] if plain else lines[-1][:_LAST_LETTERS] if lines else ""
