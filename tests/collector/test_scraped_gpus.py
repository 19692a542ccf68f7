"""A GPU exporter's page that others scraped becomes the rows that an agent makes of it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from agent.gpu_table import reader_of
from agent.pages.page import parse
from collector.auth import NOBODY
from collector.ledger import Ledger
from collector.scraped.derive import Deriver
from tests.kits.scraped import SECOND, START, Taker, clock, page, sent, settled, told, waited, written

if TYPE_CHECKING:
    from agent.pages.page import Page

__all__ = ["clock"]
PAGES = Path(__file__).parent.parent / "fixtures" / "gpu_exporters"


async def test_gpus_of_remote_write_are_those_of_their_page(clock: list[float]) -> None:
    shown = parse(gzip.decompress((PAGES / "dcgm_a100_mig_4_active_workloads.txt.gz").read_bytes()))
    taker, ledger = Taker(), Ledger()
    deriver = Deriver(taker, ledger)  # type: ignore[arg-type]
    series = written([(START, shown)])
    for half in (0, 1):
        deriver.look(sent(series[half::2]), NOBODY)
    await waited(deriver, clock)
    deriver.look(sent(written([(START + SECOND, shown)])), NOBODY)
    await settled(deriver, clock)
    ours = told(body for signal, body, _ in taker.taken if signal == "metrics")
    reader = reader_of(shown)
    assert reader is not None
    wanted = [(START + at * SECOND, row) for at in (0, 1) for row in reader.read(shown, float(at))]
    by_time_and_gpu = {(time_ns, whose["hw.id"]): (whose, values) for time_ns, whose, values in ours}
    assert len(by_time_and_gpu) == len(wanted) == 10
    for time_ns, row in wanted:
        whose, values = by_time_and_gpu[time_ns, row.whose.gpu]
        assert values == row.values
        assert whose == row.whose.attributes()
    assert ledger.derived._value.get() == 10  # type: ignore[attr-defined]


async def test_an_engines_page_of_the_same_sender_is_read_as_ever(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(sent(written([(START, page("idle"))])), NOBODY)
    await waited(deriver, clock)
    ((_, whose, values),) = told(body for signal, body, _ in taker.taken if signal == "metrics")
    assert whose["servescope.engine"] == "vllm"
    assert "hw.power" not in values


LABELS = 'gpu="0",UUID="GPU-a",modelName="H100",Hostname="n1",pod="dcgm-exporter-x2",exported_pod="chat-0"'


def dcgm(xid: int, namespace: str = "models") -> Page:
    labels = f'{{{LABELS},namespace="gpu-operator",exported_namespace="{namespace}"}}'
    return parse(f"DCGM_FI_DEV_GPU_UTIL{labels} 97\nDCGM_FI_DEV_XID_ERRORS{labels} {xid}\n")


def chat(namespace: str, *, model: str = "m") -> Page:
    where = f'model_name="{model}",pod="chat-0",namespace="{namespace}"'
    return parse(f"vllm:num_requests_running{{{where}}} 3\nvllm:generation_tokens_total{{{where}}} 70\n")


def of_target(shown: Page, at: int, instance: str) -> bytes:
    series = written([(at, shown)])
    for one in series:
        next(label for label in one.labels if label.name == "instance").value = instance
    return sent(series)


def rows(taker: Taker, *, held: bool = False) -> list[Any]:
    """What was told of GPUs, or of the pods that have them."""
    found = told(body for kind, body, _ in taker.taken if kind == "metrics")
    return [one for one in found if "hw.id" in one[1] and ("pod_held_seconds" in one[2]) is held]


async def test_a_gpu_has_the_server_of_the_pod_that_has_it(clock: list[float]) -> None:
    """Prometheus puts its target's own pod over the exporter's word, which it then calls exported."""
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    deriver.look(of_target(chat("models"), START, "chat:8000"), NOBODY)
    deriver.look(of_target(chat("tests", model="other"), START, "tests:8000"), NOBODY)
    await waited(deriver, clock)
    for turn, xid in enumerate((0, 0, 79)):
        deriver.look(of_target(dcgm(xid), START + turn * SECOND, "dcgm:9400"), NOBODY)
        await waited(deriver, clock)
    await settled(deriver, clock)
    gpus = rows(taker)
    assert len(gpus) == 3
    for _, whose, values in gpus:
        assert values["hw.gpu.utilization"] == 0.97
        assert (whose["k8s.pod.name"], whose["host.name"]) == ("chat-0", "n1")
        assert (whose["service.instance.id"], whose["servescope.engine"]) == ("chat:8000", "vllm")
    (fault,) = [
        (group.resource.attributes, record)
        for kind, body, _ in taker.taken
        if kind == "logs"
        for group in ExportLogsServiceRequest.FromString(body).resource_logs
        for record in group.scope_logs[0].log_records
        if record.event_name == "gpu_xid"
    ]
    assert fault[1].body.string_value.startswith("GPU 0 (GPU-a) reports Xid 79: ")
    assert "chat:8000" in [pair.value.string_value for pair in fault[0]]


async def test_a_gpu_of_a_pod_with_several_servers_or_none_is_nobodys(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    for instance in ("chat:8000", "chat:8001"):
        deriver.look(of_target(chat("models"), START, instance), NOBODY)
    await waited(deriver, clock)
    deriver.look(of_target(dcgm(0), START, "dcgm:9400"), NOBODY)
    deriver.look(of_target(dcgm(0, "elsewhere"), START, "dcgm:9401"), NOBODY)
    await waited(deriver, clock)
    gpus = rows(taker)
    assert len(gpus) == 2
    assert not any("service.instance.id" in whose for _, whose, _ in gpus)


async def scraped(deriver: Deriver, clock: list[float], at: int, shown: Page) -> None:
    deriver.look(of_target(shown, START + at * SECOND, "dcgm:9400"), NOBODY)
    await waited(deriver, clock)


def shared(*pods: str) -> Page:
    """A GPU that pods share: an exporter that is told to writes a line for each."""
    lines = [
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-a",Hostname="n1",exported_pod="{pod}",exported_namespace="models",'
        f'vgpu="{number}"}} 97\n'
        for number, pod in enumerate(pods)
    ]
    return parse("".join(lines) + 'DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",Hostname="n1"} 5\n')


async def test_which_pods_have_a_gpu_is_told_since_they_have_it(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    for at, pods in ((0, ["chat-0"]), (15, ["chat-0", "chat-1"]), (30, ["chat-1"]), (45, ["chat-0"])):
        await scraped(deriver, clock, at, shared(*pods))
    await settled(deriver, clock)
    found = sorted(
        ((time_ns - START) // SECOND, whose["k8s.pod.name"], values["pod_held_seconds"])
        for time_ns, whose, values in rows(taker, held=True)
    )
    assert found == [
        (0, "chat-0", 0.0), (15, "chat-0", 15.0), (15, "chat-1", 0.0), (30, "chat-1", 15.0), (45, "chat-0", 0.0),
    ]  # fmt: skip
    whose = rows(taker, held=True)[0][1]
    assert (whose["hw.id"], whose["k8s.namespace.name"], whose["host.name"]) == ("GPU-a", "models", "n1")
    pods = {at: whose.get("k8s.pod.name") for at, whose, _ in rows(taker) if whose["hw.id"] == "GPU-a"}
    assert pods[START + 15 * SECOND] is None, "a row names one pod"


async def test_a_page_between_two_that_were_read_says_nothing_of_pods(clock: list[float]) -> None:
    taker = Taker()
    deriver = Deriver(taker, Ledger())  # type: ignore[arg-type]
    for at in (0, 15, 45):
        await scraped(deriver, clock, at, shared("chat-0"))
    await settled(deriver, clock)
    await scraped(deriver, clock, 30, shared("chat-0"))
    await settled(deriver, clock)
    found = {(time_ns - START) // SECOND: values["pod_held_seconds"] for time_ns, _, values in rows(taker, held=True)}
    assert found == {0: 0.0, 15: 15.0, 45: 45.0}
    assert START + 30 * SECOND in {time_ns for time_ns, _, _ in rows(taker)}
