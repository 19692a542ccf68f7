"""A store or a collector for the moment of one command, when none is running."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from base.errors import ConfigError, DataFolderInUseError, ServescopeError
from base.formats import spell
from base.keys import Keys, ensure_keys
from collector.store.address import StoreAddress, locate
from collector.store.client import Store
from servescope.launch.plan import DEFAULT_PORTS, python, store_part
from servescope.launch.ports import Ports
from servescope.launch.running import running
from servescope.launch.supervisor import Part, die_with_parent, ready, take_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_START_SECONDS = 60.0
_STUCK_SECONDS = 60.0


@contextlib.contextmanager
def store(data: Path, clickhouse: str, say: Callable[[str], None], *, new: bool = False) -> Iterator[str]:
    """URL of a ClickHouse: the one given, the running one of this folder, or an embedded one started for the moment.

    Args:
        data: Data folder.
        clickhouse: URL of a server, or "".
        say: Prints a line about a port that gave way.
        new: Whether a store may be made where there is none.

    Raises:
        ServescopeError: There is no data folder, or the store did not start.
    """
    if clickhouse:
        yield clickhouse
        return
    if running(data) is None and not new and not (data / "store").exists():
        raise ServescopeError(f"there are no data in {data}", "Start one: servescope up, or give --data")
    with _turn(data) as facts:
        if facts is not None:
            yield str(facts["urls"]["store"])
            return
        with _own_store(data, say) as url:
            yield url


@contextlib.contextmanager
def _own_store(data: Path, say: Callable[[str], None]) -> Iterator[str]:
    keys = ensure_keys(data / "keys")
    ports = Ports(say)  # kept until the end: so long is the port ours
    part, url = store_part(data, keys, ports.take("the store", DEFAULT_PORTS["store"]))
    with _process(part):
        yield url


@contextlib.contextmanager
def _turn(data: Path) -> Iterator[dict[str, Any] | None]:
    """``run.json`` of what runs here, or this folder's turn; waits for one that starts, ends, or asks a question."""
    _make(data)
    deadline = time.monotonic() + _START_SECONDS
    while True:
        facts = running(data)
        if facts is not None:
            yield facts
            return
        turn = take_turn(data, 0.0)
        if turn is not None:
            break
        if time.monotonic() > deadline:
            raise DataFolderInUseError(
                f"another command has had the data folder {data} for {spell(_START_SECONDS)}", "Wait for it, or end it"
            )
        time.sleep(0.1)
    with turn:
        yield None


@contextlib.contextmanager
def collector(data: Path, clickhouse: str, say: Callable[[str], None]) -> Iterator[tuple[str, Keys]]:
    """OTLP URL of a collector and the keys to sign with: the running one, or one for the moment.

    What was sent to it can be asked for when the block ends: it is in the tables, and put together.

    Raises:
        ServescopeError: It did not start; or the store does not take what was sent, which then waits in the log.
    """
    with contextlib.ExitStack() as held:
        facts = held.enter_context(_turn(data))
        if facts is not None and (not clickhouse or _same_store(clickhouse, facts["urls"]["store"])):
            otlp, url, keys = facts["urls"].get("otlp"), str(facts["urls"]["store"]), ensure_keys(data / "keys")
            if otlp is None:  # a store alone
                otlp, url = held.enter_context(_own_collector(data, url, say))
        else:
            if facts is not None:
                # The log in this folder belongs to the running collector and holds what goes into its store.
                data = data / "elsewhere" / hashlib.sha256(clickhouse.encode()).hexdigest()[:12]
                held.enter_context(_turn(data))
            keys = ensure_keys(data / "keys")
            otlp, url = held.enter_context(_own_collector(data, clickhouse, say))
        yield otlp, keys
        with Store(locate(data, url)) as store:
            _until_stored(otlp, store)


@contextlib.contextmanager
def _own_collector(data: Path, clickhouse: str, say: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    with contextlib.nullcontext(clickhouse) if clickhouse else _own_store(data, say) as url:
        ports = Ports(say)  # kept until the end: so long is the port ours
        port = ports.take("OTLP", 4318)
        otlp = f"http://127.0.0.1:{port}"
        command = python("collector", "--data", data, "--port", port)
        environment = {"SERVESCOPE_CLICKHOUSE": url}  # not an argument: it may carry a password
        with _process(Part("collector", command, ready_url=f"{otlp}/healthz", environment=environment)):
            yield otlp, url


def _make(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the data folder {data} can't be made: {error.strerror}", "Choose another --data") from error


def _same_store(one: str, other: str) -> bool:
    ours, theirs = StoreAddress.parse(one), StoreAddress.parse(other)
    return (ours.url, ours.database) == (theirs.url, theirs.database)


def _until_stored(otlp: str, store: Store) -> None:
    wanted = {signal: book["received"] + book["recovered"] for signal, book in _health(otlp)["ledger"].items()}
    last_waiting, moved = -1, time.monotonic()
    while True:
        with contextlib.suppress(ServescopeError):
            store.rows("SELECT 1 FROM requests_t LIMIT 0")  # who reads has what the collector holds back brought in
        health = _health(otlp)
        done = {s: book["stored"] + book["rejected"] + book["dropped"] for s, book in health["ledger"].items()}
        waiting = sum(max(0, wanted[signal] - done[signal]) for signal in wanted)
        if not waiting:
            break
        if waiting != last_waiting:
            last_waiting, moved = waiting, time.monotonic()
        if time.monotonic() - moved > _STUCK_SECONDS:
            raise ServescopeError(
                f"{waiting} records wait in the collector's log: {health['store']['error'] or 'the store is slow'}",
                "Nothing is lost: see to the store; they are inserted when a collector runs over this folder again",
            )
        time.sleep(0.1)
    traces = health["store"]["last_traces"] or 0
    deadline = time.monotonic() + _STUCK_SECONDS
    while (health["store"]["last_settle"] or 0) < traces and time.monotonic() < deadline:
        time.sleep(0.1)
        health = _health(otlp)


def _health(otlp: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{otlp}/healthz", timeout=10) as response:  # noqa: S310 - our own loopback URL
            found: dict[str, Any] = json.load(response)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ServescopeError(
            f"the collector at {otlp} went away: {error}",
            "What it acknowledged is in its log and is inserted at its next start",
        ) from None
    return found


@contextlib.contextmanager
def _process(part: Part) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        environment = {**os.environ, **part.environment}
        process = part.process = subprocess.Popen(
            list(part.command), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call; a killed command must not leave a store
        )  # fmt: skip
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not ready(part):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    lines = log.read().decode(errors="replace").strip().splitlines()
                    raise ServescopeError(f"{part.name} did not start: {lines[-1] if lines else 'it said nothing'}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
