"""Makes a recording: what an agent sees of a model server, kept as files that ``servescope replay`` reads.

A folder for each server: ``pages.jsonl.gz`` (a line a scrape), ``otlp/`` (the engine's spans, prompts taken out),
``steps/`` (what its probe told), ``requests.jsonl.gz`` (the tap's records), ``host.jsonl.gz``, ``gpu.jsonl.gz`` and, at
the end, ``recording.json``. Spans, steps and requests are read over the shoulder of a running agent and its taps, out
of their spool, which is left as it is; where no agent runs, the engines' spans are taken directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
import yaml

from agent.engine_table import HEALTH_PATH, detect, tables
from agent.host.engines import Engines, find_processes
from agent.host.machine import Machine
from agent.host.process import Process
from agent.pages import exposition
from agent.pages.beside import Beside
from agent.pages.fetch import about_url, fetch, learn_about, page_urls, reason_of, same_server
from agent.pages.page import Limits, PageReader
from agent.recording.folder import RecordingError
from agent.recording.writing import Recorded, Writing, gpu_row, hardware, sort_logs, sort_traces, whole
from agent.sources.spans import Spans
from agent.spool.framing import is_checked, split_records
from agent.spool.writer import SIGNALS, SUFFIX
from agent.target import Target
from base.errors import PortInUseError, ServescopeError
from base.formats import spell
from base.vocabulary import SCOPE_GPU, Resource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from agent.spool.writer import SpoolSignal

_TIMEOUT_SECONDS: Final = 3.0
_FIND_SECONDS: Final = 10.0
_TAIL_SECONDS: Final = 0.5
_BESIDE_SECONDS: Final = 5.0

log = structlog.get_logger()


async def record(
    out: Path,
    targets: Sequence[Target | Mapping[str, Any]],
    *,
    seconds: float,
    spool: Path | None = None,
    otlp_http_port: int | None = 14318,
    interval_seconds: float = 1.0,
    say: Callable[[str], None] = lambda _line: None,
    until: asyncio.Event | None = None,
) -> list[Recorded]:
    """Record servers for a while.

    Args:
        out: Folder to make; with several targets, a folder for each in it, named after its instance.
        targets: The servers, as targets or as their settings.
        seconds: How long, at most.
        spool: Spool of a running agent and its taps: their requests and spans are recorded too, and a server that
            they watch is called what they call it.
        otlp_http_port: Where to take spans when no agent listens there; None for not at all.
        interval_seconds: Time between two pages.
        say: Takes lines of progress for a person.
        until: Ends it once it is set.

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
        sort_traces(body, by_instance)

    say(f"recording {', '.join(by_instance)} for {spell(seconds)}")
    async with contextlib.AsyncExitStack() as stack:
        for recorder in recorders:
            stack.callback(recorder.close)
        jobs = [job for recorder in recorders for job in recorder.jobs(interval_seconds)]
        if tail is not None:
            jobs.append(_follow(tail, by_instance))
        if receiver is not None:
            jobs.append(receiver.run(keep))
        if until is not None:
            jobs.append(_ended(until))
        await _run_for(seconds, jobs, out)
        if tail is not None:
            _sort_in(tail, by_instance)
    for recorder in recorders:
        say(f"{recorder.folder}: " + ", ".join(f"{count} {what}" for what, count in recorder.counts.items() if count))
        if not recorder.counts["pages"]:  # an outage is worth a recording; a wrong URL is not
            say(f"{recorder.target.instance} showed no metrics page all that time: check its URL with servescope probe")
    return [Recorded(recorder.folder, recorder.target.instance, whole(recorder.counts)) for recorder in recorders]


