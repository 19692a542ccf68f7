"""Every engine step and every request at the server's own door, as a ``servescope-probe`` in the server tells them.

Datagrams on a Unix socket (``docs/reference/probe-wire.md``). Nothing is asked: where no probe is installed this source
costs a sleeping socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from agent.otlp.columns import encode_columns
from agent.otlp.encode import attributes
from agent.otlp.request_wire import to_otlp_many
from agent.probe import datagram
from agent.probe.datagram import Process
from agent.probe.frozen import Waiting
from agent.probe.judging import Judge
from agent.probe.requests import Requests, books
from agent.probe.settings import Settings
from agent.probe.socket import Listening, SocketUnusableError, default_path
from agent.probe.steps import Gathering, Teller
from agent.probe.whose import Whose
from agent.source import METRICS, Source
from base.keys import ensure_keys
from base.vocabulary import SCOPE_STEP, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from agent.otlp.emit import Emit
    from agent.probe.requests import Ended
    from agent.probe.steps import Batch
    from agent.source import Scene
    from agent.target import Target

FLUSH_SECONDS: Final = 0.5
"""How long rows gather into a batch."""
_READ_AT_ONCE: Final = 256
_DATAGRAM_BYTES: Final = 65_536
_PROCESSES: Final = 1_024
_LISTEN_AGAIN_SECONDS: Final = 30.0
_ENDED_AT_ONCE: Final = 1_000
_DOUBT_SECONDS: Final = 60.0
"""After a loss: what a probe held before it dropped something still comes then."""

log = structlog.get_logger()


class Probe(Source):
    """Takes what probes tell.

    Args:
        scene: What it is made from.
        path: The socket.
    """

    def __init__(self, scene: Scene, path: Path) -> None:
        self._scene = scene
        self._path = path
        self._whose = Whose(scene.targets, scene.engines)
        self._listening: Listening | None = None
        self._listen_at = 0.0
        self._steps = Gathering()
        self._ended: list[Ended] = []
        self._emit: Emit = lambda _signal, _body: None
        self._seen: dict[str, float] = {}
        self._judge = Judge(scene, lambda instance: self._whose.find(Process(instance, 0)))
        self._settings = Settings()
        self._numbers: dict[Process, int] = {}
        self._given_up: dict[Process, int] = {}
        # Requests asked until then may have ended: what told of it may be among what was lost.
        self._doubted: dict[Process, float] = {}
        self.counted: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()

    @property
    def path(self) -> Path:
        """The socket's file."""
        return self._path

    @cached_property
    def _requests(self) -> Requests:
        config = self._scene.config
        salt = ensure_keys(self._scene.data / "keys").tenant_salt
        return Requests(books(salt, config.tenant, config.tap.limits()), self._ended.append)

    async def open(self) -> None:
        """Listen, unless another agent does: then that one has the steps, and this says so."""
        self._listen()

    async def run(self, emit: Emit) -> None:
        """Take datagrams until cancelled."""
        self._emit = emit
        loop = asyncio.get_running_loop()
        reading: int | None = None
        try:
            while True:
                if self._listening is None and loop.time() >= self._listen_at:
                    self._listen_at = loop.time() + _LISTEN_AGAIN_SECONDS
                    self._listen()
                if self._listening is not None and reading is None:
                    reading = self._listening.socket.fileno()
                    loop.add_reader(reading, self._read)
                await asyncio.sleep(FLUSH_SECONDS)
                await self._whose.look({pid for _, pid in self._numbers}, time.monotonic())
                self._sweep(time.monotonic())
                self.look(time.monotonic())
                self.flush()
        finally:
            if reading is not None:
                loop.remove_reader(reading)
                self._read()
            self.flush()

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def watch(self, targets: Sequence[Target]) -> None:
        """These may be meant too."""
        self._whose.watch(targets)

    def forget(self, targets: Sequence[Target]) -> None:
        """What these still tell is nobody's."""
        self._whose.forget(targets)
        for target in targets:
            self._seen.pop(target.instance, None)
            self._judge.forget(target.instance)
            self._settings.forget(target.instance)
            self._scene.overheard.inside.pop(target.instance, None)

    def seen(self) -> Mapping[str, Mapping[str, float]]:
        """When each target's probe was last heard."""
        return {"probe": self._seen}

    def take(self, data: bytes, now: float) -> None:
        """Take a datagram; one that can't be read is counted.

        Args:
            data: Its bytes.
            now: Any steady clock, seconds.
        """
        try:
            told = datagram.read(data)
        except datagram.MalformedError as error:
            self._refuse(str(error))
            return
        self._note(told, now)
        for record in told.records:
            try:
                self._take(told, record, now)
            except datagram.MalformedError as error:
                self._refuse(str(error))

    def flush(self) -> None:
        """Put what was gathered into the spool; configurations go to who follows each server's page."""
        self._scene.overheard.inside.update(self._settings.take(self._whose.find))
        for batch in self._steps.take():
            self._emit("logs", self._encode(batch))
        if not self._ended:
            return
        ended, self._ended[:] = self._ended[:], []
        grouped: defaultdict[Process, list[Ended]] = defaultdict(list)
        for one in ended:
            grouped[one.process].append(one)
        for process, records in grouped.items():
            self._emit("traces", to_otlp_many((one.record for one in records), self._resource(process)))

    def problems(self, now: float, since: float) -> Iterable[str]:  # noqa: ARG002 - it goes by its own clock
        """Engines that do not move."""
        yield from self._judge.problems()

    def metrics(self) -> Iterable[Metric]:
        """Counts of what came, and of what did not."""
        yield GaugeMetricFamily(
            f"{METRICS}_probe_listening",
            "Whether the probe's socket is this agent's.",
            value=self._listening is not None,
        )
        records = CounterMetricFamily(f"{METRICS}_probe_records", "Records of probes, by kind.", labels=["kind"])
        for kind in ("step", "finished", "config", "edge"):
            records.add_metric([kind], self.counted[kind])
        yield records
        refused = CounterMetricFamily(
            f"{METRICS}_probe_malformed", "Datagrams and records passed over.", labels=["reason"]
        )
        for reason, count in self.malformed.items():
            refused.add_metric([reason], count)
        yield refused
        lost = CounterMetricFamily(f"{METRICS}_probe_lost", "Records lost, by where.", labels=["where"])
        lost.add_metric(["probe"], self.counted["dropped"])
        lost.add_metric(["datagrams"], self.counted["missed"])
        lost.add_metric(["agent"], self._steps.dropped)
        yield lost
        requests = CounterMetricFamily(
            f"{METRICS}_probe_requests", "Requests that probes told of, by what became of them.", labels=["result"]
        )
        if "_requests" in self.__dict__:
            for result, count in self._requests.told.items():
                requests.add_metric([result], count)
        yield requests
        yield CounterMetricFamily(
            f"{METRICS}_probe_unmatched", "Batches of processes of no known target.", value=self.counted["unmatched"]
        )

    def _listen(self) -> None:
        if self._listening is not None:
            return
        try:
            self._listening = Listening(self._path)
        except SocketUnusableError as error:
            if not self.counted["refused"]:  # asked again and again, said once
                log.warning("probe_socket_unusable", error=str(error))
            self.counted["refused"] += 1

    def _read(self) -> None:
        if self._listening is None:
            return
        now = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READ_AT_ONCE):
                self.take(self._listening.socket.recv(_DATAGRAM_BYTES), now)

    def _take(self, told: datagram.Datagram, record: datagram.Record, now: float) -> None:
        if record.kind == datagram.STEP:
            self.counted["step"] += 1
            step = datagram.read_step(record.body)
            if (target := self._whose.find(told.process)) is not None:
                self._judge.freezes.stepped(target.instance, now, record.rank, step.left)
            self._steps.add(Teller(told.pid, told.instance, record.rank), step)
        elif record.kind == datagram.FINISHED:
            self.counted["finished"] += 1
            self._steps.add(Teller(told.pid, told.instance, record.rank), datagram.read_finished(record.body))
        elif record.kind == datagram.CONFIG:
            self.counted["config"] += 1
            self._settings.add(told.process, record.rank, datagram.read_config(record.body))
        else:
            self.counted["edge"] += 1
            self._requests.take(told.process, record, now)
            if len(self._ended) >= _ENDED_AT_ONCE:
                self.flush()

    def _note(self, told: datagram.Datagram, now: float) -> None:
        """Who is there, and what of theirs was lost on the way."""
        process = told.process
        if process not in self._numbers and len(self._numbers) >= _PROCESSES:
            for known in (self._numbers, self._given_up, self._doubted):
                known.clear()
        expected = self._numbers.get(process, told.number)
        if told.number < expected:  # its successor under the same name counts from 0
            self._given_up.pop(process, None)
            self._doubted.pop(process, None)
            if "_requests" in self.__dict__:
                self._requests.sweep(now, [process])
        missed = max(0, told.number - expected)
        dropped = max(0, told.dropped - self._given_up.get(process, 0))
        self.counted["missed"] += missed
        self.counted["dropped"] += dropped
        if missed or dropped:
            self._doubted[process] = now + _DOUBT_SECONDS
        self._numbers[process] = (told.number + 1) & 0xFFFFFFFF
        self._given_up[process] = told.dropped
        if (target := self._whose.find(told.process)) is not None:
            self._seen[target.instance] = time.time()

    def _refuse(self, reason: str) -> None:
        self.malformed[reason] += 1
        if self.malformed[reason] == 1:  # the counter tells of the others
            log.warning("probe_malformed", reason=reason)

    def _sweep(self, now: float) -> None:
        if "_requests" not in self.__dict__ or not len(self._requests):
            return
        gone = [one for one in self._requests.processes() if self._whose.knows(one) and not _lives(one.pid)]
        self._requests.sweep(now, gone)

    def look(self, now: float) -> None:
        """Tell of engines that froze, or move again, by ``now`` (any steady clock, seconds)."""
        waiting = list(self._judge.at_taps(now))
        for process, since, begun in self._requests.waiting() if "_requests" in self.__dict__ else ():
            doubted = since <= self._doubted.get(process, since - 1.0)
            if not doubted and (target := self._whose.find(process)) is not None:
                waiting.append(Waiting(target.instance, since, begun))
        self._judge.look(waiting, now, self._emit)

    def _resource(self, process: Process) -> dict[str, str]:
        target = self._whose.find(process)
        known = self._scene.known(target.instance) if target is not None else None
        found = attributes(target, self._scene.place, known.version if known else "")
        if target is None:
            self.counted["unmatched"] += 1
            if process.instance:
                found |= {Resource.INSTANCE: process.instance, Resource.DEPLOYMENT: process.instance}
        if known is not None:
            found |= {Resource.ENGINE: known.engine}
        return found

    def _encode(self, batch: Batch) -> bytes:
        teller = batch.teller
        process = Process(teller.instance, teller.pid)
        whose = self._resource(process)
        target = self._whose.find(process)
        known = self._scene.known(target.instance) if target is not None else None
        if known is not None and known.model:
            whose[Resource.MODEL] = known.model
        if teller.rank >= 0:
            whose[Resource.DP_RANK] = str(teller.rank)
        whose["process.pid"] = str(teller.pid)
        return encode_columns(whose, SCOPE_STEP, batch.event, batch.time_ns, batch.columns)


def source(scene: Scene) -> Probe | None:
    """The probe's socket, unless the configuration leaves it out."""
    if not scene.config.probe:
        return None
    return Probe(scene, scene.config.probe_socket or default_path())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
