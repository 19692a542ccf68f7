"""The one door to ClickHouse: embedded store, server or cluster, told apart by a URL alone.

Only this module makes a ClickHouse client. A ``Store`` may be shared by threads: it keeps no session, and every value
reaches the server as a parameter (``{name:Type}``), never pasted into SQL.
"""

from __future__ import annotations

import logging
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from base.errors import ConfigError, ServescopeError
from collector.store import alive
from collector.store.address import READER_HEADER, UNHURRIED_HEADER, StoreAddress
from collector.store.asker import Asker
from collector.store.said import plain
from collector.store.statements import rows_statement, segment_statement

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

    from collector.store.rows import Rows

# the driver logs each error that it raises; whoever catches it decides what is worth a line
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)

_CHUNK: Final = 1 << 18
_ARROW: Final = {
    "output_format_arrow_low_cardinality_as_dictionary": 1,
    "output_format_arrow_compression_method": "none",
}
_IN_BODY: Final = ""
"""No table: the statement stands in the body, before the data."""


class StoreError(ServescopeError):
    """ClickHouse refused a statement.

    Args:
        code: ClickHouse's error code; 0 where it gave none.
        name: Its name, for instance ``UNKNOWN_TABLE``.
        message: What it said, without its stack.
    """

    def __init__(self, code: int, name: str, message: str) -> None:
        self.code = code
        self.name = name
        self.message = message
        super().__init__(f"ClickHouse refused the statement ({code} {name}): {message}", "")


class StoreUnavailable(ServescopeError):  # noqa: N818 – a state of the store, the name callers know
    """The store does not answer: down, still starting, unreachable, or the connection broke."""


