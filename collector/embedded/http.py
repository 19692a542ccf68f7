"""The ClickHouse HTTP interface over the embedded engine."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import sys
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from collector.embedded import answer
from collector.embedded.body import Body
from collector.embedded.errors import ACCESS_DENIED, NO_FREE_SPACE, QueryError, refused
from collector.embedded.pipe import Pipe
from collector.embedded.request import Ask, Plan, authenticate, parse, plan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from collector.embedded.answer import Packer
    from collector.embedded.engine import Outcome
    from collector.embedded.run import Job, Runner

_log = structlog.get_logger()
_FIRST_BYTES = 1 << 20
_WAIT_BYTES = 64 << 20
_TEXT_PER_BYTE = 4
_SLOW_CLIENT_SECONDS = 120
_URL_LIMIT = 4 << 20


class Gateway:
    """Request handler of one store.

    Args:
        runner: Runs statements on the engine.
        spool: Folder for bodies and pipes.
        owner_hash: Hex SHA-256 of the owner's password.
        host: Address the store listens on; on loopback, requests by a foreign host name are refused.
    """

    def __init__(self, runner: Runner, spool: Path, owner_hash: str, host: str) -> None:
        self._runner = runner
        self._spool = spool
        self._owner_hash = owner_hash
        self._loopback = _is_loopback(host)
        self._reader_limit = _TEXT_PER_BYTE * runner.engine.limits.reader_result
        self._body_limit = runner.engine.limits.body

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(handler_args={"max_line_size": _URL_LIMIT, "max_field_size": 1 << 16})
        app.router.add_get("/ping", self._ping)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/replicas_status", self._ping)
        app.router.add_route("*", "/", self._query)
        app.router.add_route("*", "/query", self._query)
        return app

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _health(self, _request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(10):
                await self._runner.check()
        except (QueryError, TimeoutError) as error:
            return web.json_response({"status": "failing", "error": str(error)}, status=503)
        return web.json_response({"status": "ok", **self._runner.figures()})

    async def _query(self, request: web.Request) -> web.StreamResponse:
        if request.method not in {"GET", "POST", "HEAD"}:
            return web.Response(status=405, text="Use GET for reading or POST\n")
        tag = answer.exception_tag()
        body = Body(self._spool, self._body_limit)
        try:
            self._check_host(request)
            role = authenticate(request.headers, request.query, self._owner_hash)
            ask = parse(request.method, request.query, request.headers, role)
            if request.method == "GET" and not ask.query and not request.can_read_body:
                return web.Response(text="Ok.\n")
            await body.receive(request.content.iter_any())
            found = await self._runner.call(plan, ask, body)
            return await self._answer(request, ask, found, tag)
        except QueryError as error:
            return _failure(error, tag)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            return _failure(refused(NO_FREE_SPACE, "NOT_ENOUGH_SPACE", f"Cannot spool: {error}"), tag)
        finally:
            body.close()

    async def _answer(self, request: web.Request, ask: Ask, found: Plan, tag: str) -> web.StreamResponse:
        if ask.block_answer:
            raise refused(
                48, "NOT_IMPLEMENTED", "compress=1 is not spoken here", "Use enable_http_compression=1 instead"
            )
        async with self._runner.job(ask, found) as job:
            if job.form is None:
                try:
                    outcome = await job.run()
                finally:
                    await job.settle()
                form = ask.default_format if outcome.data else ""
                encoding, pack = answer.packer(ask.accept if outcome.data else "")
                head = answer.headers(ask, tag, form)
                return _whole(head, outcome.data, outcome, encoding, pack)
            pipe = Pipe(self._spool)
            try:
                return await self._stream(request, ask, job, pipe, tag)
            finally:
                pipe.close()

    async def _stream(self, request: web.Request, ask: Ask, job: Job, pipe: Pipe, tag: str) -> web.StreamResponse:
        running = job.start(pipe)
        first = bytearray()
        wanted = _WAIT_BYTES if ask.settings.get("wait_end_of_query") else _FIRST_BYTES
        while len(first) < wanted and (chunk := await pipe.read()):
            first += chunk
        encoding, pack = answer.packer(ask.accept)
        head = answer.headers(ask, tag, job.form or "")
        if len(first) < wanted:
            try:
                outcome = await running
            finally:
                await job.settle()
            return _whole(head, bytes(first), outcome, encoding, pack)
        if encoding:
            head["Content-Encoding"] = encoding
        head["X-ClickHouse-Summary"] = answer.summary(None)
        response = web.StreamResponse(headers=head)
        await response.prepare(request)
        chunk, sent, last = bytes(first), 0, b""
        # The engine counts a constant column once, however often it is written: what leaves is counted here as well.
        limit = self._reader_limit if ask.role == "reader" else sys.maxsize
        while chunk and sent <= limit:
            sent += len(chunk)
            async with asyncio.timeout(_SLOW_CLIENT_SECONDS):
                await response.write(pack.compress(chunk) if pack else chunk)
            chunk = await pipe.read()
        try:
            if chunk:
                pipe.close()
                raise refused(396, "TOO_MANY_ROWS_OR_BYTES", f"The answer is larger than {limit} bytes")
            await running
        except QueryError as error:
            _log.warning("query_failed_in_stream", code=error.code, query_id=ask.query_id)
            last = answer.error_in_stream(error, tag)
        await job.settle()
        if pack:
            last = (pack.compress(last) if last else b"") + pack.flush()
        if last:
            await response.write(last)
        await response.write_eof()
        return response

    def _check_host(self, request: web.Request) -> None:
        # A web page that rebinds its name to 127.0.0.1 must not read the store through a visitor's browser.
        if not self._loopback:
            return
        name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if name.lower() == "localhost" or _is_address(name.strip("[]")) or not name:
            return
        raise refused(ACCESS_DENIED, "ACCESS_DENIED", f"Host {name!r} is not this store", "Use http://127.0.0.1")


def _whole(
    head: Mapping[str, str], data: bytes, outcome: Outcome, encoding: str, pack: Packer | None
) -> web.StreamResponse:
    head = dict(head)
    if pack is not None:
        head["Content-Encoding"] = encoding
        data = pack.compress(data) + pack.flush()
    head["X-ClickHouse-Summary"] = answer.summary(outcome)
    return web.Response(body=data, headers=head)


def _failure(error: QueryError, tag: str) -> web.Response:
    found = {
        "X-ClickHouse-Exception-Code": str(error.code),
        "X-ClickHouse-Exception-Tag": tag,
        "X-ClickHouse-Server-Display-Name": "servescope",
    }
    if error.status == 401:  # noqa: PLR2004 - HTTP's own number
        found["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    if error.status == 503:  # noqa: PLR2004 - HTTP's own number
        found["Retry-After"] = "1"
    return web.Response(status=error.status, text=error.text, headers=found)


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _is_address(text: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    return False
