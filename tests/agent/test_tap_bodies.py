"""JSON of requests and answers is read as the standard library reads it, whoever reads it first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tap.bodies import SURE_ERRORS, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def read(data: bytes, reader: Any) -> str:
    """What a reader makes of it, kinds of numbers and signs of zeros included."""
    try:
        return repr(reader(data))
    except SURE_ERRORS:
        return "none"


def plainly(data: bytes) -> Any:
    return json.loads(data.decode())


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"null", b' {"a" : 1 } \r\n\t', b'{"a":1} x', b'{"a":1}\x00', b"\x0b{}", b"\xef\xbb\xbf{}",
        b'{"a":1,"a":2}', b'{"a":1,}', b"[1,]", b"{'a':1}", b"{1:2}", b"truex", b"01", b"1.", b".5", b"+1", b"-", b"-0",
        b"-0.0", b"1e400", b"1e-400", b"NaN", b"[Infinity,-Infinity]", b"18446744073709551616", b"0.30000000000000004",
        b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\x"', b'"a\x01b"', b'"a\nb"', b'"\x7f"', b'"\xff"',
        b'"\xed\xa0\x80"', b"9" * 400, b"9" * 5_000, b"[" * 200, b"[" * 200 + b"]" * 200, b"[" * 200_000,
        '{"a":1}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_texts_on_which_readers_differ(data: bytes):
    assert read(data, parse) == read(data, plainly)
    assert read(bytearray(data), parse) == read(data, plainly)


@given(VALUES, st.booleans())
def test_any_value(value: object, ascii_only: bool):
    data = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    assert read(data, parse) == read(data, plainly)


@given(VALUES, st.integers(0, 1 << 16), st.binary(max_size=2))
def test_any_text_that_is_damaged(value: object, at: int, instead: bytes):
    data = json.dumps(value).encode()
    at %= len(data)
    data = data[:at] + instead + data[at + 1 :]
    assert read(data, parse) == read(data, plainly)
