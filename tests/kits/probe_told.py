"""What a probe tells, landed in a store, and the time that passes over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.otlp.columns import encode_columns
from collector import framing
from collector.auth import NOBODY, Sender
from collector.settle import Settler
from tests.kits.schema_tools import NOW_MS, RESOURCE, token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.store.client import Store

WHOSE = RESOURCE | {"servescope.model": "tiny", "servescope.dp_rank": "1", "process.pid": "77"}
NOW_NS = NOW_MS * 1_000_000


def land(
    store: Store,
    name: str,
    columns: dict[str, list[Any]],
    sender: Sender = NOBODY,
    *,
    whose: Mapping[str, str] = WHOSE,
) -> None:
    body = encode_columns(whose, "servescope.step", name, NOW_NS, columns)
    store.insert_segment("land_logs", landed(body, sender), token())


def landed(body: bytes, sender: Sender = NOBODY) -> bytes:
    """A request's body as a segment holds it."""
    return framing.encode(body, records=1, digest=bytes(16), received_ns=NOW_NS, batch="", sender=sender)


def finished(
    store: Store,
    request_id: str = "cmpl-req-1-0",
    sender: Sender = NOBODY,
    *,
    whose: Mapping[str, str] = WHOSE,
    **more: Any,
) -> None:
    row = {
        "finished_ns": NOW_NS + 135_000_000, "e2e_seconds": 0.13, "queued_seconds": 0.01, "prefill_seconds": 0.04,
        "inference_seconds": 0.1, "decode_seconds": 0.06, "preemptions": 2, "prompt_tokens": 20,
        "generation_tokens": 8, "cached_tokens": 16, "reason": "length", "request_id": request_id,
    } | more  # fmt: skip
    columns = {name: [value] for name, value in row.items() if value is not None}
    land(store, "finished_requests", columns, sender, whose=whose)


def requests(store: Store) -> list[dict[str, Any]]:
    return list(store.rows("SELECT * FROM requests ORDER BY time, has_edge"))


def wait_long(store: Store) -> None:
    """What a minute and more does to what has been told."""
    columns = ", ".join(
        row["name"] if row["name"] != "inserted_at" else "inserted_at - INTERVAL 90 SECOND AS inserted_at"
        for row in store.rows(
            "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'finished_requests'"
        )
    )
    store.command("CREATE TABLE kept AS finished_requests ENGINE = Memory")
    store.command(f"INSERT INTO kept SELECT {columns} FROM finished_requests")
    store.command("TRUNCATE TABLE finished_requests")
    store.command("INSERT INTO finished_requests SELECT * FROM kept")
    store.command("DROP TABLE kept SYNC")


def settle_late(store: Store) -> None:
    """Settle as the run does that looks at what has waited for more than a minute."""
    wait_long(store)
    Settler(store).run()
