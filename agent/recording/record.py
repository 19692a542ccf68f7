"""Makes a recording: what an agent sees of a model server, kept as files that ``servescope replay`` reads.

A folder for each server: ``pages.jsonl.gz`` (a line a scrape), ``otlp/`` (the engine's spans, prompts taken out),
``requests.jsonl.gz`` (the tap's records), ``host.jsonl.gz``, ``gpu.jsonl.gz`` and, at the end, ``recording.json``.
Spans and requests are read over the shoulder of a running agent and its taps, out of their spool, which is left as it
is; where no agent runs, the engines' spans are taken directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.engine_table import HEALTH_PATH, About, detect, tables
from agent.host.engines import Engines, find_processes
from agent.host.machine import Machine
from agent.host.process import Process
from agent.otlp.request_lines import to_row
from agent.pages.fetch import about_url, fetch, learn_about, page_urls, reason_of, same_server
from agent.pages.page import Limits, PageReader
from agent.recording.folder import ABOUT, GPU, HOST, OTLP, PAGES, REQUESTS, RecordingError
from agent.sources.spans import Spans
from agent.spool.framing import is_checked, split_records
from agent.spool.writer import SUFFIX
from agent.target import Target
from base.errors import PortInUseError, ServescopeError
from base.formats import spell
from base.vocabulary import SCOPE_EDGE, SCOPE_GPU, Resource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

_TIMEOUT_SECONDS: Final = 3.0
_FLUSH_SECONDS: Final = 5.0
_GPU_KEPT: Final = ("hw.", "process.", Resource.RANK)
_FIND_SECONDS: Final = 10.0
_TAIL_SECONDS: Final = 0.5

log = structlog.get_logger()


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


async def record(
    out: Path,
    targets: Sequence[Target | Mapping[str, Any]],
    *,
    seconds: float,
    spool: Path | None = None,
    otlp_http_port: int | None = 14318,
    interval_seconds: float = 1.0,
    say: Callable[[str], None] = lambda _line: None,
) -> list[Recorded]:
    """Record servers for a while.

    Args:
        out: Folder to make; with several targets, a folder for each in it, named after its instance.
        targets: The servers, as targets or as their settings.
        seconds: How long.
        spool: Spool of a running agent and its taps: their requests and spans are recorded too, and a server that
            they watch is called what they call it.
        otlp_http_port: Where to take spans when no agent listens there; None for not at all.
        interval_seconds: Time between two pages.
        say: Takes lines of progress for a person.

    Returns:
        What was written, a folder for each server.

    Raises:
        RecordingError: The folder exists and is not empty, or can't be written.
    """
    chosen = [target if isinstance(target, Target) else _target(target) for target in targets]
    if spool is not None:
        running = _running_targets(spool.parent / "run.yaml")
        chosen = [running.get(target.url or target.metrics_url, target) for target in chosen]
    recorders = [_Recorder(out if len(chosen) == 1 else out / target.instance, target) for target in chosen]
    tail = SpoolTail(spool) if spool is not None else None
    receiver = await _receiver(chosen, otlp_http_port)
    by_instance = {recorder.target.instance: recorder for recorder in recorders}

    def keep(_signal: str, body: bytes) -> None:
        _sort_in(body, by_instance)

    say(f"recording {', '.join(by_instance)} for {spell(seconds)}")
    async with contextlib.AsyncExitStack() as stack:
        for recorder in recorders:
            stack.callback(recorder.close)
        jobs = [job for recorder in recorders for job in recorder.jobs(interval_seconds)]
        if tail is not None:
            jobs.append(_follow(tail, by_instance))
        if receiver is not None:
            jobs.append(receiver.run(keep))
        await _run_for(seconds, jobs, out)
        if tail is not None:
            _sort_in(tail.read(), by_instance)
    for recorder in recorders:
        say(f"{recorder.folder}: " + ", ".join(f"{count} {what}" for what, count in recorder.counts.items() if count))
        if not recorder.counts["pages"]:  # an outage is worth a recording; a wrong URL is not
            say(f"{recorder.target.instance} showed no metrics page all that time: check its URL with servescope probe")
    return [Recorded(recorder.folder, recorder.target.instance, _whole(recorder.counts)) for recorder in recorders]


def _whole(counts: Counter[str]) -> dict[str, int]:
    return {what: counts[what] for what in ("pages", "pages that did not come", "span exports", "requests")}


class SpoolTail:
    """Reads the traces that producers append from now on, and leaves no mark in the spool."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._offsets = {path: path.stat().st_size for path in self._segments()}

    def read(self) -> bytes:
        """What was appended since the last call, as one ``ExportTraceServiceRequest``."""
        parts = []
        for path in self._segments():
            offset = self._offsets.get(path, 0)
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    records = split_records(file.read(), offset, None, checked=is_checked(path.name))
            except FileNotFoundError:
                continue  # sent and gone between two looks; segments stay for a minute, so it was read before
            if records.ends:
                self._offsets[path] = records.ends[-1]
                parts.append(records.body)
        return b"".join(parts)

    def _segments(self) -> list[Path]:
        return sorted(self._spool.glob(f"*/traces/*{SUFFIX}"))


