from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from agent.host.cgroup import Cgroup, folders_of
from agent.host.engines import Engines
from agent.host.network import traffic
from agent.sources.host import Host, _Cage
from agent.target import Target

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


V2 = {
    "cpu.stat": "usage_usec 2500000\nsystem_usec 1\nnr_periods 40\nnr_throttled 8\nthrottled_usec 750000\n",
    "cpu.max": "150000 100000\n",
    "memory.current": "3221225472\n",
    "memory.max": "4294967296\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n",
    "io.stat": "259:0 rbytes=4096 wbytes=100 rios=1 wios=1 dbytes=0 dios=0\n8:0 rbytes=4 wbytes=1 rios=1 wios=1\n",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 avg60=0 avg300=0 total=5\n",
    "memory.pressure": "some avg10=0.00 total=0\nfull avg10=0.00 total=0\n",
}
V2_FIGURES = {
    "cgroup_cpu_seconds_total": 2.5,
    "cgroup_cpu_quota_cores": 1.5,
    "cgroup_cpu_periods_total": 40,
    "cgroup_cpu_throttled_periods_total": 8,
    "cgroup_cpu_throttled_seconds_total": 0.75,
    "cgroup_memory_used_bytes": 3 * 2**30,
    "cgroup_memory_limit_bytes": 4 * 2**30,
    "cgroup_oom_kills_total": 1,
    "cgroup_io_read_bytes_total": 4100,
    "cgroup_io_write_bytes_total": 101,
}


def test_version_2(tmp_path: Path):
    write(tmp_path, V2)
    cgroup = Cgroup({"": str(tmp_path)})
    assert cgroup.sample(10.0) == V2_FIGURES
    write(tmp_path, {"cpu.pressure": "some avg10=0.00 total=1500000\nfull avg10=0.00 total=5\n"})
    assert cgroup.sample(12.0) == V2_FIGURES | {
        "cgroup_cpu_pressure_some_ratio": 0.25,
        "cgroup_memory_pressure_some_ratio": 0,
        "cgroup_memory_pressure_full_ratio": 0,
    }


def test_no_limit_and_no_controller_are_no_figures(tmp_path: Path):
    write(
        tmp_path,
        {"cpu.stat": "usage_usec 10\n", "cpu.max": "max 100000\n", "memory.current": "5\n", "memory.max": "max\n"},
    )
    found = Cgroup({"": str(tmp_path)}).sample(1.0)
    assert found == {"cgroup_cpu_seconds_total": 1e-5, "cgroup_memory_used_bytes": 5}


V1 = {
    "cpu,cpuacct/{}/cpu.stat": "nr_periods 40\nnr_throttled 8\nthrottled_time 750000000\n",
    "cpu,cpuacct/{}/cpu.cfs_quota_us": "150000\n",
    "cpu,cpuacct/{}/cpu.cfs_period_us": "100000\n",
    "cpu,cpuacct/{}/cpuacct.usage": "2500000000\n",
    "memory/{}/memory.usage_in_bytes": f"{3 * 2**30}\n",
    "memory/{}/memory.limit_in_bytes": f"{4 * 2**30}\n",
    "memory/{}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    "blkio/{}/blkio.throttle.io_service_bytes": "259:0 Read 4096\n259:0 Write 100\n8:0 Read 4\n8:0 Write 1\n",
}  # fmt: skip
V1_OF_A_PROCESS = "5:memory:/pod/engine\n4:cpu,cpuacct:/pod/engine\n3:blkio:/pod/engine\n1:name=systemd:/x\n0::/x\n"


def test_version_1_tells_the_same(tmp_path: Path):
    write(tmp_path / "sys/fs/cgroup", {name.format("pod/engine"): text for name, text in V1.items()})
    write(tmp_path / "proc/7", {"cgroup": V1_OF_A_PROCESS})
    folders = folders_of(7, str(tmp_path / "proc"), str(tmp_path / "sys"))
    assert Cgroup(folders).sample(1.0) == V2_FIGURES
    write(tmp_path / "sys/fs/cgroup/memory/pod/engine", {"memory.limit_in_bytes": "9223372036854771712\n"})
    write(tmp_path / "sys/fs/cgroup/cpu,cpuacct/pod/engine", {"cpu.cfs_quota_us": "-1\n"})
    found = Cgroup(folders).sample(1.0)
    assert {"cgroup_memory_limit_bytes", "cgroup_cpu_quota_cores"}.isdisjoint(found)


