"""The store's life: lock, listen, fence, repair, open, serve, drain, close."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

import structlog
from aiohttp import web

from agent.errors import ConfigError, DataFolderInUseError, PortInUseError
from agent.logs import log_to_stderr
from collector.embedded.body import clear_spool
from collector.embedded.engine_config import Limits
from collector.embedded.sandbox import bound_memory, fence

_DRAIN_SECONDS = 20
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
    log = structlog.get_logger()
    owner_hash = _read_hash(owner_hash_file)
    lock = _lock(data)
    listener = _listen(host, port)

    limits = Limits()
    spool = data / "spool"
    clear_spool(spool)
    bound_memory(4 * limits.server_memory + _CODE_BYTES)
    log.info("store_fenced", fence=fence(data, Path(__file__).resolve().parents[2]))

    # chDB imports pyarrow, and with it numpy, for frames that this process never makes: 25 MB saved.
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    # It also keeps compiled format schemas under the current folder.
    os.chdir(spool)
    # Imported late: loading the engine starts its threads, and those must be born inside the fence.
    from collector.embedded.engine import Engine  # noqa: PLC0415
    from collector.embedded.errors import QueryError  # noqa: PLC0415
    from collector.embedded.repair import after_open, before_open  # noqa: PLC0415

    engine = Engine(data, limits)
    before_open(data / "db")
    try:
        engine.open()
        after_open(engine)
    except QueryError as error:
        raise DataFolderInUseError(
            f"The engine can't open {data}: {error}", "Stop the process that uses it, or choose another --data"
        ) from None
    try:
        asyncio.run(_run(engine, spool, owner_hash, listener, host))
    finally:
        engine.close()
        os.close(lock)
    log.info("store_stopped")


async def _run(engine: object, spool: Path, owner_hash: str, listener: socket.socket, host: str) -> None:
    from collector.embedded.engine import Engine  # noqa: PLC0415
    from collector.embedded.http import Gateway  # noqa: PLC0415
    from collector.embedded.memory import release_code  # noqa: PLC0415
    from collector.embedded.run import Runner  # noqa: PLC0415

    if not isinstance(engine, Engine):
        raise TypeError(engine)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = Runner(engine)
    application = Gateway(runner, spool, owner_hash, host).app()
    server = web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE_SECONDS, auto_decompress=False
    )
    await server.setup()
    await web.SockSite(server, listener).start()
    released = release_code()
    address = listener.getsockname()
    structlog.get_logger().info("store_ready", url=f"http://{host}:{address[1]}", released=released)
    await stop.wait()
    structlog.get_logger().info("store_draining")
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
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"The data folder {data} can't be used: {error.strerror}", "Choose another with --data"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise DataFolderInUseError(
            f"The data folder {data} is in use by process {holder or 'unknown'}",
            "Stop that store, or choose another folder with --data",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"--host {host} is no address of this machine: {error}", "Use 127.0.0.1") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
