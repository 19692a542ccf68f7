"""What a client asks for: query, data, settings and parameters, out of URL, headers and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from collector.embedded.errors import AUTHENTICATION_FAILED, BAD_ARGUMENTS, SYNTAX_ERROR, QueryError, refused
from collector.embedded.reader import STATEMENT_BYTES
from collector.embedded.refusal import FenceError, check_text, insert_refused
from collector.embedded.statement import Insert, before_data, first_word, split_insert
from collector.embedded.unpack import Readable, read_some

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from collector.embedded.body import Body
    from collector.embedded.engine import Role

_HEAD_BYTES = 256 * 1024
_FIRST = 4096
_QUERY_ID = 1024
_STATEMENT_LIMIT = 16 * 1024 * 1024

TRANSPORT = frozenset(
    {
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "query_id",
        "session_id",
        "session_timeout",
        "session_check",
        "close_session",
        "quota_key",
        "role",
        "compress",
        "decompress",
        "enable_http_compression",
        "http_zlib_compression_level",
        "http_headers_progress_interval_ms",
        "http_native_compression_disable_checksumming_on_decompress",
        "send_progress_in_http_headers",
        "wait_end_of_query",
        "buffer_size",
        "client_protocol_version",
        "stacktrace",
        "http_wait_end_of_query",
        "http_response_buffer_size",
        "http_write_exception_in_output_format",
        "add_http_cors_header",
        # Inserts are always taken in synchronously: the answer means stored.
        "async_insert",
        "wait_for_async_insert",
        "wait_for_async_insert_timeout",
        "async_insert_busy_timeout_ms",
        "async_insert_max_data_size",
        "async_insert_deduplicate",
    }
)
"""URL parameters that speak to the server, not to the engine."""


@dataclass(frozen=True)
class Ask:
    """A request, parsed.

    Attributes:
        role: Who asks.
        query_id: The client's id, or one made here.
        database: Current database, '' for the session's or the store's own.
        default_format: Answer format where the statement names none.
        settings: Engine settings of this request.
        parameters: Values of ``{name:Type}`` placeholders, in escaped text form.
        query: ``?query=`` text, may be empty.
        session: Session id, '' for none.
        session_timeout: Seconds that the session outlives the request.
        session_check: The session must exist.
        close_session: End the session after this request.
        read_only: A GET may not write.
        encoding: ``Content-Encoding``.
        native_blocks: The body is in ClickHouse's compressed blocks.
        accept: Encodings the client takes for the answer, '' where it did not ask for compression.
    """

    role: Role
    query_id: str
    database: str
    default_format: str
    settings: dict[str, str]
    parameters: dict[str, str]
    query: str
    session: str
    session_timeout: float
    session_check: bool
    close_session: bool
    read_only: bool
    encoding: str
    native_blocks: bool
    accept: str
    block_answer: bool = False


@dataclass(frozen=True)
class Plan:
    """What to run: ``sql``, or ``insert`` with the file that holds its data."""

    sql: str
    insert: Insert | None = None
    path: Path | None = None
    notes: tuple[str, ...] = field(default=())


def authenticate(headers: Mapping[str, str], url: Mapping[str, str], owner_hash: str) -> Role:
    """Tell who asks: user ``owner`` with the right password, or nobody in particular: a reader.

    Raises:
        QueryError: Wrong or unknown credentials (516).
    """
    user, password = url.get("user", ""), url.get("password", "")
    user = headers.get("X-ClickHouse-User", user)
    password = headers.get("X-ClickHouse-Key", password)
    authorization = headers.get("Authorization", "")
    if authorization[:6].lower() == "basic ":
        try:
            text = base64.b64decode(authorization[6:], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise _wrong_credentials("?") from None
        user, _, password = text.partition(":")
    elif authorization:
        raise _wrong_credentials("?")
    if user in {"", "default", "reader"} and not password:
        return "reader"
    digest = hashlib.sha256(password.encode()).hexdigest()
    if hmac.compare_digest(digest, owner_hash) and user == "owner":
        return "owner"
    raise _wrong_credentials(user)


def _wrong_credentials(user: str) -> QueryError:
    return refused(
        AUTHENTICATION_FAILED,
        "AUTHENTICATION_FAILED",
        f"{user}: Authentication failed: password is incorrect, or there is no user with such name",
        "Use user owner with the password in keys/store_owner, or no credentials for reading",
    )


def parse(method: str, url: Mapping[str, str], headers: Mapping[str, str], role: Role) -> Ask:
    """Sort URL parameters and headers into an ``Ask``."""
    settings = {key: value for key, value in url.items() if key not in TRANSPORT and not key.startswith("param_")}
    parameters = {key[6:]: value for key, value in url.items() if key.startswith("param_")}
    try:
        timeout = min(3600.0, max(0.0, float(url.get("session_timeout") or 60)))
    except ValueError:
        text = f"session_timeout is {url['session_timeout']!r}, not a number"
        raise refused(BAD_ARGUMENTS, "BAD_ARGUMENTS", text) from None
    query_id = url.get("query_id") or headers.get("X-ClickHouse-Query-Id") or str(uuid.uuid4())
    if len(query_id) > _QUERY_ID or not query_id.isprintable():
        # It comes back in a header of the answer.
        raise refused(
            BAD_ARGUMENTS,
            "BAD_ARGUMENTS",
            f"query_id has signs that can't be printed, or more than {_QUERY_ID} of them",
            "Use a UUID, or leave it out",
        )
    compressed = url.get("enable_http_compression", "0") not in {"0", "", "false"}
    return Ask(
        role=role,
        query_id=query_id,
        database=url.get("database") or headers.get("X-ClickHouse-Database", ""),
        default_format=url.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        settings=settings,
        parameters=parameters,
        query=url.get("query", ""),
        session=url.get("session_id", ""),
        session_timeout=timeout,
        session_check=url.get("session_check", "0") in {"1", "true"},
        close_session=url.get("close_session", "0") in {"1", "true"},
        read_only=method in {"GET", "HEAD"},
        encoding=headers.get("Content-Encoding", "").lower().strip(),
        native_blocks=url.get("decompress", "0") in {"1", "true"},
        accept=headers.get("Accept-Encoding", "").lower() if compressed else "",
        block_answer=url.get("compress", "0") in {"1", "true"},
    )


def plan(ask: Ask, body: Body) -> Plan:
    """Find statement and data in ``?query=`` and body. Reads and writes files: call it off the event loop.

    Raises:
        QueryError: No statement, one that is too long, or a body that can't be decompressed.
    """
    reader = body.reader(ask.encoding, native_blocks=ask.native_blocks)
    if ask.role == "reader":
        return _readers_plan(ask, body, reader)
    if ask.query.strip():
        insert = split_insert(ask.query)
        if insert is not None:
            head = ask.query[insert.data_start :].encode()
            if head and body.size:
                head += b"\n"
            path = body.as_file(reader, head)
            return Plan("", insert, path)
        rest = _whole(reader, b"") if body.size else b""
        text = ask.query + "\n" + _text(rest) if rest else ask.query
        return Plan(before_data(text))
    head = _read(reader, _HEAD_BYTES)
    if first_word(head[:4096].decode("latin-1")) == "INSERT":
        # Positions of Latin-1 text are positions of bytes.
        found = split_insert(head.decode("latin-1"))
        if found is not None:
            insert = Insert(_utf8(found.head), _utf8(found.tail), found.form, found.data_start)
            path = body.as_file(reader, head[found.data_start :])
            return Plan("", insert, path)
    sql = before_data(_text(_whole(reader, head)))
    if not sql.strip():
        raise refused(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: Empty query")
    return Plan(sql)


def _readers_plan(ask: Ask, body: Body, reader: Readable) -> Plan:
    # The guard takes all of it as one statement and never looks for data.
    check_text(ask.query)
    data = _read(reader, STATEMENT_BYTES + 1) if body.size else b""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # A character may be cut at the end of what was read: that is too long, whatever it is.
        if len(data) <= STATEMENT_BYTES:
            raise FenceError("text", f"The statement is not UTF-8: {error}") from None
        text = data.decode("latin-1")
    sql = f"{ask.query}\n{text}" if ask.query.strip() and text else ask.query or text
    # What hides behind a longer comment is refused by the guard; what is too long because of its data, for its verb.
    if first_word(sql[:_FIRST]) == "INSERT":
        raise insert_refused()
    check_text(sql)
    if not sql.strip():
        raise refused(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: Empty query")
    return Plan(sql)


def _read(reader: Readable, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = read_some(reader, size - len(data))
        if not piece:
            break
        data += piece
    return data


def _whole(reader: Readable, head: bytes) -> bytes:
    rest = _read(reader, _STATEMENT_LIMIT)
    if len(head) + len(rest) >= _STATEMENT_LIMIT:
        raise refused(SYNTAX_ERROR, "SYNTAX_ERROR", f"The statement is longer than {_STATEMENT_LIMIT} bytes")
    return head + rest


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise refused(SYNTAX_ERROR, "SYNTAX_ERROR", f"The statement is not UTF-8: {error}") from None


def _utf8(latin: str) -> str:
    return _text(latin.encode("latin-1"))
