"""Writes a recording's folder: pages, host and GPU rows, requests, spans and steps of one server."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.otlp.request_lines import to_row
from agent.recording.folder import ABOUT, GPU, HOST, OTLP, PAGES, REQUESTS, STEPS, RecordingError
from base.vocabulary import SCOPE_EDGE, SCOPE_GPU, SCOPE_HOST, SCOPE_STEP, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

_FLUSH_SECONDS: Final = 5.0
_GPU_KEPT: Final = ("hw.", "process.", Resource.RANK)
_HOST_PROCESS: Final = "host"
_FOLDERS: Final = (OTLP, STEPS)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One server's recording.

    Attributes:
        folder: Where it is.
        instance: The server.
        counts: How many ``pages``, ``pages that did not come``, ``span exports`` and ``requests`` there were.
    """

    folder: Path
    instance: str
    counts: Mapping[str, int]


def whole(counts: Mapping[str, int]) -> dict[str, int]:
    """What was recorded, by its words; also what there was none of."""
    return {
        what: counts.get(what, 0)
        for what in ("pages", "pages that did not come", "span exports", "step batches", "requests")
    }


class Writing:
    """One server's folder while it is written.

    Args:
        folder: To make; must be empty where it exists.
        instance: The server.
        deployment: Where it belongs.

    Attributes:
        counts: ``pages``, ``pages that did not come``, ``span exports``, ``step batches`` and ``requests`` so far.
        engine, version, flags: What became known of the server; they go into ``recording.json``.

    Raises:
        RecordingError: The folder is not empty, or can't be written.
    """

    def __init__(self, folder: Path, instance: str, deployment: str = "") -> None:
        self.folder, self.instance, self.deployment = folder, instance, deployment
        self.counts: Counter[str] = Counter()
        self.engine, self.version = "", ""
        self.flags: Mapping[str, Any] = {}
        self.started, self.ended = time.time(), 0.0
        try:
            for name in _FOLDERS:
                (folder / name).mkdir(parents=True, exist_ok=True)
            if any(path.name not in _FOLDERS for path in folder.iterdir()):
                raise RecordingError(f"{folder} is not empty", "Give a new folder")
            self._files = {name: _Lines(folder / name) for name in (PAGES, HOST, GPU, REQUESTS)}
        except OSError as error:
            raise RecordingError(f"{folder} can't be written: {error}", "Choose another folder") from error

    def add_page(self, row: Mapping[str, Any]) -> None:
        """Keep one page, or that it did not come."""
        self._files[PAGES].add(row)
        self.counts["pages" if "text" in row else "pages that did not come"] += 1

    def add_host(self, row: Mapping[str, Any]) -> None:
        """Keep a moment of the machine and the server's processes."""
        self._files[HOST].add(row)

    def add_gpu(self, row: Mapping[str, Any]) -> None:
        """Keep a moment of the GPUs."""
        self._files[GPU].add(row)

    def add_request(self, row: Mapping[str, Any]) -> None:
        """Keep one edge record."""
        self.counts["requests"] += 1
        self._files[REQUESTS].add(row)

    def add_spans(self, request: ExportTraceServiceRequest, at: float | None = None) -> None:
        """Keep one body of the engine's spans; ``at`` is when it came, Unix seconds."""
        self.counts["span exports"] += 1
        self._body(OTLP, self.counts["span exports"], request, at)

    def add_steps(self, request: ExportLogsServiceRequest, at: float | None = None) -> None:
        """Keep one body of the engine's steps; ``at`` as with spans."""
        self.counts["step batches"] += 1
        self._body(STEPS, self.counts["step batches"], request, at)

    def close(self) -> None:
        """End the files and say in ``recording.json`` what they are."""
        for name, file in self._files.items():
            file.close()
            if not file.lines:
                (self.folder / name).unlink()
        if not self.counts["step batches"]:
            (self.folder / STEPS).rmdir()
        about = {
            "name": self.folder.resolve().name,
            "engine": self.engine,
            "engine_version": self.version,
            "deployment": self.deployment,
            "instance": self.instance,
            "flags": dict(self.flags),
            "started": round(self.started, 3),
            "ended": round(self.ended or time.time(), 3),
            "counts": dict(self.counts),
        }
        (self.folder / ABOUT).write_text(json.dumps({key: value for key, value in about.items() if value}, indent=2))

    def _body(
        self, name: str, number: int, request: ExportTraceServiceRequest | ExportLogsServiceRequest, at: float | None
    ) -> None:
        path = self.folder / name / f"{number:04d}_{time.time() if at is None else at:.3f}.pb.gz"
        path.write_bytes(gzip.compress(request.SerializeToString(), mtime=0))


class _Lines:
    """A gzipped file of JSON lines that a reader can follow and a kill only shortens."""

    def __init__(self, path: Path) -> None:
        self.lines = 0
        self._file = gzip.open(path, "wb", compresslevel=6)  # noqa: SIM115 - open as long as the recording lasts
        self._flushed = time.monotonic()

    def add(self, row: Mapping[str, Any]) -> None:
        self.lines += 1
        self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._file.flush(zlib.Z_SYNC_FLUSH)

    def close(self) -> None:
        self._file.close()


