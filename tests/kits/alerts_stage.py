"""A pager's loop over scripted measurements: a test writes what is seen, turns the clock and reads what was paged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alerts.config import AlertsConfig
from alerts.deliver.notifier import Delivery
from alerts.deliver.outbox import Outbox
from alerts.engine import Engine
from alerts.incidents.register import Register
from alerts.incidents.timeline import Illustrator
from alerts.incidents.why import Explainer
from alerts.journal import Journal
from alerts.measure.measured import Group, Measured, Sample, Series
from alerts.rules.file import parse

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from alerts.deliver.message import Message

FILE = """
rules:
  - name: waiting
    when: {kind: signal, signal: waiting, above: 20}
    for: 3s
    keep_firing_for: 10s
    runbook: docs/runbooks/engine-waiting.md
  - name: kv
    when: {kind: signal, signal: kv_cache_usage_ratio, above: 0.9}
    severity: warning
"""


class Sent:
    """A notifier that takes everything."""

    name = "pager"
    destination = "test"

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.payloads: list[dict[str, Any]] = []

    def render(self, message: Message) -> dict[str, Any]:
        self.messages.append(message)
        return {"action": message.action, "key": message.dedup_key}

    def send(self, payload: dict[str, Any]) -> Delivery:
        self.payloads.append(payload)
        return Delivery("sent")

    def close(self) -> None:
        pass


@dataclass
class Stage:
    """An engine whose measurements a test writes, and whose clock it turns."""

    folder: Path
    now: float = 1_000_000.0
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    error: Exception | None = None
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    sent: Sent = field(default_factory=Sent)
    places: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: dict[float, list[Group]] = field(default_factory=dict)
    slow: threading.Event | None = None
    asked: int = 0
    causes: dict[str, Any] | Exception = field(default_factory=lambda: {"summary": "nothing stands out", "causes": []})
    explained: list[tuple[Any, float, float]] = field(default_factory=list)
    text: str = FILE

    def __post_init__(self) -> None:
        self.start(self.text)

    def start(self, text: str) -> None:
        self.journal = Journal(self.folder)
        self.outbox = Outbox(self.journal, [self.sent], lambda: self.now)
        register = Register(self.journal, self.outbox, dashboard_url=lambda: "http://d")
        self.engine = Engine(self, parse(text), self.journal, register, AlertsConfig(), lambda: self.now)
        self.engine.watch.measurer = self  # type: ignore[assignment]
        self.illustrator = Illustrator(self, self.journal, register, AlertsConfig(), lambda: self.now)
        self.explainer = Explainer(self.journal, register, lambda: self.now, self.explain, pending=self.engine.pending)

    def explain(self, place: Any, start: float, end: float) -> dict[str, Any]:
        self.explained.append((place, start, end))
        while self.slow is not None and not self.slow.wait(1):
            continue
        if isinstance(self.causes, Exception):
            raise self.causes
        return self.causes

    def restart(self, text: str = FILE) -> None:
        self.journal.close()
        self.start(text)

    # what the engine asks for
    def measure(self, _store: object, now: float) -> Measured:
        if self.error is not None:
            raise self.error
        shown = []
        for instance, samples in self.samples.items():
            labels = {"instance": instance, "model": "m", "deployment": "d", "engine": "e", "region": "", "version": ""}
            labels |= self.places.get(instance, {})
            recent = [s for s in samples if now - 40 <= s.at <= now]
            if recent:
                shown.append(Series(labels | {"replayed": "0"}, recent))
        return Measured(series=shown, counts=self.counts)

    def rows(self, sql: str, _parameters: object = None, settings: object = None) -> list[dict[str, Any]]:  # noqa: ARG002
        self.asked += 1
        while self.slow is not None and not self.slow.wait(1):
            continue
        return next((rows for mark, rows in self.answers.items() if mark in sql), [])

    def alive(self) -> None:
        """Whether it is, `measure` says."""

    # what a test does
    def run(self, seconds: int, instance: str = "a", every: int = 5, **values: float) -> None:
        """Time passes: a sample a second, a round every five, everything delivered."""
        for second in range(seconds):
            self.now += 1
            self.samples.setdefault(instance, []).append(Sample(self.now, values))
            if second % every == every - 1:
                self.round()

    def round(self) -> None:
        self.engine.round()
        self.outbox.deliver("pager")
        self.illustrator.once()
        self.explainer.once()
        self.outbox.deliver("pager")

    @property
    def pages(self) -> list[str]:
        return [payload["action"] for payload in self.sent.payloads]

    def rows_of(self, table: str) -> list[dict[str, Any]]:
        return [row for _, (name, row) in self.journal.waiting_rows(10_000) if name == table]
