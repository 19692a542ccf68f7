"""What a pod says of itself: its port, its page, its name, and what is told of one that does not say how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kits.agent_fakes import until
from tests.kits.kube_api import KubeApi, pod
from tests.kits.kube_finder import looking

if TYPE_CHECKING:
    from pathlib import Path

SEVERAL = [{"containerPort": 8000, "name": "http"}, {"containerPort": 8002, "name": "metrics"}]
UNNAMED = [{"containerPort": 8000}, {"containerPort": 9000}]


@pytest.mark.parametrize(
    ("annotations", "ports", "more", "url", "page"),
    [
        ({"prometheus.io/port": "8002", "servescope.dev/engine": "triton"}, SEVERAL, {},
         "http://10.4.1.7:8000", "http://10.4.1.7:8002/metrics"),
        ({"servescope.dev/engine": "trtllm"}, SEVERAL, {},
         "http://10.4.1.7:8000", "http://10.4.1.7:8000/prometheus/metrics"),
        ({"prometheus.io/port": "http"}, SEVERAL, {}, "http://10.4.1.7:8000", ""),
        ({"prometheus.io/port": None}, SEVERAL, {}, "http://10.4.1.7:8002", ""),
        ({"prometheus.io/port": None}, UNNAMED, {"port": 9000}, "http://10.4.1.7:9000", ""),
        ({"prometheus.io/port": None}, UNNAMED[:1], {}, "http://10.4.1.7:8000", ""),
        ({"prometheus.io/port": None, "prometheus.io/scheme": "https"}, [{"containerPort": 1, "protocol": "UDP"}],
         {"port": 8443, "metrics_path": "/m"}, "https://10.4.1.7:8443", "https://10.4.1.7:8443/m"),
        ({"prometheus.io/scrape": None}, SEVERAL, {"annotated": False, "selector": "app=vllm", "port": "http"},
         "http://10.4.1.7:8000", ""),
    ],
)  # fmt: skip
async def test_the_port_of_a_pod_with_several(
    tmp_path: Path, annotations: dict[str, Any], ports: list[Any], more: dict[str, Any], url: str, page: str
):
    if more.get("port") == "http":
        annotations["prometheus.io/port"] = None
    async with KubeApi(tmp_path) as api:
        api.put(pod("a", ports=ports, annotations=annotations))
        async with looking(api, **more) as seen:
            await until(lambda: seen.names == ["a"])
            assert (seen.one("a").url, seen.one("a").metrics_url) == (url, page)


@pytest.mark.parametrize(
    ("annotations", "more", "said"),
    [
        ({"prometheus.io/port": None}, {"ports": UNNAMED}, "of 8000, 9000 none is named as that of its page"),
        ({"prometheus.io/port": None}, {"ports": None}, "no port is named as that of its page"),
        ({"prometheus.io/port": "grpc"}, {}, "it has no port 'grpc'; give a number or one of http"),
        ({"prometheus.io/port": "70000"}, {}, "70000 is no port"),
        ({"prometheus.io/scheme": "gopher"}, {}, "prometheus.io/scheme is 'gopher'; give http or https"),
        ({"prometheus.io/path": "/a b"}, {}, "prometheus.io/path is '/a b'; give a path"),
        ({"servescope.dev/engine": "vlm"}, {}, "servescope.dev/engine is 'vlm'; give one of "),
        ({}, {"status": {"podIP": "evil.example/"}}, "its address 'evil.example/' is none"),
    ],
)
async def test_a_pod_that_does_not_say_how_is_named_until_it_does(
    tmp_path: Path, annotations: dict[str, Any], more: dict[str, Any], said: str
):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        api.put(pod("odd", annotations=annotations, **more))
        api.put(pod("fine"))
        await until(lambda: seen.names == ["fine"])
        (problem,) = seen.finder.problems()
        assert problem.startswith(f"pod models/odd is not watched: {said}")
        api.put(pod("odd"))
        await until(lambda: seen.names == ["fine", "odd"])
        assert list(seen.finder.problems()) == []


async def test_names_are_the_pods_and_of_two_the_older_keeps_the_plain_one(tmp_path: Path):
    async with KubeApi(tmp_path) as api:
        api.put(pod("chat-0", "10.4.2.1", "two", metadata={"creationTimestamp": "2026-05-02T10:00:00Z"}))
        api.put(pod("chat-0", "10.4.1.1"))
        long = "very-" * 30 + "x7k2p"
        api.put(pod(long, "10.4.1.2", labels={"servescope.dev": "x"}, metadata={"ownerReferences": []}))
        api.put(pod("beside", labels={"servescope/sender": "yes"}))
        async with looking(api, namespaces=["*"], deployment="mine") as seen:
            await until(lambda: bool(seen.told))
            urls = {one.instance: one.url for one in seen.told[-1]}
            assert urls["chat-0"] == "http://10.4.1.1:8000"
            assert urls["chat-0.two"] == "http://10.4.2.1:8000"
            (last,) = urls.keys() - {"chat-0", "chat-0.two"}
            assert (len(last) <= 100, last[-5:], last[0]) == (True, "x7k2p", "v")
            assert {one.deployment for one in seen.told[-1]} == {"mine"}
            api.delete("chat-0")
            await until(lambda: seen.names is not None and "chat-0" not in seen.names)
            assert "chat-0.two" in (seen.names or []), "one that is watched keeps its name"
