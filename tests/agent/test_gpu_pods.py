"""Which pods have which GPUs, by pages that name pods, and beside a kubelet that tells the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.gpu import pod_resources as kubelets
from agent.gpu_pods import GpuPods, Holding, held_rows
from agent.gpu_table import GpuReader, gpu_tables
from agent.pages.page import parse
from agent.sources.gpu_pages import GpuPages
from agent.sources.pod_resources import PodResources
from agent.target import Place
from tests.kits.gpu import Seen

KUBELET, PAGE = "kubelet", "http://exporter:9400/metrics"
A, B = "GPU-a", "GPU-b"
WHERE = {"host.name": "n1", "k8s.pod.name": "agent-1", "k8s.namespace.name": "servescope", "k8s.node.name": "n1"}


def holding(gpu: str, pod: str, namespace: str = "models") -> Holding:
    return Holding(gpu, namespace, pod)


CHAT, EMBED = holding(A, "chat-0"), holding(A, "embed-0")


def test_a_pod_has_a_gpu_since_it_was_first_told_without_a_break():
    pods = GpuPods()
    assert pods.tell(PAGE, [CHAT], 1_000) == {CHAT: 0.0}
    assert pods.tell(PAGE, [EMBED, CHAT], 6_000) == {CHAT: 5.0, EMBED: 0.0}
    assert pods.tell(PAGE, [EMBED], 11_000) == {EMBED: 5.0}
    assert pods.tell(PAGE, [CHAT, EMBED], 16_000) == {CHAT: 0.0, EMBED: 10.0}
    assert pods.tell(PAGE, [EMBED], 5_000) == {EMBED: 0.0}, "a clock that went back"


def test_what_a_teller_told_is_forgotten_once_it_is_silent():
    pods = GpuPods(60)
    pods.tell(PAGE, [CHAT], 0)
    assert pods.tell(PAGE, [CHAT], 60_000) == {CHAT: 60.0}
    assert pods.tell(PAGE, [CHAT], 120_001) == {CHAT: 0.0}


def test_a_page_is_not_asked_about_a_gpu_that_a_kubelet_told_of():
    pods = GpuPods(60)
    other = holding(B, "far-0")
    assert pods.tell(PAGE, [CHAT, other], 0) == {CHAT: 0.0, other: 0.0}
    assert pods.tell(KUBELET, [CHAT], 1_000, first_hand=True) == {CHAT: 1.0}, "it has it since the page told so"
    assert pods.tell(PAGE, [CHAT, other], 5_000) == {other: 5.0}
    assert pods.tell(KUBELET, [EMBED], 16_000, first_hand=True) == {EMBED: 0.0}
    assert pods.tell(PAGE, [CHAT], 20_000) == {}, "the page is half a minute late"
    pods.tell(KUBELET, [], 31_000, first_hand=True)
    assert pods.tell(PAGE, [CHAT], 35_000) == {}, "and names who had it last"
    assert pods.tell(KUBELET, [CHAT], 46_000, first_hand=True) == {CHAT: 0.0}, "what the page said meanwhile is none"
    assert pods.tell(PAGE, [CHAT], 106_001) == {CHAT: 0.0}, "a kubelet that is silent leaves it to the page"


def test_another_one_that_was_told_the_same_goes_its_own_way():
    pods = GpuPods()
    pods.tell(PAGE, [CHAT], 0)
    twin = pods.fork()
    pods.tell(PAGE, [], 5_000)
    assert twin.tell(PAGE, [CHAT], 10_000) == {CHAT: 10.0}
    assert pods.tell(PAGE, [CHAT], 10_000) == {CHAT: 0.0}


def test_of_one_teller_there_are_no_more_than_may_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent.gpu_pods.MOST_HOLDINGS", 2)
    pods = GpuPods()
    assert len(pods.tell(PAGE, [holding(f"GPU-{n}", "p") for n in range(5)], 0)) == 2
    for n in range(5):
        pods.tell(KUBELET, [holding(f"GPU-{n}", "p")], n, first_hand=True)
        assert len(pods._words[KUBELET].gpus) <= 3


def shown(*lines: dict[str, str], family: str = "DCGM_FI_DEV_GPU_UTIL", value: str = "50") -> str:
    text = ""
    for line in lines:
        labels = {"gpu": "0", "UUID": A, "modelName": "H100", "Hostname": "n2", "namespace": "models", **line}
        told = ",".join(f'{name}="{one}"' for name, one in labels.items())
        text += f"{family}{{{told}}} {value}\n"
    return text


def reader(text: str) -> tuple[GpuReader, list[Any]]:
    made = GpuReader(gpu_tables()["dcgm"])
    return made, made.read(parse(text.encode()), 1.0)


def test_each_pod_of_a_shared_gpu_is_on_the_page_and_its_row_names_none():
    """With ``KUBERNETES_VIRTUAL_GPUS`` dcgm-exporter writes a line for each container."""
    text = shown({"pod": "chat-0", "vgpu": "0"}, {"pod": "embed-0", "vgpu": "1"}, {"UUID": B, "gpu": "1"})
    text += shown({"pod": "chat-0", "container": "other", "vgpu": "2"})
    made, rows = reader(text)
    assert set(made.held) == {CHAT, EMBED}
    assert {row.whose.gpu: row.whose.pod for row in rows} == {A: "", B: ""}
    assert rows[0].values == {"hw.gpu.utilization": 0.5}
    made, rows = reader(shown({"pod": "chat-0"}, {"pod": "chat-0", "container": "other"}))
    assert (made.held, rows[0].whose.pod) == ((CHAT,), "chat-0")


def test_a_part_is_of_its_pod_and_the_whole_is_nobodys():
    part = {"GPU_I_ID": "7", "GPU_I_PROFILE": "1g.10gb"}
    text = shown({"pod": "chat-0", **part}, family="DCGM_FI_PROF_GR_ENGINE_ACTIVE", value="0.5")
    made, _ = reader(text + shown({"pod": "chat-0", **part}, family="DCGM_FI_DEV_POWER_USAGE"))
    assert made.held == (holding(f"MIG-{A}/7", "chat-0"),)


@pytest.mark.parametrize(("value", "told"), [("9223372036854775794", True), ("NaN", False)])
def test_a_line_without_a_figure_names_its_pod_unless_it_ended(value: str, *, told: bool):
    made, _ = reader(shown({"pod": "chat-0"}, value=value) + shown({"UUID": B, "pod": "chat-1"}))
    assert (CHAT in made.held) is told


def test_a_page_has_no_more_pods_than_may_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent.gpu_table.MOST_HOLDINGS", 3)
    made, rows = reader(shown(*({"pod": f"chat-{n}", "vgpu": str(n)} for n in range(5))))
    assert (len(made.held), made.passed_over, len(rows)) == (3, 2, 1)


def test_a_row_is_the_pods_where_the_gpu_is():
    ((_, values),) = held_rows({CHAT: 2.5}, WHERE, {A: "n2"})
    assert values == {"pod_held_seconds": 2.5}


class Agent:
    """One of a node: it reads an exporter's page and may ask a kubelet."""

    def __init__(self) -> None:
        pods, place = GpuPods(), Place(node="n1", pod="agent-1", namespace="servescope")
        self.pages = GpuPages([PAGE], place, pods)
        self.kubelet = PodResources(Path("kubelet.sock"), place, pods)
        self.seen = Seen()

    def page(self, seconds: float, text: str) -> None:
        time_ns = int(seconds * 1e9)
        (one,) = self.pages._exporters
        self.pages._tell(one, self.pages._rows(one, text.encode(), time_ns), time_ns, self.seen.emit)

    def look(self, seconds: float, *holdings: Holding) -> None:
        told = kubelets.Told(frozenset(holdings), frozenset(), 0)
        self.kubelet._tell(told, int(seconds * 1e9), self.seen.emit)

    def held(self) -> list[tuple[str, str, float]]:
        """(gpu, pod, seconds) of what was told since this was asked before."""
        rows, self.seen.rows = self.seen.rows, []
        return [
            (whose["hw.id"], whose["k8s.pod.name"], values["pod_held_seconds"])
            for whose, values in rows
            if "pod_held_seconds" in values
        ]


