"""What a head says of its fields is what reading each of them says, whichever of them are there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.tap.head import RequestHead

HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"transfer-encoding", b"upgrade",
}  # fmt: skip
NEVER_NAMED_AWAY = {
    b"host", b"content-length", b"content-type", b"authorization", b"cookie", b"expect", b"x-request-id",
}  # fmt: skip
NAMES = [
    b"Host", b"host", b"Accept", b"X-Foo", b"x-foo", b"Connection", b"connection", b"TE", b"Upgrade", b"Keep-Alive",
    b"Proxy-Connection", b"traceparent", b"Traceparent", b"X-Request-Id", b"tracestate", b"Authorization",
]  # fmt: skip
VALUES = [b"", b"a", b"keep-alive", b"Keep-Alive", b"close", b"x-foo, host", b"Upgrade", b"websocket", b"trailers"]
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=8)
BUT = st.sampled_from([(), (b"traceparent",), (b"traceparent", b"x-request-id")])


def all_of(fields: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for known, value in fields if known.lower() == name]


@given(FIELDS, st.sampled_from([0, 1]), BUT)
def test_fields_are_what_reading_each_says(
    fields: list[tuple[bytes, bytes]], minor: int, but: tuple[bytes, ...]
) -> None:
    head = RequestHead(minor, fields, b"GET", b"/", 0)
    for name in {name.lower() for name in NAMES} | {b"cookie"}:
        values = all_of(fields, name)
        assert head.all(name) == values
        assert head.get(name) == (values[0] if values else None)
        assert head.has(name, b"cookie") == bool(values)
        assert (name in head.repeated) == (len(values) > 1)
    options = {t.strip().lower() for value in all_of(fields, b"connection") for t in value.split(b",") if t.strip()}
    assert head.tokens(b"connection") == options
    assert head.keeps_alive() == (b"close" not in options and (minor == 1 or b"keep-alive" in options))
    gone = HOP | (options - NEVER_NAMED_AWAY) | set(but)
    assert head.forwarded(but) == [field for field in fields if field[0].lower() not in gone]
    assert head.fields == fields
