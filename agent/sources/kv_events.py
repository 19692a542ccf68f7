"""KV cache events that engines publish over ZeroMQ, as counts beside their samples.

A publisher numbers its batches. Where numbers are missing, batches were: they are asked for again where it keeps them
(``replay_endpoint``), and counted as lost where it does not. Numbers that begin again are a publisher that was started
again, with a server whose counters begin at 0; so do these.

Source: https://github.com/vllm-project/vllm/blob/main/vllm/distributed/kv_events.py
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client.core import CounterMetricFamily

from agent.kv_events import RESULTS, Counts, page_lines
from agent.source import METRICS, Overheard, Source
from agent.subscriptions import FRAMES, LONGEST, NUMBER_BYTES, PATIENCE_SECONDS, Subscriptions, available, with_rank
from base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from agent.otlp.emit import Emit
    from agent.source import Scene
    from agent.target import KvEvents, Target

REPLAY_SECONDS: Final = 2.0
"""For an answer with missed batches; those that come meanwhile wait in the socket."""
_END: Final = b"\xff" * NUMBER_BYTES

log = structlog.get_logger()


class Publisher:
    """What is known of one publisher, which is one data-parallel rank of a server.

    Attributes:
        endpoint: Where it publishes.
        replay_endpoint: Where it is asked for batches that were missed; "" for nowhere.
        counts: Of its events since it was started or is listened to.
        connected: Whether it is there now.
    """

    def __init__(self, settings: KvEvents, rank: int) -> None:
        self.endpoint = with_rank(settings.endpoint, rank)
        self.replay_endpoint = with_rank(settings.replay_endpoint, rank)
        self.topic = settings.topic
        self.counts = Counts(str(rank))
        self.connected = False
        self._before: Counter[str] = Counter()
        self._next: int | None = None
        self._unsure = False

    @property
    def known(self) -> bool:
        """Whether the counts are those of who is there now: after a time without it only its next number tells."""
        return self.connected and not self._unsure

    def results(self) -> Counter[str]:
        """Batches by what became of them, since the agent's start."""
        return self._before + self.counts.results()

    def is_there(self, connected: bool) -> None:
        """It came, or went."""
        if self.connected and not connected:
            self._unsure = self._next is not None
        self.connected = connected

    async def take(self, frames: Sequence[bytes], context: Any) -> None:
        """One message: topic, number, batch."""
        from agent import kv_wire  # noqa: PLC0415 - for those who have such publishers

        if len(frames) != FRAMES or len(frames[1]) != NUMBER_BYTES:
            self.counts.unread += 1
            return
        number = int.from_bytes(frames[1], "big")
        began_again = self._next is not None and number < self._next
        expected = 0 if began_again else self._next
        if began_again:
            self._before, self.counts = self.results(), Counts(self.counts.rank)
        self._next, self._unsure = number + 1, False
        if expected is not None and number > expected:
            there = await self._replay(expected, number, context)
            self.counts.replayed += there
            self.counts.lost += number - expected - there
        kv_wire.add(frames[2], self.counts)
        self.counts.last = time.time()

    async def _replay(self, first: int, end: int, context: Any) -> int:
        """Ask for the batches from ``first`` on, up to but not with ``end``; how many came."""
        if not self.replay_endpoint:
            return 0
        import zmq  # noqa: PLC0415

        from agent import kv_wire  # noqa: PLC0415

        there: set[int] = set()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, LONGEST)
        try:
            socket.connect(self.replay_endpoint)
            async with asyncio.timeout(REPLAY_SECONDS):
                await socket.send_multipart([b"", first.to_bytes(NUMBER_BYTES, "big")])
                while len(there) < end - first:
                    frames = await socket.recv_multipart()
                    if len(frames) < FRAMES or frames[-2] == _END or len(frames[-2]) != NUMBER_BYTES:
                        break
                    number = int.from_bytes(frames[-2], "big")
                    if number >= end:
                        break  # from here on they came by themselves
                    if number >= first and number not in there:
                        there.add(number)
                        kv_wire.add(frames[-1], self.counts)
        except TimeoutError:
            log.warning("kv_events_not_replayed", endpoint=self.replay_endpoint, first=first, end=end)
        finally:
            socket.close(0)
        return len(there)


class KvCacheEvents(Source):
    """Listens to the publishers that targets name.

    Args:
        targets: The servers.
        overheard: Where the counts are left for whoever reads the servers' pages.
    """

    def __init__(self, targets: Sequence[Target], overheard: Overheard) -> None:
        self._overheard = overheard
        self._publishers: dict[str, list[Publisher]] = {}
        self._subscriptions = Subscriptions()
        self.watch(targets)

    def watch(self, targets: Sequence[Target]) -> None:
        """Listen to these too, where they name publishers."""
        for target in targets:
            settings = target.kv_events
            if settings is None or target.instance in self._publishers:
                continue
            made = [Publisher(settings, rank) for rank in range(settings.data_parallel_size)]
            self._publishers[target.instance] = made
            self._overheard.beside[target.instance] = partial(_lines, made)
            self._subscriptions.add(target.instance, made)

    def forget(self, targets: Sequence[Target]) -> None:
        """Listen to these no longer."""
        for target in targets:
            self._publishers.pop(target.instance, None)
            self._overheard.beside.pop(target.instance, None)
            self._subscriptions.drop(target.instance)

    def seen(self) -> Mapping[str, Mapping[str, float]]:
        """When events came last."""
        return {"kv_events": {name: max(one.counts.last for one in made) for name, made in self._publishers.items()}}

    def problems(self, now: float, since: float) -> Iterable[str]:
        """Publishers that are not there."""
        for instance, made in self._publishers.items() if now - since >= PATIENCE_SECONDS else ():
            for one in made:
                if not available():
                    yield f"KV cache events of {instance} are not read: pip install 'servescope[kv-events]'"
                elif not one.connected:
                    yield f"nobody publishes KV cache events of {instance} at {one.endpoint}"

    def metrics(self) -> Iterable[Metric]:
        """Batches by what became of them."""
        family = CounterMetricFamily(
            f"{METRICS}_kv_event_batches", "Batches of KV cache events, by what became of them.",
            labels=["instance", "result"],
        )  # fmt: skip
        for instance, made in self._publishers.items():
            for result in RESULTS:
                family.add_metric([instance, result], sum(one.results()[result] for one in made))
        return [family]

    async def run(self, emit: Emit) -> None:  # noqa: ARG002 - pages take the counts along
        """Listen until cancelled."""
        await self._subscriptions.run()


def source(scene: Scene) -> KvCacheEvents:
    """The publishers of all targets, those that are found later too.

    Raises:
        ConfigError: A target names a publisher, and the libraries are not installed.
    """
    named = [target.instance for target in scene.targets if target.kv_events is not None]
    if named and not available():
        raise ConfigError(
            f"agent.targets: {named[0]} has kv_events, which needs pyzmq and msgspec",
            "pip install 'servescope[kv-events]'",
        )
    return KvCacheEvents(scene.targets, scene.overheard)


def _lines(publishers: Sequence[Publisher], rank_label: str) -> bytes:
    return page_lines([one.counts for one in publishers if one.known], rank_label)