def test_a_page_that_names_pods_tells_what_a_kubelet_would():
    agent = Agent()
    agent.page(10, shown({"pod": "chat-0"}, {"UUID": B, "gpu": "1"}))
    figures, other, (whose, values) = agent.seen.rows
    assert "hw.gpu.utilization" in figures[1].keys() & other[1].keys()
    assert values == {"pod_held_seconds": 0.0}
    assert whose == {
        "hw.type": "gpu",
        "hw.id": A,
        "host.name": "n2",
        "k8s.pod.name": "chat-0",
        "k8s.namespace.name": "models",
        "k8s.node.name": "n2",
    }, "where the page says that the GPU is, and whose"
    agent.held()
    agent.page(15, shown({"pod": "chat-0"}))
    assert agent.held() == [(A, "chat-0", 5.0)]
    agent.page(20, shown({"pod": "chat-1"}))
    assert agent.held() == [(A, "chat-1", 0.0)]


def test_where_page_and_kubelet_tell_it_is_told_once():
    agent = Agent()
    agent.page(10, shown({"pod": "chat-0"}, {"UUID": B, "pod": "far-0"}))
    agent.look(10.5, CHAT)
    agent.page(15, shown({"pod": "chat-0"}, {"UUID": B, "pod": "far-0"}))
    assert agent.held() == [(A, "chat-0", 0.0), (B, "far-0", 0.0), (A, "chat-0", 0.5), (B, "far-0", 5.0)]
    agent.look(25.5, EMBED)
    agent.page(26, shown({"pod": "chat-0"}))
    assert agent.held() == [(A, "embed-0", 0.0)], "the page says what the kubelet said before"
