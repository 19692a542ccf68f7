"""The store's life: lock, listen, fence, repair, open, serve, drain, close."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from base import locks
from base.command import ending_in_words
from base.errors import ConfigError, DataFolderInUseError, PortInUseError
from base.logs import log_to_stderr
from collector.embedded import recycle
from collector.embedded.body import clear_spool
from collector.embedded.limits import Limits
from collector.embedded.sandbox import bound_memory, fence

if TYPE_CHECKING:
    from collector.embedded.http import Gateway
    from collector.embedded.run import Runner

_DRAIN_SECONDS = 20
_RECYCLE_SECONDS = 10
_UNREAD_SECONDS = 120
# aiohttp waits this long twice: for answers to end by themselves, then for their cancellation.
_GRACE_SECONDS = 3
# The engine's code is mapped privately and relocated: about half a gigabyte before it has done anything.
_CODE_BYTES = 2_000_000_000


def serve(data: Path, host: str, port: int, owner_hash_file: Path) -> None:
    """Run the store in this process until SIGTERM or SIGINT.

    Args:
        data: The store's folder, made where it is missing.
        host: Address to listen on.
        port: TCP port, 0 for any.
        owner_hash_file: File with the hex SHA-256 of the owner's password; read before the fence closes.

    Raises:
        ServescopeError: A start error that names the thing and the fix.
    """
    log_to_stderr()
    owner_hash = _read_hash(owner_hash_file)
    lock = _lock(data)
    listener = _listen(host, port)
    bound_memory(4 * Limits().server_memory + _CODE_BYTES)
    structlog.get_logger().info("store_fenced", fence=fence(data, Path(__file__).resolve().parents[2]))
    _live(recycle.Life(str(data), host, owner_hash, listener.fileno(), lock, recycle.Past()), listener)


def serve_again(descriptor: int) -> None:
    """Run the store in a process that has replaced itself, inside the fence that it closed in its first life.

    Args:
        descriptor: Of the file with what the life before handed on.
    """
    log_to_stderr()
    life = recycle.read(descriptor)
    with ending_in_words("store", f"Make {life.data} writable and leave it free space"):
        _live(life, socket.socket(fileno=life.listener))


def _live(life: recycle.Life, listener: socket.socket) -> None:
    log = structlog.get_logger()
    data = Path(life.data)
    spool = data / "spool"
    clear_spool(spool)
    # chDB imports pyarrow, and with it numpy, for frames that this process never makes: 25 MB saved.
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    # It also keeps compiled format schemas under the current folder.
    os.chdir(spool)
    # Imported late: loading the engine starts its threads, and those must be born inside the fence.
    from collector.embedded.engine import Engine  # noqa: PLC0415
    from collector.embedded.errors import QueryError  # noqa: PLC0415
    from collector.embedded.repair import after_open, before_open  # noqa: PLC0415

    engine = Engine(data, Limits())
    before_open(data / "db")
    try:
        engine.open()
        after_open(engine)
    except QueryError as error:
        raise DataFolderInUseError(
            f"The engine can't open {data}: {error}", "Stop the process that uses it, or choose another --data"
        ) from None
    try:
        asyncio.run(_run(engine, spool, life, listener))
    finally:
        engine.close()
        os.close(life.lock)
    log.info("store_stopped")


async def _run(engine: object, spool: Path, life: recycle.Life, listener: socket.socket) -> None:
    from collector.embedded.engine import Engine  # noqa: PLC0415
    from collector.embedded.http import Gateway  # noqa: PLC0415
    from collector.embedded.run import Runner  # noqa: PLC0415

    if not isinstance(engine, Engine):
        raise TypeError(engine)
    runner = Runner(engine, recycle.Recycle(life.past))
    await _until_told(runner, Gateway(runner, spool, life.owner_hash, life.host), life, listener)


async def _until_told(runner: Runner, gateway: Gateway, life: recycle.Life, listener: socket.socket) -> None:
    """Answer until a signal ends it, or until the process is to be replaced."""
    from collector.embedded.front import Front  # noqa: PLC0415

    stop, again = asyncio.Event(), runner.recycle
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = web.ServerRunner(Front(gateway.handle), shutdown_timeout=_GRACE_SECONDS)
    await server.setup()
    await web.SockSite(server, listener).start()
    address = listener.getsockname()
    structlog.get_logger().info("store_ready", url=f"http://{life.host}:{address[1]}", recycled=life.past.recycled)
    waiting = [loop.create_task(event.wait()) for event in (stop, again.ordered)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if again.why and not stop.is_set():
        # Whoever asks now is told so, and what was begun may end: a second at least, ten at most.
        await asyncio.gather(runner.drain(_RECYCLE_SECONDS), asyncio.sleep(1))
        if not stop.is_set():
            recycle.begin_again(life, listener, again)
    for task in waiting:
        task.cancel()
    structlog.get_logger().info("store_draining")
    for demand in gateway.demand.values():
        demand.close()
    await server.cleanup()
    if not await runner.close(_DRAIN_SECONDS):
        # A query that can't be cancelled must not keep the process: what is on disk survives any end.
        structlog.get_logger().warning("store_cut_off", seconds=_DRAIN_SECONDS)
        os._exit(0)


def _read_hash(path: Path) -> str:
    try:
        text = path.read_text().strip().lower()
    except OSError as error:
        raise ConfigError(
            f"The owner's hash file {path} can't be read: {error.strerror}",
            "Give --owner-hash-file the file keys/store_owner.sha256 of the data folder",
        ) from None
    if len(text) != 64 or set(text) - set("0123456789abcdef"):  # noqa: PLR2004 - hex digits of SHA-256
        raise ConfigError(f"{path} does not hold a SHA-256 in hex", "Write sha256(password) as 64 hex digits into it")
    return text


def _lock(data: Path) -> int:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        return locks.take(data / "lock", signed=True).descriptor
    except locks.HeldError as error:
        raise DataFolderInUseError(
            f"The data folder {data} is in use by process {error.holder}",
            "Stop that store, or choose another folder with --data",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"The data folder {data} can't be used: {error.strerror}", "Choose another with --data"
        ) from None


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error}", "Use 127.0.0.1") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by every connection: what a client doesn't read for so long, it never will.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _UNREAD_SECONDS)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise PortInUseError(
            f"Port {port} on {host} can't be used: {error.strerror}",
            "Stop what listens there, or choose another with --port",
        ) from None
    listener.setblocking(False)
    return listener