class _Recorder:
    """Writes one server's folder."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.folder = folder
        self.target = target
        self.counts: Counter[str] = Counter()
        self._started = time.time()
        self._engine = target.engine or ""
        self._about = About()
        try:
            (folder / OTLP).mkdir(parents=True, exist_ok=True)
            if any(path.name != OTLP for path in folder.iterdir()):
                raise RecordingError(f"{folder} is not empty", "Give a new folder")
            self._files = {name: _Lines(folder / name) for name in (PAGES, HOST, GPU, REQUESTS)}
        except OSError as error:
            raise RecordingError(f"{folder} can't be written: {error}", "Choose another folder") from error

    def jobs(self, interval: float) -> list[Coroutine[Any, Any, None]]:
        """What runs while the recording lasts."""
        return [self._pages(interval), self._host(interval), self._gpu()]

    def add_spans(self, request: ExportTraceServiceRequest) -> None:
        """Keep one body of the engine's spans."""
        now = time.time()
        self.counts["span exports"] += 1
        path = self.folder / OTLP / f"{self.counts['span exports']:04d}_{now:.3f}.pb.gz"
        path.write_bytes(gzip.compress(request.SerializeToString(), mtime=0))

    def add_request(self, row: Mapping[str, Any]) -> None:
        """Keep one edge record."""
        self.counts["requests"] += 1
        self._files[REQUESTS].add(row)

    def close(self) -> None:
        """End the files and say in ``recording.json`` what they are."""
        for name, file in self._files.items():
            file.close()
            if not file.lines:
                (self.folder / name).unlink()
        about = {
            "name": self.folder.resolve().name,
            "engine": self._engine,
            "engine_version": self._about.version,
            "deployment": self.target.deployment,
            "instance": self.target.instance,
            "flags": dict(self._about.config),
            "started": round(self._started, 3),
            "ended": round(time.time(), 3),
            "counts": dict(self.counts),
        }
        (self.folder / ABOUT).write_text(json.dumps({key: value for key, value in about.items() if value}, indent=2))

    async def _pages(self, interval: float) -> None:
        urls = [self.target.metrics_url] if self.target.metrics_url else page_urls(self.target.url)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            async for _ in _every(interval):
                row: dict[str, Any] = {"t": round(time.time(), 4), "status": 200}
                begun = time.perf_counter()
                problem = ""
                for url in urls:
                    try:
                        key = self.target.access.headers()
                        row["text"] = (await fetch(session, url, Limits().bytes, key)).decode(errors="replace")
                    except (aiohttp.ClientError, TimeoutError, OSError, ServescopeError) as error:
                        problem = reason_of(error)
                    else:
                        if len(urls) > 1 or not self._engine:
                            urls = await self._learn(session, row["text"], urls, url, key)
                        break
                row["took_s"] = round(time.perf_counter() - begun, 4)
                if "text" not in row:
                    row |= {"status": 0, "error": problem}
                row |= await self._health(session)
                self._files[PAGES].add(row)
                self.counts["pages" if "text" in row else "pages that did not come"] += 1

    async def _learn(
        self, session: aiohttp.ClientSession, text: str, urls: list[str], url: str, key: Mapping[str, str]
    ) -> list[str]:
        try:
            table = detect(PageReader().read(text.encode()))
        except ServescopeError:
            return urls  # not this page, or not yet: the next turn looks again
        self._engine = table.engine
        about = about_url(table, self.target.url, url)
        self._about = await learn_about(session, table, about, key if same_server(about, url) else None)
        return [url]

    async def _health(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        if not self.target.url:
            return {}
        begun = time.perf_counter()
        try:
            table = tables().get(self._engine)
            url = self.target.url.rstrip("/") + (table.health_path if table else HEALTH_PATH)
            async with session.get(url) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = 0
        return {"health": status, "health_took_s": round(time.perf_counter() - begun, 4)}

    async def _host(self, interval: float) -> None:
        machine, processes = Machine(), dict[int, tuple[str, Process]]()
        look_at = 0.0
        async for now in _every(interval):
            if now >= look_at:
                found = (await asyncio.to_thread(find_processes, [self.target])).get(self.target.instance, {})
                processes = {pid: processes.get(pid) or (name, Process(pid, b"")) for pid, name in found.items()}
                look_at = now + _FIND_SECONDS
            procs = []
            for pid, (name, process) in list(processes.items()):
                try:
                    procs.append({"pid": pid, "name": name, "values": process.sample()})
                except OSError:
                    del processes[pid]
                    look_at = now
            self._files[HOST].add({"t": round(time.time(), 3), "machine": machine.sample(now), "procs": procs})

    async def _gpu(self) -> None:
        from agent.sources.gpu import Gpus  # noqa: PLC0415 - the driver's binding is loaded by those who record

        await Gpus(engines=Engines([self.target])).run(self._keep_gpus)

    def _keep_gpus(self, signal: str, body: bytes) -> None:
        if signal != "metrics":
            return
        gpus, time_ns = [], 0
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            whose = _texts(group.resource.attributes)
            if "process.pid" in whose and whose.get(Resource.INSTANCE) != self.target.instance:
                continue  # somebody else's
            identity = {key: value for key, value in whose.items() if key.startswith(_GPU_KEPT)}
            values = {}
            for scope in group.scope_metrics:
                for metric in scope.metrics if scope.scope.name == SCOPE_GPU else ():
                    point = (metric.gauge.data_points or metric.sum.data_points)[0]
                    values[metric.name], time_ns = point.as_double, point.time_unix_nano
            gpus.append({"identity": identity, "values": values})
        self._files[GPU].add({"t": time_ns / 1e9, "gpus": gpus})


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


async def _run_for(seconds: float, jobs: Sequence[Coroutine[Any, Any, None]], out: Path) -> None:
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for failure in results:
        if isinstance(failure, OSError):
            raise RecordingError(f"{out} can't be written: {failure}", "Check space and permissions") from failure
        if isinstance(failure, Exception):
            raise failure


async def _every(seconds: float) -> AsyncIterator[float]:
    """Yields monotonic seconds at each turn; a turn that is late is skipped, not caught up."""
    loop = asyncio.get_running_loop()
    start, turn = loop.time(), 0
    while True:
        yield loop.time()
        turn = max(turn + 1, int((loop.time() - start) / seconds) + 1)
        await asyncio.sleep(max(0.0, start + turn * seconds - loop.time()))


async def _follow(tail: SpoolTail, recorders: Mapping[str, _Recorder]) -> None:
    while True:
        await asyncio.sleep(_TAIL_SECONDS)
        _sort_in(tail.read(), recorders)


def _sort_in(body: bytes, recorders: Mapping[str, _Recorder]) -> None:
    """Edge spans become request lines, the engine's own are kept as they are; each goes to its instance's folder."""
    kept: dict[str, ExportTraceServiceRequest] = {}
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        instance = _texts(group.resource.attributes).get(Resource.INSTANCE, "")
        recorder = recorders.get(instance)
        if recorder is None:
            continue
        if all(scope.scope.name == SCOPE_EDGE for scope in group.scope_spans):
            for scope in group.scope_spans:
                for span in scope.spans:
                    recorder.add_request(to_row(span))
        else:
            kept.setdefault(instance, ExportTraceServiceRequest()).resource_spans.append(group)
    for instance, request in kept.items():
        recorders[instance].add_spans(request)


async def _receiver(targets: Sequence[Target], port: int | None) -> Spans | None:
    if port is None:
        return None
    receiver = Spans(targets, http_port=port, grpc_port=None)
    try:
        await receiver.open()
    except PortInUseError:
        return None  # an agent listens there: its spool has the spans
    return receiver


def _texts(attributes: Sequence[KeyValue]) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in attributes}


def _running_targets(path: Path) -> dict[str, Target]:
    """Targets of the Servescope that runs over this data folder, by each of their URLs; none where none runs."""
    try:
        document = yaml.safe_load(path.read_text())
        found = [_target(settings) for settings in document["agent"]["targets"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}  # recording goes on without: names are then those that were given
    return {url: target for target in found for url in (target.url, target.metrics_url) if url}


def _target(settings: Mapping[str, Any]) -> Target:
    from agent.config import TargetConfig  # noqa: PLC0415 - pydantic is for those who bring settings

    return TargetConfig.model_validate(dict(settings)).target()
