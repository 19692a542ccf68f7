"""Reads a recording's folder: its parts as values, its requests matched with the spans that the engine made of them.

Any file may be missing. Engine and models come from the pages, else from ``recording.json`` or the spans. A recording
is named after its folder; its instance is who ``recording.json`` says it is, else it has that name too. Neither
``truth.json`` nor the column ``role`` is ever read.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import structlog
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.engine_table import detect, find_table, tables
from agent.pages.page import PageReader
from agent.pages.samples import Sampler
from agent.target import BOTH
from base.errors import ServescopeError, UnknownEngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from agent.engine_table import Table

PAGES: Final = "pages.jsonl.gz"
REQUESTS: Final = "requests.jsonl.gz"
CLIENT: Final = "client.jsonl.gz"
HOST: Final = "host.jsonl.gz"
GPU: Final = "gpu.jsonl.gz"
EVENTS: Final = "events.jsonl"
ABOUT: Final = "recording.json"
OTLP: Final = "otlp"
STEPS: Final = "steps"
_PARTS: Final = (PAGES, REQUESTS, CLIENT, HOST, GPU, OTLP, STEPS)
_REQUEST_IDS: Final = frozenset({"gen_ai.request.id", "triton.request_id"})
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*")
_OTLP_NAME: Final = re.compile(r"\d+_(\d+(?:\.\d+)?)\.pb\.gz")

log = structlog.get_logger()


class RecordingError(ServescopeError):
    """A recording can't be read; names the file and the line."""


@dataclass(slots=True)
class Line:
    """A request as its edge saw it, and what the engine left of it.

    Attributes:
        row: The line of the file.
        number: Its place in the file, from 0.
        trace_id: Of the ``traceparent`` sent, else of the engine's spans, else empty.
        parent_span_id: The caller's span, or empty.
    """

    row: Mapping[str, Any]
    number: int
    trace_id: bytes = b""
    parent_span_id: bytes = b""


@dataclass(slots=True)
class EngineTrace:
    """One trace among the engine's spans.

    Attributes:
        span_ids: Every span of it in the recording.
        request_ids: Request ids that its spans name, as the engine writes them.
        line: The request it belongs to, None where the edge has none.
    """

    span_ids: set[bytes] = field(default_factory=set)
    request_ids: set[str] = field(default_factory=set)
    line: Line | None = None


class Recording:
    """One recording.

    Attributes:
        name: Its folder's, which people may change.
        about: What ``recording.json`` says; empty where there is none.
        instance: The server that was recorded, by its own name, which may be none that a folder can have.

    Raises:
        RecordingError: The folder holds no part of a recording, or a part can't be read.
    """

    def __init__(self, folder: Path) -> None:
        if not any((folder / part).exists() for part in _PARTS):
            raise RecordingError(
                f"{folder} holds no recording", f"A recording has at least one of {', '.join(_PARTS)}; check the path"
            )
        self.folder = folder
        self.name = folder.resolve().name
        self.about: Mapping[str, Any] = _about(folder / ABOUT)
        self.instance = str(self.about.get("instance") or self.name)

    @cached_property
    def table(self) -> Table | None:
        """The engine's table; None where nothing tells the engine."""
        for row in self.rows(PAGES):
            if row.get("text"):
                try:
                    return detect(PageReader().read(str(row["text"]).encode()))
                except UnknownEngineError as error:
                    raise RecordingError(f"{self.folder / PAGES}: {error.what}", error.fix) from None
        engine = self.about.get("engine") or self._engine_of_spans()
        return find_table(str(engine)) if engine else None

    @cached_property
    def role(self) -> str:
        """What the server is, by its page; ``both`` where nothing tells."""
        for row in self.rows(PAGES):
            if row.get("text") and self.table is not None:
                return self.table.plays(PageReader().read(str(row["text"]).encode()).layout)
        return BOTH

    @cached_property
    def model(self) -> str:
        """The model that the pages show; empty where they show none or several."""
        if self.table is None:
            return ""
        for row in self.rows(PAGES):
            if row.get("text"):
                samples = Sampler(self.table).sample(PageReader().read(str(row["text"]).encode())).samples
                models = {sample.key.model for sample in samples if sample.key.model}
                return models.pop() if len(models) == 1 else ""
        return ""

    @cached_property
    def lines(self) -> list[Line]:
        """Requests of the edge in order of the file, a tap's before a client's where both are there."""
        name = REQUESTS if (self.folder / REQUESTS).exists() else CLIENT
        found = []
        for number, row in enumerate(self.rows(name)):
            line = Line(row, number)
            if "trace_id" in row:
                line.trace_id = bytes.fromhex(row["trace_id"])
                line.parent_span_id = bytes.fromhex(row.get("parent_span_id") or "")
            elif match := _TRACEPARENT.fullmatch(str(row.get("traceparent") or "")):
                line.trace_id, line.parent_span_id = bytes.fromhex(match[1]), bytes.fromhex(match[2])
            found.append(line)
        return found

    @cached_property
    def bodies(self) -> list[tuple[float, bytes]]:
        """(arrival in Unix seconds, ``ExportTraceServiceRequest``) in order of arrival."""
        return self._bodies(OTLP)

    @cached_property
    def steps(self) -> list[tuple[float, bytes]]:
        """(arrival in Unix seconds, ``ExportLogsServiceRequest``) of what probes told, in order of arrival."""
        return self._bodies(STEPS)

    def _bodies(self, name: str) -> list[tuple[float, bytes]]:
        found = []
        folder = self.folder / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = _OTLP_NAME.fullmatch(path.name)
            if match is None:
                continue
            try:
                found.append((float(match[1]), gzip.decompress(path.read_bytes())))
            except (OSError, EOFError) as error:
                log.warning("recording_part_unreadable", path=str(path), error=str(error))
        return sorted(found, key=lambda one: one[0])

    @cached_property
    def traces(self) -> dict[bytes, EngineTrace]:
        """The engine's traces by id, each with the request it belongs to.

        A request is found by trace id, else by its request id (vLLM writes ``cmpl-<id>-0`` and ``chatcmpl-<id>``),
        else by the id in its answer. One that sent no ``traceparent`` takes the trace id that the engine drew.
        """
        found: dict[bytes, EngineTrace] = {}
        for _, body in self.bodies:
            for trace_id, span_id, request_ids in _spans(body, self.folder):
                trace = found.setdefault(trace_id, EngineTrace())
                trace.span_ids.add(span_id)
                trace.request_ids.update(request_ids)
        by_trace, by_id = _index(self.lines)
        for trace_id, trace in found.items():
            same = by_trace.get(trace_id, [])
            named = [by_id[name] for written in trace.request_ids for name in _names(written) if name in by_id]
            if len(same) == 1:
                trace.line = same[0]
            elif named:
                trace.line = named[0]
            if trace.line is not None and not trace.line.trace_id:
                trace.line.trace_id = trace_id
        return found

    def rows(self, name: str) -> Iterator[Mapping[str, Any]]:
        """The JSON lines of a part, none where it is missing; a file that was cut off ends with its last whole line.

        Raises:
            RecordingError: A line is no JSON object.
        """
        path = self.folder / name
        if not path.exists():
            return
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            number = 0
            while True:
                try:
                    text = file.readline()
                except (EOFError, OSError) as error:
                    log.warning("recording_cut_off", path=str(path), line=number, error=str(error))
                    return
                if not text:
                    return
                number += 1
                try:
                    row = json.loads(text)
                except ValueError as error:
                    if not text.endswith("\n"):
                        log.warning("recording_cut_off", path=str(path), line=number, error=str(error))
                        return
                    raise RecordingError(
                        f"{path}, line {number} is not JSON: {error}", "Mend or remove the line"
                    ) from None
                if not isinstance(row, dict):
                    raise RecordingError(f"{path}, line {number} is not a JSON object", "Mend or remove the line")
                yield row

    def span_seconds(self) -> tuple[float, float]:
        """When the recording begins and ends, Unix seconds: pages, host rows and requests count, spans do not.

        Raises:
            RecordingError: It holds nothing with a time.
        """
        times = [float(row["t"]) for name in (PAGES, HOST, GPU) for row in self.rows(name) if "t" in row]
        for line in self.lines:
            times += request_times(line.row)
        if not times:
            times = [at for at, _ in (*self.bodies, *self.steps)]
        if not times:
            raise RecordingError(f"{self.folder} holds nothing with a time", "Check that its files are whole")
        return min(times), max(times)

    def _engine_of_spans(self) -> str:
        for _, body in self.bodies:
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in group.scope_spans:
                    for engine in tables():
                        if scope.scope.name.startswith(engine):
                            return engine
        return ""


