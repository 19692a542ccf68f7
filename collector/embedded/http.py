"""The ClickHouse HTTP interface over the embedded engine: what is judged, in which order, before anything runs."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from aiohttp.http import HttpVersion11

from collector.embedded import answer
from collector.embedded.body import Body, SpoolRoom, Terms
from collector.embedded.demand import Demand
from collector.embedded.errors import NO_FREE_SPACE, SERVER_OVERLOADED, QueryError, refused
from collector.embedded.fed import EVERYTHING, signals_of
from collector.embedded.form import is_form, with_form
from collector.embedded.front import check_head
from collector.embedded.origin import Origins
from collector.embedded.places import Client, client_name, network_name
from collector.embedded.refusal import insert_refused
from collector.embedded.request import Ask, Plan, authenticate, parse, plan
from collector.embedded.statement import first_word
from collector.embedded.stream import Answering
from collector.store import alive
from collector.store.address import READER_HEADER, UNHURRIED_HEADER, reader_token

if TYPE_CHECKING:
    from pathlib import Path

    from collector.embedded.run import Runner

_log = structlog.get_logger()
_STATEMENT_BYTES = 1 << 20
_FORM_BYTES = 16 << 20
_READER_BODY_SECONDS = 30
_OWNER_IDLE_SECONDS = 120
_OWNER_BODY_SECONDS = 3600
_FAILING = 503
_LATER = frozenset({429, 503})
_QUERY_PATHS = frozenset({"", "/", "/query"})
_LONGEST_PAUSE_SECONDS = 60.0
# What is read of a query's head.
_HEADERS = frozenset(
    {
        "accept-encoding",
        "authorization",
        "content-encoding",
        "content-type",
        "host",
        "origin",
        "sec-fetch-site",
        "user-agent",
        "x-clickhouse-database",
        "x-clickhouse-format",
        "x-clickhouse-key",
        "x-clickhouse-query-id",
        "x-clickhouse-user",
        READER_HEADER.lower(),
    }
)


class Gateway:
    """Request handler of one store.

    Args:
        runner: Runs statements on the engine.
        spool: Folder for bodies and pipes.
        owner_hash: Hex SHA-256 of the owner's password.
        host: Address the store listens on.
    """

    def __init__(self, runner: Runner, spool: Path, owner_hash: str, host: str) -> None:
        self._runner = runner
        self._spool = spool
        self._owner_hash = owner_hash
        self._token = reader_token(owner_hash)
        self._origins = Origins(host)
        limits = runner.engine.limits
        self._body_limit = limits.body
        self._room = SpoolRoom(2 * limits.body)
        self._answering = Answering(spool, limits)
        self.demand = {signal: Demand() for signal in sorted(EVERYTHING)}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request by its path, which is looked up as it stands: no path costs more than another."""
        path = request.rel_url.raw_path
        if path in _QUERY_PATHS:
            try:
                check_head(request, _HEADERS)
            except QueryError as error:
                return _failure(error, answer.exception_tag())
            if request.headers.get("Expect"):
                refusal = await self._expect(request)
                await request.writer.drain()
                if refusal is not None:
                    return refusal
            return await self._query(request)
        if path not in {"/ping", "/replicas_status", "/healthz", "/demand", alive.PATH}:
            return web.Response(status=404, text="Not found: ask at /, /query, /ping or /healthz\n")
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405, text="Use GET\n")
        return await self._tell(request, path)

    async def _tell(self, request: web.BaseRequest, path: str) -> web.Response:
        if path == "/demand":
            return await self._listen(request)
        if path == alive.PATH:
            return await self._sign_of_life(request)
        return await self._health() if path == "/healthz" else web.Response(text="Ok.\n")

    async def _health(self) -> web.Response:
        recycle = self._runner.recycle
        failing = await self._alive()
        facts = {
            **self._runner.figures(),
            "recycled": recycle.past.recycled,
            "recycled_reason": recycle.past.reason,
            "recycled_at": recycle.past.at,
            **recycle.penalties.figures(),
        }
        if recycle.why:
            return web.json_response({"status": "recycling", "error": recycle.why, **facts}, status=_FAILING)
        if failing:
            return web.json_response({"status": "failing", "error": failing, **facts}, status=_FAILING)
        if self._runner.writes.damage:
            text = "a failed write could not be repaired yet: no write is taken"
            return web.json_response({"status": "damaged", "error": text, **facts}, status=_FAILING)
        return web.json_response({"status": "ok", **facts})

    async def _alive(self) -> str:
        """What is wrong with the engine, empty where nothing is or a recycling is ordered: that one is not waited for.

        An engine that is about to be replaced may be too busy to answer, and an answer that comes after the process is
        replaced reaches nobody.
        """
        check = asyncio.ensure_future(self._runner.check())
        ordered = asyncio.ensure_future(self._runner.recycle.ordered.wait())
        try:
            await asyncio.wait((check, ordered), return_when=asyncio.FIRST_COMPLETED)
            if check.done():
                check.result()
        except (QueryError, TimeoutError) as error:
            return str(error) or "the engine does not answer"
        finally:
            check.cancel()
            ordered.cancel()
        return ""

    async def _sign_of_life(self, request: web.BaseRequest) -> web.Response:
        """What a statement would tell that asks for nothing: a place was free for whoever asks, the engine answered."""
        try:
            check_head(request, _HEADERS)
            client, _ = self._judge(request)
            stay = self._runner.arrive(client)
            try:
                await stay.enter()
                await self._runner.check()
            finally:
                stay.end()
        except QueryError as error:
            return _failure(error, answer.exception_tag())
        except TimeoutError:
            silent = refused(SERVER_OVERLOADED, "SERVER_OVERLOADED", "The engine does not answer", "Try again later")
            return _failure(silent, answer.exception_tag())
        return web.Response(text=alive.WORD)

    async def _listen(self, request: web.BaseRequest) -> web.Response:
        """Tell a collector that somebody reads; the owner's alone, for readers wait for whoever listens."""
        try:
            check_head(request, _HEADERS)
            client, _ = self._judge(request)
            pause = float(request.query.get("pause", "0"))
            demand = self.demand.get(request.query.get("signal", ""))
        except QueryError as error:
            return _failure(error, answer.exception_tag())
        except ValueError:
            return web.Response(status=400, text="pause is no number: give seconds\n")
        if client.role != "owner":
            return web.Response(status=403, text="Only the owner may listen: give its name and password\n")
        if demand is None:
            return web.Response(status=400, text=f"signal is none: give one of {', '.join(self.demand)}\n")
        pause = min(max(pause, 0.0), _LONGEST_PAUSE_SECONDS) if pause == pause else 0.0  # noqa: PLR0124 - not a number
        wanted = await demand.wanted(pause, done=request.query.get("done") == "1")
        return web.json_response({"wanted": wanted})

    async def _expect(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """Ask for the body only where it would be read."""
        try:
            client, ask = self._judge(request)
            await self._terms(request, client, ask)
        except QueryError as error:
            return _failure(error, answer.exception_tag())
        if request.version >= HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        return None

    def _judge(self, request: web.BaseRequest) -> tuple[Client, Ask]:
        self._origins.check(request.headers)
        role = authenticate(request.headers, request.query, self._owner_hash)
        own = hmac.compare_digest(request.headers.get(READER_HEADER, "").encode(), self._token.encode())
        peer = request.remote or ""
        client = Client(role, own, client_name(peer, request.headers.get("User-Agent", "")), network_name(peer))
        return client, parse(request.method, request.query, request.headers, role)

    async def _terms(self, request: web.BaseRequest, client: Client, ask: Ask) -> Terms:
        """What this request's body may be, by role and verb.

        Raises:
            QueryError: What the head says already forbids it.
        """
        no_data: QueryError | None = None
        if client.role == "reader":
            no_data = insert_refused()
        elif ask.read_only:
            no_data = refused(164, "READONLY", "Cannot insert by GET, which implies readonly", "Use POST")
        if no_data is not None and ask.query and await self._runner.call(first_word, ask.query) == "INSERT":
            raise no_data
        if client.role == "reader":
            terms = Terms(_STATEMENT_BYTES, _READER_BODY_SECONDS, _READER_BODY_SECONDS, no_data)
        else:
            limit = self._body_limit if no_data is None else _STATEMENT_BYTES
            if is_form(request.headers.get("Content-Type", "")):
                limit = min(limit, _FORM_BYTES)
            terms = Terms(limit, _OWNER_IDLE_SECONDS, _OWNER_BODY_SECONDS, no_data)
        terms.check(request.content_length, ask.encoding)
        if ask.block_answer:
            raise refused(
                48, "NOT_IMPLEMENTED", "compress=1 is not spoken here", "Use enable_http_compression=1 instead"
            )
        return terms

    async def _query(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in {"GET", "POST", "HEAD"}:
            return web.Response(status=405, text="Use GET for reading or POST\n")
        tag = answer.exception_tag()
        try:
            client, ask = self._judge(request)
            if request.method == "GET" and not ask.query and not request.can_read_body:
                return web.Response(text="Ok.\n")
            return await self._take(request, client, ask, tag)
        except QueryError as error:
            return _failure(error, tag)
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            _log.exception("spool_failed")
            return _failure(refused(NO_FREE_SPACE, "NOT_ENOUGH_SPACE", f"Cannot spool: {error.strerror}"), tag)

    async def _take(self, request: web.BaseRequest, client: Client, ask: Ask, tag: str) -> web.StreamResponse:
        stay = self._runner.arrive(client)
        body: Body | None = None
        try:
            body = Body(self._spool, await self._terms(request, client, ask), self._room)
            await body.receive(request.content.iter_any())
            kind = request.headers.get("Content-Type", "")
            if UNHURRIED_HEADER not in request.headers:
                # without a place: whoever waits here keeps nobody from the engine
                await asyncio.gather(*(self.demand[signal].supplied() for signal in _reads(ask, body, kind)))
            await stay.enter()
            if is_form(kind):
                ask = await stay.unless_cut(self._runner.submit(with_form, ask, body, kind))
            found: Plan = await stay.unless_cut(self._runner.submit(plan, ask, body))
            async with self._runner.job(stay, client, ask, found) as job:
                return await self._answering.answer(request, job, tag)
        finally:
            if not stay.busy:
                stay.end()
            if body is not None:
                body.close()


def _reads(ask: Ask, body: Body, kind: str) -> frozenset[str]:
    if body.size and (ask.encoding or ask.native_blocks or is_form(kind)):
        return EVERYTHING  # what is packed is not looked into here
    return signals_of(ask.query.encode() + b" " + body.held)


def _failure(error: QueryError, tag: str) -> web.Response:
    found = {
        "X-ClickHouse-Exception-Code": str(error.code),
        "X-ClickHouse-Exception-Tag": tag,
        "X-ClickHouse-Server-Display-Name": "servescope",
    }
    if error.status == 401:  # noqa: PLR2004 - HTTP's own number
        found["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    if error.status in _LATER:
        found["Retry-After"] = str(error.retry_seconds)
    return web.Response(status=error.status, text=error.text, headers=found)
