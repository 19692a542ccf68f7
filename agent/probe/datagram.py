"""Reads the probe's datagrams, version 1 (``docs/reference/probe-wire.md``). Numbers are little-endian.

The probe is installed into the model server's environment and shares no code with this: what it says is checked here.
"""

from __future__ import annotations

import math
from struct import Struct
from typing import Any, Final, NamedTuple

MAGIC: Final = b"SVSP"
VERSION: Final = 1
STEP: Final = 1
FINISHED: Final = 2
EDGE_BEGIN: Final = 3
EDGE_BODY: Final = 4
EDGE_HEAD: Final = 5
EDGE_PIECES: Final = 6
EDGE_END: Final = 7
CONFIG: Final = 8
DONE: Final = 0
LEFT: Final = 1
FAILED: Final = 2
CUT: Final = 3
_HEAD: Final = Struct("<4sBBHIIQ")
_RECORD: Final = Struct("<IBh")
_STEP: Final = Struct("<QQQiiiidiiiiiiiiiiqqqqiiiiiid")
_FINISHED: Final = Struct("<Qdddddiiii")
_CONFIG: Final = Struct("<13i")
_BEGIN: Final = Struct("<QIQ16s8s8sBB")
_BODY: Final = Struct("<QdQI")
_ANSWER: Final = Struct("<QdH")
_PIECES: Final = Struct("<QI")
_PIECE: Final = Struct("<dI")
_END: Final = Struct("<QBdddIQQ")


class MalformedError(ValueError):
    """A datagram or a record that can't be read; the text is a word for a counter."""


class Record(NamedTuple):
    """A record: its kind, data-parallel rank (-1 for none) and body."""

    kind: int
    rank: int
    body: bytes


class Process(NamedTuple):
    """Who tells: the server's given name, or "", and the process as it sees itself: each container has a 1."""

    instance: str
    pid: int


class Datagram(NamedTuple):
    """A datagram.

    Attributes:
        pid: Process that sent it, as that process sees itself.
        number: Of the datagram in its process, from 0, modulo 2³².
        dropped: Records that the process had to drop so far.
        instance: Name that the server was given, or "".
        records: What it holds.
    """

    pid: int
    number: int
    dropped: int
    instance: str
    records: list[Record]

    @property
    def process(self) -> Process:
        """Whose it is."""
        return Process(self.instance, self.pid)


class Step(NamedTuple):
    """A step of an engine core as one process saw it; -1, NaN and a time of 0 are unknown.

    Fields and their order are those of the wire and, but for the times, of ``engine_steps``.
    """

    counter: int
    scheduled_ns: int
    completed_ns: int
    in_flight: int
    running: int
    waiting: int
    deferred: int
    kv_cache_usage_ratio: float
    prefill_requests: int
    prefill_tokens: int
    decode_requests: int
    decode_tokens: int
    prompt_tokens: int
    cached_tokens: int
    generation_tokens: int
    first_tokens: int
    finished: int
    preemptions: int
    prefix_queries: int
    prefix_hits: int
    external_queries: int
    external_hits: int
    evictions: int
    drafts: int
    draft_tokens: int
    accepted_tokens: int
    loras_running: int
    loras_waiting: int
    elapsed_seconds: float

    @property
    def left(self) -> int | None:
        """Requests that the core has not done with; None where it does not say."""
        return self.running + max(0, self.waiting) + max(0, self.deferred) if self.running >= 0 else None


class Finished(NamedTuple):
    """A request that the engine finished; -1, NaN and "" are unknown."""

    finished_ns: int
    e2e_seconds: float
    queued_seconds: float
    prefill_seconds: float
    inference_seconds: float
    decode_seconds: float
    preemptions: int
    prompt_tokens: int
    generation_tokens: int
    cached_tokens: int
    reason: str = ""
    request_id: str = ""


