"""A recording as what an agent would have sent: edge spans, engine spans, samples, host rows, events, in order of time.

Everything follows from the recording and the shift; a shift of zero leaves the ids that were recorded, another draws
fresh ones from a hash of old id and shift.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.otlp.claim import claim
from agent.otlp.encode import attributes, encode_event, encode_gauges, resource
from agent.otlp.request import RequestRecord, time_coded_span_id
from agent.otlp.request_wire import to_otlp
from agent.pages.follow import Follower
from agent.pages.page import PageReader
from agent.pages.samples import Sampler
from agent.probe.steps import TIMES
from agent.recording.folder import EVENTS, GPU, HOST, PAGES, Line, RecordingError, request_times
from agent.tap.routes import find_route
from agent.target import Place, Target
from base.errors import PageError
from base.scrub import may_hold_prompts, scrub_request
from base.vocabulary import SCOPE_GPU, SCOPE_HOST, Outcome, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from agent.otlp.emit import SignalKind
    from agent.pages.page import Page
    from agent.recording.folder import EngineTrace, Recording

_OK: Final = 200
_STOPPED: Final = frozenset({"T", "t"})
_OUTCOMES: Final = {
    "disconnected": Outcome.UPSTREAM_RESET,
    "truncated": Outcome.UPSTREAM_RESET,
    "connect_error": Outcome.UNREACHABLE,
    "client_timeout": Outcome.TIMEOUT,
}
"""Words of a client's view; ``http_error`` goes by its status, the others are the vocabulary's own."""
_RECORD_FIELDS: Final = tuple(
    name
    for name in RequestRecord._fields
    if name not in {"trace_id", "span_id", "parent_span_id", "start_ns", "end_ns", "outcome", "finish_reasons"}
)


@dataclass(frozen=True, slots=True)
class Item:
    """One body and when the agent would have had it, Unix seconds, shifted."""

    at: float
    signal: SignalKind
    body: bytes


class Playback:
    """One recording, moved by a shift.

    Args:
        recording: What to play.
        shift_ns: What every time is moved by; whole milliseconds.

    Attributes:
        counts: What has been played so far: ``requests``, ``spans``, ``samples``, ``step batches``, ``events``.
    """

    def __init__(self, recording: Recording, shift_ns: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self._recording = recording
        self._shift_ns = shift_ns
        about = recording.about
        engine = recording.table.engine if recording.table else None
        target = Target(
            recording.instance, str(about.get("deployment") or recording.instance), engine=engine, role=recording.role
        )
        place = Place(*(str(about.get(key) or "") for key in ("region", "cluster", "pod", "node")))
        version = str(about.get("engine_version") or about.get("version") or "")
        self._whose = attributes(target, place, version) | {Resource.RECORDING: recording.name}

    def items(self) -> Iterator[Item]:
        """Everything, in order of time."""
        parts = (
            self._requests(),
            self._spans(),
            self._pages(),
            self._host(),
            self._gpu(),
            self._steps(),
            self._events(),
        )
        return heapq.merge(*parts, key=lambda item: item.at)

    def edge_span_id(self, line: Line) -> bytes:
        """Span id of a request's edge record; its engine's span has it as parent."""
        if not self._shift_ns and line.row.get("span_id"):
            return bytes.fromhex(line.row["span_id"])
        seed = f"{self._recording.name}/{line.number}/{self._shift_ns}".encode()
        low = int.from_bytes(hashlib.sha256(seed).digest()[:4], "big")
        return time_coded_span_id(self._ns(request_times(line.row)[0]), low)

    def _requests(self) -> Iterator[Item]:
        _ = self._recording.traces  # a request without traceparent takes the engine's trace id
        for line in sorted(self._recording.lines, key=lambda one: request_times(one.row)[1]):
            record = self._record(line)
            self.counts["requests"] += 1
            yield Item(record.end_ns / 1e9, "traces", to_otlp(record, self._whose))

    def _record(self, line: Line) -> RequestRecord:
        row = line.row
        begin, end = request_times(row)
        start_ns = self._ns(begin)
        named = f"{self._recording.name}/{line.number}".encode()
        trace_id = line.trace_id or hashlib.sha256(named).digest()[:16]
        ids: dict[str, Any] = {
            "trace_id": self._fresh(trace_id),
            "span_id": self.edge_span_id(line),
            "parent_span_id": self._fresh(line.parent_span_id),
            "start_ns": start_ns,
            "end_ns": start_ns + round((end - begin) * 1e6) * 1000,
        }
        if "start_ns" in row:  # a tap's own record
            reasons = tuple(row.get("finish_reasons") or ())
            rest = {name: row[name] for name in _RECORD_FIELDS if row.get(name) is not None}
            if not row.get("stream"):
                rest.pop("ttft_seconds", None)  # a whole answer has no first token
            return RequestRecord(**ids, outcome=_outcome(row), finish_reasons=reasons, **rest)
        route = find_route(b"POST", str(row.get("path") or ""))
        gaps = row.get("gaps") or {}
        tokens = row.get("completion_tokens")
        outcome = _outcome(row)
        return RequestRecord(
            **ids,
            method=route.method,
            route=route.template,
            outcome=outcome,
            status=row.get("status") or None,
            operation=route.operation,
            request_model=str(row.get("model") or route.model or self._recording.model),
            response_id=str(row.get("response_id") or ""),
            request_id=str(row.get("request_id") or ""),
            tenant=str(row.get("tenant") or ""),
            finish_reasons=(str(row["finish_reason"]),) if row.get("finish_reason") else (),
            error_type="" if outcome is Outcome.OK else _error_type(row),
            stream=bool(row.get("stream")),
            prompt_tokens=row.get("prompt_tokens"),
            completion_tokens=tokens if tokens is not None else row.get("chunks"),
            tokens_counted=tokens is None and row.get("chunks") is not None,
            cached_tokens=row.get("cached_tokens"),
            ttft_seconds=row.get("ttft") if row.get("stream") else None,
            e2e_seconds=row.get("e2e"),
            itl_mean_seconds=gaps.get("mean"),
            itl_p50_seconds=gaps.get("p50"),
            itl_p99_seconds=gaps.get("p99"),
            itl_max_seconds=gaps.get("max"),
            itl_gaps=int(gaps.get("n") or 0),
        )

    def _spans(self) -> Iterator[Item]:
        traces, model = self._recording.traces, self._recording.model
        whose = self._whose | ({Resource.MODEL: model} if model else {})
        for at, body in self._recording.bodies:
            request = ExportTraceServiceRequest.FromString(body)
            if may_hold_prompts(body):
                scrub_request(request)
            for group in request.resource_spans:
                claim(group.resource, whose)
                for scope in group.scope_spans:
                    for span in scope.spans:
                        self._move(span, traces[span.trace_id])
                        self.counts["spans"] += 1
            yield Item(self._ns(at) / 1e9, "traces", request.SerializeToString())

    def _move(self, span: Span, trace: EngineTrace) -> None:
        outermost = span.parent_span_id not in trace.span_ids
        if trace.line is not None and outermost:
            span.parent_span_id = self.edge_span_id(trace.line)
        else:
            span.parent_span_id = self._fresh(span.parent_span_id)
        if not self._shift_ns:
            return
        span.trace_id, span.span_id = self._fresh(span.trace_id), self._fresh(span.span_id)
        span.start_time_unix_nano += self._shift_ns
        span.end_time_unix_nano += self._shift_ns
        for event in span.events:
            event.time_unix_nano += self._shift_ns
        for link in span.links:
            link.trace_id, link.span_id = self._fresh(link.trace_id), self._fresh(link.span_id)

    def _pages(self) -> Iterator[Item]:
        if self._recording.table is None:
            return
        follower = Follower(self._whose[Resource.INSTANCE], self._whose)
        state = _PageState(follower, Sampler(self._recording.table, version=self._whose.get(Resource.VERSION, "")))
        for row in self._recording.rows(PAGES):
            time_ns = self._ns(_time(row))
            for kind, body in state.read(row, time_ns):
                self.counts["samples" if kind == "metrics" else "events"] += 1
                yield Item(time_ns / 1e9, kind, body)

    def _host(self) -> Iterator[Item]:
        jiffies: list[int] = []
        stalled: tuple[float, float] | None = None
        for row in self._recording.rows(HOST):
            t = _time(row)
            if "machine" in row:
                machine = dict(row["machine"])
            else:
                machine = {"load1": float(row["load1"])} if "load1" in row else {}
                now = [int(one) for one in row.get("cpu_jiffies") or ()]
                spent = sum(now) - sum(jiffies)
                if jiffies and spent > 0:
                    idle = now[3] + now[4] - jiffies[3] - jiffies[4]
                    machine["cpu_usage_ratio"] = min(1.0, max(0.0, 1 - idle / spent))
                jiffies = now or jiffies
                if "psi_cpu_some_total_us" in row:
                    total = float(row["psi_cpu_some_total_us"]) / 1e6
                    if stalled is not None and t > stalled[1]:
                        ratio = (total - stalled[0]) / (t - stalled[1])
                        machine["cpu_pressure_some_ratio"] = min(1.0, max(0.0, ratio))
                    stalled = total, t
            rows = [(self._process("host", None), machine)] if machine else []
            rows += [(self._process(str(one["name"]), one["pid"]), _figures(one)) for one in row.get("procs") or ()]
            time_ns = self._ns(t)
            if rows:
                yield Item(time_ns / 1e9, "metrics", encode_gauges(rows, SCOPE_HOST, time_ns))

    def _gpu(self) -> Iterator[Item]:
        for row in self._recording.rows(GPU):
            time_ns = self._ns(_time(row))
            rows = [
                (resource(self._whose | {"hw.type": "gpu", **one["identity"]}), one["values"]) for one in row["gpus"]
            ]
            yield Item(time_ns / 1e9, "metrics", encode_gauges(rows, SCOPE_GPU, time_ns))

    def _steps(self) -> Iterator[Item]:
        for at, body in self._recording.steps:
            request = ExportLogsServiceRequest.FromString(body)
            for group in request.resource_logs:
                claim(group.resource, self._whose)
                for scope in group.scope_logs:
                    for record in scope.log_records:
                        self._move_steps(record)
                        self.counts["step batches"] += 1
            yield Item(self._ns(at) / 1e9, "logs", request.SerializeToString())

    def _move_steps(self, record: LogRecord) -> None:
        record.time_unix_nano += self._shift_ns
        for column in record.attributes:
            if column.key in TIMES:
                for value in column.value.array_value.values:
                    if value.HasField("int_value"):
                        value.int_value += self._shift_ns

    def _events(self) -> Iterator[Item]:
        for row in self._recording.rows(EVENTS):
            time_ns = self._ns(_time(row))
            details = {str(key): str(value) for key, value in (row.get("attributes") or {}).items()}
            body = encode_event(self._whose, str(row["event"]), str(row.get("message") or ""), time_ns, details)
            self.counts["events"] += 1
            yield Item(time_ns / 1e9, "logs", body)

    def _process(self, name: str, pid: object) -> bytes:
        return self._processes.setdefault(
            (name, pid),
            resource(self._whose | {"process.name": name} | ({} if pid is None else {"process.pid": str(pid)})),
        )

    @cached_property
    def _processes(self) -> dict[tuple[str, object], bytes]:
        return {}

    def _ns(self, seconds: float) -> int:
        # Microseconds are what the lines carry; a float of Unix seconds holds no more.
        return round(seconds * 1e6) * 1000 + self._shift_ns

    def _fresh(self, recorded: bytes) -> bytes:
        if not recorded or not self._shift_ns:
            return recorded
        seed = recorded + self._shift_ns.to_bytes(16, "big", signed=True)
        return hashlib.sha256(seed).digest()[: len(recorded)]


class _PageState:
    """Follows the pages of one server."""

    def __init__(self, follower: Follower, sampler: Sampler) -> None:
        self._follower, self._sampler = follower, sampler
        self._reader = PageReader()

    def _page(self, row: Mapping[str, Any]) -> tuple[Page | None, str]:
        if row.get("status") != _OK or not row.get("text"):
            return None, str(row.get("error") or f"status {row.get('status')}")
        try:
            return self._reader.read(str(row["text"]).encode()), ""
        except PageError as error:
            return None, str(error)

    def read(self, row: Mapping[str, Any], time_ns: int) -> list[tuple[SignalKind, bytes]]:
        """Bodies that one line of the pages makes."""
        made: list[tuple[SignalKind, bytes]] = []
        page, problem = self._page(row)
        if page is None:
            self._sampler.contract.away()
            self._follower.down(problem, time_ns, lambda kind, body: made.append((kind, body)))
            return made
        scrape = self._sampler.sample(page, time_ns / 1e9)
        moment = self._follower.moment(time_ns, float(row.get("took_s") or 0.0))
        self._follower.page(page, scrape, scrape.config or None, moment, lambda kind, body: made.append((kind, body)))
        return made


def _outcome(row: Mapping[str, Any]) -> Outcome:
    word = str(row.get("outcome") or "ok")
    if word in _OUTCOMES:
        return _OUTCOMES[word]
    if word == "http_error":
        status = int(row.get("status") or 0)
        if status == 429:  # noqa: PLR2004 - Too Many Requests
            return Outcome.REJECTED
        return Outcome.SERVER_ERROR if status >= 500 else Outcome.CLIENT_ERROR  # noqa: PLR2004 - 5xx
    try:
        return Outcome(word)
    except ValueError:
        known = ", ".join([*Outcome, *_OUTCOMES, "http_error"])
        raise RecordingError(f"a request has the unknown outcome {word!r}", f"Known are {known}") from None


def _error_type(row: Mapping[str, Any]) -> str:
    return str(row.get("error_type") or (row.get("status") if row["outcome"] == "http_error" else row["outcome"]))


def _figures(one: Mapping[str, Any]) -> dict[str, float]:
    if "values" in one:
        return dict(one["values"])
    found = {"stopped": float(str(one.get("state", "")) in _STOPPED)}
    if one.get("cpu_s") is not None:
        found["cpu_seconds_total"] = float(one["cpu_s"])
    if one.get("rss_mb") is not None:
        found["rss_bytes"] = float(one["rss_mb"]) * 1024 * 1024
    return found


def _time(row: Mapping[str, Any]) -> float:
    try:
        return float(row["t"])
    except (KeyError, TypeError, ValueError):
        raise RecordingError(f"a line has no time: {str(dict(row))[:100]}", "Each line needs t, Unix seconds") from None
