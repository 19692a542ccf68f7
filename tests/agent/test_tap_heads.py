"""What of a request's head the server gets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.kits.tap import (
    answer,
    connect,
    post,
    talk,
    tap,
    upstream,
)
from tests.kits.trace_states import STATES

if TYPE_CHECKING:
    from tests.kits.tap import Peer


async def echo_heads(peer: Peer) -> None:
    while True:
        head, body = await peer.request()
        await peer.send(answer(head + body, b"200 OK", b"text/plain"))


async def test_request_fields_go_through_in_order_and_case_without_hop_by_hop_ones():
    request = (
        b"POST /v1/completions?a=1 HTTP/1.1\r\nHost: shop.example\r\nX-CuStOm:   two  words \r\nAccept: a\r\n"
        b"Accept: b\r\nConnection: close, X-Secret-Hop\r\nX-Secret-Hop: 1\r\nKeep-Alive: timeout=3\r\n"
        b"Proxy-Authorization: x\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Request-Id: mine\r\nContent-Length: 3\r\n\r\nabc"
    )
    async with upstream(echo_heads) as up, tap(up.port) as served:
        got = await talk(served.port, request)
    seen = got.partition(b"\r\n\r\n")[2]
    expected = (
        rb"POST /v1/completions\?a=1 HTTP/1\.1\r\nHost: shop\.example\r\nX-CuStOm: two  words\r\nAccept: a\r\n"
        rb"Accept: b\r\nX-Request-Id: mine\r\nContent-Length: 3\r\n"
        rb"traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n\r\nabc"
    )
    assert re.fullmatch(expected, seen), seen


async def test_connection_field_cannot_take_end_to_end_fields_away():
    async with upstream(echo_heads) as up, tap(up.port) as served:
        got = await talk(
            served.port, post(b"/x", b"abc", b"Authorization: k", b"Connection: authorization, content-length, host")
        )
    assert b"Authorization: k" in got
    assert b"Host: tap" in got
    assert got.endswith(b"abc")


async def test_te_trailers_is_the_one_te_passed_on():
    async with upstream(echo_heads) as up, tap(up.port) as served:
        got = await talk(served.port, post(b"/x", b"", b"TE: trailers, gzip"))
    assert b"\r\nTE: trailers\r\nConnection: TE\r\n" in got


async def test_http10_keep_alive():
    async with upstream(echo_heads) as up, tap(up.port) as served, connect(served.port) as client:
        for _ in range(2):
            await client.send(b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            head, _ = await client.request()
            assert b"Connection: keep-alive" in head


async def test_url_as_target_becomes_path_and_host():
    async with upstream(echo_heads) as up, tap(up.port) as served:
        got = await talk(
            served.port, b"GET http://real.example/a?b HTTP/1.1\r\nHost: fake\r\nConnection: close\r\n\r\n"
        )
    assert b"GET /a?b HTTP/1.1\r\nHost: real.example\r\n" in got
    assert b"fake" not in got


TRACEPARENT = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(("sent", "arrived"), STATES)
async def test_several_tracestate_fields_become_one_and_none_that_is_no_list(sent: list[bytes], arrived: list[bytes]):
    async with upstream(echo_heads) as up, tap(up.port) as served:
        got = await talk(served.port, post(b"/x", b"", TRACEPARENT, *sent))
        record = await served.memory.only()
    lines = [line for line in got.split(b"\r\n") if re.match(rb"(?i)tracestate|x-between", line)]
    assert lines == arrived
    assert bool(record.trace_state) == any(line.lower().startswith(b"tracestate") for line in arrived)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (b"GET /v1/models HTTP/1.1", b"GET /serve/a/v1/models HTTP/1.1"),
        (b"GET /v1/models?x=/y HTTP/1.1", b"GET /serve/a/v1/models?x=/y HTTP/1.1"),
        (b"GET http://other/v1/models HTTP/1.1", b"GET /serve/a/v1/models HTTP/1.1"),
        (b"GET http://other HTTP/1.1", b"GET /serve/a/ HTTP/1.1"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    ],
)
async def test_a_server_below_a_path_is_asked_below_it(asked: bytes, got: bytes):
    heads = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with upstream(script) as up, tap(up.port, base="/serve/a") as served:
        await talk(served.port, asked + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert heads[0].startswith(got + b"\r\n")
        if b"/models" in asked:
            assert [record.route for record in served.memory.records] == ["/v1/models"]


async def test_requests_of_one_caller_share_its_trace_and_have_spans_of_their_own():
    async with upstream(echo_heads) as up, tap(up.port) as served:
        got = [await talk(served.port, post(b"/x", b"", TRACEPARENT)) for _ in range(3)]
    parents = [re.findall(rb"(?m)^traceparent: 00-(\w+)-(\w+)-01\r$", one) for one in got]
    assert {trace for ((trace, _),) in parents} == {b"0af7651916cd43dd8448eb211c80319c"}
    assert len({span for ((_, span),) in parents} - {b"b7ad6b7169203331"}) == 3
