from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from agent.host.engines import Engines, find_processes, ports_of
from agent.host.machine import Machine
from agent.host.process import Process
from agent.sources.host import Host
from agent.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOON = 30.0
SERVER = """
import socket, subprocess, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(listener.getsockname()[1], child.pid, flush=True)
sys.stdin.read()
child.stdin.close()
child.wait()
"""


@contextmanager
def server() -> Iterator[tuple[int, int, int]]:
    """A listening process with a child: (port, pid, child's pid)."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port, child = map(int, process.stdout.readline().split())
    try:
        yield port, process.pid, child
    finally:
        process.communicate()


def target(port: int) -> Target:
    return Target("vllm-a", "chat", "vllm", f"http://127.0.0.1:{port}")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_listener_and_its_children_are_the_engine():
    with server() as (port, pid, child):
        found = find_processes([target(port)])
        assert set(found["vllm-a"]) == {pid, child}
        assert all("python" in name for name in found["vllm-a"].values())


def test_an_engine_that_a_stranger_started_is_found(monkeypatch: pytest.MonkeyPatch):
    """As under systemd, whose program only root may read."""
    readable = psutil.Process.exe

    def exe(process: psutil.Process) -> str:
        if process.pid == os.getpid():
            raise psutil.AccessDenied(process.pid)
        return readable(process)

    monkeypatch.setattr(psutil.Process, "exe", exe)
    with server() as (port, pid, child):
        assert set(find_processes([target(port)])["vllm-a"]) == {pid, child}


def test_nobody_listening_is_no_process():
    with server() as (port, _, _):
        pass
    assert find_processes([target(port)]) == {"vllm-a": {}}


def test_only_this_machines_ports_count():
    assert ports_of(Target("a", "d", None, "http://127.0.0.1:8000", "http://localhost:8002/metrics")) == {8000, 8002}
    assert ports_of(Target("a", "d", None, "http://gpu-7.example:8000")) == set()
    assert ports_of(Target("a", "d", None, "http://[::1]:9")) == {9}


def test_a_stopped_process_is_told_from_a_running_one():
    with server() as (_, _, child):
        process = Process(child, b"")
        assert process.sample()["stopped"] == 0
        os.kill(child, signal.SIGSTOP)
        try:
            wait_for(lambda: process.sample()["stopped"] == 1)
        finally:
            os.kill(child, signal.SIGCONT)
        wait_for(lambda: process.sample()["stopped"] == 0)


def test_figures_of_our_own_process_are_true():
    process = Process(os.getpid(), b"")
    first = process.sample()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    second = process.sample()
    assert second["cpu_seconds_total"] >= first["cpu_seconds_total"] + 0.05
    assert second["cpu_delay_seconds_total"] >= first["cpu_delay_seconds_total"] >= 0
    assert second["rss_bytes"] > 1_000_000
    assert second["threads"] >= 1


def fake_proc(folder: Path, *, started: int = 5, delays: dict[int, int], name: str = "a) b") -> str:
    process = folder / "7"
    process.mkdir(parents=True, exist_ok=True)
    fields = ["S", *["0"] * 6, "11", "0", "13", "0", "250", "50", "0", "0", "0", "0", "3", "0", str(started), "0", "10"]
    (process / "stat").write_text(f"7 ({name}) {' '.join(fields)}\n")
    (process / "status").write_text("Name:\ta\nvoluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t42\n")
    for thread, delay in delays.items():
        (process / "task" / str(thread)).mkdir(parents=True, exist_ok=True)
        (process / "task" / str(thread) / "schedstat").write_text(f"1 {delay} 1\n")
    return str(folder)


def test_delay_is_summed_over_threads_and_survives_the_end_of_one(tmp_path: Path):
    process = Process(7, b"")
    proc = fake_proc(tmp_path, delays={7: 1_000_000_000, 8: 500_000_000})
    assert process.sample(proc)["cpu_delay_seconds_total"] == 1.5
    (tmp_path / "7/task/8/schedstat").unlink()
    (tmp_path / "7/task/8").rmdir()
    fake_proc(tmp_path, delays={7: 2_000_000_000})
    assert process.sample(proc)["cpu_delay_seconds_total"] == 2.5


def test_a_kernel_that_tells_no_delay_is_not_one_without(tmp_path: Path):
    proc = fake_proc(tmp_path, delays={7: 0})
    assert Process(7, b"").sample(proc)["cpu_delay_seconds_total"] == 0
    (tmp_path / "7/task/7/schedstat").unlink()
    assert "cpu_delay_seconds_total" not in Process(7, b"").sample(proc)


def test_fields_are_found_behind_any_name(tmp_path: Path):
    values = Process(7, b"").sample(fake_proc(tmp_path, delays={7: 0}))
    assert values["cpu_seconds_total"] == 300 / os.sysconf("SC_CLK_TCK")
    assert values["threads"] == 3
    assert values["rss_bytes"] == 10 * os.sysconf("SC_PAGE_SIZE")
    assert values["involuntary_switches_total"] == 42
    assert values["voluntary_switches_total"] == 1
    assert (values["minor_faults_total"], values["major_faults_total"]) == (11, 13)
    assert values["state"] == ord("S")
    assert "disk_read_bytes_total" not in values, "a kernel that does not tell"


def test_disk_traffic_of_a_process_is_told_where_it_may_be_read(tmp_path: Path):
    proc = fake_proc(tmp_path, delays={7: 0})
    (tmp_path / "7/io").write_text("rchar: 9\nwchar: 9\nsyscr: 1\nsyscw: 1\nread_bytes: 4096\nwrite_bytes: 512\n")
    values = Process(7, b"").sample(proc)
    assert (values["disk_read_bytes_total"], values["disk_write_bytes_total"]) == (4096, 512)


LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max processes             96364                96364                processes
Max open files            {:<20} 524288               files
"""


