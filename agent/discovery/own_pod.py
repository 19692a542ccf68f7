"""The server in the agent's own pod, as the pod's annotations name it: files of the downward API, no API server.

A volume of the kind ``downwardAPI`` has the pod's annotations, and its labels where they are asked for, a line each as
``KEY="VALUE"``; kubelet writes them anew when they change. Annotations are those by which other pods are found.

Source: https://kubernetes.io/docs/concepts/workloads/pods/downward-api/; values are quoted as Go's ``%q`` does.
"""

from __future__ import annotations

import ast
import asyncio
import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, field_validator

from agent.finder import Elsewhere, Finder, Surroundings
from agent.pods import PROMETHEUS, OddPodError, Pod, target_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.finder import Tell
    from agent.target import Target

LOOK_SECONDS: Final = 10.0
"""Time between two looks; kubelet takes up to a minute to write what changed."""
_MOST_BYTES: Final = 1 << 20
"""Four times what an object of Kubernetes may have in annotations."""
_LINE: Final = re.compile(r'([^=\s]{1,400})=("(?:[^"\\]|\\.)*")')
_HASH: Final = "pod-template-hash"


class Settings(Elsewhere):
    """The model server beside this agent, by its pod's annotations."""

    kind: Literal["own_pod"]
    annotations: Path = Field(default=Path("/etc/podinfo/annotations"), description="File with the pod's annotations.")
    labels: Path = Field(default=Path("/etc/podinfo/labels"), description="File with its labels; there may be none.")
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of its page, where the pod is not annotated with one."
    )
    deployment: str = Field(
        default="", max_length=100, description="Its deployment; empty: the pod's name without what tells pods apart."
    )

    @field_validator("annotations", "labels")
    @classmethod
    def _check_files(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("must be an absolute path, where the pod's volume is mounted")
        return value

    def finder(self, around: Surroundings) -> OwnPod:
        """One that reads them."""
        return OwnPod(self, around)


class OwnPod(Finder):
    """Reads the annotations of the agent's own pod, again and again.

    Args:
        settings: Where they are.
        around: Tells the pod.
        look_seconds: Time between two looks.
    """

    def __init__(self, settings: Settings, around: Surroundings, look_seconds: float = LOOK_SECONDS) -> None:
        super().__init__("own_pod")
        self._settings, self._place, self._wait = settings, around.place, look_seconds
        self._odd = ""

    async def run(self, tell: Tell) -> None:
        """Tell of the server, at each look; a file that can't be read takes nothing away."""
        while True:
            try:
                annotations = _read(self._settings.annotations)
                labels = _read(self._settings.labels) if self._settings.labels.exists() else {}
            except (OSError, ValueError) as error:
                self.failed(str(error))
            else:
                self.succeeded()
                tell(self._targets(annotations, labels))
            await asyncio.sleep(self._wait)

    def problems(self) -> Iterable[str]:
        """What can't be read, and why the pod's server is not watched."""
        yield from super().problems()
        if self._odd and not self.error:
            yield self._odd

    def _targets(self, annotations: dict[str, str], labels: dict[str, str]) -> list[Target]:
        place = self._place
        name = place.pod or platform.node()
        about = {"name": name, "namespace": place.namespace, "uid": name, "annotations": annotations, "labels": labels}
        pod = Pod.model_validate({
            "metadata": about, "spec": {"nodeName": place.node}, "status": {"podIP": "127.0.0.1"},
        })  # fmt: skip
        if not pod.is_annotated:
            self._odd = f'pod {pod.where} is not watched: it has no annotation {PROMETHEUS}/scrape: "true"'
            return []
        try:
            target = target_of(pod, self._settings, pod.plain_name)
        except OddPodError as error:
            self._odd = str(error)
            return []
        self._odd = ""
        if target.deployment == name and (made := labels.get(_HASH)):
            target = replace(target, deployment=name.partition(f"-{made}-")[0])
        return [target]


def _read(path: Path) -> dict[str, str]:
    """Keys and values of a file of the downward API.

    Raises:
        OSError: It can't be read.
        ValueError: It is no such file.
    """
    with path.open("rb") as file:
        body = file.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        raise ValueError(f"{path} has more than {_MOST_BYTES} bytes")
    found: dict[str, str] = {}
    for number, line in enumerate(body.decode("utf-8", "replace").split("\n"), 1):
        hit = _LINE.fullmatch(line)
        if hit is None:
            if line:
                raise ValueError(f'line {number} of {path} is none of the downward API: KEY="VALUE"')
            continue
        try:
            found[hit[1]] = ast.literal_eval(hit[2])
        except (SyntaxError, ValueError):
            raise ValueError(
                f"line {number} of {path} has a value that is not quoted as the downward API does"
            ) from None
    return found
