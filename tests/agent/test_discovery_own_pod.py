"""The server in the agent's own pod is found by the pod's annotations, from files that kubelet writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import pytest

from agent.config import load
from agent.discovery.own_pod import OwnPod, Settings
from agent.finder import Surroundings
from agent.target import Place
from base.errors import ConfigError
from tests.kits.agent_fakes import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.target import Target

WHERE = Place(pod="chat-7d9fc-x2k4p", namespace="models", node="gpu-7")
SCRAPED = 'prometheus.io/scrape="true"\n'


class Files:
    """Files of a pod, and a finder that reads them."""

    def __init__(self, folder: Path, place: Place = WHERE, **more: Any) -> None:
        self.annotations, self.labels = folder / "annotations", folder / "labels"
        files = {"annotations": str(self.annotations), "labels": str(self.labels)}
        settings = Settings.model_validate({"kind": "own_pod", **files, **more})
        self.finder = OwnPod(settings, Surroundings(place, lambda: ()), 0.01)
        self.told: list[Sequence[Target]] = []

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.finder.run(self.told.append))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert not self.task.done()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def said(self) -> list[str]:
        return list(self.finder.problems())

    def names(self) -> list[str] | None:
        return [one.instance for one in self.told[-1]] if self.told else None


async def test_annotations_name_the_server_and_its_place(tmp_path: Path):
    pod = Files(tmp_path)
    pod.annotations.write_text(
        SCRAPED
        + 'prometheus.io/port="8002"\nservescope.dev/engine="triton"\nnote="said \\"so\\",\\nund sp\\u00e4ter"\n'
    )
    pod.labels.write_text('app.kubernetes.io/version="2026.4"\npod-template-hash="7d9fc"')
    async with pod:
        await until(lambda: pod.told != [])
        (one,) = pod.told[-1]
    assert (one.instance, one.deployment, one.engine) == ("chat-7d9fc-x2k4p", "chat", "triton")
    assert (one.url, one.metrics_url) == ("http://127.0.0.1:8000", "http://127.0.0.1:8002/metrics")
    assert (one.pod, one.namespace, one.node, one.version) == ("chat-7d9fc-x2k4p", "models", "gpu-7", "2026.4")
    assert pod.said == []


async def test_what_is_annotated_later_is_found_and_what_no_longer_has_left(tmp_path: Path):
    pod = Files(tmp_path, port=8000)
    pod.annotations.write_text('other="x"\n')
    async with pod:
        await until(lambda: pod.names() == [])
        assert pod.said == [
            'pod models/chat-7d9fc-x2k4p is not watched: it has no annotation prometheus.io/scrape: "true"'
        ]
        pod.annotations.write_text(SCRAPED)
        await until(lambda: pod.names() == ["chat-7d9fc-x2k4p"])
        assert pod.said == []
        assert pod.told[-1][0].deployment == "chat-7d9fc-x2k4p", "nothing tells pods of it apart"
        pod.annotations.write_text(SCRAPED + 'prometheus.io/port="70000"\n')
        await until(lambda: pod.names() == [])
        assert pod.said[0].startswith("pod models/chat-7d9fc-x2k4p is not watched: 70000 is no port")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("prometheus.io/scrape: true\n", "line 1 of "),
        (SCRAPED + 'a="\\U99999999"\n', "line 2 of "),
        (SCRAPED + "x" * (1 << 20), "more than 1048576 bytes"),
    ],
)
async def test_files_that_can_not_be_read_take_nothing_away_and_are_told(tmp_path: Path, text: str | None, said: str):
    pod = Files(tmp_path, port=8000)
    pod.annotations.write_text(SCRAPED)
    async with pod:
        await until(lambda: pod.names() == ["chat-7d9fc-x2k4p"])
        if text is None:
            pod.annotations.unlink()
        else:
            pod.annotations.write_text(text)
        await until(lambda: pod.finder.failures > 2)
        assert said in pod.said[0]
        assert pod.names() == ["chat-7d9fc-x2k4p"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{kind: own_pod, annotations: podinfo}", "annotations: must be an absolute path"),
        ("{kind: own_pod, port: 0}", "port"),
        ("{kind: own_pod, engine: vlm}", "engine: is no engine known here"),
    ],
)
def test_what_is_wrong_is_told_by_field(tmp_path: Path, entry: str, said: str):
    path = tmp_path / "servescope.yaml"
    path.write_text(f"agent:\n  discovery:\n    - {entry}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in str(caught.value)
