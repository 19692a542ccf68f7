"""Pages of GPU exporters: whose each line is, what it says here, and what happens where a page does not come."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from agent import gpu_exporters, gpu_table
from agent.config import AgentConfig
from agent.gpu_table import MOST_GPUS, GpuReader, gpu_tables, reader_of
from agent.pages.page import PageReader, parse
from agent.sources.gpu_pages import GpuPages
from agent.target import Place, Target
from tests.kits.agent_fakes import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent.gpu_table import Row

PAGES = sorted((Path(__file__).parent.parent / "fixtures" / "gpu_exporters").glob("*.txt.gz"))
A100 = "GPU-00000001-0000-4000-8000-000000000001"
GPU = 'gpu="0",UUID="GPU-a",modelName="H100",Hostname="n1"'


def body(name: str) -> bytes:
    return gzip.decompress(next(path for path in PAGES if path.name.startswith(name)).read_bytes())


def rows(text: str | bytes, at: float = 1.0, reader: GpuReader | None = None) -> dict[str, Row]:
    page = parse(text if isinstance(text, bytes) else text.encode())
    reader = reader or reader_of(page)
    assert reader is not None
    return {row.whose.gpu: row for row in reader.read(page, at)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name.split(".")[0])
def test_every_family_of_a_page_is_read_or_ignored_by_name(path: Path):
    page = parse(gzip.decompress(path.read_bytes()))
    reader = reader_of(page)
    assert reader is not None
    assert reader.table.exporter == path.name.split("_")[0]
    assert [family for family in page.layout.families() if not reader.table.knows(family)] == []
    assert reader.read(page, 1.0)


def test_a_whole_gpu():
    row = rows(body("dcgm_t4_two"))["GPU-00000001-0000-4000-8000-000000000001"]
    assert row.whose.attributes() == {
        "hw.type": "gpu", "hw.id": "GPU-00000001-0000-4000-8000-000000000001", "hw.name": "Tesla T4", "hw.index": "0",
        "hw.driver_version": "525.60.13", "host.name": "gpu-node-1", "k8s.pod.name": "reservation-gpu-0",
    }  # fmt: skip
    wanted = {"hw.power": 28.722, "hw.energy": 9022.652, "sm_clock_hertz": 585e6, "hw.gpu.memory.usage": 128 * 2**20}
    assert {name: row.values[name] for name in wanted} == pytest.approx(wanted)
    assert row.values["hw.gpu.memory.limit"] > 15e9


def test_parts_of_a_gpu_have_their_own_and_what_they_repeat_is_told_once():
    found = rows(body("dcgm_a100_mig"))
    parts = {gpu: row for gpu, row in found.items() if row.whose.parent}
    assert len(parts) == 4
    assert {row.whose.parent for row in parts.values()} == {A100}
    busy = parts[f"MIG-{A100}/8"]
    assert busy.whose.name == "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    assert busy.values["hw.gpu.utilization"] == pytest.approx(0.4085, abs=1e-3)
    whole = found[A100]
    assert whole.whose.name == "NVIDIA A100-SXM4-40GB"
    assert whole.values["hw.power"] == pytest.approx(109.36, abs=0.01)
    assert not any("hw.power" in row.values for row in parts.values())
    assert "hw.gpu.utilization" not in whole.values


def test_what_an_exporter_does_not_have_is_no_number():
    (row,) = rows(body("dcgm_v1")).values()
    assert "memory_temperature_celsius" not in row.values
    assert row.values["hw.temperature"] == 31
    for absent in ("9223372036854775794", "140737488355330", "2147483632", "NaN", "+Inf"):
        one = rows(f"DCGM_FI_DEV_GPU_UTIL{{{GPU}}} 50\nDCGM_FI_DEV_POWER_USAGE{{{GPU}}} {absent}\n")["GPU-a"]
        assert "hw.power" not in one.values


def test_amds_page():
    found = rows(body("amd_device_metrics_exporter_documented"))["AMD-000000000001"]
    assert (found.whose.name, found.whose.node) == ("AMD Instinct MI300X", "node-1")
    assert found.values == {"sm_clock_hertz": 132e6, "memory_clock_hertz": 900e6}
    early = rows(body("amd_device_metrics_exporter_mini"))["00000001-0000-4000-8000-000000000001"]
    assert early.values == {"hw.gpu.utilization": 0.0, "hw.power": 41.0, "hw.gpu.memory.limit": 68702 * 2**20}
    labels = 'serial_number="7",gpu_id="1",hostname="n"'
    text = (
        f'gpu_gfx_activity{{{labels},gpu_partition_id="0"}} 70\ngpu_power_usage{{{labels},gpu_partition_id="0"}} 500\n'
        f'gpu_power_usage{{{labels},gpu_partition_id="1"}} 0\ngpu_used_vram{{{labels},gpu_partition_id="1"}} 10\n'
        f'gpu_violation_ppt_residency_percentage{{{labels},gpu_partition_id="0"}} 30\n'
    )
    both = rows(text)
    assert both["AMD-7"].values == pytest.approx(
        {"hw.gpu.utilization": 0.7, "hw.power": 500.0, "throttle_reasons": 4.0}
    )
    assert both["AMD-7/1"].values == {"hw.gpu.memory.usage": 10 * 2**20}
    assert (both["AMD-7/1"].whose.parent, both["AMD-7/1"].whose.index) == ("AMD-7", "1:1")


def held(power: float, thermal: float, xid: int = 0, more: str = "") -> str:
    return (
        f"DCGM_FI_DEV_GPU_UTIL{{{GPU}}} 50\nDCGM_FI_DEV_POWER_VIOLATION{{{GPU}}} {power * 1e9}\n"
        f"DCGM_FI_DEV_THERMAL_VIOLATION{{{GPU}}} {thermal * 1e9}\nDCGM_FI_DEV_XID_ERRORS{{{GPU}}} {xid}\n{more}"
    )


def test_a_gpu_that_was_held_back_between_two_pages_says_by_what():
    reader = GpuReader(gpu_tables()["dcgm"])
    first = rows(held(5, 7), 10.0, reader)["GPU-a"].values
    assert "throttle_reasons" not in first, "since when it was held back is not known"
    told = [
        rows(held(*seconds), at, reader)["GPU-a"].values["throttle_reasons"]
        for at, seconds in ((20.0, (5, 7)), (30.0, (8, 7)), (40.0, (8.4, 9)), (50.0, (1, 1)))
    ]
    assert told == [0, 4, 32, 0]
    own = f"DCGM_FI_DEV_CLOCKS_EVENT_REASONS{{{GPU}}} 8\n"
    assert rows(held(9, 9, more=own), 60.0, reader)["GPU-a"].values["throttle_reasons"] == 8


def test_an_xid_is_new_when_its_number_changes():
    reader = GpuReader(gpu_tables()["dcgm"])
    told = [
        (row.fault, row.values["xid_total"])
        for at, xid in enumerate((31, 31, 79, 79, 0, 79))
        for row in rows(held(0, 0, xid), float(at), reader).values()
    ]
    assert told == [(0, 0), (0, 0), (79, 1), (0, 1), (0, 1), (79, 2)]


def test_families_that_say_the_same_are_read_in_one_order():
    lines = [f"DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{GPU}}} 0.9", f"DCGM_FI_DEV_GPU_UTIL{{{GPU}}} 50"]
    for text in ("\n".join(lines), "\n".join(reversed(lines))):
        assert rows(text + "\n")["GPU-a"].values == {"hw.gpu.utilization": 0.5}


def test_what_is_known_of_a_gpu_is_put_together_from_all_its_lines():
    text = (
        'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a"} 50\nDCGM_FI_DEV_GPU_TEMP{UUID="GPU-a",Hostname="n1",gpu="0"} 40\n'
    )
    (row,) = rows(text).values()
    assert (row.whose.index, row.whose.node) == ("0", "n1")
    assert row.values == {"hw.gpu.utilization": 0.5, "hw.temperature": 40.0}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(
    st.sampled_from(sorted(gpu_tables()["dcgm"].families)), st.integers(0, 3), st.sampled_from(["", "1", "2"]),
    st.floats(allow_nan=True, allow_infinity=True),
), max_size=40))  # fmt: skip
def test_whatever_a_page_says_figures_are_numbers_of_gpus_that_it_names(lines: list[tuple[str, int, str, float]]):
    text = "".join(
        f'{family}{{gpu="{gpu}",UUID="GPU-{gpu}"{f",GPU_I_ID={chr(34)}{part}{chr(34)}" if part else ""}}} {value!r}\n'
        for family, gpu, part, value in lines
    )
    page = PageReader().read(text.encode())
    for row in GpuReader(gpu_tables()["dcgm"]).read(page, 1.0):
        assert re.fullmatch(r"(MIG-)?GPU-[0-3](/[12])?", row.whose.gpu)
        assert all(value == value and abs(value) != float("inf") for value in row.values.values())  # noqa: PLR0124


def test_a_page_has_no_more_gpus_than_may_be():
    text = "".join(f'DCGM_FI_DEV_GPU_UTIL{{gpu="{n}",UUID="GPU-{n}"}} 1\n' for n in range(MOST_GPUS + 5))
    reader = GpuReader(gpu_tables()["dcgm"])
    assert len(rows(text, 1.0, reader)) == MOST_GPUS
    assert reader.passed_over == 5


EXPORTER = """
from agent.gpu_table import Figure, GpuTable, Whose