def test_open_files_stand_beside_how_many_are_allowed():
    with server() as (_, pid, _):
        process, shown = Process(pid, b""), psutil.Process(pid).num_fds()
        values = process.sample()
        assert values["open_files"] == shown > 0
        allowed = psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)[0]
        assert values["open_files_limit"] == allowed


def test_an_older_kernel_lists_open_files_seldom_and_not_where_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.host.process._size", lambda _folder: 0)
    monkeypatch.setattr("agent.host.process._LISTED", 3)
    proc, process = fake_proc(tmp_path, delays={7: 0}), Process(7, b"")
    (tmp_path / "7/fd").mkdir()
    for number in range(3):
        (tmp_path / "7/fd" / str(number)).touch()
    seen = [process.sample(proc).get("open_files") for _ in range(61)]
    assert (seen[0], seen[60]) == (3, 3)
    assert set(seen[1:60]) == {None}, "what was not looked at is not told again"
    (tmp_path / "7/fd/3").touch()
    assert "open_files" not in Process(7, b"").sample(proc)


def test_open_files_that_may_not_be_counted_are_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(_path: str) -> None:
        raise PermissionError

    monkeypatch.setattr("agent.host.process._size", lambda _folder: 0)
    proc = fake_proc(tmp_path, delays={7: 0})
    (tmp_path / "7/limits").write_text(LIMITS.format(1024))
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refused)
        values = Process(7, b"").sample(proc)
    assert "open_files" not in values
    assert values["open_files_limit"] == 1024, "everybody may read that"


@pytest.mark.parametrize(("told", "known"), [("1024", 1024), ("unlimited", None)])
def test_how_many_files_may_be_open_is_read_seldom(tmp_path: Path, told: str, known: float | None):
    proc, process = fake_proc(tmp_path, delays={7: 0}), Process(7, b"")
    (tmp_path / "7/limits").write_text(LIMITS.format(told))
    assert process.sample(proc).get("open_files_limit") == known
    (tmp_path / "7/limits").write_text(LIMITS.format(4096))
    seen = [process.sample(proc).get("open_files_limit") for _ in range(60)]
    assert seen == [known] * 59 + [4096]


def test_a_process_runs_since_it_was_started():
    with server() as (_, pid, _):
        ours, theirs = Process(os.getpid(), b"").sample(), Process(pid, b"").sample()
        assert 0 <= theirs["uptime_seconds"] <= ours["uptime_seconds"]
        born = time.time() - psutil.Process().create_time()
        assert abs(ours["uptime_seconds"] - born) < SOON


