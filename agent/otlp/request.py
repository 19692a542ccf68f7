"""The record of one request as its client felt it, wherever it came from: a tap, a gateway, a recording.

On the wire it is one span of scope ``servescope.edge`` (kind SERVER) whose span id carries the request's time: the
engine continues that span, so both halves of a request derive one key and one time from it with no lookup.

What a request has is declared here, once: the span's attributes, the lines of a recording and the check of the
store's columns follow from the fields of :class:`RequestRecord` and their marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

from agent.entropy import draw
from base.vocabulary import SPAN_ID_RANDOM_BITS, Edge, Outcome

Kind = Literal["text", "texts", "number", "seconds", "flag"]
_NS: Final = 1_000_000_000
_RANDOM: Final = (1 << SPAN_ID_RANDOM_BITS) - 1
_MILLISECONDS: Final = (1 << (64 - SPAN_ID_RANDOM_BITS)) - 1
_KINDS: Final[dict[object, Kind]] = {
    str: "text", Outcome: "text", tuple[str, ...]: "texts", int: "number", float: "seconds", bool: "flag",
}  # fmt: skip


class Wire(NamedTuple):
    """How a field stands in an edge span.

    Attributes:
        key: The attribute's key.
        column: Column of ``requests`` in which the store keeps it: the field's own name by default, "" for none.
        alike: Few requests differ in it: fields of the same word that follow one another are encoded together, once.
        zero: Whether 0 or false is said; else it is left out like what is unknown.
    """

    key: str
    column: str | None = None
    alike: str = ""
    zero: bool = True


class RequestRecord(NamedTuple):
    """One request. Empty texts and ``None`` mean unknown and are left out on the wire.

    Attributes:
        trace_id: 16 bytes.
        span_id: 8 bytes, see ``time_coded_span_id``.
        start_ns: Arrival, Unix nanoseconds.
        end_ns: Last byte handed to the client, Unix nanoseconds.
        parent_span_id: 8 bytes of the caller's span, or empty.
        trace_state: W3C ``tracestate`` as it came.
        flags: W3C trace flags as the caller's.
        outcome: How it ended.
        method: HTTP method, bounded (``_OTHER`` for unknown ones).
        route: Path template of low cardinality, never a raw path.
        operation: ``chat``, ``text_completion``, ``embeddings``, … (OpenTelemetry's words where they exist); empty for
            what runs no model.
        request_model: Model the client asked for.
        response_model: Model that the answer names.
        tenant: Name or salted hash of who asked.
        error_type: Low-cardinality word for what went wrong.
        status: Status code the client was sent; ``None`` when it was sent none.
        stream: Whether the answer was (to be) a stream.
        tokens_counted: The server reported no usage, ``completion_tokens`` are counted chunks.
        caller_sampled: Whether the caller sampled its trace; ``None`` when the trace began here.
        unsampled: Sent on as not sampled, so that the engine records nothing.
        finish_reasons: One for each choice, in order.
        response_id: Id that the answer names.
        request_id: ``X-Request-Id``.
        prompt_tokens: Tokens.
        completion_tokens: Tokens; counted chunks when ``tokens_counted``.
        cached_tokens: Prompt tokens that came from a cache.
        request_bytes: Body bytes from the client (without chunk framing).
        response_bytes: Body bytes to the client (without chunk framing).
        itl_gaps: Number of gaps.
        edge_seconds: Time at the edge in which the server was not at work for the request.
        ttft_seconds: Arrival to the first content of a stream handed to the client; a whole answer has none.
        e2e_seconds: Arrival to the last byte handed to the client; ``None`` to take it from start and end, 0 for a
            session that has no latency.
        itl_mean_seconds: Mean gap between content events; the others are its quantiles.
        itl_p50_seconds: Median gap.
        itl_p99_seconds: 99th percentile of the gaps.
        itl_max_seconds: Longest gap.
    """

    trace_id: bytes
    span_id: bytes
    start_ns: int
    end_ns: int
    outcome: Annotated[Outcome, Wire(Edge.OUTCOME, alike="names")]
    method: Annotated[str, Wire(Edge.METHOD, column="", alike="names")]
    route: Annotated[str, Wire(Edge.ROUTE, alike="names")]
    parent_span_id: bytes = b""
    trace_state: str = ""
    flags: int = 1
    operation: Annotated[str, Wire(Edge.OPERATION, alike="names")] = ""
    request_model: Annotated[str, Wire(Edge.REQUEST_MODEL, column="model", alike="names")] = ""
    response_model: Annotated[str, Wire(Edge.RESPONSE_MODEL, column="model", alike="names")] = ""
    tenant: Annotated[str, Wire(Edge.TENANT, alike="names")] = ""
    error_type: Annotated[str, Wire(Edge.ERROR_TYPE, alike="names")] = ""
    status: Annotated[int | None, Wire(Edge.STATUS, alike="states")] = None
    stream: Annotated[bool, Wire(Edge.STREAM, alike="states")] = False
    tokens_counted: Annotated[bool, Wire(Edge.TOKENS_COUNTED, alike="states", zero=False)] = False
    caller_sampled: Annotated[bool | None, Wire(Edge.CALLER_SAMPLED, alike="states")] = None
    unsampled: Annotated[bool, Wire(Edge.UNSAMPLED, alike="states", zero=False)] = False
    finish_reasons: Annotated[tuple[str, ...], Wire(Edge.FINISH_REASONS, column="finish_reason", alike="states")] = ()
    response_id: Annotated[str, Wire(Edge.RESPONSE_ID)] = ""
    request_id: Annotated[str, Wire(Edge.REQUEST_ID)] = ""
    prompt_tokens: Annotated[int | None, Wire(Edge.INPUT_TOKENS)] = None
    completion_tokens: Annotated[int | None, Wire(Edge.OUTPUT_TOKENS)] = None
    cached_tokens: Annotated[int | None, Wire(Edge.CACHED_TOKENS)] = None
    request_bytes: Annotated[int, Wire(Edge.REQUEST_BYTES)] = 0
    response_bytes: Annotated[int, Wire(Edge.RESPONSE_BYTES)] = 0
    itl_gaps: Annotated[int, Wire(Edge.GAPS, zero=False)] = 0
    edge_seconds: Annotated[float | None, Wire(Edge.EDGE_SECONDS)] = None
    ttft_seconds: Annotated[float | None, Wire(Edge.TTFT_SECONDS)] = None
    e2e_seconds: Annotated[float | None, Wire(Edge.E2E_SECONDS)] = None
    itl_mean_seconds: Annotated[float | None, Wire(Edge.ITL_MEAN_SECONDS)] = None
    itl_p50_seconds: Annotated[float | None, Wire(Edge.ITL_P50_SECONDS)] = None
    itl_p99_seconds: Annotated[float | None, Wire(Edge.ITL_P99_SECONDS)] = None
    itl_max_seconds: Annotated[float | None, Wire(Edge.ITL_MAX_SECONDS)] = None

    @property
    def whole_seconds(self) -> float:
        """End-to-end time, from start and end where none is named."""
        return max(self.end_ns - self.start_ns, 0) / _NS if self.e2e_seconds is None else self.e2e_seconds


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record that stands in its span.

    Attributes:
        name: Its name.
        kind: What it is.
        wire: How it stands there.
    """

    name: str
    kind: Kind
    wire: Wire

    @property
    def bare(self) -> bool:
        """Whether 0 and false are said: only None is unknown."""
        return self.wire.zero and self.kind not in {"text", "texts"}

    @property
    def column(self) -> str:
        """Column of ``requests`` that keeps it; empty for none."""
        return self.name if self.wire.column is None else self.wire.column


def _declared() -> tuple[Field, ...]:
    hints = get_type_hints(RequestRecord, include_extras=True)
    found = []
    for name in RequestRecord._fields:
        marks: list[Any] = list(get_args(hints[name])) if get_origin(hints[name]) is Annotated else []
        for wire in (one for one in marks[1:] if isinstance(one, Wire)):
            kind = marks[0]
            if isinstance(kind, UnionType):
                kind = next(one for one in get_args(kind) if one is not type(None))
            found.append(Field(name, _KINDS[kind], wire))
    return tuple(found)


FIELDS: Final = _declared()
"""What stands in an edge span, in its order."""


def time_coded_span_id(arrival_ns: int, random: int | None = None) -> bytes:
    """Span id of a request: 42 bits of Unix milliseconds, then 22 random bits, big-endian (8 bytes).

    Args:
        arrival_ns: Arrival, Unix nanoseconds.
        random: The low bits, for a replay that must give the same id again; drawn when ``None``.
    """
    low = (int.from_bytes(draw(4)) if random is None else random) & _RANDOM
    return (((arrival_ns // 1_000_000 & _MILLISECONDS) << SPAN_ID_RANDOM_BITS) | low).to_bytes(8, "big")
