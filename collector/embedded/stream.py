"""An answer on its way to the client: whole, streamed, or broken so that nobody can take it for a whole one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import tempfile
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from aiohttp.http import HttpVersion11

from collector.embedded import answer
from collector.embedded.errors import SOCKET_TIMEOUT, QueryError, refused
from collector.embedded.pipe import Pipe
from collector.embedded.places import overdue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path
    from typing import IO

    from collector.embedded.answer import Packer
    from collector.embedded.engine import Outcome
    from collector.embedded.limits import Limits
    from collector.embedded.run import Job

_log = structlog.get_logger()
_FIRST_BYTES = 1 << 20
# The engine ends an answer in good form even where its query fails: Arrow's end mark, Parquet's footer, JSON's last
# bracket. So much of the end is held back until it is known how the query ended.
_HELD_BYTES = 1 << 16
_TEXT_PER_BYTE = 4
_SLOW_CLIENT_SECONDS = 120
_GOODBYE_SECONDS = 5
_TRUE = frozenset({"1", "true", "yes", "on"})
_NO_LINGER = struct.pack("ii", 1, 0)


class Answering:
    """Runs jobs and sends what they give.

    Args:
        spool: Folder for pipes and for answers that are kept until they are whole.
        limits: Bounds of the engine's answers.
    """

    def __init__(self, spool: Path, limits: Limits) -> None:
        self._spool = spool
        self._reader_limit = _TEXT_PER_BYTE * limits.reader_result
        self._kept_limit = limits.body

    async def answer(self, request: web.BaseRequest, job: Job, tag: str) -> web.StreamResponse:
        """Run the job and answer the request.

        Raises:
            QueryError: It failed before anything was sent.
        """
        if job.form is None:
            outcome = await job.run()
            form = job.ask.default_format if outcome.data else ""
            encoding, pack = answer.packer(job.ask.accept if outcome.data else "")
            return _whole(answer.headers(job.ask, tag, form), outcome.data, outcome, encoding, pack)
        pipe = Pipe(self._spool)
        try:
            job.start(pipe)
            waits = any(
                request.query.get(name, "") in _TRUE for name in ("wait_end_of_query", "http_wait_end_of_query")
            )
            if request.method == "HEAD":
                return await self._head(job, pipe, tag)
            if waits:
                return await self._kept(request, job, pipe, tag)
            return await self._stream(request, job, pipe, tag)
        finally:
            pipe.close()

    async def _first(self, job: Job, pipe: Pipe) -> bytes:
        first = bytearray()
        while len(first) < _FIRST_BYTES and (chunk := await pipe.read()):
            first += chunk
        if job.stay.was_cut:
            raise overdue()
        return bytes(first)

    async def _head(self, job: Job, pipe: Pipe, tag: str) -> web.StreamResponse:
        """Tell how the answer would begin, and send none of it: its bytes would be taken for the next answer's."""
        size = 0
        while chunk := await pipe.read():
            size += len(chunk)
            if size > self._limit(job, sys.maxsize):
                pipe.close()
                raise _too_large(self._limit(job, sys.maxsize))
        outcome = await job.outcome()
        encoding, _ = answer.packer(job.ask.accept)
        found = answer.headers(job.ask, tag, job.form or "") | {"X-ClickHouse-Summary": answer.summary(outcome)}
        found |= {"Content-Encoding": encoding} if encoding else {"Content-Length": str(size)}
        return web.Response(headers=found)

    async def _kept(self, request: web.BaseRequest, job: Job, pipe: Pipe, tag: str) -> web.StreamResponse:
        """Send nothing before the query has ended well: its status is then the answer's."""
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryFile(dir=self._spool) as file:
            size = 0
            while chunk := await pipe.read():
                size += len(chunk)
                if size > self._limit(job, self._kept_limit):
                    raise _too_large(self._limit(job, self._kept_limit), "Leave wait_end_of_query out")
                await loop.run_in_executor(None, file.write, chunk)
            outcome = await job.outcome()
            file.seek(0)
            encoding, pack = answer.packer(job.ask.accept)
            head = answer.headers(job.ask, tag, job.form or "")
            if size <= _FIRST_BYTES:
                return _whole(head, file.read(), outcome, encoding, pack)
            return await _send(request, _started(head, encoding, outcome), _pieces(file), pack)

    async def _stream(self, request: web.BaseRequest, job: Job, pipe: Pipe, tag: str) -> web.StreamResponse:
        first = await self._first(job, pipe)
        encoding, pack = answer.packer(job.ask.accept)
        head = answer.headers(job.ask, tag, job.form or "")
        if len(first) < _FIRST_BYTES:
            return _whole(head, first, await job.outcome(), encoding, pack)
        response = _started(head, encoding, None)
        await response.prepare(request)
        try:
            held = await self._rows(response, job, pipe, first, pack)
            await job.outcome()
            await response.write(pack.compress(held) + pack.flush() if pack else held)
            await response.write_eof()
        except QueryError as error:
            _log.warning("query_failed_in_stream", code=error.code, query_id=job.ask.query_id)
            text = answer.error_in_stream(error, tag)
            await _break(request, response, pack.compress(text) + pack.cut() if pack else text)
        except BaseException:
            await _break(request, response, b"")
            raise
        return response

    async def _rows(
        self, response: web.StreamResponse, job: Job, pipe: Pipe, first: bytes, pack: Packer | None
    ) -> bytes:
        """Send all but the end of the answer, and return that."""
        chunk, sent, held = first, 0, b""
        writing: list[asyncio.Timeout] = []
        job.stay.when_cut(lambda: _end_now(writing))
        # The engine counts a constant column once, however often it is written: what leaves is counted here as well.
        limit = self._limit(job, sys.maxsize)
        while chunk:
            sent += len(chunk)
            if sent > limit:
                pipe.close()
                raise _too_large(limit)
            held += chunk
            ready, held = held[:-_HELD_BYTES], held[-_HELD_BYTES:]
            try:
                async with asyncio.timeout(_SLOW_CLIENT_SECONDS) as slow:
                    writing[:] = [slow]
                    await response.write(pack.compress(ready) if pack else ready)
            except TimeoutError:
                raise overdue() if job.stay.was_cut else _unread() from None
            chunk = await pipe.read()
        if job.stay.was_cut:
            raise overdue()
        return held

    def _limit(self, job: Job, owner: int) -> int:
        return self._reader_limit if job.ask.role == "reader" else owner


