"""The datagrams, version 1, as ``docs/reference/probe-wire.md`` tells them; numbers are little-endian.

A datagram is a head and any number of records. What is unknown is -1, NaN for a fraction, 0 for a time, "" for a text.
"""

from __future__ import annotations

import struct
from typing import Any

MAGIC = b"SVSP"
VERSION = 1
MAX_DATAGRAM = 61_440
"""Bytes; well below what a Unix socket takes by default."""
MAX_TEXT = 255

HEAD = struct.Struct("<4sBBHIIQ")
"""Magic, version, length of the instance's name that follows, records, process id, number of the datagram, records that
this process had to drop so far."""
RECORD = struct.Struct("<IBh")
"""Length of the body that follows, kind, rank (-1 for none)."""

STEP, FINISHED, EDGE_BEGIN, EDGE_BODY, EDGE_HEAD, EDGE_PIECES, EDGE_END, CONFIG = range(1, 9)

STEP_FIELDS = (
    ("counter", "Q"),
    ("scheduled_ns", "Q"),
    ("completed_ns", "Q"),
    ("in_flight", "i"),
    ("running", "i"),
    ("waiting", "i"),
    ("deferred", "i"),
    ("kv_cache_usage_ratio", "d"),
    ("prefill_requests", "i"),
    ("prefill_tokens", "i"),
    ("decode_requests", "i"),
    ("decode_tokens", "i"),
    ("prompt_tokens", "i"),
    ("cached_tokens", "i"),
    ("generation_tokens", "i"),
    ("first_tokens", "i"),
    ("finished", "i"),
    ("preemptions", "i"),
    ("prefix_queries", "q"),
    ("prefix_hits", "q"),
    ("external_queries", "q"),
    ("external_hits", "q"),
    ("evictions", "i"),
    ("drafts", "i"),
    ("draft_tokens", "i"),
    ("accepted_tokens", "i"),
    ("loras_running", "i"),
    ("loras_waiting", "i"),
    ("elapsed_seconds", "d"),
)
STEP_BODY = struct.Struct("<" + "".join(code for _, code in STEP_FIELDS))
STEP_RECORD = struct.Struct(RECORD.format + STEP_BODY.format[1:])
"""A step with its record's head: a body that is told often is packed with its head at once, here and below."""

FINISHED_FIELDS = (
    ("finished_ns", "Q"),
    ("e2e_seconds", "d"),
    ("queued_seconds", "d"),
    ("prefill_seconds", "d"),
    ("inference_seconds", "d"),
    ("decode_seconds", "d"),
    ("preemptions", "i"),
    ("prompt_tokens", "i"),
    ("generation_tokens", "i"),
    ("cached_tokens", "i"),
)
FINISHED_BODY = struct.Struct("<" + "".join(code for _, code in FINISHED_FIELDS))
"""Followed by two texts: the reason and the request's id."""

CONFIG_FIELDS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_num_scheduled_tokens",
    "max_model_len",
    "block_size",
    "num_gpu_blocks",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "num_speculative_tokens",
    "max_loras",
)
CONFIG_WORDS = ("cache_dtype", "speculative_method", "vllm_version")
CONFIG_BODY = struct.Struct(f"<{len(CONFIG_FIELDS)}i")
"""Followed by a text for each of the words."""

BEGIN_BODY = struct.Struct("<QIQ16s8s8sBB")
"""Number of the request in its process, requests open there (this one too), arrival (Unix ns), trace id, own span id,
the caller's span id (zeros for none), the caller's trace flags, whether the engine was told to sample. The request's
line and header fields follow as HTTP/1.1 writes them."""
BEGIN_RECORD = struct.Struct(RECORD.format + BEGIN_BODY.format[1:])
BODY_BODY = struct.Struct("<QdQI")
"""Number, seconds from the arrival to the body's end, its bytes, and how many of those that follow are its beginning;
the others are its end, and what lies between was left out."""
BODY_RECORD = struct.Struct(RECORD.format + BODY_BODY.format[1:])
ANSWER_BODY = struct.Struct("<QdH")
"""Number, seconds from the arrival to the answer's beginning, status; its header fields follow."""
ANSWER_RECORD = struct.Struct(RECORD.format + ANSWER_BODY.format[1:])
PIECES_BODY = struct.Struct("<QI")
"""Number of the request, and of the first of the pieces that follow, counted from 0."""
PIECES_RECORD = struct.Struct(RECORD.format + PIECES_BODY.format[1:])
PIECE = struct.Struct("<dI")
"""Seconds from the arrival, bytes that follow; NaN for so many bytes that were left out."""
END_BODY = struct.Struct("<QBdddIQQ")
"""Number, how it ended, seconds from the arrival: to the end and of the first piece (NaN for none); seconds for which
the server waited for its client; pieces, bytes of them, bytes of the request."""
END_RECORD = struct.Struct(RECORD.format + END_BODY.format[1:])

DONE, LEFT, FAILED, CUT = range(4)
"""How a request ended: answered, its client left, the application raised or returned before the end, it was cut off."""


def text(value: Any) -> bytes:
    """A text with its length before it, cut at 255 bytes."""
    raw = str(value).encode("utf-8", "replace")[:MAX_TEXT]
    return bytes((len(raw),)) + raw
