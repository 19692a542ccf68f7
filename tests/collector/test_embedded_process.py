"""The store as a process: start errors in one line, a clean end, and what survives a violent one."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest

from base.keys import ensure_keys
from collector.embedded.sandbox import PACKAGES
from tests.kits.store_process import ROOT, StoreServer, start_store


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector.embedded", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_start_errors_name_the_thing_and_the_fix(tmp_path: Path):
    hashed = str(ensure_keys(tmp_path / "keys").store_owner_hash_file)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("--data", str(tmp_path / "a"), "--port", port, "--owner-hash-file", hashed)
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr
    assert "--port" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

    done = run("--data", str(tmp_path / "a"), "--port", "0", "--owner-hash-file", str(tmp_path / "missing"))
    assert done.returncode == 1
    assert "missing" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

    (tmp_path / "bad").write_text("not a hash")
    done = run("--data", str(tmp_path / "a"), "--port", "0", "--owner-hash-file", str(tmp_path / "bad"))
    assert done.returncode == 1
    assert "SHA-256" in done.stderr

    (tmp_path / "plain").write_text("x")
    done = run("--data", str(tmp_path / "plain" / "x"), "--port", "0", "--owner-hash-file", hashed)
    assert done.returncode == 1
    assert "--data" in done.stderr
    assert run("--data", str(tmp_path / "a")).returncode == 2


def test_one_process_per_folder_and_data_survive(tmp_path: Path):
    server = start_store(tmp_path)
    try:
        hashed = str(tmp_path / "keys" / "store_owner.sha256")
        done = run("--data", str(server.data), "--port", "0", "--owner-hash-file", hashed)
        assert done.returncode == 1
        assert f"in use by process {server.process.pid}" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

        server.ask("CREATE TABLE kept (a UInt32) ENGINE = MergeTree ORDER BY a")
        server.ask("INSERT INTO kept SELECT number FROM numbers(1000)")
        assert server.stop(signal.SIGKILL) == -9
        server = start_store(tmp_path)
        assert server.ask("SELECT count(), sum(a) FROM kept", owner=False) == "1000\t499500\n"
        assert server.ask("SELECT engine FROM system.databases WHERE name = 'servescope'", owner=False) == "Atomic\n"
        server.ask("INSERT INTO kept SELECT number FROM numbers(1000)")
    finally:
        assert server.stop() == 0
    assert "store_stopped" in server.log.read_text()
    server = start_store(tmp_path)
    assert server.ask("SELECT count() FROM kept", owner=False) == "2000\n"
    assert server.stop(signal.SIGINT) == 0


def test_an_engine_that_has_nothing_to_do_sleeps(tmp_path: Path):
    server = start_store(tmp_path)
    try:
        for number in range(30):
            server.ask(f"CREATE TABLE t{number} (a UInt32) ENGINE = MergeTree ORDER BY a")
        begun, before = time.monotonic(), _wakes(server.process.pid)
        time.sleep(4)
        rate = (_wakes(server.process.pid) - before) / (time.monotonic() - begun)
        # each table looked after as often as the engine does by itself: 300
        assert 0 < rate < 100
    finally:
        server.stop()


def _wakes(pid: int) -> int:
    found = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in found)


def test_a_part_damaged_on_disk_is_put_aside_and_replayed(tmp_path: Path):
    server = start_store(tmp_path)
    insert = (
        "INSERT INTO hurt SETTINGS async_insert = 0, insert_deduplicate = 1, insert_deduplication_token = '{token}'"
        " FORMAT TSV\n"
    )
    try:
        server.ask(
            "CREATE TABLE hurt (a UInt32) ENGINE = MergeTree ORDER BY a"
            " SETTINGS non_replicated_deduplication_window = 100"
        )
        server.ask("SYSTEM STOP MERGES hurt")
        for token in ("one", "two", "three"):
            server.ask(insert.format(token=token), f"{len(token)}\n".encode())
        path = server.ask("SELECT path FROM system.parts WHERE table = 'hurt' AND active AND name LIKE 'all_2_2%'")
        server.stop(signal.SIGKILL)
        from pathlib import Path as Folder  # noqa: PLC0415 - only a test needs it at run time

        (Folder(path.strip()) / "checksums.txt").write_bytes(b"")
        server = start_store(tmp_path)
        assert server.ask("SELECT count() FROM hurt") == "2\n"
        assert "damaged_parts_put_aside" in server.log.read_text()
        for _ in range(2):
            for token in ("one", "two", "three"):
                server.ask(insert.format(token=token), f"{len(token)}\n".encode())
            assert server.ask("SELECT count(), sum(a) FROM hurt") == "3\t11\n"
        # The damaged part stays aside; the next start must not forget the replayed one again.
        server.stop()
        server = start_store(tmp_path)
        server.ask(insert.format(token="two"), b"3\n")
        assert server.ask("SELECT count(), sum(a) FROM hurt") == "3\t11\n"
    finally:
        server.stop()


def test_a_throwing_view_fails_the_insert_and_a_retry_completes_it(tmp_path: Path):
    server = start_store(tmp_path)
    window = "SETTINGS non_replicated_deduplication_window = 100"
    try:
        for sql in (
            "CREATE TABLE land (a String) ENGINE = Null",
            f"CREATE TABLE one (a String) ENGINE = MergeTree ORDER BY a {window}",
            f"CREATE TABLE two (a UInt32) ENGINE = MergeTree ORDER BY a {window}",
            "CREATE MATERIALIZED VIEW v1 TO one AS SELECT a FROM land",
            "CREATE MATERIALIZED VIEW v2 TO two AS SELECT toUInt32(a) AS a FROM land",
        ):
            server.ask(sql)
        insert = (
            "INSERT INTO land SETTINGS async_insert = 0, insert_deduplicate = 1,"
            " deduplicate_blocks_in_dependent_materialized_views = 1, insert_deduplication_token = 'x' FORMAT TSV\n"
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            server.ask(insert, b"1\nbad\n")
        caught.value.close()
        server.ask("DROP VIEW v2")
        server.ask("CREATE MATERIALIZED VIEW v2 TO two AS SELECT toUInt32OrZero(a) AS a FROM land")
        for _ in range(2):
            server.ask(insert, b"1\nbad\n")
            assert server.ask("SELECT (SELECT count() FROM one), (SELECT count() FROM two)") == "2\t2\n"
    finally:
        server.stop()


def test_the_engine_finds_its_folder_in_the_environment_it_was_born_with(store_server: StoreServer):
    born_with = Path(f"/proc/{store_server.process.pid}/environ").read_bytes().split(b"\0")
    assert f"TMPDIR={store_server.data / 'spool'}".encode() in born_with


def test_all_that_a_store_is_made_of_may_be_read_behind_its_fence():
    told = "import sys, collector.embedded.serve; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert ours & set(loaded.stdout.split()) == set(PACKAGES)
