from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from agent.host.cgroup import Cgroup, folders_of
from agent.host.engines import Engines
from agent.host.network import Network
from agent.host.reading import read
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
    assert Network().traffic(os.getpid())["network_receive_bytes_total"] >= 0


def net_dev(**received: int) -> str:
    """/proc/net/dev of devices that received so many bytes, sent twice as many and have ten errors and drops."""
    head = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop ...\n"
    lines = [f"{name.replace('_', '.'):>6}: {size} 9 1 2 0 0 0 0 {2 * size} 9 3 4 0 0 0 0\n"
             for name, size in {"lo": 99, **received}.items()]  # fmt: skip
    return head + "".join(lines)


ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def default_route(device: str) -> str:
    return (
        f"{ROUTES}{device}\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )


def sysfs(folder: Path, *, hardware: str = "", virtual: str = "", over: dict[str, str] | None = None) -> None:
    """/sys/class/net; ``over`` is the device that each stands under. A virtual ``tun`` is no Ethernet."""
    for name in ("lo", *hardware.split(), *virtual.split()):
        write(folder / "class/net" / name, {"type": "65534\n" if name.startswith("tun") else "1\n"})
    for name in hardware.split():
        (folder / "class/net" / name / "device").symlink_to("../../../virtio2")
    for below, above in (over or {}).items():
        (folder / "class/net" / below / "master").symlink_to(f"../{above}")
        (folder / "class/net" / above / f"lower_{below}").symlink_to(f"../{below}")
    write(folder / "class/net", {"bonding_masters": "bond0\n"})


def test_network_is_without_loopback(tmp_path: Path):
    write(tmp_path / "7/net", {
        "dev": net_dev(eth0=1000, eth1=1000),
        "snmp": "Tcp: RtoAlgorithm RetransSegs InErrs\nTcp: 1 77 0\nUdp: InDatagrams\nUdp: 1\n",
    })  # fmt: skip
    network = Network(str(tmp_path), str(tmp_path / "sys"))
    assert network.traffic(7) == {
        "network_receive_bytes_total": 2000,
        "network_transmit_bytes_total": 4000,
        "network_drops_total": 20,
        "tcp_retransmits_total": 77,
    }
    assert network.traffic(8) == {}


SEVERAL = {"eth0": 1000, "eth1": 300, "bond0": 1300, "bond0_7": 1200, "docker0": 400, "veth9": 400, "tun0": 50}


@pytest.mark.parametrize(
    ("devices", "shown", "route", "counted"),
    [
        (SEVERAL, {"hardware": "eth0 eth1", "virtual": "bond0 bond0.7 docker0 veth9 tun0",
                   "over": {"eth0": "bond0", "eth1": "bond0", "bond0": "bond0.7", "veth9": "docker0"}},
         "bond0.7", 1300),
        (SEVERAL, {"hardware": "eth0 eth1", "virtual": "bond0 bond0.7 docker0 veth9 tun0"}, "tun0", 1300),
        (SEVERAL, None, "bond0.7", 1200),
        ({"eth0": 1000, "docker0": 400, "veth9": 400},
         {"virtual": "eth0 docker0 veth9", "over": {"veth9": "docker0"}}, "eth0", 1000),
        ({"eth0": 1000, "net1": 70}, {"virtual": "eth0", "hardware": "net1"}, "eth0", 1070),
        ({"eth0": 1000, "enP1": 990}, {"hardware": "eth0 enP1", "over": {"enP1": "eth0"}}, "eth0", 1000),
        ({"tun0": 8}, {"virtual": "tun0"}, "tun0", 8),
        ({"eth0": 1000}, {"hardware": "eth0 eth1"}, "eth0", 1000),
        ({"eth0": 1000, "eth1": 5}, {"virtual": "eth0 eth1"}, "", 1005),
    ],
    ids=["bond", "tunnel", "hidden", "docker in a pod", "second card of a pod", "card under a card", "tunnel alone",
         "another namespace's", "no route"],
)  # fmt: skip
@pytest.mark.parametrize("own", [True, False], ids=["our view", "its root's view"])
def test_bytes_that_pass_several_devices_count_once(
    tmp_path: Path, devices: dict[str, int], shown: dict[str, Any] | None, route: str, counted: int, own: bool
):
    write(tmp_path / "7/net", {"dev": net_dev(**devices), "route": default_route(route) if route else ROUTES})
    if shown is not None:
        sysfs(tmp_path / "sys" if own else tmp_path / "7/root/sys", **shown)
    network = Network(str(tmp_path), str(tmp_path / "sys"))
    found = network.traffic(7)
    assert (found["network_receive_bytes_total"], found["network_transmit_bytes_total"]) == (counted, 2 * counted)


def test_a_device_that_comes_is_seen(tmp_path: Path):
    route = f"{'0' * 32} 00 {'0' * 32} 00 fe80 00000400 00000001 00000000 00000003     eth0\n"
    write(tmp_path / "7/net", {"dev": net_dev(eth1=5), "ipv6_route": route})
    network = Network(str(tmp_path), str(tmp_path / "sys"))
    assert network.traffic(7)["network_receive_bytes_total"] == 5
    write(tmp_path / "7/net", {"dev": net_dev(eth0=1000, eth1=5)})
    assert network.traffic(7)["network_receive_bytes_total"] == 1000


def test_a_list_that_comes_a_page_at_a_time_is_read_to_its_end():
    """The kernel hands out /proc/self/maps, as /proc/net/dev and /proc/diskstats, in pages of 4 KiB."""
    assert b"[stack]" in read("/proc/self/maps")


def test_a_file_without_an_end_is_read_in_part():
    assert len(read("/dev/zero")) == 1 << 20


def test_what_the_kernel_killed_is_an_event_of_the_instance(tmp_path: Path):
    write(tmp_path, V2)
    target = Target("vllm-a", "chat", None, "http://127.0.0.1:1")
    host = Host(Engines([target]))
    host._cages["vllm-a"] = _Cage(os.getpid(), Cgroup({"": str(tmp_path)}), Network())
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


async def test_what_several_instances_are_in_is_read_once(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    traffic = Network.traffic

    def count(network: Network, pid: int) -> dict[str, float]:
        asked.append(pid)
        return {} if pid not in {os.getpid(), 1} else traffic(network, os.getpid())

    monkeypatch.setattr(Network, "traffic", count)
    targets = [Target(f"vllm-{port}", "chat", None, f"http://127.0.0.1:{port}") for port in (1, 2, 3)]
    engines = Engines(targets)
    host = Host(engines)
    engines.know({target.instance: {os.getpid(): "VLLM::EngineCore"} for target in targets})
    await host.find(1.0)
    rows = host.sample(1.0)
    assert asked == [os.getpid()]
    assert len({values["network_receive_bytes_total"] for _, values in rows[:3]}) == 1
    for cage in list(host._cages.values())[:2]:
        cage.pid = 1 << 30  # it has just ended: the third one tells
    asked.clear()
    rows = host.sample(2.0)
    assert [pid == os.getpid() for pid in asked] == [False, False, True]
    assert "network_receive_bytes_total" in rows[2][1]