class Config(NamedTuple):
    """What an engine is configured with; -1 and "" are unknown, the two ``enable`` fields 0 or 1.

    Fields are named as vLLM's are, and so are the keys in ``instance_config``.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_scheduled_tokens: int
    max_model_len: int
    block_size: int
    num_gpu_blocks: int
    enable_prefix_caching: int
    enable_chunked_prefill: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    num_speculative_tokens: int
    max_loras: int
    cache_dtype: str = ""
    speculative_method: str = ""
    vllm_version: str = ""


class Begin(NamedTuple):
    """A request came: number in its process, how many are open there, ids, its head as HTTP/1.1 writes it."""

    number: int
    open: int
    arrived_ns: int
    trace_id: bytes
    span_id: bytes
    parent: bytes
    flags: int
    sampled: bool
    head: bytes


class Body(NamedTuple):
    """Its body: when it was there, its bytes, the first and the last of them."""

    number: int
    seconds: float
    size: int
    first: bytes
    last: bytes


class Answer(NamedTuple):
    """Its answer began: when, with which status and fields."""

    number: int
    seconds: float
    status: int
    fields: bytes


class Pieces(NamedTuple):
    """Pieces of its answer, each with its time; one without bytes stands for ``left_out`` bytes."""

    number: int
    place: int
    pieces: list[tuple[float, bytes, int]]


class End(NamedTuple):
    """It ended: how, after how many seconds, first piece (None for none), what its client kept it waiting, counts."""

    number: int
    how: int
    seconds: float
    first: float | None
    waited: float
    records: int
    answer_bytes: int
    request_bytes: int


def read(data: bytes) -> Datagram:
    """Take a datagram apart.

    Raises:
        MalformedError: It is none, of another version, or cut.
    """
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        raise MalformedError("foreign")
    _, version, length, count, pid, number, dropped = _HEAD.unpack_from(data)
    if version != VERSION:
        raise MalformedError("version")
    at = _HEAD.size + length
    instance = data[_HEAD.size : at].decode("utf-8", "replace")
    records = []
    for _ in range(count):
        if at + _RECORD.size > len(data):
            raise MalformedError("cut")
        size, kind, rank = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if at + size > len(data):
            raise MalformedError("cut")
        records.append(Record(kind, rank, data[at : at + size]))
        at += size
    return Datagram(pid, number, dropped, instance, records)


def read_step(body: bytes) -> Step:
    """A step; what stands behind the fields known here is a later version's.

    Raises:
        MalformedError: It is cut.
    """
    return Step(*_unpack(_STEP, body))


def read_finished(body: bytes) -> Finished:
    """A finished request.

    Raises:
        MalformedError: It is cut.
    """
    told = _unpack(_FINISHED, body)
    reason, at = _text(body, _FINISHED.size)
    request_id, _ = _text(body, at)
    return Finished(*told)._replace(reason=reason, request_id=request_id)


def read_config(body: bytes) -> Config:
    """An engine's configuration; what stands behind the fields known here is a later version's.

    Raises:
        MalformedError: It is cut.
    """
    told, at, words = _unpack(_CONFIG, body), _CONFIG.size, []
    for _ in range(len(Config._fields) - len(told)):
        word, at = _text(body, at)
        words.append(word)
    return Config(*told, *words)


def read_begin(body: bytes) -> Begin:
    """A request that came.

    Raises:
        MalformedError: It is cut.
    """
    number, opened, arrived, trace_id, span_id, parent, flags, sampled = _unpack(_BEGIN, body)
    caller = parent if any(parent) else b""
    return Begin(number, opened, arrived, trace_id, span_id, caller, flags, bool(sampled), body[_BEGIN.size :])


def read_body(body: bytes) -> Body:
    """A request's body.

    Raises:
        MalformedError: It is cut.
    """
    number, seconds, size, first = _unpack(_BODY, body)
    rest = body[_BODY.size :]
    return Body(number, _finite(seconds), size, rest[:first], rest[first:])


def read_answer(body: bytes) -> Answer:
    """An answer's head.

    Raises:
        MalformedError: It is cut.
    """
    number, seconds, status = _unpack(_ANSWER, body)
    return Answer(number, _finite(seconds), status, body[_ANSWER.size :])


def read_pieces(body: bytes) -> Pieces:
    """Pieces of an answer.

    Raises:
        MalformedError: They are cut.
    """
    number, place = _unpack(_PIECES, body)
    at, pieces = _PIECES.size, []
    while at < len(body):
        if at + _PIECE.size > len(body):
            raise MalformedError("cut")
        seconds, size = _PIECE.unpack_from(body, at)
        at += _PIECE.size
        if math.isnan(seconds):
            pieces.append((0.0, b"", size))
            continue
        if at + size > len(body):
            raise MalformedError("cut")
        pieces.append((seconds, body[at : at + size], 0))
        at += size
    return Pieces(number, place, pieces)


def read_end(body: bytes) -> End:
    """A request's end.

    Raises:
        MalformedError: It is cut.
    """
    number, how, seconds, first, waited, records, answer_bytes, request_bytes = _unpack(_END, body)
    begun = None if math.isnan(first) else first
    return End(number, how, _finite(seconds), begun, _finite(waited), records, answer_bytes, request_bytes)


def _unpack(layout: Struct, body: bytes) -> tuple[Any, ...]:
    if len(body) < layout.size:
        raise MalformedError("cut")
    return layout.unpack_from(body)


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + (body[at] if at < len(body) else 0)
    if at >= len(body) or end > len(body):
        raise MalformedError("cut")
    return body[at + 1 : end].decode("utf-8", "replace"), end


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise MalformedError("numbers")
    return seconds
