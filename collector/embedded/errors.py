"""Errors of the engine in the words of the ClickHouse HTTP interface: code, text, HTTP status."""

from __future__ import annotations

import re

from base.errors import ServescopeError

VERSION = "26.9.2.1"
"""Engine version as ClickHouse writes it into its errors."""

BAD_ARGUMENTS = 36
SYNTAX_ERROR = 62
UNKNOWN_FORMAT = 73
TIMEOUT_EXCEEDED = 159
QUOTA_EXCEEDED = 201
TOO_MANY_SIMULTANEOUS_QUERIES = 202
SOCKET_TIMEOUT = 209
NO_FREE_SPACE = 243
SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
QUERY_WAS_CANCELLED = 394
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = 516
SERVER_OVERLOADED = 745

_STATUS = {
    400: {6, 20, 26, 27, 32, 33, 36, 38, 41, 43, 53, 62, 70, 72, 73, 108, 115, 117, 130, 137}
    | {167, 168, 306, 344, 456, 457},
    401: {AUTHENTICATION_FAILED},
    403: {ACCESS_DENIED, 164, 452},
    404: {16, 46, 47, 48, 60, 81, SESSION_NOT_FOUND},
    408: {TIMEOUT_EXCEEDED, SOCKET_TIMEOUT},
    413: {307},
    429: {QUOTA_EXCEEDED},
    503: {TOO_MANY_SIMULTANEOUS_QUERIES, SERVER_OVERLOADED},
    507: {NO_FREE_SPACE},
}
_HTTP = {code: status for status, codes in _STATUS.items() for code in codes}
_HEAD = re.compile(r"^(?:Streaming query failed: )?Code: (\d+)\. DB::(?:Errno)?Exception: ", re.DOTALL)
_SPOOLED = re.compile(r": \(in file/uri [^)]*\)|, file: [^ ,]*\.body")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)\s*$")


class QueryError(ServescopeError):
    """A query that the engine or the store refused.

    Args:
        code: ClickHouse error code.
        message: Text without the leading ``Code: N``; ends with the error's name in brackets.
        retry_seconds: After how long it may be tried again, where it may.
    """

    def __init__(self, code: int, message: str, *, retry_seconds: int = 1) -> None:
        self.code = code
        self.retry_seconds = retry_seconds
        self.message = message
        super().__init__(f"Code: {code}. DB::Exception: {message}")

    @property
    def status(self) -> int:
        """HTTP status that a ClickHouse server gives for this code."""
        return _HTTP.get(self.code, 500)

    @property
    def text(self) -> str:
        """The line a client reads: code, message, name, version."""
        return f"Code: {self.code}. DB::Exception: {self.message} (version {VERSION} (chDB, embedded))\n"


def refused(code: int, name: str, what: str, fix: str = "", *, retry_seconds: int = 1) -> QueryError:
    """Build an error of our own: ``name`` is ClickHouse's name of the code."""
    return QueryError(code, f"{what}. {fix + '. ' if fix else ''}({name})", retry_seconds=retry_seconds)


def from_engine(error: Exception) -> QueryError:
    """Read code and text out of an exception raised by the engine; 1001 where it carries no code."""
    # The engine's texts are bytes, and may quote a client's.
    text = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    text = _SPOOLED.sub("", text)
    match = _HEAD.match(text)
    if match is None:
        return QueryError(1001, text if _NAME.search(text) else f"{text}. (STD_EXCEPTION)")
    message = text[match.end() :]
    # The engine repeats its head when one layer wraps another.
    inner = _HEAD.match(message)
    if inner is not None:
        message = message[inner.end() :]
    message = re.sub(r" \(version [^)]*(?:\([^)]*\))?\)\.?(?= \(|$)", "", message.rstrip())
    return QueryError(int(match.group(1)), re.sub(r"(\([A-Z0-9_]+\))\.? \1$", r"\1", message))