def test_of_many_threads_the_busy_ones_are_read_each_time_and_all_of_them_now_and_then(tmp_path: Path):
    """Nothing that a thread waited is lost: it comes when all are read."""
    delays = dict.fromkeys(range(100, 160), 0) | {7: 1_000_000_000}
    process = Process(7, b"")
    proc = fake_proc(tmp_path, delays=delays)
    assert process.sample(proc)["cpu_delay_seconds_total"] == 1
    fake_proc(tmp_path, delays={7: 3_000_000_000, 155: 500_000_000})
    seen = [process.sample(proc)["cpu_delay_seconds_total"] for _ in range(10)]
    assert seen[0] == 3, "the one that waited before is read at once"
    assert seen[-1] == 3.5, "all were read meanwhile"
    fake_proc(tmp_path, delays={155: 900_000_000})
    assert process.sample(proc)["cpu_delay_seconds_total"] == 3.9, "it is among the busy ones"


def test_threads_that_sleep_on_are_read_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What one of them waits comes with its turn; what is read each time is what ran."""
    looked: list[str] = []
    opened = os.open

    def open_and_tell(path: str, flags: int) -> int:
        looked.append(path)
        return opened(path, flags)

    delays = dict.fromkeys(range(100, 160), 1)
    proc, process = fake_proc(tmp_path, delays=delays), Process(7, b"")
    for _ in range(12):  # the second full look finds that nobody ran
        process.sample(proc)
    monkeypatch.setattr(os, "open", open_and_tell)
    for _ in range(8):
        process.sample(proc)
    assert not [path for path in looked if "/task/" in path], "none of them ran, so that none is read"
    fake_proc(tmp_path, delays=dict.fromkeys(delays, 10**9 + 1))
    waited, read = [], []
    for _ in range(3):
        looked.clear()
        waited += [process.sample(proc)["cpu_delay_seconds_total"] for _ in range(10)]
        read.append(sum("/schedstat" in path for path in looked))
    assert read[0] < len(delays), "a part of them at the first full look"
    assert waited[-1] == pytest.approx(60 + 60e-9), "all of it in three of them"
    assert waited == sorted(waited)


def test_the_end_of_a_busy_thread_takes_nothing_away(tmp_path: Path):
    process = Process(7, b"")
    proc = fake_proc(tmp_path, delays=dict.fromkeys(range(100, 160), 0) | {8: 10**9})
    process.sample(proc)
    (tmp_path / "7/task/8/schedstat").unlink()
    assert [process.sample(proc)["cpu_delay_seconds_total"] for _ in range(12)] == [1.0] * 12


def test_a_process_whose_number_was_given_to_another_is_gone(tmp_path: Path):
    process = Process(7, b"")
    process.sample(fake_proc(tmp_path, delays={7: 0}))
    proc = fake_proc(tmp_path, started=6, delays={7: 0})
    try:
        process.sample(proc)
    except ProcessLookupError:
        return
    raise AssertionError("took another process for the same")


def machine_files(folder: Path, *, busy: int, idle: int, stalled: int) -> str:
    (folder / "pressure").mkdir(exist_ok=True)
    (folder / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n")
    (folder / "loadavg").write_text("1.25 1 1 1/2 3\n")
    (folder / "meminfo").write_text("MemTotal: 10 kB\nMemAvailable:    2048 kB\n")
    (folder / "pressure/cpu").write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={stalled}\n")
    return str(folder)


def test_disks_are_whole_ones(tmp_path: Path):
    proc = machine_files(tmp_path, busy=1, idle=1, stalled=0)
    disk = "0 0 {} 1 0 {} 0 1 0 {} 0 0 0 0"
    lines = [disk.format(name, read, written) for name, read, written in
             (("nvme0n1", 8, 4), ("nvme0n1p1", 8, 4), ("loop0", 99, 99), ("dm-0", 8, 4), ("sda", 2, 0))]  # fmt: skip
    (tmp_path / "diskstats").write_text("\n".join(lines) + "\n")
    for name in ("nvme0n1", "loop0", "dm-0", "sda"):
        (tmp_path / "sys/block" / name).mkdir(parents=True)
    values = Machine(proc, str(tmp_path / "sys")).sample(1.0)
    assert (values["disk_read_bytes_total"], values["disk_write_bytes_total"]) == (10 * 512, 4 * 512)


def test_machine_rates_are_over_the_time_between_two_looks(tmp_path: Path):
    machine = Machine(machine_files(tmp_path, busy=100, idle=100, stalled=1_000_000))
    first = machine.sample(10.0)
    assert first == {"load1": 1.25, "memory_available_bytes": 2048 * 1024, "cores": os.cpu_count()}
    machine_files(tmp_path, busy=175, idle=125, stalled=1_500_000)
    found = machine.sample(12.0)
    assert found["cpu_usage_ratio"] == 0.75
    assert found["cpu_pressure_some_ratio"] == 0.25
    assert "cpu_pressure_full_ratio" not in found
    assert "io_pressure_some_ratio" not in found  # a kernel that does not say


async def test_rows_go_out_and_follow_a_restarted_engine():
    rows: list[tuple[dict[str, str], dict[str, float]]] = []
    news = asyncio.Event()

    def emit(_signal: str, body: bytes) -> None:
        for one in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            whose = {pair.key: pair.value.string_value for pair in one.resource.attributes}
            values = {found.name: found.gauge.data_points[0].as_double for found in one.scope_metrics[0].metrics}
            rows.append((whose, values))
        news.set()

    async def until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(SOON):
            while not condition():
                news.clear()
                await news.wait()

    with server() as (port, pid, child):
        task = asyncio.create_task(Host(Engines([target(port)]), Place(node="n1"), interval_seconds=0.02).run(emit))
        await until(lambda: {str(pid), str(child)} <= {whose.get("process.pid", "") for whose, _ in rows})
    # The engine is gone now: rows of the machine go on, rows of its processes do not.
    await until(lambda: {whose["process.name"] for whose, _ in rows[-3:]} == {"host"})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    hosts = [(whose, values) for whose, values in rows if whose["process.name"] == "host"]
    assert hosts[0][0]["service.instance.id"] == "vllm-a"
    assert hosts[0][0]["host.name"] == "n1"
    assert hosts[-1][1]["load1"] >= 0
    assert 0 <= hosts[-1][1]["cpu_usage_ratio"] <= 1


async def test_without_targets_the_machine_has_one_row():
    (row,) = Host(Engines()).sample(1.0)
    assert row[1]["memory_available_bytes"] > 0


async def test_a_server_that_is_found_later_has_rows_of_its_own():
    host = Host(Engines())
    with server() as (port, pid, child):
        host.watch([target(port)])
        await host.find(0.0)
        whose = [
            {pair.key: pair.value.string_value for pair in Resource.FromString(who).attributes}
            for who, _ in host.sample(1.0)
        ]
    assert {one["service.instance.id"] for one in whose} == {"vllm-a"}
    assert {one.get("process.pid") for one in whose} == {None, str(pid), str(child)}
    assert len(whose) == 3, "the machine has one row alone"
    assert {one["service.instance.id"] for one in whose} == {"vllm-a"}


def test_switches_are_those_of_all_threads_and_survive_the_end_of_one(tmp_path: Path):
    def tell(thread: int, given: int, own: int, forced: int) -> None:
        folder = tmp_path / "7/task" / str(thread)
        (folder / "schedstat").write_text(f"1 0 {given}\n")
        (folder / "status").write_text(
            f"Name:\ta\nvoluntary_ctxt_switches:\t{own}\nnonvoluntary_ctxt_switches:\t{forced}\n"
        )

    def switched() -> tuple[float, float]:
        values = process.sample(proc)
        return values["voluntary_switches_total"], values["involuntary_switches_total"]

    proc, process = fake_proc(tmp_path, delays={7: 0, 8: 0, 9: 0}), Process(7, b"")
    tell(8, 1, 5, 8)
    tell(9, 1, 0, 100)
    assert switched() == (6, 150), "1 and 42 are the first thread's"
    tell(8, 2, 6, 10)
    tell(9, 1, 50, 500)  # it was given no core since, so that nobody looks
    assert switched() == (7, 152)
    for name in ("schedstat", "status"):
        (tmp_path / "7/task/8" / name).unlink()
    assert switched() == (7, 152)