def test_a_containers_own_cgroup_is_read_where_it_is_shown_and_anothers_never_for_it(tmp_path: Path):
    """In a container of version 1 the tree's names are not to be found, and its root is our own cgroup."""
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    write(sys / "fs/cgroup", {name.format("."): text for name, text in V1.items()})
    write(proc / "7", {"cgroup": V1_OF_A_PROCESS})
    write(proc / "8", {"cgroup": V1_OF_A_PROCESS.replace("/pod/engine", "/pod/other")})
    write(proc / "self", {"cgroup": V1_OF_A_PROCESS})
    assert Cgroup(folders_of(7, str(proc), str(sys))).sample(1.0) == V2_FIGURES
    assert folders_of(8, str(proc), str(sys)) == {}


@pytest.mark.parametrize("path", ["/", "/pod/engine"])
def test_version_2_is_found_by_its_name(tmp_path: Path, path: str):
    write(tmp_path / f"sys/fs/cgroup{path}", V2)
    write(tmp_path / "proc/7", {"cgroup": f"0::{path}\n"})
    folders = folders_of(7, str(tmp_path / "proc"), str(tmp_path / "sys"))
    assert Cgroup(folders).sample(1.0) == V2_FIGURES


def test_another_containers_cgroup_is_read_through_its_process(tmp_path: Path):
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    write(sys / "fs/cgroup", {"cpu.stat": "usage_usec 1\n"})
    write(sys / "fs/other", {"cpu.stat": "usage_usec 1\n"})
    write(proc / "7", {"cgroup": "0::/../other\n"})
    assert folders_of(7, str(proc), str(sys)) == {}, "what is beside ours is not below our mount"
    write(proc / "7" / "root" / "sys/fs/cgroup", V2)
    assert Cgroup(folders_of(7, str(proc), str(sys))).sample(1.0) == V2_FIGURES


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::\n", "\xff"])
def test_a_file_that_says_nothing_is_no_cgroup(tmp_path: Path, text: str):
    write(tmp_path / "proc/7", {"cgroup": text})
    assert folders_of(7, str(tmp_path / "proc"), str(tmp_path / "sys")) == {}
    assert folders_of(8, str(tmp_path / "proc"), str(tmp_path / "sys")) == {}


def test_our_own_process_can_be_read():
    assert folders_of(os.getpid()) is not None
    assert traffic(os.getpid())["network_receive_bytes_total"] >= 0


def test_network_is_without_loopback(tmp_path: Path):
    head = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop ...\n"
    eth = "  eth0: 1000 9 1 2 0 0 0 0 2000 9 3 4 0 0 0 0\n"
    write(tmp_path / "7/net", {
        "dev": head + "    lo: 99 9 0 0 0 0 0 0 99 9 0 0 0 0 0 0\n" + eth + eth.replace("eth0", "eth1"),
        "snmp": "Tcp: RtoAlgorithm RetransSegs InErrs\nTcp: 1 77 0\nUdp: InDatagrams\nUdp: 1\n",
    })  # fmt: skip
    assert traffic(7, str(tmp_path)) == {
        "network_receive_bytes_total": 2000,
        "network_transmit_bytes_total": 4000,
        "network_drops_total": 20,
        "tcp_retransmits_total": 77,
    }
    assert traffic(8, str(tmp_path)) == {}


def test_what_the_kernel_killed_is_an_event_of_the_instance(tmp_path: Path):
    write(tmp_path, V2)
    target = Target("vllm-a", "chat", None, "http://127.0.0.1:1")
    host = Host(Engines([target]))
    host._cages["vllm-a"] = _Cage(os.getpid(), Cgroup({"": str(tmp_path)}))
    ((_, values),) = host.sample(1.0)
    assert values["cgroup_oom_kills_total"] == 1
    assert host._events == [], "what was killed before we looked is no news"
    write(tmp_path, {"memory.events": "oom 9\noom_kill 3\n"})
    host.sample(2.0)
    (event,) = host._events
    group = ExportLogsServiceRequest.FromString(event).resource_logs[0]
    record = group.scope_logs[0].log_records[0]
    assert record.event_name == "oom_kill"
    assert record.body.string_value == "The kernel killed 2 processes in the cgroup of vllm-a for lack of memory"
    assert {pair.key: pair.value.string_value for pair in group.resource.attributes}["service.instance.id"] == "vllm-a"
    host.sample(3.0)
    assert len(host._events) == 1