class SpoolTail:
    """Reads what producers append from now on, and leaves no mark in the spool."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._offsets = {path: path.stat().st_size for signal in SIGNALS for path in self._segments(signal)}

    def read(self, signal: SpoolSignal) -> bytes:
        """What was appended of a signal since the last call, as one body of an OTLP request."""
        parts = []
        for path in self._segments(signal):
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

    def _segments(self, signal: str) -> list[Path]:
        return sorted(self._spool.glob(f"*/{signal}/*{SUFFIX}"))


class _Recorder(Writing):
    """Observes one server and writes its folder."""

    def __init__(self, folder: Path, target: Target) -> None:
        super().__init__(folder, target.instance, target.deployment)
        self.target = target
        self.engine = target.engine or ""
        self._beside = Beside()
        self._found = asyncio.Event()
        self._urls = [target.metrics_url] if target.metrics_url else page_urls(target.url)

    def jobs(self, interval: float) -> list[Coroutine[Any, Any, None]]:
        """What runs while the recording lasts."""
        return [self._pages(interval), self._ask_beside(), self._host(interval), self._gpu()]

    async def _pages(self, interval: float) -> None:
        async with _session() as session:
            async for _ in _every(interval):
                row: dict[str, Any] = {"t": round(time.time(), 4), "status": 200}
                begun = time.perf_counter()
                problem = ""
                for url in self._urls:
                    try:
                        key = self.target.access.headers()
                        body = exposition.after(await fetch(session, url, Limits().bytes, key), self._beside.lines)
                        row["text"] = body.decode(errors="replace")
                    except (aiohttp.ClientError, TimeoutError, OSError, ServescopeError) as error:
                        problem = reason_of(error)
                    else:
                        if not self._found.is_set():
                            await self._learn(session, row["text"], url, key)
                        break
                row["took_s"] = round(time.perf_counter() - begun, 4)
                if "text" not in row:
                    row |= {"status": 0, "error": problem}
                row |= await self._health(session)
                self.add_page(row)

    async def _ask_beside(self) -> None:
        await self._found.wait()
        async with _session() as session:
            async for _ in _every(_BESIDE_SECONDS):
                await self._beside.ask(session, tables()[self.engine], self.target, self._urls[0])

    async def _learn(self, session: aiohttp.ClientSession, text: str, url: str, key: Mapping[str, str]) -> None:
        try:
            table = detect(PageReader().read(text.encode()))
        except ServescopeError:
            return  # not this page, or not yet: the next turn looks again
        self.engine = table.engine
        url_of_it = about_url(table, self.target.url, url)
        about = await learn_about(session, table, url_of_it, key if same_server(url_of_it, url) else None)
        self.version, self.flags = about.version, about.config
        self._urls = [url]
        self._found.set()

    async def _health(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        if not self.target.url:
            return {}
        begun = time.perf_counter()
        try:
            table = tables().get(self.engine)
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
            self.add_host({"t": round(time.time(), 3), "machine": machine.sample(now), "procs": procs})

    async def _gpu(self) -> None:
        from agent.sources.gpu import Gpus  # noqa: PLC0415 - the driver's binding is loaded by those who record

        await Gpus(engines=Engines([self.target])).run(self._keep_gpus)

    def _keep_gpus(self, signal: str, body: bytes) -> None:
        if signal != "metrics":
            return
        gpus, time_ns = [], 0
        for scope, whose, values, time_ns in hardware(body):  # noqa: B007 - of one moment
            if scope == SCOPE_GPU and not ("process.pid" in whose and whose.get(Resource.INSTANCE) != self.instance):
                gpus.append(gpu_row(whose, values))
        self.add_gpu({"t": time_ns / 1e9, "gpus": gpus})


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


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
        if isinstance(failure, Exception) and not isinstance(failure, _EndedError):
            raise failure


class _EndedError(Exception):
    """Whoever asked for it has seen enough."""


async def _ended(until: asyncio.Event) -> None:
    await until.wait()
    raise _EndedError


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
        _sort_in(tail, recorders)


def _sort_in(tail: SpoolTail, recorders: Mapping[str, _Recorder]) -> None:
    sort_traces(tail.read("traces"), recorders)
    sort_logs(tail.read("logs"), recorders)


async def _receiver(targets: Sequence[Target], port: int | None) -> Spans | None:
    if port is None:
        return None
    receiver = Spans(targets, http_port=port, grpc_port=None)
    try:
        await receiver.open()
    except PortInUseError:
        return None  # an agent listens there: its spool has the spans
    return receiver


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
