"""Requests that are open now, in a file that outlives a kill of its process: what is left in it becomes rows.

Each tap process has a folder of its own below ``spool/<producer>/open/``:

- ``table``: a slot for each open request, in memory shared with the file. Writing one is a copy within memory, and what
  was copied outlives a ``kill -9`` as what was written would. The process holds a lock (``flock``) on it for as long as
  it lives.
- hard links to its newest segments of records, which a reader may have used up and removed meanwhile.

A table that nobody locks belongs to a process that is gone. Its slots, less those whose record the linked segments
hold, are the requests that were cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import shutil
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import structlog
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agent.otlp.request import RequestRecord
from agent.otlp.request_wire import to_otlp_many
from agent.spool.framing import is_checked, split_records
from agent.tap.tenants import Who
from base import locks
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from agent.tap.counters import Counters
    from agent.tap.tenants import BoundedNames, Tenants

FOLDER: Final = "open"
TABLE: Final = "table"
KILLED: Final = "tap_killed"
"""``error.type`` of a request whose tap was killed while it was open."""

_MAGIC: Final = b"svscopn1"
_HEADER: Final = struct.Struct("<8sQ")
_SLOT_BYTES: Final = 1_024
_LENGTH: Final = struct.Struct("<H")
_FIXED: Final = struct.Struct("<8s16s8sBQ")
_MODEL_AT: Final = 768
_BODY_BYTES: Final = _MODEL_AT - _LENGTH.size
_MODEL_BYTES: Final = _SLOT_BYTES - _MODEL_AT - 1
_MOST_SLOTS: Final = 16_384
_NS: Final = 1_000_000_000
_STRAY_SECONDS: Final = 60.0
_LINKS: Final = 2

log = structlog.get_logger()


class OpenRequest(NamedTuple):
    """What is known of a request when it begins, see ``RequestRecord`` and ``tenants.Who``. Long texts are cut."""

    span_id: bytes
    trace_id: bytes
    parent_span_id: bytes
    flags: int
    start_ns: int
    method: str
    route: str
    operation: str
    declared: str
    key: str
    request_id: str
    model: str = ""


class OpenRequests:
    """The open requests of this process.

    Args:
        folder: ``DIR/spool/<producer>``; ``None`` keeps them in memory alone.
        slots: Requests that can be open at once; more are known here and not in the file.
    """

    def __init__(self, folder: Path | None = None, slots: int = 0) -> None:
        self._known: dict[bytes, tuple[int, int]] = {}
        self._free: list[int] = []
        self._map: mmap.mmap | None = None
        self._lock = -1
        self._own: Path | None = None
        self._links: list[Path] = []
        if folder is not None:
            try:
                self._make(folder / FOLDER, min(slots, _MOST_SLOTS))
            except (OSError, ValueError) as error:
                log.warning("tap_open_requests_not_kept", error=str(error), effect="a kill loses the open ones")

    def _make(self, folder: Path, slots: int) -> None:
        own = folder / f"{time.time_ns():020d}-{os.getpid()}"
        own.mkdir(parents=True, mode=0o700)
        hidden = own / f".{TABLE}"
        self._lock = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            size = _HEADER.size + slots * _SLOT_BYTES
            os.posix_fallocate(self._lock, 0, size)  # a hole that a full disk can't fill would kill us at the write
            locks.hold(self._lock)
            self._map = mmap.mmap(self._lock, size)
            _HEADER.pack_into(self._map, 0, _MAGIC, time.time_ns())
            hidden.rename(own / TABLE)
        except (OSError, ValueError):
            self._map = None
            os.close(self._lock)
            shutil.rmtree(own, ignore_errors=True)
            raise
        self._own = own
        self._free = list(range(size - _SLOT_BYTES, 0, -_SLOT_BYTES))

    @property
    def folder(self) -> Path | None:
        """What this process has below ``open``; None where nothing is kept on disk."""
        return self._own

    def begin(self, request: OpenRequest) -> None:
        """A request has come."""
        span_id, trace_id, parent, flags, start_ns, *texts, model = request
        known, memory = self._known, self._map
        at = self._free.pop() if self._free and span_id not in known else 0
        known[span_id] = (at, start_ns)
        if at and memory is not None:
            body = _FIXED.pack(span_id, trace_id, parent, flags, start_ns) + "\0".join(texts).encode(errors="replace")
            length = min(len(body), _BODY_BYTES)
            memory[at + _MODEL_AT] = 0
            if model:
                self.name_model(span_id, model)
            begin = at + _LENGTH.size
            memory[begin : begin + length] = body if length == len(body) else body[:length]
            _LENGTH.pack_into(memory, at, length)  # last: a slot without a length is free

    def name_model(self, span_id: bytes, model: str) -> None:
        """The request has said which model it wants."""
        at, _ = self._known.get(span_id, (0, 0))
        if at and model and self._map is not None:
            name = model.encode(errors="replace")[:_MODEL_BYTES]
            begin = at + _MODEL_AT + 1
            self._map[begin : begin + len(name)] = name
            self._map[begin - 1] = len(name)

    def done(self, span_id: bytes) -> None:
        """Its record is written, or it gets none. May be called from any thread, and more than once."""
        at, _ = self._known.pop(span_id, (0, 0))
        if at and self._map is not None:
            _LENGTH.pack_into(self._map, at, 0)
            self._free.append(at)

    def beat(self) -> None:
        """Note that this process lives: a killed one's requests ended then."""
        if self._map is not None:
            _HEADER.pack_into(self._map, 0, _MAGIC, time.time_ns())

    def __len__(self) -> int:
        return len(self._known)

    def oldest_seconds(self, now_ns: int) -> float:
        """Age of the oldest open request at ``now_ns`` (Unix); 0 when there is none."""
        with contextlib.suppress(StopIteration, RuntimeError):  # RuntimeError: another thread was at it
            return max(0.0, (now_ns - next(iter(self._known.values()))[1]) / _NS)
        return 0.0

    def link(self, segment: Path) -> None:
        """Keep a new segment of records at hand; the one before stays too: it may hold what is being written now.

        Raises:
            OSError: It can't be linked.
        """
        if self._own is None:
            return
        link = self._own / segment.name
        os.link(segment, link)
        self._links.append(link)
        while len(self._links) > _LINKS:
            self._links.pop(0).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave nothing behind, at the end of a process whose requests have all been recorded."""
        if self._own is not None and self._map is not None:
            self._map = None
            shutil.rmtree(self._own, ignore_errors=True)
            os.close(self._lock)


@dataclass(frozen=True, slots=True)
class Left:
    """What a process that is gone has left: its folder, held by a lock, and the requests that were open.

    Attributes:
        own: The folder.
        requests: Those without a record.
        alive_ns: When it was last known to live, Unix nanoseconds.
    """

    own: Path
    requests: list[OpenRequest]
    alive_ns: int
    _descriptor: int

    def remove(self) -> None:
        """Forget them."""
        (self.own / TABLE).unlink(missing_ok=True)  # first: without its segments a table would be taken for all cut off
        shutil.rmtree(self.own, ignore_errors=True)

    def release(self) -> None:
        """Let go of the lock."""
        os.close(self._descriptor)


class Names(Protocol):
    """What is needed to name who had asked (`agent.tap.core.Core` is a tap's)."""

    @property
    def counters(self) -> Counters:
        """Own health."""

    @property
    def tenants(self) -> Tenants:
        """Finds who asked."""

    @property
    def models(self) -> BoundedNames:
        """Bounds the names of models."""


async def settle(folder: Path, core: Names, resource: Mapping[str, str], append: Callable[[bytes], bool]) -> int:
    """Turn the open requests of processes that are gone into records.

    Args:
        folder: ``DIR/spool/<producer>``.
        core: Names their tenants and models.
        resource: Attributes of the target.
        append: Puts one serialized OTLP request into the spool; ``False`` leaves them for another time. Its segment
            must be linked in a folder here, so that a kill right after it repeats nothing.

    Returns:
        How many there were.
    """
    total = 0
    found = await asyncio.to_thread(find_left, folder)
    try:
        for left in found:
            records = [_record(request, left.alive_ns, core) for request in left.requests]
            if not records or await asyncio.to_thread(append, to_otlp_many(records, resource)):
                total += len(records)
                await asyncio.to_thread(left.remove)
    finally:
        for left in found:
            left.release()
    if total:
        core.counters.cut_off.inc(total)
        log.warning("tap_recorded_requests_cut_off", requests=total, cause="a tap process was killed")
    return total


def find_left(folder: Path) -> list[Left]:
    """The folders below ``DIR/spool/<producer>/open`` whose process is gone, each locked until it is released."""
    parent = folder / FOLDER
    found: list[Left] = []
    for own in sorted(parent.iterdir()) if parent.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            left = _lock_left(own)
            if left is not None:
                found.append(left)
    return found


def living(spool: Path, producer: str = "*") -> Iterator[Path]:
    """The folders below ``DIR/spool/<producer>/open`` whose process lives."""
    for table in sorted(spool.glob(f"{producer}/{FOLDER}/*/{TABLE}")):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            if not locks.is_free(table):
                yield table.parent


def open_now(folder: Path) -> list[OpenRequest]:
    """Requests that are open in a producer's processes that live; ``folder`` is ``DIR/spool/<producer>``."""
    found: list[OpenRequest] = []
    for own in living(folder.parent, folder.name):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            found += _read_table((own / TABLE).read_bytes())[1]
    return found


def _lock_left(own: Path) -> Left | None:
    try:
        descriptor = os.open(own / TABLE, os.O_RDONLY)
    except FileNotFoundError:
        if time.time() - own.stat().st_mtime > _STRAY_SECONDS:
            shutil.rmtree(own, ignore_errors=True)
        return None
    # otherwise its process lives, or it is dealt with
    if locks.try_lock(descriptor) and os.fstat(descriptor).st_nlink:
        data = (own / TABLE).read_bytes()
        alive_ns, requests = _read_table(data)
        written = _recorded(own.parent) if requests else set()
        return Left(own, [one for one in requests if one.span_id not in written], alive_ns, descriptor)
    os.close(descriptor)
    return None


def _read_table(data: bytes) -> tuple[int, list[OpenRequest]]:
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        return 0, []
    requests = []
    for at in range(_HEADER.size, len(data) - _SLOT_BYTES + 1, _SLOT_BYTES):
        (length,) = _LENGTH.unpack_from(data, at)
        if not _FIXED.size <= length <= _BODY_BYTES:
            continue
        span_id, trace_id, parent, flags, start_ns = _FIXED.unpack_from(data, at + _LENGTH.size)
        text = data[at + _LENGTH.size + _FIXED.size : at + _LENGTH.size + length].decode(errors="replace")
        method, route, operation, declared, key, request_id = (text.split("\0") + [""] * 6)[:6]
        named = at + _MODEL_AT + 1
        model = data[named : named + data[named - 1]].decode(errors="replace")
        requests.append(
            OpenRequest(
                span_id, trace_id, parent if any(parent) else b"", flags, start_ns,
                method, route, operation, declared, key, request_id, model,
            )
        )  # fmt: skip
    return int(_HEADER.unpack_from(data)[1]), requests


def _record(request: OpenRequest, alive_ns: int, core: Names) -> RequestRecord:
    end_ns = max(request.start_ns, alive_ns)
    return RequestRecord(
        trace_id=request.trace_id,
        span_id=request.span_id,
        parent_span_id=request.parent_span_id,
        flags=request.flags,
        start_ns=request.start_ns,
        end_ns=end_ns,
        method=request.method,
        route=request.route,
        outcome=Outcome.SERVER_ERROR,
        error_type=KILLED,
        operation=request.operation,
        tenant=core.tenants.name(Who(request.declared, request.key), refused=False),
        request_id=request.request_id,
        request_model=core.models(request.model),
        e2e_seconds=(end_ns - request.start_ns) / _NS,
    )


def _recorded(parent: Path) -> set[bytes]:
    """Span ids in all segments that are linked here, living processes' included: one of them may have settled this."""
    found: set[bytes] = set()
    for link in parent.glob("*/*.seg"):
        with contextlib.suppress(FileNotFoundError, DecodeError):
            body = split_records(link.read_bytes(), 0, None, checked=is_checked(link.name)).body
            request = ExportTraceServiceRequest.FromString(body)
            found.update(s.span_id for r in request.resource_spans for g in r.scope_spans for s in g.spans)
    return found
