"""Ships the spool to the collector: OTLP/HTTP, zstd, signed, each batch until it is acknowledged.

Every lane (one producer's signal) has a task of its own, so that one that backs off holds up no other. The answers:

- 2xx: acknowledged; what a partial success rejects is counted.
- 400, 413, 415, 422: this batch will never be taken: it is halved until the one bad record is set aside and counted.
- 429, 503: waits as long as ``Retry-After`` says.
- anything else, no answer, wrong key: waits with exponential backoff and full jitter; the spool keeps the data.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import aiohttp
import structlog
import zstandard
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from agent.backoff import Backoff
from agent.clock_offset import ClockOffset
from agent.gathering import Gathering
from base.errors import ServescopeError
from base.redact import redacted, shown
from base.signing import HEADER_BATCH, HEADER_RECEIVED, HEADER_REPEAT, HEADER_UNREAD, signed_headers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from agent.spool.reader import Batch, Lane, SpoolReader

    OpenSpan = Callable[[str, Mapping[str, str | int]], AbstractContextManager[object]]

CONTENT_TYPE: Final = "application/x-protobuf"
_NEVER: Final = frozenset({400, 413, 415, 422})
_FORBIDDEN: Final = frozenset({401, 403, 404})
_HTTP_OK: Final = 300
_TRIM_SECONDS: Final = 5.0
_DROPPED: Final = " (so are those dropped too who show no certificate that it trusts: agent.client_certificate_file)"

log = structlog.get_logger()


@dataclass(slots=True)
class ShipStats:
    """What became of the batches; read by the agent's own metrics.

    Attributes:
        batches: Acknowledged batches, by signal.
        sent_bytes: Compressed bytes of those, by signal.
        errors: Attempts that failed, by reason (``unreachable``, ``tls``, ``timeout``, ``http_503`` …).
        partly_rejected: Records that the collector refused out of batches it acknowledged.
        last_success: Unix time of the last acknowledgement, 0 before the first.
        last_error: One line on the last failure; empty once a batch has gone through since.
        clock_offset_seconds: Collector's clock minus ours, None before the first answer.
    """

    batches: Counter[str] = field(default_factory=Counter)
    sent_bytes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    partly_rejected: int = 0
    last_success: float = 0.0
    last_error: str = ""
    clock_offset_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """``again`` in seconds where the batch must be sent again; ``never`` where that is useless."""

    acknowledged: bool = False
    never: bool = False
    reason: str = ""
    retry_after: float = 0.0


class Shipper:
    """Sends what the spool holds, until cancelled.

    Args:
        reader: The spool.
        url: Base URL of the collector; ``/v1/<signal>`` is appended.
        key: Secret that signs the batches; None sends them unsigned.
        flush_seconds: How long records may gather into one batch while somebody reads.
        longest_wait_seconds: Bound of the backoff.
        tls: Context of an ``https`` URL; None takes the system's (or ``SSL_CERT_FILE``'s) authorities.
        span: Opens a span of our own around each attempt.
    """

    def __init__(
        self,
        reader: SpoolReader,
        url: str,
        *,
        key: bytes | None,
        flush_seconds: float = 0.5,
        longest_wait_seconds: float = 30.0,
        tls: ssl.SSLContext | None = None,
        span: OpenSpan | None = None,
    ) -> None:
        self.reader = reader
        self.stats = ShipStats()
        self._url = url.rstrip("/")
        self._key = key
        self._gathering = Gathering(flush_seconds)
        self._longest_wait = longest_wait_seconds
        self._tls = tls
        self._span = span or (lambda _name, _attributes: contextlib.nullcontext())
        self._offset = ClockOffset()

    async def run(self) -> None:
        """Ship until cancelled; lanes of new producers are picked up within a second."""
        tasks: dict[Lane, asyncio.Task[None]] = {}
        trimmed_at = time.monotonic()
        async with self._session() as session:
            try:
                while True:
                    for lane in self.reader.lanes():
                        task = tasks.get(lane)
                        if task is None or task.done():
                            if task is not None and (error := task.exception()) is not None:
                                self.stats.errors["lane"] += 1
                                log.error("lane_failed", lane=str(lane.folder), exc_info=error)
                            tasks[lane] = asyncio.create_task(self._ship_lane(session, lane))
                    if time.monotonic() - trimmed_at >= _TRIM_SECONDS:
                        trimmed_at = time.monotonic()
                        for lane in tasks:
                            lane.trim()
                    await asyncio.sleep(_until_next(1.0))
            finally:
                for task in tasks.values():
                    task.cancel()
                await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def drain(self, seconds: float) -> int:
        """Send what is left, for at most so long; call it when ``run`` has ended.

        Returns:
            Bytes that stay in the spool for the next start.
        """
        async with self._session() as session:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    drains = (self._drain_lane(session, lane) for lane in self.reader.lanes())
                    for failure in await asyncio.gather(*drains, return_exceptions=True):
                        if failure is not None:
                            log.warning("drain_failed", error=str(failure))
        return sum(lane.pending_bytes() for lane in self.reader.lanes())

    def _session(self) -> aiohttp.ClientSession:
        return open_session(self._tls)

    async def _ship_lane(self, session: aiohttp.ClientSession, lane: Lane) -> None:
        backoff = Backoff(longest=self._longest_wait)
        while True:
            try:
                batch = lane.next_batch()
                if batch is None:
                    await asyncio.sleep(_until_next(self._gathering.seconds))
                    continue
                wait = await self._attempt(session, lane, batch, backoff)
            except OSError as error:
                wait = self._failed(backoff, _Answer(reason="spool"), f"{lane.folder}: {error}")
            if wait or lane.is_caught_up():
                await asyncio.sleep(wait or _until_next(self._gathering.seconds))

    async def _drain_lane(self, session: aiohttp.ClientSession, lane: Lane) -> None:
        backoff = Backoff(first=0.1, longest=1.0)
        while True:
            batch = lane.next_batch()
            if batch is None:
                return
            wait = await self._attempt(session, lane, batch, backoff)
            await asyncio.sleep(wait)

    async def _attempt(self, session: aiohttp.ClientSession, lane: Lane, batch: Batch, backoff: Backoff) -> float:
        """Send once and book the answer; returns the seconds to wait."""
        facts: dict[str, str | int] = {
            "servescope.batch": batch.batch_id,
            "servescope.signal": batch.signal,
            "bytes": len(batch.body),
        }
        with self._span("ship", facts):
            answer = await self._send(session, batch)
        if answer.acknowledged:
            lane.acknowledge(batch)
            backoff.succeeded()
            return 0.0
        if answer.never:
            self.stats.errors[answer.reason.partition(":")[0]] += 1
            if lane.refuse(batch):
                self.stats.last_error = f"a record of {lane.producer}/{lane.signal} was set aside: {answer.reason}"
                log.warning("record_set_aside", lane=f"{lane.producer}/{lane.signal}", reason=answer.reason)
            return 0.0
        return self._failed(backoff, answer, f"{shown(self._url)}: {answer.reason}")

    def _failed(self, backoff: Backoff, answer: _Answer, text: str) -> float:
        if text != self.stats.last_error:
            log.warning("ship_failed", error=text)
        self.stats.errors[answer.reason.partition(":")[0]] += 1
        self.stats.last_error = text
        return backoff.failed(answer.retry_after)

    async def _send(self, session: aiohttp.ClientSession, batch: Batch) -> _Answer:
        reply = await post(session, self._url, self._key, batch.signal, batch.body, batch.batch_id)
        if reply.received_ns:
            offset = self._offset.add(reply.sent_ns, reply.answered_ns, reply.received_ns)
            self.stats.clock_offset_seconds = offset
        if reply.acknowledged:
            self._gathering.told(unread=reply.unread)
            self._count(batch, reply)
            return _Answer(acknowledged=True)
        return _Answer(never=reply.status in _NEVER, reason=reply.reason, retry_after=reply.retry_after)

    def _count(self, batch: Batch, reply: Reply) -> None:
        if reply.body:
            # The three responses have the same shape: partial_success with a count and a message.
            with contextlib.suppress(DecodeError):  # somebody else's collector may answer JSON: it is acknowledged
                partial = ExportTraceServiceResponse.FromString(reply.body).partial_success
                if partial.rejected_spans:
                    self.stats.partly_rejected += partial.rejected_spans
                    log.warning("records_rejected", count=partial.rejected_spans, reason=partial.error_message[:200])
        self.stats.batches[batch.signal] += 1
        self.stats.sent_bytes[batch.signal] += reply.sent_bytes
        self.stats.last_success = time.time()
        self.stats.last_error = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a collector answered to one attempt.

    Attributes:
        status: HTTP status; 0 when no answer came.
        reason: One line beginning with ``http_<status>``, ``timeout``, ``tls`` or
            ``unreachable``.
        retry_after: Seconds that it asks to wait.
        body: The answer's first 64 KB.
        sent_ns: Our clock before sending (Unix ns), ``answered_ns`` after the answer's head.
        received_ns: The collector's clock at receipt; 0 when it does not say.
        sent_bytes: Size of the compressed body.
        repeat: Whether the collector had taken it before.
        unread: Whether it says that nobody reads.
    """

    status: int = 0
    reason: str = ""
    retry_after: float = 0.0
    body: bytes = b""
    sent_ns: int = 0
    answered_ns: int = 0
    received_ns: int = 0
    sent_bytes: int = 0
    repeat: bool = False
    unread: bool = False

    @property
    def acknowledged(self) -> bool:
        """Whether the collector has it."""
        return 0 < self.status < _HTTP_OK


