"""The books: every record is accounted for, on /metrics and /healthz.

``received + recovered = stored + rejected + dropped + pending``, per signal, in records: spans, data points, log
records. A body that can't be read counts as one record. What was refused with 429 or 503 is still its sender's and
therefore not received; it is counted apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from collector.log.segment import SIGNALS

if TYPE_CHECKING:
    from collector.log.recovery import Recovered
    from collector.log.write_ahead import WriteAheadLog

_PREFIX: Final = "servescope_collector"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Fate(NamedTuple):
    """What became of records.

    Attributes:
        signal: ``traces``, ``metrics`` or ``logs``.
        name: ``received``, ``recovered``, ``stored``, ``rejected``, ``dropped`` or ``pending``.
        reason: Why they were rejected or dropped.
    """

    signal: str
    name: str
    reason: str = ""


class Ledger:
    """Counters of one collector.

    Attributes:
        registry: Where they are registered; one per collector, so that two in a process don't mix.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by_signal = ("signal",)
        with_reason = ("signal", "reason")
        self._received = self._counter("received_records", "Records accepted from senders.", by_signal)
        self._recovered = self._counter("recovered_records", "Records read back from the log at start.", by_signal)
        self._stored = self._counter("stored_records", "Records that the store has.", by_signal)
        self._rejected = self._counter("rejected_records", "Records refused for good.", with_reason)
        self._dropped = self._counter("dropped_records", "Records taken and left out.", with_reason)
        self._refused = self._counter("refused_requests", "Requests told to come again.", with_reason)
        self._requests = self._counter("requests", "Requests answered.", ("signal", "code"))
        self._bytes = self._counter("received_bytes", "Bytes of accepted requests, decompressed.", by_signal)
        self.sent = self._counter(
            "sent_records", "Records accepted, by the key that signed them.", ("signal", "key_id")
        )
        self.scrubbed = self._counter("scrubbed_values", "Values removed since they may hold prompt text.", by_signal)
        self.cut = self._counter("cut_values", "Lists and maps left out since they lay too deep.", by_signal)
        self.insert_errors = self._counter("insert_errors", "Inserts that failed.", ("signal", "code"))
        self.settle_errors = self._counter("settle_errors", "Runs of the settle job that failed.", ())
        self.derived = self._counter("derived_samples", "Engine samples made of pages that others scraped.", ())
        self.derive_late = self._counter(
            "derive_late_points",
            "Points of others' scrapes that came after their page, or beyond its bound.",
            (),
        )
        self.derive_dropped = self._counter(
            "derive_dropped", "Others' scrapes not read, targets forgotten and samples not stored for want of room.", ()
        )
        self.derive_unnamed = self._counter(
            "derive_unnamed", "Pages of engines whose sender does not tell of which server they are.", ()
        )
        self.derive_repeated = self._counter(
            "derive_repeated_points", "Points of delta temporality left out, since their time was told before.", ()
        )
        self.derive_forgotten = self._counter(
            "derive_forgotten_series", "Series of delta temporality whose sums were given up for want of room.", ()
        )
        self.derive_errors = self._counter("derive_errors", "Pages that others scraped and we failed to read.", ())
        self.insert_seconds = Histogram(
            f"{_PREFIX}_insert_seconds", "Time of an insert.", by_signal, registry=self.registry, buckets=_SECONDS
        )
        self.commit_seconds = Histogram(
            f"{_PREFIX}_commit_seconds", "Wait of a request for the log.", registry=self.registry, buckets=_SECONDS
        )
        self.store_up = Gauge(f"{_PREFIX}_store_up", "1 while the store takes inserts.", registry=self.registry)
        self.signal_up = Gauge(
            f"{_PREFIX}_signal_up", "1 while the store takes a signal's inserts.", by_signal, registry=self.registry
        )
        self._counts = {
            signal: dict.fromkeys(("received", "recovered", "stored", "rejected", "dropped"), 0) for signal in SIGNALS
        }
        self._reasons: dict[str, int] = {}
        self._fates: dict[Fate, int] = {}

    def received(self, signal: str, records: int, size: int) -> None:
        """Records that are durable in the log now."""
        self._add(signal, "received", records)
        self._received.labels(signal).inc(records)
        self._bytes.labels(signal).inc(size)

    def recovered(self, signal: str, records: int) -> None:
        """Records found in the log at start."""
        self._add(signal, "recovered", records)
        self._recovered.labels(signal).inc(records)

    def stored(self, signal: str, records: int) -> None:
        """Records that an insert brought into the store."""
        self._add(signal, "stored", records)
        self._stored.labels(signal).inc(records)

    def rejected(self, signal: str, reason: str, records: int = 1) -> None:
        """Records that came and were refused for good; they count as received too."""
        self._add(signal, "received", records)
        self._received.labels(signal).inc(records)
        self._add(signal, "rejected", records)
        self._rejected.labels(signal, reason).inc(records)
        self._ended(Fate(signal, "rejected", reason), records)

    def repeated(self, signal: str, records: int) -> None:
        """Records that were taken before: received once more and dropped."""
        self._add(signal, "received", records)
        self._received.labels(signal).inc(records)
        self.dropped(signal, "repeat", records)

    def dropped(self, signal: str, reason: str, records: int) -> None:
        """Records that were received and will not be stored."""
        self._add(signal, "dropped", records)
        self._dropped.labels(signal, reason).inc(records)
        self._ended(Fate(signal, "dropped", reason), records)

    def refused(self, signal: str, reason: str) -> None:
        """A request told to come again."""
        self._refused.labels(signal, reason).inc()
        self._why(f"refused:{reason}", 1)

    def answered(self, signal: str, code: int) -> None:
        """A request answered with an HTTP status."""
        self._requests.labels(signal, str(code)).inc()

    def found(self, recovered: Recovered) -> None:
        """What a start found in the log: its records, and what was wrong with it."""
        for segment in recovered.segments:
            self.recovered(segment.signal, segment.records)
        texts = {
            "torn_bytes": "Bytes cut from the log at start: of requests that were not acknowledged.",
            "damaged_requests": "Acknowledged requests set aside at start since the disk changed their bytes.",
            "mended_requests": "Requests made whole at start: only their length was damaged.",
            "postponed_segments": "Damaged files left for the next start: what is damaged could not be set aside.",
        }
        for name, count in recovered.figures().items():
            self._counter(f"log_{name}", texts[name], ()).inc(count)

    def watch(self, log: WriteAheadLog) -> None:
        """Show the log's state beside the counters."""
        pending = Gauge(f"{_PREFIX}_pending_records", "Records in the log only.", ("signal",), registry=self.registry)
        for signal in SIGNALS:
            pending.labels(signal).set_function(lambda signal=signal: log.pending(signal))  # type: ignore[misc]
        size = Gauge(f"{_PREFIX}_log_bytes", "Disk that the write-ahead log takes.", registry=self.registry)
        size.set_function(lambda: log.bytes)
        segments = Gauge(f"{_PREFIX}_log_segments", "Segments waiting for their insert.", registry=self.registry)
        segments.set_function(log.segments)

    def page(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def books(self, log: WriteAheadLog) -> dict[str, dict[str, int]]:
        """Counts by signal, with ``pending`` and the ``balance``, which is 0 when nothing was lost or doubled."""
        result = {}
        for signal, counts in self._counts.items():
            pending = log.pending(signal)
            came = counts["received"] + counts["recovered"]
            went = counts["stored"] + counts["rejected"] + counts["dropped"] + pending
            result[signal] = {**counts, "pending": pending, "balance": came - went}
        return result

    def fates(self, log: WriteAheadLog) -> dict[Fate, int]:
        """The books as one figure for each signal, fate and reason, those of rejected and dropped records apart."""
        found = {
            Fate(signal, fate): count
            for signal, counts in self._counts.items()
            for fate, count in {**counts, "pending": log.pending(signal)}.items()
            if fate not in {"rejected", "dropped"}
        }
        return found | self._fates

    def reasons(self) -> dict[str, int]:
        """Counts by ``rejected:…``, ``dropped:…`` and ``refused:…`` over all signals."""
        return dict(sorted(self._reasons.items()))

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _add(self, signal: str, kind: str, records: int) -> None:
        self._counts[signal][kind] += records

    def _ended(self, fate: Fate, records: int) -> None:
        self._fates[fate] = self._fates.get(fate, 0) + records
        self._why(f"{fate.name}:{fate.reason}", records)

    def _why(self, key: str, count: int) -> None:
        self._reasons[key] = self._reasons.get(key, 0) + count
