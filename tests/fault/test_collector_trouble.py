"""The store is away, the disk is full, a body is poison: the collector stays up and keeps its books."""

from __future__ import annotations

import resource
import shutil
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from collector import framing
from collector.store.address import StoreAddress
from collector.store.client import Store
from collector.store.migrate import apply
from tests.kits.collector_process import CollectorProcess, free_port, spans
from tests.kits.schema_tools import empty
from tests.kits.store_process import StoreServer, start_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    running = start_store(tmp_path_factory.mktemp("store"))
    yield running
    running.stop()


@pytest.fixture
def store(one_store: StoreServer, tmp_path: Path) -> StoreServer:
    """A migrated store without rows, whose keys the collector has."""
    shutil.copytree(one_store.data.parent / "keys", tmp_path / "keys")
    with Store(StoreAddress(one_store.url, user="owner", password=one_store.owner_password)) as owner:
        apply(owner)
        empty(owner)
    return one_store


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., CollectorProcess]]:
    """Starts collectors and ends those that a test left."""
    with ExitStack() as stack:
        yield lambda *args, **more: stack.enter_context(CollectorProcess(tmp_path, *args, **more)).start()


def rows(store: StoreServer) -> list[str]:
    return store.ask("SELECT SpanName FROM servescope.otel_traces ORDER BY SpanName FORMAT TSV").split()


def wait_status(collector: CollectorProcess, status: str) -> None:
    deadline = time.monotonic() + 60
    while collector.health()["status"] != status:
        assert time.monotonic() < deadline, collector.log()
        time.sleep(0.05)


def test_a_store_that_comes_later_gets_everything(tmp_path: Path, make: Callable[..., CollectorProcess]):
    port = free_port()
    collector = make(f"http://127.0.0.1:{port}")
    for number in range(5):
        assert collector.post("traces", spans(number, 1))[0] == 200
    wait_status(collector, "degraded")
    health = collector.health()
    assert health["ledger"]["traces"]["pending"] == 5
    assert "does not answer" in health["store"]["error"]
    assert collector.stop() == 0

    collector.start()
    assert collector.health()["ledger"]["traces"]["recovered"] == 5
    store = start_store(tmp_path, port=port)
    try:
        collector.wait_drained()
        wait_status(collector, "ok")
        assert rows(store) == [f"n{n}" for n in range(5)]
        assert collector.stop() == 0
        assert list((tmp_path / "log").glob("*.seg")) == []
    finally:
        store.stop()


def test_a_log_at_its_bound_says_when_to_come_again(make: Callable[..., CollectorProcess]):
    collector = make(f"http://127.0.0.1:{free_port()}", {"log_max_bytes": 50_000})
    answers = [collector.post("traces", spans(n * 100, 100)) for n in range(20)]
    codes = [status for status, _ in answers]
    taken = codes.count(200)
    assert 0 < taken < 20
    assert codes == [200] * taken + [429] * (20 - taken)
    assert b"write-ahead log" in answers[-1][1]
    health = collector.health()
    assert health["ledger"]["traces"]["pending"] == taken * 100
    assert health["ledger"]["traces"]["balance"] == 0
    assert health["reasons"] == {"refused:bound": 20 - taken}
    assert health["log"]["bytes"] <= 50_000
    assert collector.stop() == 0


def test_a_disk_that_refuses_writes_costs_nothing_acknowledged(
    make: Callable[..., CollectorProcess], store: StoreServer
):
    collector = make(f"http://127.0.0.1:{free_port()}")  # nobody listens there: the segment grows
    assert collector.process is not None
    pid = collector.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (30_000, limits[1]))
    answers = [collector.post("traces", spans(n * 100, 100)) for n in range(10)]
    codes = [status for status, _ in answers]
    taken = codes.count(200)
    assert 0 < taken < 10
    assert set(codes[taken:]) == {503}
    assert b"disk" in answers[-1][1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    assert collector.post("traces", spans(5000, 1))[0] == 200
    collector.kill()

    collector.clickhouse = store.url
    collector.start()
    health = collector.wait_drained()
    assert health["ledger"]["traces"]["balance"] == 0
    expected = [f"n{n * 100 + i}" for n in range(taken) for i in range(100)] + ["n5000"]
    assert rows(store) == sorted(expected)
    assert collector.stop() == 0


def test_a_torn_tail_is_cut_and_the_rest_is_stored(
    tmp_path: Path, make: Callable[..., CollectorProcess], store: StoreServer
):
    collector = make(f"http://127.0.0.1:{free_port()}")
    assert collector.post("traces", spans(0, 3))[0] == 200
    collector.kill()
    segment = next((tmp_path / "log").glob("*.seg"))
    torn = framing.encode(spans(50, 3), records=3, digest=bytes(16), received_ns=1)
    with segment.open("ab") as file:
        file.write(torn[:-10])
    collector.clickhouse = store.url
    collector.start()
    collector.wait_drained()
    assert rows(store) == ["n0", "n1", "n2"]
    assert collector.post("traces", spans(50, 3))[0] == 200  # its sender comes again
    collector.wait_drained()
    assert len(rows(store)) == 6
    assert collector.stop() == 0


def field(number: int, payload: bytes) -> bytes:
    return framing.varint(number << 3 | 2) + framing.varint(len(payload)) + payload


def test_poison_among_good_requests(make: Callable[..., CollectorProcess], store: StoreServer):
    collector = make(store.url, {"seal_seconds": 2.0})  # long enough to be in one segment
    # Span.name (field 5) as a number: upb takes it for an unknown field, the engine refuses the whole insert.
    now = time.time_ns().to_bytes(8, "little")
    span = field(1, bytes(15) + b"\x09") + field(2, bytes(7) + b"\x09") + b"\x28\x07" + b"\x39" + now + b"\x41" + now
    poison = field(1, field(2, field(2, span)))
    for body in (spans(0, 4), poison, spans(10, 4)):
        assert collector.post("traces", body)[0] == 200
    health = collector.wait_drained()
    assert health["ledger"]["traces"]["stored"] == 9
    assert health["status"] == "ok"
    assert rows(store) == sorted(f"n{n}" for n in [0, 1, 2, 3, 10, 11, 12, 13])
    assert store.ask("SELECT count() FROM servescope.otel_traces").strip() == "9"
    assert "segment_refused" in collector.log()
    assert collector.stop() == 0


def test_a_taken_port_and_a_taken_folder_are_start_errors(tmp_path: Path, make: Callable[..., CollectorProcess]):
    first = make(f"http://127.0.0.1:{free_port()}")
    with CollectorProcess(tmp_path, first.clickhouse).start(wait=False) as second:
        assert second.process is not None
        assert second.process.wait(60) == 1
        assert "Another collector" in second.log()
    (tmp_path / "other").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with CollectorProcess(tmp_path / "other", first.clickhouse, port=taken.getsockname()[1]) as third:
            third.start(wait=False)
            assert third.process is not None
            assert third.process.wait(60) == 1
            assert f"Port {third.port} on 127.0.0.1 is taken" in third.log()
    assert first.stop() == 0
