from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tap.head import HttpFault, find_end, parse_request, parse_response
from base.vocabulary import Outcome
from tests.kits.tap import answer, post, talk, tap, upstream

POST = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"

REFUSED = {
    "length and coding": (POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
    "two equal lengths": (POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "listed lengths": (POST + b"Content-Length: 4, 4\r\n\r\nabcd", 400),
    "signed length": (POST + b"Content-Length: +4\r\n\r\nabcd", 400),
    "hex length": (POST + b"Content-Length: 0x4\r\n\r\nabcd", 400),
    "empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "huge length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    "folded": (POST + b"X-A: 1\r\n folded\r\n\r\n", 400),
    "folded coding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "space before colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "two codings": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    "vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "real coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "coding in 1.0": (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "bare lf head": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare lf field": (POST + b"X: y\nContent-Length: 4\r\n\r\nabcd", 400),
    "bare cr": (POST + b"X: y\rContent-Length: 4\r\n\r\nabcd", 400),
    "nul": (POST + b"X: \x00\r\n\r\n", 400),
    "no colon": (POST + b"Transfer-Encoding\r\n\r\n", 400),
    "empty name": (POST + b": chunked\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no version": (b"GET /\r\nHost: a\r\n\r\n", 400),
    "http 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "other scheme": (b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "many fields": (POST + b"A: b\r\n" * 300 + b"\r\n", 431),
    "huge field": (POST + b"A: " + b"b" * 70_000 + b"\r\n\r\n", 431),
    "head without end": (POST + b"A: " + b"b" * 70_000, 431),
}

BAD_BODIES = {
    "no size": b"\r\nabc",
    "signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "prefixed size": b"0x3\r\nabc\r\n0\r\n\r\n",
    "space in size": b"3 \r\nabc\r\n0\r\n\r\n",
    "huge size": b"fffffffffffffffff\r\n",
    "bare lf": b"3\nabc\n0\n\n",
    "longer than said": b"3\r\nabcd\r\n0\r\n\r\n",
    "endless extension": b"3;" + b"x" * 5_000,
    "bad trailer": b"0\r\nno colon\r\n\r\n",
    "folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
}


async def never(_peer: object) -> None:
    raise AssertionError("a refused request reached the server")


@pytest.mark.parametrize("name", REFUSED)
async def test_ambiguous_heads_are_refused_and_never_passed_on(name: str):
    request, status = REFUSED[name]
    async with upstream(never) as up, tap(up.port) as served:
        got = await talk(served.port, request, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        record = await served.memory.only()
        assert up.connections == 0
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", got)) == 1
    assert (record.outcome, record.status, record.route) == (Outcome.CLIENT_ERROR, status, "/*")
    assert record.error_type


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bad_chunks_end_both_sides(name: str):
    seen = bytearray()

    async def script(peer: object) -> None:
        seen.extend(await peer.head())
        while data := await peer.reader.read(65536):
            seen.extend(data)

    async with upstream(script) as up, tap(up.port) as served:
        got = await talk(served.port, POST + b"Transfer-Encoding: chunked\r\n\r\n", BAD_BODIES[name])
        record = await served.memory.only()
    assert got.startswith(b"HTTP/1.1 400 ")
    assert record.outcome is Outcome.CLIENT_ERROR
    assert not seen.endswith(b"0\r\n\r\n")  # the server never takes it for whole


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"hello\n\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_malformed_answers_become_502(reply: bytes):
    async def script(peer: object) -> None:
        await peer.request()
        await peer.send(reply)
        await peer.gone()

    async with upstream(script) as up, tap(up.port) as served:
        got = await talk(served.port, post())
        record = await served.memory.only()
    assert got.startswith(b"HTTP/1.1 502 ")
    assert (record.outcome, record.error_type) == (Outcome.SERVER_ERROR, "upstream_malformed")


async def test_answer_with_coding_and_length_loses_the_length():
    async def script(peer: object) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        )

    async with upstream(script) as up, tap(up.port) as served:
        got = await talk(served.port, post())
    assert b"content-length" not in got
    assert got.endswith(b"1\r\na\r\n0\r\n\r\n")


async def test_answer_longer_than_said_is_cut_and_its_connection_not_used_again():
    async def script(peer: object) -> None:
        await peer.request()
        await peer.send(answer(b"{}") + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await peer.gone()

    async with upstream(script) as up, tap(up.port) as served:
        for _ in range(2):
            got = await talk(served.port, post())
            assert got.endswith(b"\r\n\r\n{}")
        assert up.connections == 2


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(data: bytes):
    for parse in (parse_request, parse_response):
        try:
            end = find_end(data)
            if end >= 0:
                parse(data[:end])
        except HttpFault as fault:
            assert fault.status in {400, 431, 501, 502, 505}  # noqa: PT017 - refusing is one of two good ends


WORDS = b"GET|/|HTTP/1.1|\r\n|\n|\r|Host|:|a|\t|Content-Length|Transfer-Encoding|chunked|3|,|\0".split(b"|")


@given(st.lists(st.sampled_from([*WORDS, b" "]), max_size=30))
def test_what_is_accepted_has_one_reading(parts: list[bytes]):
    data = b"".join(parts) + b"\r\n\r\n"
    try:
        end = find_end(data)
        head = parse_request(data[:end])
    except HttpFault:
        return
    fields = head.all(b"content-length") + head.all(b"transfer-encoding")
    assert len(fields) <= 1
    assert b"\r" not in b"".join(v for _, v in head.fields)
    assert b"\n" not in b"".join(v for _, v in head.fields)
