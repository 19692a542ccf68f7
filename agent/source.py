"""What every source of facts is, and what one is made from.

A source is a file of ``agent/sources/`` with a function ``source(scene)`` that makes one, or gives None where the
configuration does not want it. Nothing lists them, and none knows of another: what they have to tell each other goes
through the scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent.gpu_pods import GpuPods
from agent.host.engines import Engines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from agent.config import AgentConfig
    from agent.gpu.pod_resources import Numbers
    from agent.otlp.emit import Emit
    from agent.target import Known, Place, Target

METRICS: Final = "servescope_agent"
"""What the names of the agent's own metrics begin with."""


@dataclass(frozen=True, slots=True)
class PageTold:
    """A metrics page as it came, or that it did not.

    Attributes:
        instance: Whose.
        at: When it was asked for, Unix seconds.
        took: Seconds until it was there.
        body: None where it did not come, for the reason ``error``.
        error: Without secrets.
    """

    instance: str
    at: float
    took: float
    body: bytes | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Overheard:
    """What sources let others hear beside what they emit; listeners are quick and raise nothing.

    Attributes:
        pages: Told of every page.
        events: Told of what happened to a server: the event's name, the instance.
        inside: What each server's own process tells of its configuration, by instance, as ``instance_config`` has it.
        gpus: UUIDs of this machine's GPUs and their parts by minor number and GPU instance (None of a whole one), once
            the driver tells them.
        beside: What else is counted of each server, by instance: lines of its page, given the label by which the
            engine names a rank.
    """

    pages: list[Callable[[PageTold], None]] = field(default_factory=list)
    events: list[Callable[[str, str], None]] = field(default_factory=list)
    inside: dict[str, Mapping[str, str]] = field(default_factory=dict)
    beside: dict[str, Callable[[str], bytes]] = field(default_factory=dict)
    gpus: dict[Numbers, str] = field(default_factory=dict)

    def page(self, told: PageTold) -> None:
        """Tell of a page."""
        for listener in self.pages:
            listener(told)

    def event(self, name: str, instance: str) -> None:
        """Tell what happened to a server."""
        for listener in self.events:
            listener(name, instance)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a source is made from.

    Args:
        config: The agent's settings.
        place: Where it runs.
        targets: The servers to watch; those that are found later come by ``Source.watch``.
        known: What an instance told of itself, whichever source asked it; None while nobody knows.
        data: The agent's data folder.
        engines: The processes of those targets that run here.
        overheard: Where sources let others hear what they see.
        pods: Which pods have which GPUs, whichever source tells it.
    """

    config: AgentConfig
    place: Place
    targets: Sequence[Target]
    known: Callable[[str], Known | None]
    data: Path
    engines: Engines = field(default_factory=Engines)
    overheard: Overheard = field(default_factory=Overheard)
    pods: GpuPods = field(default_factory=GpuPods)


class Source:
    """A stream of facts. All but ``run`` is for those who have something to say to it."""

    async def run(self, emit: Emit) -> None:
        """Observe and hand each body to ``emit`` until cancelled; outlives every fault of what it watches."""
        raise NotImplementedError

    async def open(self) -> None:
        """Take what must be free before anything runs.

        Raises:
            PortInUseError: A port is taken.
        """

    async def close(self) -> None:
        """Let go of what ``open`` took; also where it never was opened, and more than once."""

    def watch(self, targets: Sequence[Target]) -> None:
        """Watch these servers too; those that are watched already lose no second."""

    def forget(self, targets: Sequence[Target]) -> None:
        """Let go of these and of all that is kept of them; of one that is not watched there is nothing to do."""

    def answers(self, instance: str) -> bool | None:  # noqa: ARG002 - for those who ask the servers
        """Whether an instance answered when it was last asked; None where this source has not asked."""
        return None

    def known(self, instance: str) -> Known | None:  # noqa: ARG002 - for those who ask the servers
        """What an instance told this source of itself; None where it told nothing."""
        return None

    def ports(self) -> Collection[int]:
        """Ports on which this source listens, which are nobody's model server."""
        return ()

    def metrics(self) -> Iterable[Metric]:
        """Families for the agent's own ``/metrics``."""
        return ()

    def seen(self) -> Mapping[str, Mapping[str, float]]:
        """What came last when, for ``/healthz``: Unix times by instance, by what came (``page``, ``spans``)."""
        return {}

    def problems(self, now: float, since: float) -> Iterable[str]:  # noqa: ARG002 - for those who can say
        """What is wrong at ``now`` with an agent that was started at ``since`` (Unix seconds), in plain English."""
        return ()
