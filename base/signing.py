r"""Signatures of batches between agent and collector: made and checked here, with no I/O and no clock of its own.

The text that is signed names everything a forger could change: ``METHOD\nPATH\nTIMESTAMP\n<hex SHA-256 of the body
as sent>``. The signature is HMAC-SHA256 over it. The batch id is left out on purpose: a stolen batch under a fresh
id could only be sent again inside the replay window, to the same path, byte for byte.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER_KEY_ID: Final = "X-Servescope-Key-Id"
HEADER_TIMESTAMP: Final = "X-Servescope-Timestamp"
HEADER_SIGNATURE: Final = "X-Servescope-Signature"
HEADER_BATCH: Final = "X-Servescope-Batch"
HEADER_RECEIVED: Final = "X-Servescope-Received-Ns"
HEADER_REPEAT: Final = "X-Servescope-Repeat"
HEADER_UNREAD: Final = "X-Servescope-Unread"
"""In the answer to a batch that brought nothing new."""

WINDOW_SECONDS: Final = 300
"""How far the sender's clock may be from the receiver's, either way."""
BATCH_ID_LIMIT: Final = 64
"""Longest batch id, in characters."""
REPLAYED: Final = "replayed-"
"""How the id of a batch begins that a replay may send again at any time, and that must then still be known."""

_VERSION: Final = "v1"


class Refusal(StrEnum):
    """Why a signature was not accepted; safe to show to the sender."""

    INCOMPLETE = "signature headers are incomplete"
    UNKNOWN_KEY = "the key id is unknown here"
    TIMESTAMP = "the timestamp is not a decimal number of unix milliseconds"
    EXPIRED = "the timestamp is outside the replay window; check both clocks"
    MISMATCH = "the signature does not match method, path, timestamp and body"


def key_id(key: bytes) -> str:
    """Public name of a key: the first 8 hex digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:8]


def sign(key: bytes, method: str, path: str, timestamp_ms: int, body: bytes) -> str:
    """Value of ``X-Servescope-Signature``.

    Args:
        key: The shared secret.
        method: HTTP method in capitals.
        path: Path as requested, without query.
        timestamp_ms: Unix time in milliseconds, the same that goes into ``X-Servescope-Timestamp``.
        body: The body as sent, that is, compressed.
    """
    text = f"{method}\n{path}\n{timestamp_ms}\n{hashlib.sha256(body).hexdigest()}"
    return f"{_VERSION}={hmac.new(key, text.encode(), hashlib.sha256).hexdigest()}"


def signed_headers(key: bytes, method: str, path: str, body: bytes, *, now_ms: int, batch: str = "") -> dict[str, str]:
    """Headers that authenticate one request; a retry signs anew and keeps its batch id."""
    headers = {
        HEADER_KEY_ID: key_id(key),
        HEADER_TIMESTAMP: str(now_ms),
        HEADER_SIGNATURE: sign(key, method, path, now_ms, body),
    }
    if batch:
        headers[HEADER_BATCH] = batch
    return headers


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether a request claims to be signed: one header is enough, so that half a signature is never ignored."""
    return any(name in headers for name in (HEADER_KEY_ID, HEADER_TIMESTAMP, HEADER_SIGNATURE))


def verify(
    keys: Mapping[str, bytes],
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_ms: int,
    window_seconds: int = WINDOW_SECONDS,
) -> Refusal | None:
    """Check a signed request.

    Args:
        keys: Secrets by key id.
        method: HTTP method in capitals.
        path: Path as requested, without query.
        headers: The request's headers, a case-insensitive mapping (or one with the exact names above).
        body: The body as received, before decompression.
        now_ms: The receiver's clock, unix milliseconds.
        window_seconds: Accepted distance between the two clocks, either way.

    Returns:
        None when the signature is right, else the reason for a 401.
    """
    given_key, stamp, signature = (headers.get(n) for n in (HEADER_KEY_ID, HEADER_TIMESTAMP, HEADER_SIGNATURE))
    if not given_key or not stamp or not signature:
        return Refusal.INCOMPLETE
    key = keys.get(given_key)
    if key is None:
        return Refusal.UNKNOWN_KEY
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= len(str(2**63))):
        return Refusal.TIMESTAMP
    if abs(now_ms - int(stamp)) > window_seconds * 1000:
        return Refusal.EXPIRED
    expected = sign(key, method, path, int(stamp), body)
    if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
        return Refusal.MISMATCH
    return None