class Store:
    """A ClickHouse store.

    Args:
        address: Where it is.
        timeout_seconds: Longest wait for an answer.
        tenant: Of the one who asks; "" for all.

    The connection is made at the first call; a store that comes up later is found then.
    """

    def __init__(self, address: StoreAddress, *, timeout_seconds: float = 60, tenant: str = "") -> None:
        self.address = address
        self.asker = Asker(address.role, tenant)
        self._timeout = timeout_seconds
        self._tells_life = True
        self._lock = threading.Lock()
        self._made: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def unhurried(self) -> Store:
        """The same store for questions that the rows which are there will do for; it is closed with this one."""
        address = replace(self.address, unhurried=True)
        return Store(address, timeout_seconds=self._timeout, tenant=self.asker.tenant)

    def rows(
        self, sql: str, parameters: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None
    ) -> list[dict[str, Any]]:
        """Rows of a SELECT as dictionaries by column name; times are aware (UTC).

        Raises:
            StoreError: ClickHouse refused it.
            StoreUnavailable: It does not answer.
        """
        with self._client() as client:
            result = client.query(
                sql, parameters=dict(parameters or {}), settings=dict(settings or {}), tz_mode="aware"
            )
            return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

    def frame(
        self, sql: str, parameters: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None
    ) -> pd.DataFrame:
        """A SELECT as a pandas frame; times are aware (UTC).

        Raises:
            StoreError: ClickHouse refused it.
            StoreUnavailable: It does not answer.
        """
        with self._client() as client:
            return client.query_df(
                sql, parameters=dict(parameters or {}), settings=dict(settings or {}), tz_mode="aware"
            )

    def arrow(
        self, sql: str, parameters: Mapping[str, object] | None = None, settings: Mapping[str, object] | None = None
    ) -> pa.Table:
        """A SELECT as an Arrow table; columns of ``LowCardinality`` come as dictionaries, times as they are kept.

        Raises:
            StoreError: ClickHouse refused it, before or in mid-answer.
            StoreUnavailable: It does not answer, or the connection broke.
        """
        import pyarrow as pa  # noqa: PLC0415 - most processes read rows alone, and it takes 25 MB

        sent = b"".join(self.stream(sql, "ArrowStream", parameters, {**_ARROW, **(settings or {})}))
        return pa.ipc.open_stream(sent).read_all()

    def command(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
        *,
        use_database: bool = True,
    ) -> str:
        """Run a statement that returns nothing or one value; the value as text.

        Args:
            sql: The statement.
            parameters: Server-side parameters.
            settings: Settings of this statement.
            use_database: False where the database need not exist.

        Raises:
            StoreError: ClickHouse refused it.
            StoreUnavailable: It does not answer.
        """
        with self._client() as client:
            answer = client.command(
                sql, parameters=dict(parameters or {}), settings=dict(settings or {}), use_database=use_database
            )
        return str(answer) if isinstance(answer, (str, int)) else ""

    def insert(self, table: str, rows: Sequence[Mapping[str, object]], *, token: str = "") -> None:
        """Insert rows; all must have the same keys. Nothing happens for an empty list.

        Args:
            table: Name, with or without a database.
            rows: Column name → value; a column left out takes its default.
            token: Name of this insert: a second one of that name is dropped. Without it ClickHouse drops a block that
                equals an earlier one, so an insert that failed halfway may be repeated either way.

        Raises:
            StoreError: ClickHouse refused it.
            StoreUnavailable: It does not answer.
        """
        if not rows:
            return
        columns = list(rows[0])
        if any(row.keys() != rows[0].keys() for row in rows):
            raise ConfigError(f"the rows for {table} have different columns", "Give every row the same keys.")
        settings: dict[str, object] = {"async_insert": 0}
        if token:
            settings["insert_deduplication_token"] = token
        with self._client() as client:
            client.insert(
                table, [[row[name] for name in columns] for row in rows], column_names=columns, settings=settings
            )

    def insert_segment(
        self, table: str, segment: Path | bytes, token: str, settings: Mapping[str, object] | None = None
    ) -> None:
        """Insert a file of varint-delimited OTLP export requests into a landing table, once per token.

        The bytes go as the body behind the statement; the engine parses them and the views fan them out. All view
        targets drop a token they have seen and take what they have not, so repeating a failed insert completes it.

        Args:
            table: A key of ``collector.store.statements.LANDING``.
            segment: The file, or its bytes.
            token: Id of the segment.
            settings: Further settings of the insert.

        Raises:
            StoreError: ClickHouse refused it; nothing or a part was stored.
            StoreUnavailable: It does not answer; whether it was stored is unknown until it is repeated.
            OSError: The file can't be read.
        """
        head = f"{segment_statement(self.address.database, table, token, settings)}\n".encode()
        if isinstance(segment, bytes):
            with self._client() as client:
                client.raw_insert(_IN_BODY, insert_block=head + segment)
            return
        with segment.open("rb") as file, self._client() as client:

            def body() -> Generator[bytes, None, None]:
                yield head
                while chunk := file.read(_CHUNK):
                    yield chunk

            client.raw_insert(_IN_BODY, insert_block=body())

    def insert_rows(self, rows: Sequence[Rows], token: str) -> None:
        """Insert a segment's rows into landing tables of plain columns, once per token; repeating completes it.

        Args:
            rows: By table; tables without any are left out.
            token: Id of the segment.

        Raises:
            ValueError: A value does not fit its column; nothing was inserted.
            StoreError: ClickHouse refused one; nothing or a part was stored.
            StoreUnavailable: It does not answer; whether it was stored is unknown until it is repeated.
        """
        # all are made before the first is sent, so that what can't be made leaves nothing behind
        bodies = [
            f"{rows_statement(self.address.database, of.table, of.types, token)}\n".encode() + of.native()
            for of in rows
            if of.values
        ]
        for body in bodies:
            with self._client() as client:
                client.raw_insert(_IN_BODY, insert_block=body)

    def stream(
        self,
        sql: str,
        format: str = "JSONEachRow",  # noqa: A002 – ClickHouse's own word
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Iterator[bytes]:
        """The bytes of a SELECT in any output format, piece by piece; with "" the statement names it itself.

        Raises:
            StoreError: ClickHouse refused it, before or in mid-answer.
            StoreUnavailable: It does not answer, or the connection broke.
        """
        with self._client() as client:
            source = cast(
                "Any",
                client.raw_stream(
                    sql, parameters=dict(parameters or {}), settings=dict(settings or {}), fmt=format or None
                ),
            )
            try:
                yield from _checked(source)
            finally:
                source.close()

    def ping(self) -> bool:
        """Whether the store answers now."""
        try:
            return self.command("SELECT 1", use_database=False) == "1"
        except ServescopeError:
            return False

    def alive(self) -> None:
        """Return where the engine answers and takes us: of an embedded store that costs a third of a statement.

        Raises:
            StoreError, StoreUnavailable: It refuses us, or does not answer.
        """
        with self._client() as client:
            found = alive.ask(cast("Any", client), self.address.url) if self._tells_life else None
        self._tells_life = found is not None
        if found:
            raise _from_text(found)
        if found is None:
            self.command("SELECT 1", use_database=False)

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with self._lock:
            made, self._made = self._made, None
        for one in (made, self.__dict__.pop("unhurried", None)):
            if one is not None:
                one.close()

    @contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            with self._lock:
                if self._made is None:
                    self._made = self._connect()
                client = self._made
            yield client
        except ClickHouseError as error:
            raise _translated(error, self.address) from error
        except HTTPError as error:
            raise _unavailable(self.address) from error

    def _connect(self) -> Client:
        parts = urlsplit(self.address.url)
        client = clickhouse_connect.get_client(
            host=parts.hostname,
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            interface=parts.scheme,
            proxy_path=parts.path,
            username=self.address.user or None,
            password=self.address.password,
            autogenerate_session_id=False,
            client_name="servescope",
            connect_timeout=5,
            send_receive_timeout=int(self._timeout),
            query_retries=0,
            tz_source="server",
            dedicated_pool=True,
        )
        if self.address.token:
            cast("Any", client).headers[READER_HEADER] = self.address.token
        if self.address.unhurried:
            cast("Any", client).headers[UNHURRIED_HEADER] = "1"
        # set afterwards: the driver's first queries would fail in a database that is yet to be made
        client.database = self.address.database
        return client


def _checked(source: Any) -> Iterator[bytes]:
    """Pass an answer on, raising where it turns into an error (marked by the tag its headers announce)."""
    tag = str(source.headers.get("X-ClickHouse-Exception-Tag") or "") if hasattr(source, "headers") else ""
    marker = f"__exception__\r\n{tag}\r\n".encode() if tag else b""
    held = b""
    # One piece at a time: a broken answer's last one is the error, and a longer read would lose it.
    while chunk := source.read1(_CHUNK):
        held += chunk
        if marker and (at := held.find(marker)) >= 0:
            raise _from_text((held[at + len(marker) :] + _rest(source)).decode("utf-8", "replace"))
        if (ready := len(held) - len(marker)) > 0:
            yield held[:ready]
            held = held[ready:]
    if held:
        yield held


def _rest(source: Any) -> bytes:
    rest = b""
    with suppress(HTTPError):
        while chunk := source.read1(_CHUNK):
            rest += chunk
    return rest


def _from_text(text: str) -> StoreError:
    code = re.search(r"Code: (\d+)", text)
    names = re.findall(r"\(([A-Z][A-Z0-9_]+)\)", text)
    return StoreError(int(code[1]) if code else 0, names[-1] if names else "", plain(text.split("\n", 1)[0]))


def _translated(error: ClickHouseError, address: StoreAddress) -> ServescopeError:
    code = getattr(error, "code", None)
    text = str(error)
    if code is None:
        found = re.search(r"Code: (\d+)", text)
        code = int(found[1]) if found else None
    if code is not None:
        name = getattr(error, "name", None) or ""
        return StoreError(int(code), str(name), plain(text))
    status = re.search(r"HTTP status (\d{3})", text)
    if status or "server version query" in text:
        return StoreUnavailable(
            f"what answers at {address.url} is no ClickHouse, or a proxy before one that is away"
            + (f" (HTTP {status[1]})" if status else ""),
            "Give --clickhouse the address of ClickHouse's HTTP interface, by default port 8123.",
        )
    if "HTTP" in text or "connect" in text.lower():
        return _unavailable(address)
    return StoreError(0, type(error).__name__, text)


def _unavailable(address: StoreAddress) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store at {address.url} does not answer", "Start it with `servescope up` or give --clickhouse URL."
    )
