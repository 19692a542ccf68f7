"""What the tap changes in heads on their way through: hop-by-hop fields, trace context, request id – nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.tap.framing import BodyReader, ChunkedBody, LengthBody, UntilClose
from agent.tap.head import HttpFault, render
from agent.tap.tracing import is_trace_state
from base.vocabulary import Outcome

if TYPE_CHECKING:
    from agent.tap.faults import Fault
    from agent.tap.head import Field, RequestHead, ResponseHead
    from agent.tap.tracing import Onward

_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)
_NO_BODY: Final = frozenset({204, 304})
_SWITCHING: Final = 101
_TRACE: Final = (b"traceparent",)
_TRACE_AND_ID: Final = (b"traceparent", b"x-request-id")
_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


def request_head(head: RequestHead, onward: Onward, authority: bytes, base: bytes = b"") -> bytes:
    """The request's head as the server gets it.

    Args:
        head: As the client sent it.
        onward: Trace context and request id to hand on.
        authority: The server's ``HOST:PORT``, for an HTTP/1.0 client that names no host.
        base: Path that the server's own stand below; a target that is no path (``OPTIONS *``) goes as it is.
    """
    trace = onward.trace
    fields = head.forwarded(_TRACE if onward.named else _TRACE_AND_ID)
    rare = not head.plain and head.has(b"tracestate", b"upgrade", b"te")
    if rare and (states := head.all(b"tracestate")):
        handed_on = trace.continued and is_trace_state(states)
        if len(states) > 1 or not handed_on:
            fields = _trace_state(fields, states if handed_on else [])
    target = head.target
    is_path = target.startswith(b"/")
    match = None if is_path else _ABSOLUTE.match(target)
    if match is not None:  # RFC 9112 §3.2.2: the URL's authority is the host
        target = target[match.end() :]
        target = target if target.startswith(b"/") else b"/" + target
        is_path = True
        fields = [(b"Host", match[1]), *(f for f in fields if f[0].lower() != b"host")]
    elif head.get(b"host") is None:
        fields.insert(0, (b"Host", authority))
    if base and is_path:
        target = base + target
    if head.length is None:
        fields.append((b"Transfer-Encoding", b"chunked"))
    if rare and head.wants_websocket():
        fields.append((b"Connection", b"Upgrade"))
        fields.append((b"Upgrade", b"websocket"))
    elif rare and b"trailers" in head.tokens(b"te"):
        fields.append((b"TE", b"trailers"))
        fields.append((b"Connection", b"TE"))
    fields.append((b"traceparent", trace.header(onward.span_id)))
    if not onward.named:
        fields.append((b"X-Request-Id", onward.request_id.encode()))
    return render(head.method + b" " + target + b" HTTP/1.1", fields)


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How an answer's body is carried.

    Attributes:
        tunnel: Both sides switch to another protocol.
        dechunk: The client can't read chunks: it gets the payload, ended by closing.
        until_close: The body ends with the server's connection.
        keeps_client: The client can tell the end without its connection being closed.
    """

    tunnel: bool = False
    dechunk: bool = False
    until_close: bool = False
    keeps_client: bool = True


_AS_IT_IS: Final = AnswerPlan()
_DECHUNKED: Final = AnswerPlan(dechunk=True, keeps_client=False)
_UNTIL_CLOSE: Final = AnswerPlan(until_close=True, keeps_client=False)
_TUNNEL: Final = AnswerPlan(tunnel=True, until_close=True, keeps_client=False)


def plan_answer(request: RequestHead, head: ResponseHead) -> tuple[BodyReader, AnswerPlan]:
    """What finds the end of an answer's body, and how that is carried (RFC 9112 §6.3).

    Raises:
        HttpFault: 502, the server answers what it was not asked.
    """
    if head.status == _SWITCHING:
        if not request.wants_websocket():
            raise HttpFault(502, "upstream_malformed", "the server switched protocols unasked")
        return UntilClose(), _TUNNEL
    if request.method == b"HEAD" or head.status in _NO_BODY:
        return LengthBody(0), _AS_IT_IS
    if head.chunked:
        if request.minor == 0 and _codings(head).lower() != b"chunked":
            raise HttpFault(502, "upstream_malformed", "the answer's transfer coding can't be given to HTTP/1.0")
        return ChunkedBody(), _DECHUNKED if request.minor == 0 else _AS_IT_IS
    if head.length is not None:
        return LengthBody(head.length), _AS_IT_IS
    return UntilClose(), _UNTIL_CLOSE


def answer_head(request: RequestHead, head: ResponseHead, plan: AnswerPlan, request_id: str, *, keep: bool) -> bytes:
    """The response's head as the client gets it; ``keep`` says whether the connection stays open after it."""
    fields = head.forwarded()
    if plan.tunnel:
        fields.append((b"Connection", b"Upgrade"))
        fields.append((b"Upgrade", head.get(b"upgrade") or b"websocket"))
    elif not keep:
        fields.append((b"Connection", b"close"))
    elif request.minor == 0:
        fields.append((b"Connection", b"keep-alive"))
    if head.chunked and not plan.dechunk:
        fields.append((b"Transfer-Encoding", _codings(head)))
    if head.get(b"x-request-id") is None:
        fields.append((b"X-Request-Id", request_id.encode()))
    return render(b"HTTP/1.1 %d %s" % (head.status, head.reason), fields)


def error_answer(request: RequestHead | None, fault: Fault, request_id: str, *, keep: bool) -> tuple[bytes, bytes]:
    """Head and body of an answer of our own, its body shaped as OpenAI clients read errors."""
    error = {"message": fault.message, "type": fault.error_type, "code": fault.status}
    body = json.dumps({"error": error}).encode()
    fields: list[Field] = [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Server", b"servescope-tap"),
        (b"X-Request-Id", request_id.encode()),
        (b"Connection", b"keep-alive" if keep else b"close"),
    ]
    if fault.outcome is Outcome.REJECTED:
        fields.append((b"Retry-After", b"1"))
    head = render(b"HTTP/1.1 %d %s" % (fault.status, _REASONS.get(fault.status, b"Error")), fields)
    return head, b"" if request is not None and request.method == b"HEAD" else body


def _trace_state(fields: list[Field], members: list[bytes]) -> list[Field]:
    """The first ``tracestate`` with all members in place of several (Trace Context §3.3.1.4); none without members."""
    joined = b",".join(filter(None, members))
    first = next((f for f in fields if f[0].lower() == b"tracestate"), None)
    kept = []
    for field in fields:
        if field[0].lower() != b"tracestate":
            kept.append(field)
        elif field is first and joined:
            kept.append((field[0], joined))
    return kept


def _codings(head: ResponseHead) -> bytes:
    return b", ".join(head.all(b"transfer-encoding"))
