"""Killed, or refused by the disk, at every rename of a batch: the same token again must complete it, each row once.

The engine notes a part's block id before it renames the part into place; without the store's repair a replay counts as
a duplicate there and rows are lost. strace injects the fault at the n-th rename.
"""

from __future__ import annotations

import random
import subprocess
import urllib.error
from typing import TYPE_CHECKING

import pytest

from tests.kits.needs import need
from tests.kits.store_process import StoreServer, start_store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROWS = 40
DAYS = 2
DDL = (
    "CREATE TABLE land (day UInt16, name String) ENGINE = Null",
    "CREATE TABLE flat (day UInt16, name String) ENGINE = MergeTree PARTITION BY day ORDER BY name {dedup}",
    "CREATE TABLE wide (day UInt16, name String, size UInt8) ENGINE = MergeTree PARTITION BY day ORDER BY name {dedup}",
    "CREATE TABLE rollup (day UInt16, rows UInt64) ENGINE = SummingMergeTree ORDER BY day {dedup}",
    "CREATE TABLE chained (day UInt16, rows UInt64) ENGINE = SummingMergeTree ORDER BY day {dedup}",
    "CREATE MATERIALIZED VIEW v1 TO flat AS SELECT day, name FROM land",
    "CREATE MATERIALIZED VIEW v2 TO wide AS SELECT day, name, length(name) AS size FROM land",
    "CREATE MATERIALIZED VIEW v3 TO rollup AS SELECT day, count() AS rows FROM land GROUP BY day",
    "CREATE MATERIALIZED VIEW v4 TO chained AS SELECT day, count() AS rows FROM flat GROUP BY day",
)
DEDUP = "SETTINGS non_replicated_deduplication_window = 10000"
COUNTS = (
    "SELECT (SELECT count() FROM flat), (SELECT uniqExact(name) FROM flat), (SELECT count() FROM wide),"
    " (SELECT sum(rows) FROM rollup), (SELECT sum(rows) FROM chained)"
)
PARTS_OF_A_BATCH = 2 * DAYS + 2


def insert(server: StoreServer, token: str) -> None:
    data = "".join(f"{day}\t{token}-{day}-{row}\n" for day in range(DAYS) for row in range(ROWS // DAYS))
    server.ask(
        "INSERT INTO land SETTINGS max_threads = 1, max_insert_threads = 1, async_insert = 0, insert_deduplicate = 1,"
        " deduplicate_blocks_in_dependent_materialized_views = 1,"
        f" insert_deduplication_token = '{token}' FORMAT TSV\n",
        data.encode(),
    )


def expect(server: StoreServer, batches: int) -> None:
    rows = batches * ROWS
    assert server.ask(COUNTS).split() == [str(rows)] * 5


def inject(server: StoreServer, fault: str, log: Path) -> subprocess.Popen[bytes]:
    """Attach strace to the store; returns when every thread is traced."""
    log.unlink(missing_ok=True)
    pid = str(server.process.pid)
    tracer = subprocess.Popen(
        [need("strace"), "-f", "-o", str(log), "-e", "trace=rename", "-e", f"inject=rename:{fault}", "-p", pid],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    assert b"attached" in line, line
    return tracer


def detach(tracer: subprocess.Popen[bytes]) -> None:
    if tracer.poll() is None:
        tracer.terminate()
    tracer.wait(30)
    assert tracer.stderr is not None
    tracer.stderr.close()


def prepare(server: StoreServer) -> None:
    for statement in DDL:
        server.ask(statement.format(dedup=DEDUP))


def kill_at(points: Sequence[int], tmp_path: Path) -> None:
    server = start_store(tmp_path)
    prepare(server)
    killed = 0
    try:
        for point in points:
            token = f"kill-{point}"
            tracer = inject(server, f"signal=SIGKILL:when={point}", tmp_path / "trace")
            with pytest.raises((urllib.error.URLError, ConnectionError)):
                insert(server, token)
            # strace 6.1 may wait for ever for a thread that died with its process.
            tracer.kill()
            detach(tracer)
            assert server.process.wait(60) == -9
            killed += 1
            server = start_store(tmp_path)
            insert(server, token)
            expect(server, killed)
            insert(server, token)
            expect(server, killed)
        logs = "".join(path.read_text() for path in tmp_path.glob("store-*.log"))
        assert logs.count("deduplication_repaired") >= len(points), "the kills missed the window"
    finally:
        server.stop()


def test_kill_at_a_rename_then_replay_is_exact(tmp_path: Path):
    kill_at([random.Random().randint(1, PARTS_OF_A_BATCH)], tmp_path)


@pytest.mark.heavy
def test_kill_at_every_rename_then_replay_is_exact(tmp_path: Path):
    kill_at(range(1, PARTS_OF_A_BATCH + 1), tmp_path)


def test_rename_refused_once_then_retry_is_exact(tmp_path: Path):
    server = start_store(tmp_path)
    prepare(server)
    try:
        for point in range(1, PARTS_OF_A_BATCH + 1):
            token = f"full-{point}"
            tracer = inject(server, f"error=ENOSPC:when={point}", tmp_path / "trace")
            with pytest.raises(urllib.error.HTTPError) as caught:
                insert(server, token)
            assert caught.value.code >= 500
            caught.value.close()
            detach(tracer)
            insert(server, token)
            expect(server, point)
            insert(server, token)
            expect(server, point)
        assert server.log.read_text().count("deduplication_repaired") >= PARTS_OF_A_BATCH
    finally:
        server.stop()
    reopened = start_store(tmp_path)
    expect(reopened, PARTS_OF_A_BATCH)
    reopened.stop()
