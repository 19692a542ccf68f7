"""The black box: a ring of the last minutes, kept as a recording when a server goes silent.

It reads nothing of its own: pages are those that are scraped anyway, all else is in the spool. A recording is made by a
process beside, so that nothing waits for it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from agent.recording.ring import RING, Ring
from agent.source import METRICS, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from agent.otlp.emit import Emit
    from agent.source import PageTold, Scene
    from agent.target import Target

LOOK_SECONDS: Final = 1.0
TURN_SECONDS: Final = 10.0
"""A segment stays in the spool for a minute once it is sent."""
AFTER_SECONDS: Final = 15.0
"""What still goes into a recording after the event for which it is kept."""
AGAIN_SECONDS: Final = 120.0
"""Between two recordings; what happens to another server meanwhile has one when that time is over."""
_EVENTS: Final = frozenset({"instance_down", "instance_restarted", "engine_frozen"})
_UP: Final = "instance_up"
_SAME_PAGE_SECONDS: Final = 1.0

log = structlog.get_logger()


class BlackBox(Source):
    """Keeps the ring, and recordings of it.

    Args:
        data: The data folder.
        seconds: How far the ring reaches back.
        max_bytes: What it may take of the disk.
        clock: Unix seconds.

    Attributes:
        kept: Recordings made since the start.
        failed: Recordings that could not be made.
    """

    def __init__(self, data: Path, seconds: float, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.kept = self.failed = 0
        self._data, self._clock = data, clock
        self._ring = Ring(data / RING, data / "spool", seconds, max_bytes)
        self._due: tuple[float, str] | None = None
        self._made_at = float("-inf")
        self._kept_for = ""
        self._came_up: dict[str, float] = {}
        self._answered: set[str] = set()

    def page(self, told: PageTold) -> None:
        """A server's page, or that it did not come."""
        if told.body is not None:
            self._answered.add(told.instance)
        self._ring.page(told.instance, told.at, told.took, told.body, told.error)

    def event(self, name: str, instance: str) -> None:
        """Something happened to a server; after some events a recording is kept."""
        now = self._clock()
        if name == _UP:
            self._came_up[instance] = now
        if name not in _EVENTS or self._due is not None or instance not in self._answered:
            return  # or it was never there
        if name == "instance_restarted" and now - self._came_up.get(instance, float("-inf")) < _SAME_PAGE_SECONDS:
            return  # it had been down, which was an event
        again = self._made_at + AGAIN_SECONDS
        if now < again and instance == self._kept_for:
            return
        self._kept_for = instance
        self._due = max(now + AFTER_SECONDS, again), f"{name}-{instance}"

    async def run(self, emit: Emit) -> None:  # noqa: ARG002 - it tells nothing
        """Turn the ring until cancelled."""
        turned = float("-inf")
        while True:
            now = self._clock()
            if now - turned >= TURN_SECONDS:
                turned = now
                self._ring.turn(now)
            if self._due is not None and now >= self._due[0]:
                why, self._due, self._made_at = self._due[1], None, now
                await self._keep(why)
            await asyncio.sleep(LOOK_SECONDS)

    def forget(self, targets: Sequence[Target]) -> None:
        """One that left and comes again has to answer first."""
        for target in targets:
            self._answered.discard(target.instance)
            self._came_up.pop(target.instance, None)
            self._kept_for = "" if self._kept_for == target.instance else self._kept_for

    async def close(self) -> None:
        """End the file of pages."""
        self._ring.close()

    def metrics(self) -> Iterable[Metric]:
        """What it holds and made."""
        yield GaugeMetricFamily(f"{METRICS}_black_box_bytes", "What the black box takes of the disk.", self._ring.bytes)
        since = self._ring.since
        yield GaugeMetricFamily(
            f"{METRICS}_black_box_reach_seconds",
            "How far back the pages of the black box reach; its limit may hold less than was asked for.",
            0.0 if since is None else max(0.0, self._clock() - since),
        )
        lost = CounterMetricFamily(
            f"{METRICS}_black_box_lost", "What the black box could not keep, by reason.", labels=["reason"]
        )
        for reason, count in self._ring.lost.items():
            lost.add_metric([reason], count)
        yield lost
        made = CounterMetricFamily(f"{METRICS}_black_box_recordings", "Recordings kept of it.", labels=["result"])
        made.add_metric(["kept"], self.kept)
        made.add_metric(["failed"], self.failed)
        yield made

    async def _keep(self, why: str) -> None:
        self._ring.flush()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent.recording.keep", str(self._data), why,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            raise
        if process.returncode:
            self.failed += 1
            log.warning("black_box_not_kept", why=why, code=process.returncode)
        elif said.strip():
            self.kept += 1
            log.info("black_box_kept", why=why, folder=said.decode().strip())


def source(scene: Scene) -> BlackBox | None:
    """The black box, unless the configuration gives it no time."""
    config = scene.config
    if not config.black_box_seconds:
        return None
    box = BlackBox(scene.data, config.black_box_seconds, config.black_box_max_bytes)
    scene.overheard.pages.append(box.page)
    scene.overheard.events.append(box.event)
    return box
