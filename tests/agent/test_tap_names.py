from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tap.config import read_config, read_upstream
from agent.tap.routes import find_route
from agent.tap.tracing import new_trace_context, read_request_id, read_trace_context, read_trace_state
from base.errors import ConfigError
from base.vocabulary import Resource

if TYPE_CHECKING:
    from pathlib import Path

TRACE = b"0af7651916cd43dd8448eb211c80319c"
SPAN = b"b7ad6b7169203331"


@given(st.text(max_size=60), st.binary(max_size=10))
def test_any_path_has_a_bounded_route(path: str, method: bytes):
    route = find_route(method, "/" + path)
    assert len(route.template) < 64
    assert route.method in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "_OTHER"}


@pytest.mark.parametrize(
    ("values", "continued", "flags"),
    [
        ([b"00-" + TRACE + b"-" + SPAN + b"-01"], True, 1),
        ([b"00-" + TRACE + b"-" + SPAN + b"-00"], True, 0),
        ([b"00-" + TRACE + b"-" + SPAN + b"-ff"], True, 3),
        ([b"cc-" + TRACE + b"-" + SPAN + b"-01-what-comes"], True, 1),
        ([b"cc-" + TRACE + b"-" + SPAN + b"-01."], False, 1),
        ([b"00-" + TRACE + b"-" + SPAN + b"-01-more"], False, 1),
        ([b"ff-" + TRACE + b"-" + SPAN + b"-01"], False, 1),
        ([b"00-" + b"0" * 32 + b"-" + SPAN + b"-01"], False, 1),
        ([b"00-" + TRACE + b"-" + b"0" * 16 + b"-01"], False, 1),
        ([b"00-" + TRACE.upper() + b"-" + SPAN + b"-01"], False, 1),
        ([b"00-" + TRACE + b"-" + SPAN + b"-1"], False, 1),
        ([b"00-" + TRACE + b"-" + SPAN + b"-01"] * 2, False, 1),
        ([], False, 1),
    ],
)
def test_trace_context(values: list[bytes], continued: bool, flags: int):
    context = read_trace_context(values)
    assert context.continued is continued
    assert context.flags == flags
    assert (context.trace_id.hex().encode() == TRACE) is continued
    assert context.caller_sampled is (bool(flags & 1) if continued else None)
    assert context.header(b"\x01" * 8).decode() == f"00-{context.trace_id.hex()}-{'01' * 8}-{flags | 1:02x}"
    as_it_came = read_trace_context(values, sample=False)
    assert as_it_came.sampled is bool(flags & 1)
    assert as_it_came.header(b"\x01" * 8).decode().endswith(f"-{flags:02x}")


def test_a_trace_that_begins_here_says_sampled_alone():
    assert new_trace_context().header(b"\x01" * 8).endswith(b"-01"), (
        "readers of level 1 refuse more than 02 in version 00"
    )


@pytest.mark.parametrize(
    ("members", "kept"),
    [
        ([b"a=1", b"b=" + b"x" * 126], [b"a=1", b"b=" + b"x" * 126]),
        # Those of more than 128 characters go first, the last of them before others.
        (
            [b"a=" + b"x" * 127, b"b=" + b"x" * 254, b"c=" + b"x" * 126, b"d=1"],
            [b"a=" + b"x" * 127, b"c=" + b"x" * 126, b"d=1"],
        ),
        ([b"a=" + b"x" * 254, b"b=" + b"x" * 254, b"c=1"], [b"a=" + b"x" * 254, b"c=1"]),
        # Then from the end.
        ([b"%d=" % one + b"x" * 100 for one in range(6)], [b"%d=" % one + b"x" * 100 for one in range(4)]),
        ([b"a=" + b"x" * 126, b"b=" + b"x" * 126, b"c=" + b"x" * 126, b"d=" + b"x" * 123], None),
        (
            [b"a=" + b"x" * 126, b"b=" + b"x" * 126, b"c=" + b"x" * 126, b"d=" + b"x" * 124],
            [b"a=" + b"x" * 126, b"b=" + b"x" * 126, b"c=" + b"x" * 126],
        ),
        ([b"k" * 256 + b"=" + b"x" * 256], []),
    ],
)
def test_a_long_tracestate_is_recorded_in_whole_members(members: list[bytes], kept: list[bytes] | None):
    told = b",".join(members if kept is None else kept).decode()
    assert len(told) <= 512
    assert read_trace_state([b",".join(members)]) == told
    assert read_trace_state(members) == told


def test_request_ids_that_could_not_be_names_are_replaced():
    assert read_request_id([b"abc-1"]) == "abc-1"
    for bad in (b"", b"a b", b"x" * 257, b"\xff", b"a\tb"):
        assert read_request_id([bad]) == ""


def test_config_file(tmp_path: Path):
    path = tmp_path / "servescope.yaml"
    path.write_text(
        "agent: {region: eu-west-1, tenant: {header: x-team, header_wins: true,"
        " claim: org, names: {'v1:0': acme}}, tap: {stall_seconds: 7},"
        " targets: [{instance: a, version: '2'}, {instance: b, version: '3'}]}"
    )
    config = read_config(path, "b")
    assert config.tenant.header == "x-team"
    assert (config.tenant.header_wins, config.tenant.claim) == (True, "org")
    assert config.tenant.names == {"v1:0": "acme"}
    assert config.limits.limits().stall_seconds == 7
    assert config.place == {Resource.REGION: "eu-west-1", Resource.VERSION: "3"}
    assert read_config(None, "b").tenant.header == "x-tenant-id"


@pytest.mark.parametrize(
    "text", ["agent: [", "agent: 3", "[1]", "agent: {tenant: {hedaer: x}}", "agent: {tap: {stall_seconds: x}}"]
)
def test_config_faults_name_the_file_or_field(tmp_path: Path, text: str):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        read_config(path, "a")


def test_upstream_addresses():
    assert read_upstream("http://127.0.0.1:8000") == ("http", "127.0.0.1", 8000, "")
    assert read_upstream("https://[::1]/") == ("https", "::1", None, "")
    assert read_upstream("http://a/serve/my model%20b/") == ("http", "a", None, "/serve/my%20model%20b")
    for bad in ("127.0.0.1:8000", "http://", "ftp://a", "http://a#b", "http://a:x", "http://a?x=1"):
        with pytest.raises(ConfigError):
            read_upstream(bad)