def open_session(tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """The session in which batches are posted."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=60, connect=5),
        connector=aiohttp.TCPConnector(limit=8, ssl=tls or True),
        headers={"User-Agent": "servescope-agent", "Content-Type": CONTENT_TYPE, "Content-Encoding": "zstd"},
    )


async def post(
    session: aiohttp.ClientSession, url: str, key: bytes | None, signal: str, body: bytes, batch_id: str
) -> Reply:
    """Send one OTLP request once: compressed, signed where there is a key; no answer is a reply too."""
    packed = zstandard.compress(body, 3)
    sent_ns = time.time_ns()
    headers = {HEADER_BATCH: batch_id}
    if key is not None:
        path = f"{urlsplit(url).path}/v1/{signal}"
        headers |= signed_headers(key, "POST", path, packed, now_ms=sent_ns // 1_000_000, batch=batch_id)
    try:
        async with session.post(f"{url}/v1/{signal}", data=packed, headers=headers, allow_redirects=False) as response:
            answered_ns = time.time_ns()
            text = await response.content.read(65536)
    except TimeoutError:
        return Reply(reason="timeout")
    except aiohttp.ClientConnectorCertificateError as error:
        return Reply(reason=_distrusted(error.certificate_error))
    except (aiohttp.ClientError, OSError) as error:
        # A server of Python's drops whom it does not trust without a word of TLS.
        hint = _DROPPED if url.startswith("https:") and not isinstance(error, aiohttp.ClientConnectorError) else ""
        return Reply(reason=f"unreachable: {redacted(str(error))}{hint}")
    received = response.headers.get(HEADER_RECEIVED, "")
    return Reply(
        status=response.status,
        reason=f"http_{response.status}: {redacted(_one_line(text))}",
        retry_after=retry_after_seconds(response.headers.get("Retry-After", "")),
        body=text,
        sent_ns=sent_ns,
        answered_ns=answered_ns,
        received_ns=int(received) if received.isdecimal() else 0,
        sent_bytes=len(packed),
        repeat=HEADER_REPEAT in response.headers,
        unread=HEADER_UNREAD in response.headers,
    )


class Sender:
    """Delivers batches that lie in no spool (a replay's), one after another; a context manager.

    Args:
        url: Base URL of the collector.
        key: Secret that signs the batches; None sends them unsigned.
        patience_seconds: How long one batch is tried.
    """

    def __init__(self, url: str, key: bytes | None, *, patience_seconds: float = 60.0) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._patience = patience_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = open_session()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def deliver(self, signal: str, body: bytes, batch_id: str) -> bool:
        """Send until it is acknowledged; whether it was new to the collector.

        Raises:
            ServescopeError: The collector refuses it, or can't be reached for too long.
        """
        if self._session is None:
            raise RuntimeError("use the sender as a context manager")
        backoff = Backoff(longest=5.0)
        give_up = time.monotonic() + self._patience
        while True:
            reply = await post(self._session, self._url, self._key, signal, body, batch_id)
            if reply.acknowledged:
                return not reply.repeat
            if reply.status in _NEVER or reply.status in _FORBIDDEN or time.monotonic() > give_up:
                raise ServescopeError(
                    f"the collector at {self._url} does not take the {signal}: {reply.reason}",
                    "Check that it runs there, and that --data is its data folder",
                )
            await asyncio.sleep(backoff.failed(reply.retry_after))


def _until_next(seconds: float) -> float:
    """Seconds until all who wait so are woken together: waking up costs more than looking whether something came."""
    return seconds - asyncio.get_running_loop().time() % seconds


def retry_after_seconds(value: str, *, now: float | None = None) -> float:
    """Seconds that a ``Retry-After`` header asks for (number or HTTP date), between 0 and 300; 0 when unreadable."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
        except ValueError:
            return 0.0
    return min(max(seconds, 0.0), 300.0)


def _distrusted(error: Exception) -> str:
    why = str(getattr(error, "verify_message", "") or error).rstrip(".")
    return f"tls: the collector's certificate is not trusted: {redacted(why)} (agent.collector_ca_file says who is)"


def _one_line(text: bytes) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:200].decode(errors="replace")).strip()
