"""Each step of an engine that publishes forward-pass metrics over ZeroMQ: NVIDIA Dynamo's in vLLM, SGLang's own.

A publisher is one data-parallel rank. Whose probe tells of steps already, of him they are not taken twice.

Such an engine is frozen when a request is open in the tap in front of it that was asked since its last pass, and no
pass of any rank has come for long. A pass does not say what it left to do, so what was asked before it is no witness: a
client may read slowly. Nor is the silence of a publisher that may be gone: its connection must be there, and either it
beats (each second in which no pass ends, so its process lives) or the tokens on the server's page stand still too.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily

from agent.engine_table import tables
from agent.forward_passes import Passes
from agent.otlp.columns import encode_columns
from agent.otlp.encode import attributes
from agent.probe.judging import Judge
from agent.probe.steps import Gathering, Teller
from agent.source import METRICS, Source
from agent.subscriptions import FRAMES, NUMBER_BYTES, PATIENCE_SECONDS, Subscriptions, available, with_rank
from base.errors import ConfigError
from base.vocabulary import SCOPE_STEP, Resource, Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from agent.forward_passes import Pass
    from agent.otlp.emit import Emit
    from agent.probe.steps import Batch
    from agent.source import PageTold, Scene
    from agent.target import ForwardPasses, Target

FLUSH_SECONDS: Final = 0.5
"""How long steps gather into a batch."""
BEATS_SECONDS: Final = 5.0
"""Time without a message after which a publisher does not beat; Dynamo's and SGLang's beat once a second
(``HEARTBEAT_INTERVAL`` of their ``_FpmPublisherThread``)."""
_SETTLED_SECONDS: Final = 2.0
"""Time after a pass in which its tokens come onto the page."""
_IPC: Final = "ipc://"
_RESULTS: Final = ("read", "lost", "unread", "told_by_probe")


class Publisher:
    """One rank's.

    Args:
        settings: Where its server publishes.
        rank: Which of its publishers.
        tell: Takes each pass with its number.

    Attributes:
        connected: Whether it is there now.
        last: When something came last, Unix seconds; 0 before the first.
        counted: Messages by what became of them.
    """

    topic: Final = ""

    def __init__(self, settings: ForwardPasses, rank: int, tell: Callable[[Publisher, int, Pass], None]) -> None:
        # SGLang puts the rank behind the name of its socket, others add it to the port.
        ipc = settings.endpoint.startswith(_IPC)
        self.endpoint = f"{settings.endpoint}.{rank}" if ipc else with_rank(settings.endpoint, rank)
        self.connected = False
        self.last = 0.0
        self.counted: Counter[str] = Counter()
        self.passes = Passes()
        self._tell = tell

    def is_there(self, connected: bool) -> None:
        """It came, or went."""
        self.connected = connected

    async def take(self, frames: Sequence[bytes], context: Any) -> None:  # noqa: ARG002 - nothing is asked
        """One message: topic, number, forward pass."""
        from agent import forward_pass_wire  # noqa: PLC0415 - for those who have such publishers

        if len(frames) != FRAMES or len(frames[1]) != NUMBER_BYTES:
            self.counted["unread"] += 1
            return
        number = int.from_bytes(frames[1], "big")
        try:
            one = forward_pass_wire.read(frames[2])
        except forward_pass_wire.UnreadableError:
            self.counted["unread"] += 1
            self.passes.pass_over(number)
            return
        self.last = time.time()
        self.counted["read"] += 1
        self._tell(self, number, one)


class ForwardPassMetrics(Source):
    """Listens to the publishers that targets name.

    Args:
        scene: What it is made from.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._targets: dict[str, Target] = {}
        self._publishers: dict[str, list[Publisher]] = {}
        self._subscriptions = Subscriptions()
        self._steps = Gathering()
        self._somebody = asyncio.Event()
        self._judge = Judge(scene, self._targets.get)
        self._heard: dict[str, float] = {}
        self._passed: dict[str, float] = {}
        self._tokens: dict[str, tuple[float, float]] = {}
        scene.overheard.pages.append(self.page)
        self.watch(scene.targets)

    def watch(self, targets: Sequence[Target]) -> None:
        """Listen to these too, where they name publishers."""
        for target in targets:
            settings = target.forward_pass_metrics
            if settings is None or target.instance in self._publishers:
                continue

            def tell(publisher: Publisher, number: int, one: Pass, instance: str = target.instance) -> None:
                self._tell(instance, publisher, number, one)

            made = [Publisher(settings, rank, tell) for rank in range(settings.data_parallel_size)]
            self._targets[target.instance], self._publishers[target.instance] = target, made
            self._subscriptions.add(target.instance, made)
            self._somebody.set()

    def forget(self, targets: Sequence[Target]) -> None:
        """Listen to these no longer."""
        for target in targets:
            self._targets.pop(target.instance, None)
            self._publishers.pop(target.instance, None)
            self._subscriptions.drop(target.instance)
            self._judge.forget(target.instance)
            for known in (self._heard, self._passed, self._tokens):
                known.pop(target.instance, None)
        if not self._publishers:
            self._somebody.clear()

    def seen(self) -> Mapping[str, Mapping[str, float]]:
        """When something came last."""
        last = {name: max(one.last for one in made) for name, made in self._publishers.items()}
        return {"forward_pass_metrics": last}

    def problems(self, now: float, since: float) -> Iterable[str]:
        """Publishers that are not there, servers whose probe tells the same, and engines that do not move."""
        yield from self._judge.problems()
        for instance, made in self._publishers.items():
            if self._told_by_probe(instance):
                yield f"steps of {instance} are told by its probe; take forward_pass_metrics out of its configuration"
            for one in made if now - since >= PATIENCE_SECONDS else ():
                if not available():
                    yield f"forward-pass metrics of {instance} are not read: pip install 'servescope[kv-events]'"
                elif not one.connected:
                    yield f"nobody publishes forward-pass metrics of {instance} at {one.endpoint}"

    def metrics(self) -> Iterable[Metric]:
        """Messages by what became of them."""
        family = CounterMetricFamily(
            f"{METRICS}_forward_passes", "Messages of forward-pass metrics, by what became of them.",
            labels=["instance", "result"],
        )  # fmt: skip
        for instance, made in self._publishers.items():
            for result in _RESULTS:
                family.add_metric([instance, result], sum(one.counted[result] for one in made))
        return [family]

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._subscriptions.run())
                while True:
                    await self._somebody.wait()
                    await asyncio.sleep(FLUSH_SECONDS)
                    self.flush(emit)
                    self.look(time.monotonic(), emit)
        finally:
            self.flush(emit)

    def flush(self, emit: Emit) -> None:
        """Put what was gathered into the spool."""
        for batch in self._steps.take():
            if (body := self._encode(batch)) is not None:
                emit("logs", body)

    def page(self, told: PageTold) -> None:
        """A server's page: whether its tokens grow while no pass comes."""
        passed = self._passed.get(told.instance)
        if passed is None or told.body is None or time.monotonic() - passed < _SETTLED_SECONDS:
            return
        if (tokens := self._generated(told.instance, told.body)) is not None:
            first, _ = self._tokens.get(told.instance, (tokens, tokens))
            self._tokens[told.instance] = first, tokens

    def look(self, now: float, emit: Emit) -> None:
        """Tell of engines that froze, or move again, by ``now`` (the monotonic clock, seconds)."""
        waiting = [one for one in self._judge.at_taps(now) if self._stands_still(one.instance, now)]
        self._judge.look(waiting, now, emit)

    def _stands_still(self, instance: str, now: float) -> bool:
        """Whether the silence of a server's publishers is its engine's."""
        if not all(one.connected for one in self._publishers.get(instance, ())):
            return False
        if (tokens := self._tokens.get(instance)) is not None:
            return tokens[0] == tokens[1]
        return now - self._heard.get(instance, now) <= BEATS_SECONDS

    def _generated(self, instance: str, body: bytes) -> float | None:
        """Tokens that a page counts as they are made; None where it does not."""
        known = self._scene.known(instance)
        table = tables().get(known.engine) if known is not None else None
        if table is None or table.counts_late:
            return None
        names = [name for rule in table.rules if rule.signal == Signal.GENERATION_TOKENS_TOTAL for name in rule.names()]
        if not names:
            return None
        line = rb"^(?:" + b"|".join(re.escape(name.encode()) for name in names) + rb")(?:\{[^\n]*\})? +([0-9.eE+]+)"
        found = [float(value) for value in re.findall(line, body, re.MULTILINE)]
        return sum(found) if found else None

    def _tell(self, instance: str, publisher: Publisher, number: int, one: Pass) -> None:
        before = publisher.passes.lost
        steps = publisher.passes.add(number, one, time.time_ns())
        publisher.counted["lost"] += publisher.passes.lost - before
        if self._told_by_probe(instance):
            publisher.counted["told_by_probe"] += 1
            self._judge.forget(instance)
            return
        now = self._heard[instance] = time.monotonic()
        if not one.is_heartbeat:
            self._passed[instance] = now
            self._tokens.pop(instance, None)
            self._judge.freezes.stepped(instance, now, one.rank, left=0)
        for step in steps:
            self._steps.add(Teller(0, instance, one.rank), step)

    def _told_by_probe(self, instance: str) -> bool:
        return instance in self._scene.overheard.inside

    def _encode(self, batch: Batch) -> bytes | None:
        target = self._targets.get(batch.teller.instance)
        if target is None:  # forgotten meanwhile
            return None
        known = self._scene.known(target.instance)
        whose = attributes(target, self._scene.place, known.version if known else "")
        if known is not None:
            whose[Resource.ENGINE] = known.engine
            if known.model:
                whose[Resource.MODEL] = known.model
        whose[Resource.DP_RANK] = str(batch.teller.rank)
        return encode_columns(whose, SCOPE_STEP, batch.event, batch.time_ns, batch.columns)


def source(scene: Scene) -> ForwardPassMetrics:
    """The publishers of all targets, those that are found later too.

    Raises:
        ConfigError: A target names a publisher, and the libraries are not installed.
    """
    named = [target.instance for target in scene.targets if target.forward_pass_metrics is not None]
    if named and not available():
        raise ConfigError(
            f"agent.targets: {named[0]} has forward_pass_metrics, which needs pyzmq and msgspec",
            "pip install 'servescope[kv-events]'",
        )
    return ForwardPassMetrics(scene)
