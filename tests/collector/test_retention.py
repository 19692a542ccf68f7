"""How long rows are kept: by the schema, by the configuration over it, in tables that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from collector import retention
from collector.config import CollectorConfig
from tests.kits.schema_tools import fresh_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.store.client import Store
    from tests.conftest import StoreServer

TEXT = "SELECT create_table_query AS t FROM system.tables WHERE database = currentDatabase() AND name = {n:String}"


@pytest.fixture(scope="module")
def store(store_server: StoreServer) -> Iterator[Store]:
    with fresh_store(store_server) as made:
        yield made


def term(store: Store, table: str) -> str:
    text = str(store.rows(TEXT, {"n": table})[0]["t"])
    return text.partition(" TTL ")[2].partition(" SETTINGS")[0]


def test_the_configuration_is_brought_to_tables_that_exist(store: Store):
    assert retention.retain(store, {}) == []
    assert sorted(retention.retain(store, {"requests": 7, "events": 0})) == [
        "events",
        "gpu_pods_t",
        "instance_config",
        "instance_gpus_t",
        "instance_lives_t",
        "pod_servers_t",
        "request_keys",
        "requests_t",
    ]
    assert term(store, "requests_t") == "inserted_at + toIntervalDay(7)"
    assert term(store, "events") == ""
    assert retention.retain(store, {"requests": 7, "events": 0}) == []
    retention.retain(store, {})
    assert term(store, "requests_t") == "inserted_at + toIntervalDay(30)"
    assert term(store, "events") == "inserted_at + toIntervalDay(400)"


def test_rows_that_are_older_than_a_new_term_go(store: Store):
    for days in (1, 10):
        columns = f"time, instance, received_at, inserted_at) SELECT now64(3), 'i{days}', now() - INTERVAL {days} DAY"
        store.command(
            f"INSERT INTO engine_samples ({columns}, now() - INTERVAL {days} DAY",
            settings={"insert_allow_materialized_columns": 1},
        )
    retention.retain(store, {"engine_samples": 5})
    store.command("OPTIMIZE TABLE engine_samples FINAL", settings={"mutations_sync": 2})
    assert store.rows("SELECT instance FROM engine_samples") == [{"instance": "i1"}]
    retention.retain(store, {})


def test_every_table_that_telemetry_reaches_has_a_term():
    known = set(retention.terms())
    assert {"otel_traces", "otel_logs", "otel_metrics_gauge", "requests_t", "requests_1m", "events"} <= known
    assert retention.terms()["requests_1m"].column == "received_at"


@pytest.mark.parametrize(
    ("days", "fault"),
    [
        ({"request": 3}, "nothing is kept under the name request: name one of causes"),
        ({"requests": -1}, "0"),
    ],
)
def test_a_wrong_term_is_refused_by_name(days: dict[str, int], fault: str):
    with pytest.raises(ValidationError, match=f"(?s)retention_days.*{fault}"):
        CollectorConfig(retention_days=days)