def sort_traces(body: bytes, recorders: Mapping[str, Writing], *, at_ends: bool = False) -> None:
    """Edge spans become request lines, the engine's own are kept as they are; each goes to its instance's folder.

    Args:
        body: ``ExportTraceServiceRequest``.
        recorders: By instance; what is of none of them is left out.
        at_ends: Spans came when the last of them had ended, not now; one body for each second then.
    """
    kept: dict[tuple[str, int | None], ExportTraceServiceRequest] = {}
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        instance = texts(group.resource.attributes).get(Resource.INSTANCE, "")
        recorder = recorders.get(instance)
        if recorder is None:
            continue
        if all(scope.scope.name == SCOPE_EDGE for scope in group.scope_spans):
            for scope in group.scope_spans:
                for span in scope.spans:
                    recorder.add_request(to_row(span))
        else:
            ends = [span.end_time_unix_nano for scope in group.scope_spans for span in scope.spans]
            second = max(ends, default=0) // 1_000_000_000 + 1 if at_ends else None
            kept.setdefault((instance, second), ExportTraceServiceRequest()).resource_spans.append(group)
    for (instance, second), request in kept.items():
        recorders[instance].add_spans(request, second)


def sort_logs(body: bytes, recorders: Mapping[str, Writing], *, at_ends: bool = False) -> None:
    """Engine steps and finished requests, as probes tell of them, go to their instance's folder; of other logs none do.

    Args:
        body: ``ExportLogsServiceRequest``.
        recorders: By instance.
        at_ends: They came at their own times, not now; one body for each second then.
    """
    kept: dict[tuple[str, int | None], ExportLogsServiceRequest] = {}
    for group in ExportLogsServiceRequest.FromString(body).resource_logs:
        instance = texts(group.resource.attributes).get(Resource.INSTANCE, "")
        if instance not in recorders or any(scope.scope.name != SCOPE_STEP for scope in group.scope_logs):
            continue
        times = [record.time_unix_nano for scope in group.scope_logs for record in scope.log_records]
        second = max(times, default=0) // 1_000_000_000 + 1 if at_ends else None
        kept.setdefault((instance, second), ExportLogsServiceRequest()).resource_logs.append(group)
    for (instance, second), request in kept.items():
        recorders[instance].add_steps(request, second)


def sort_metrics(body: bytes, recorders: Mapping[str, Writing]) -> None:
    """Rows of the machine, the engines' processes and GPUs go to the folders of those whose they are.

    A GPU's own row, and a machine's that names no instance, go to all.

    Args:
        body: ``ExportMetricsServiceRequest``.
        recorders: By instance.
    """
    hosts: dict[tuple[str, int], dict[str, Any]] = {}
    gpus: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for scope, whose, values, time_ns in hardware(body):
        instance = whose.get(Resource.INSTANCE, "")
        own = [
            name for name in recorders if instance in {"", name} or (scope == SCOPE_GPU and "process.pid" not in whose)
        ]
        for name in own:
            if scope == SCOPE_GPU:
                gpus.setdefault((name, time_ns), []).append(gpu_row(whose, values))
                continue
            row = hosts.setdefault((name, time_ns), {"t": round(time_ns / 1e9, 3), "machine": {}, "procs": []})
            process = whose.get("process.name", "")
            if process == _HOST_PROCESS and "process.pid" not in whose:
                row["machine"] |= values
            elif instance and "process.pid" in whose:
                row["procs"].append({"pid": int(whose["process.pid"]), "name": process, "values": values})
    for (name, _), row in hosts.items():
        recorders[name].add_host(row)
    for (name, time_ns), found in gpus.items():
        recorders[name].add_gpu({"t": time_ns / 1e9, "gpus": found})


def hardware(body: bytes) -> Iterator[tuple[str, dict[str, str], dict[str, float], int]]:
    """Rows of a body of metrics that are of a machine or its GPUs: (scope, resource, figures by name, Unix ns)."""
    for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in (SCOPE_HOST, SCOPE_GPU):
            values, time_ns = _figures(group, scope)
            if values:
                yield scope, texts(group.resource.attributes), values, time_ns


def _figures(group: ResourceMetrics, wanted: str) -> tuple[dict[str, float], int]:
    values, time_ns = {}, 0
    for scope in group.scope_metrics:
        for metric in scope.metrics if scope.scope.name == wanted else ():
            point = (metric.gauge.data_points or metric.sum.data_points)[0]
            values[metric.name], time_ns = point.as_double, point.time_unix_nano
    return values, time_ns


def gpu_row(whose: Mapping[str, str], values: Mapping[str, float]) -> dict[str, Any]:
    """A GPU, or a process on one, as ``gpu.jsonl.gz`` has it."""
    return {
        "identity": {key: value for key, value in whose.items() if key.startswith(_GPU_KEPT)},
        "values": dict(values),
    }


def texts(attributes: Sequence[KeyValue]) -> dict[str, str]:
    """Attributes whose values are text, by key."""
    return {pair.key: pair.value.string_value for pair in attributes}