def recordings_in(folder: Path) -> list[Recording]:
    """The recording in a folder, or those in its subfolders.

    Raises:
        RecordingError: There is none.
    """
    try:
        return [Recording(folder)]
    except RecordingError:
        inner = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [Recording(one) for one in inner if any((one / part).exists() for part in _PARTS)]
        if not found:
            raise
        return found


def request_times(row: Mapping[str, Any]) -> tuple[float, float]:
    """(arrival, end) of a request line in Unix seconds.

    Raises:
        RecordingError: The line has no arrival.
    """
    if "start_ns" in row:
        return int(row["start_ns"]) / 1e9, int(row["end_ns"]) / 1e9
    try:
        begin = float(row["t"])
        return begin, begin + float(row.get("e2e") or 0.0)
    except (KeyError, TypeError, ValueError):
        raise RecordingError(
            f"a request has no time: {str(dict(row))[:100]}", "Each line needs t, Unix seconds"
        ) from None


def _index(lines: Iterable[Line]) -> tuple[dict[bytes, list[Line]], dict[str, Line]]:
    """Lines by trace id, and by request or response id."""
    by_trace: dict[bytes, list[Line]] = {}
    by_id: dict[str, Line] = {}
    for line in lines:
        if line.trace_id:
            by_trace.setdefault(line.trace_id, []).append(line)
        for key in ("request_id", "response_id"):
            if line.row.get(key):
                by_id.setdefault(str(line.row[key]), line)
    return by_trace, by_id


def _about(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path} can't be read: {error}", "Mend or remove it") from None
    return about if isinstance(about, dict) else {}


def _names(written: str) -> tuple[str, ...]:
    """What a request may be called whose id the engine wrote like this: request id, response id."""
    if written.startswith("chatcmpl-"):
        return written.removeprefix("chatcmpl-"), written
    if written.startswith("cmpl-"):
        whole = re.sub(r"-\d+$", "", written)
        return whole.removeprefix("cmpl-"), whole
    return (written,)


def _spans(body: bytes, folder: Path) -> Iterator[tuple[bytes, bytes, list[str]]]:
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise RecordingError(f"a body in {folder / OTLP} is no OTLP: {error}", "Remove it") from None
    for group in request.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                ids = [pair.value.string_value for pair in span.attributes if pair.key in _REQUEST_IDS]
                yield span.trace_id, span.span_id, ids