TABLE = GpuTable(
    exporter="abacus", marks=frozenset({"abacus_beads"}), families={"abacus_beads": (Figure("hw.power", 2.0),)},
    ignored={}, whose=lambda labels: Whose(labels["bead"]), finish=lambda raw, before, at: dict(raw),
)
"""


def test_an_exporter_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "abacus.py").write_text(EXPORTER)
    monkeypatch.setattr(gpu_exporters, "__path__", [*gpu_exporters.__path__, str(tmp_path)])
    gpu_table.gpu_tables.cache_clear()
    try:
        assert rows('abacus_beads{bead="b1"} 3\n')["b1"].values == {"hw.power": 6.0}
    finally:
        gpu_table.gpu_tables.cache_clear()


class Exporter:
    """A page that says what it is told to, or fails."""

    def __init__(self) -> None:
        self.text, self.status = held(0, 0), 200
        self.url = ""

    async def answer(self, _: web.Request) -> web.Response:
        return web.Response(text=self.text, status=self.status)


@pytest.fixture
async def exporter() -> AsyncIterator[Exporter]:
    made = Exporter()
    app = web.Application()
    app.router.add_get("/metrics", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://user:secret@127.0.0.1:{runner.addresses[0][1]}/metrics"
    yield made
    await runner.cleanup()


def sent(told: list[tuple[str, bytes]]) -> tuple[list[tuple[dict[str, str], set[str]]], list[tuple[str, str]]]:
    """GPUs with the names of their figures, and events with their messages."""
    gpus: list[tuple[dict[str, str], set[str]]] = []
    events = []
    for signal, message in told:
        if signal == "metrics":
            gpus += [
                ({pair.key: pair.value.string_value for pair in group.resource.attributes},
                 {metric.name for metric in group.scope_metrics[0].metrics})
                for group in ExportMetricsServiceRequest.FromString(message).resource_metrics
            ]  # fmt: skip
        else:
            for logs in ExportLogsServiceRequest.FromString(message).resource_logs:
                record = logs.scope_logs[0].log_records[0]
                events.append((record.event_name, record.body.string_value))
    return gpus, events


async def test_a_page_is_read_and_what_happens_to_it_is_told_once(exporter: Exporter):
    source = GpuPages([exporter.url], Place(node="agents", pod="pod-1"), interval_seconds=0.02)
    source.watch([Target("vllm-a", "chat", url="http://127.0.0.1:1")])
    exporter.text = held(0, 0).replace('Hostname="n1"', 'Hostname="n1",pod="pod-1"')
    told: list[tuple[str, bytes]] = []
    running = asyncio.create_task(source.run(lambda signal, message: told.append((signal, message))))

    def named(event: str) -> list[str]:
        return [message for name, message in sent(told)[1] if name == event]

    try:
        await until(lambda: len(sent(told)[0]) > 2)
        whose, names = sent(told)[0][0]
        assert whose["host.name"] == "n1"
        assert whose["service.instance.id"] == "vllm-a", "the only server of the pod that has the GPU"
        assert {"hw.gpu.utilization", "xid_total"} <= names
        assert named("gpu_found") == ["GPU 0 (GPU-a) is a H100"]
        exporter.text = held(0, 0, 79).replace('Hostname="n1"', 'Hostname="n1",pod="pod-1"')
        await until(lambda: named("gpu_xid") != [])
        assert named("gpu_xid")[0].startswith("GPU 0 (GPU-a) reports Xid 79: ")
        exporter.status = 500
        await until(lambda: named("gpu_unavailable") != [])
        assert list(source.problems(1e12, 0.0))
        exporter.status, exporter.text = 200, "vllm:num_requests_running 1\n"
        await until(lambda: len(named("gpu_unavailable")) == 2)
        assert "shows no GPU" in named("gpu_unavailable")[1]
        exporter.text = held(0, 0, 79)
        await until(lambda: any("comes again" in message for message in named("gpu_found")))
        assert len(named("gpu_unavailable")) == 2
        assert len(named("gpu_xid")) == 1
        assert not any("secret" in message for _, message in sent(told)[1])
        failures = next(family for family in source.metrics() if "failures" in family.name)
        assert failures.samples[0].value >= 2
        assert "secret" not in str(failures.samples)
    finally:
        running.cancel()


async def test_a_strangers_page_is_told_with_the_exporters_that_are_known(exporter: Exporter):
    exporter.text = "vllm:num_requests_running 1\n"
    told: list[tuple[str, bytes]] = []
    source = GpuPages([exporter.url], interval_seconds=0.02)
    running = asyncio.create_task(source.run(lambda signal, message: told.append((signal, message))))
    try:
        await until(lambda: next(iter(source.metrics())).samples[0].value > 3)
        ((event, message),) = sent(told)[1]
        assert event == "gpu_unavailable"
        assert "the page of no GPU exporter known here: amd, dcgm" in message
    finally:
        running.cancel()


def test_an_error_of_which_only_the_numbers_change_is_told_once():
    told: list[tuple[str, bytes]] = []
    source = GpuPages(["http://127.0.0.1:1/metrics"])
    for why in ("timed out after 5.01 s", "timed out after 5.2 s", "timed out after 12 s", "refused", "refused"):
        source._missing(source._exporters[0], why, lambda kind, body: told.append((kind, body)))
    assert [message.rsplit(": ", 1)[1] for _, message in sent(told)[1]] == ["timed out after 5.01 s", "refused"]
    assert [problem.rsplit(": ", 1)[1] for problem in source.problems(1e12, 0.0)] == ["refused"]


def test_a_page_that_is_no_url_is_refused_by_name():
    with pytest.raises(ValueError, match=r"gpu_pages\.0\.url"):
        AgentConfig(gpu_pages=({"url": "ftp://n1/metrics"},))


def test_without_pages_there_is_no_source(monkeypatch: Any):
    from agent.sources import gpu_pages  # noqa: PLC0415

    class Scene:
        config = AgentConfig()

    assert gpu_pages.source(Scene()) is None  # type: ignore[arg-type]


def test_of_two_pods_on_a_line_the_exported_one_has_the_gpu():
    labels = f'{GPU},pod="dcgm-exporter-x2",exported_pod="chat-0",namespace="gpu-operator",exported_namespace="models"'
    whose = rows(f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} 50\n")["GPU-a"].whose
    assert (whose.pod, whose.namespace) == ("chat-0", "models")
    labels = 'serial_number="7",gpu_id="1",hostname="n",pod="exporter-1",exported_pod="chat-1"'
    assert rows(f"gpu_gfx_activity{{{labels}}} 70\n")["AMD-7"].whose.pod == "chat-1"


def test_a_gpu_is_of_the_watched_server_in_its_pod():
    source = GpuPages(["http://127.0.0.1:1/metrics"], Place(node="agents", pod="agent-1"))
    source.watch([
        Target("chat-0", "chat", url="http://10.0.0.1:1", pod="chat-0", namespace="models"),
        Target("chat-0.tests", "chat", url="http://10.0.0.2:1", pod="chat-0", namespace="tests"),
        Target("plain", "chat", url="http://10.0.0.3:1"),
    ])  # fmt: skip

    def named(**labels: str) -> str:
        text = ",".join(f'{name}="{value}"' for name, value in labels.items())
        row = rows(f"DCGM_FI_DEV_GPU_UTIL{{{GPU},{text}}} 50\n")["GPU-a"]
        return source._instance(row).get("service.instance.id", "")

    assert named(pod="chat-0", namespace="tests") == "chat-0.tests"
    assert named(pod="chat-0") == "", "two have that name"
    assert named(pod="agent-1") == "plain"
    assert named(pod="", namespace="models") == ""
    assert named(pod="chat-0", namespace="elsewhere") == ""
