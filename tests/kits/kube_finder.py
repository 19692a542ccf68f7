"""A finder of pods that runs over the API server of the tests, and all that it told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from agent.discovery.kubernetes import Kubernetes, Settings
from agent.finder import Surroundings
from agent.kubeapi import PodApi
from agent.target import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agent.target import Target
    from tests.kits.kube_api import KubeApi


class Looking:
    """A finder that runs, and all that it told."""

    def __init__(self, finder: Kubernetes) -> None:
        self.finder = finder
        self.told: list[Sequence[Target]] = []

    @property
    def names(self) -> list[str] | None:
        return sorted(one.instance for one in self.told[-1]) if self.told else None

    def one(self, name: str) -> Target:
        return next(target for target in self.told[-1] if target.instance == name)


@asynccontextmanager
async def looking(api: KubeApi, *, linger: float = 60.0, own: bool = False, **more: Any) -> AsyncIterator[Looking]:
    settings = Settings.model_validate({"kind": "kubernetes", "namespaces": ["models"]} | more)
    where = PodApi(account=api.account) if own else PodApi(api.url, api.token_file, api.ca_file, api.account)
    around = Surroundings(Place(node="gpu-7"), lambda: ())
    seen = Looking(Kubernetes(settings, around, where, first_wait_seconds=0.02, linger_seconds=linger))
    task = asyncio.create_task(seen.finder.run(seen.told.append))
    try:
        yield seen
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