def _end_now(writing: list[asyncio.Timeout]) -> None:
    for timeout in writing:
        # One that has ended can't be moved.
        with contextlib.suppress(RuntimeError):
            timeout.reschedule(asyncio.get_running_loop().time())


def _unread() -> QueryError:
    return refused(
        SOCKET_TIMEOUT, "SOCKET_TIMEOUT", f"The answer was not read for {_SLOW_CLIENT_SECONDS} s", "Read it faster"
    )


def _too_large(limit: int, fix: str = "Ask for less at a time") -> QueryError:
    return refused(396, "TOO_MANY_ROWS_OR_BYTES", f"The answer is larger than {limit} bytes", fix)


def _started(head: Mapping[str, str], encoding: str, outcome: Outcome | None) -> web.StreamResponse:
    found = {**head, "X-ClickHouse-Summary": answer.summary(outcome)}
    if encoding:
        found["Content-Encoding"] = encoding
    return web.StreamResponse(headers=found)


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.get_running_loop().run_in_executor(None, file.read, _FIRST_BYTES):
        yield piece


async def _send(
    request: web.BaseRequest, response: web.StreamResponse, pieces: AsyncIterator[bytes], pack: Packer | None
) -> web.StreamResponse:
    await response.prepare(request)
    try:
        async for piece in pieces:
            async with asyncio.timeout(_SLOW_CLIENT_SECONDS):
                await response.write(pack.compress(piece) if pack else piece)
        if pack and (rest := pack.flush()):
            await response.write(rest)
        await response.write_eof()
    except BaseException:
        await _break(request, response, b"")
        raise
    return response


def _whole(
    head: Mapping[str, str], data: bytes, outcome: Outcome, encoding: str, pack: Packer | None
) -> web.StreamResponse:
    head = dict(head)
    if pack is not None:
        head["Content-Encoding"] = encoding
        data = pack.compress(data) + pack.flush()
    head["X-ClickHouse-Summary"] = answer.summary(outcome)
    return web.Response(body=data, headers=head)


async def _break(request: web.BaseRequest, response: web.StreamResponse, last: bytes) -> None:
    """End the connection without the answer's end.

    No final chunk; before HTTP/1.1, where closing is the end, a reset.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(_GOODBYE_SECONDS):
            if last:
                await response.write(last)
    if request.version < HttpVersion11 and (wire := transport.get_extra_info("socket")) is not None:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
        return
    transport.close()
    # A client that doesn't read keeps what is unsent no longer than this.
    asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, transport.abort)
