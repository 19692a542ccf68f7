"""Migrations: once each, in order, never changed behind a store's back."""

from __future__ import annotations

import os
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from collector.store import migrate
from collector.store.address import StoreAddress
from collector.store.client import Store, StoreError, StoreUnavailable
from collector.store.migrate import Layout, MigrationError
from tests.kits.schema_tools import NOW_MS, edge_span, engine_span, event, framed, metrics, token, traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StoreServer

CREATE = """CREATE TABLE IF NOT EXISTS {{database}}.{name} {{on_cluster}} (n UInt8, at DateTime)
ENGINE = {{engine:MergeTree}} ORDER BY n {{ttl:things at 3}};
"""


@pytest.fixture
def store(store_server: StoreServer) -> Iterator[Store]:
    address = StoreAddress(store_server.url, f"t_{os.urandom(6).hex()}", "owner", store_server.owner_password)
    with Store(address) as made:
        yield made
        made.command(f"DROP DATABASE IF EXISTS {address.database} SYNC", use_database=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "tail.sql").write_text("-- a comment;\nSELECT 1;\n")
    (tmp_path / "0001_one_create.sql").write_text(CREATE.format(name="one"))
    (tmp_path / "0002_two_create.sql").write_text(CREATE.format(name="two") + "{part:tail}")
    return tmp_path


def test_applies_in_order_once(store: Store, folder: Path):
    names = ["0001_one_create", "0002_two_create"]
    assert migrate.apply(store, dry_run=True, folder=folder) == names
    assert store.command(f"EXISTS DATABASE {store.address.database}", use_database=False) == "0"
    assert migrate.apply(store, folder=folder) == names
    assert migrate.apply(store, folder=folder) == []
    (folder / "0003_three_create.sql").write_text(CREATE.format(name="three"))
    assert migrate.apply(store, folder=folder) == ["0003_three_create"]
    assert store.rows("SELECT count() AS n FROM three") == [{"n": 0}]
    rows = store.rows("SELECT name FROM schema_migrations ORDER BY name")
    assert [row["name"] for row in rows] == [*names, "0003_three_create"]


@pytest.mark.parametrize("changed", ["0001_one_create.sql", "parts/tail.sql"])
def test_a_changed_file_is_refused(store: Store, folder: Path, changed: str):
    migrate.apply(store, folder=folder)
    path = folder / changed
    path.write_text(path.read_text() + "SELECT 2;\n")
    with pytest.raises(MigrationError, match=r"000\d_\w+_create was changed after it was applied.*new numbered one"):
        migrate.apply(store, folder=folder)


def test_a_newer_store_and_a_late_number_are_refused(store: Store, folder: Path):
    migrate.apply(store, folder=folder)
    (folder / "0002_two_create.sql").unlink()
    with pytest.raises(MigrationError, match="newer version"):
        migrate.apply(store, folder=folder)
    (folder / "0002_two_create.sql").write_text(CREATE.format(name="two") + "{part:tail}")
    (folder / "0000_zero_create.sql").write_text(CREATE.format(name="zero"))
    with pytest.raises(MigrationError, match="0000_zero_create lies before 0002_two_create"):
        migrate.apply(store, folder=folder)


def test_a_failed_file_is_taken_up_again(store: Store, folder: Path):
    good = CREATE.format(name="three")
    (folder / "0003_three_create.sql").write_text(good + "SELECT nonsense FROM nowhere;\n")
    with pytest.raises(StoreError):
        migrate.apply(store, folder=folder)
    (folder / "0003_three_create.sql").write_text(good)
    assert migrate.apply(store, folder=folder) == ["0003_three_create"]


@pytest.mark.parametrize("name", ["1_one_create.sql", "0004_One_create.sql", "0004.sql", "0002_other_create.sql"])
def test_names_are_checked(folder: Path, name: str):
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=r"NNNN_noun_verb|the same number"):
        migrate.load(folder)


def test_a_missing_part_is_named(folder: Path):
    (folder / "0003_three_create.sql").write_text("{part:nothing}")
    with pytest.raises(MigrationError, match=r"0003_three_create.sql includes \{part:nothing\}"):
        migrate.load(folder)


def test_placeholders_follow_the_layout(folder: Path):
    (first, second) = migrate.load(folder)
    (plain,) = migrate.statements(first.text, Layout())
    assert "servescope.one" in plain
    assert "ENGINE = MergeTree ORDER BY n TTL at + toIntervalDay(3)" in plain
    assert migrate.statements(second.text, Layout())[1] == "SELECT 1"
    (wide,) = migrate.statements(first.text, Layout(database="d", cluster="c", retention_days={"things": 0}))
    assert "d.one ON CLUSTER c" in wide
    assert "ReplicatedMergeTree('/clickhouse/tables/{shard}/d/{table}', '{replica}')" in wide
    assert "TTL" not in wide
    with pytest.raises(MigrationError, match="no plain name"):
        migrate.statements(first.text, Layout(database="a; DROP TABLE b"))


MOVE = """CREATE TABLE IF NOT EXISTS {database}.one_next {on_cluster}
(n UInt8, at DateTime, day Date DEFAULT today(), seen DateTime MATERIALIZED now())
ENGINE = {engine:MergeTree} PARTITION BY day ORDER BY n;
{replace:one day = toDate(at)};
"""


class Dying(Store):
    """Loses its connection right after the first statement that begins so."""

    def command(self, sql: str, *args: Any, **more: Any) -> str:
        answer = super().command(sql, *args, **more)
        if sql.startswith(self.last):
            raise StoreUnavailable("gone", "")
        return answer

    last = ""


@pytest.mark.parametrize("last", ["CREATE TABLE IF NOT EXISTS {d}.one_next", "TRUNCATE", "INSERT", "EXCHANGE", "DROP"])
def test_a_replaced_table_keeps_its_rows_whenever_its_move_breaks_off(store: Store, folder: Path, last: str):
    migrate.apply(store, folder=folder)
    for days in range(2):
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)
        store.insert("one", [{"n": n, "at": at} for n in range(100)])
    before = store.rows("SELECT n, at FROM one ORDER BY at, n")
    assert len(before) == 200
    (folder / "0003_one_replace.sql").write_text(MOVE)
    with Dying(store.address) as dying:
        dying.last = last.format(d=store.address.database)
        with pytest.raises(StoreUnavailable):
            migrate.apply(dying, folder=folder)
    assert store.rows("SELECT n, at FROM one ORDER BY at, n") == before
    assert migrate.apply(store, folder=folder) == ["0003_one_replace"]
    assert store.rows("SELECT n, at FROM one ORDER BY at, n") == before
    assert store.rows("SELECT DISTINCT toDate(at) = day AS same FROM one") == [{"same": 1}]
    parts = (
        "SELECT DISTINCT partition FROM system.parts WHERE database = currentDatabase() AND table = 'one' AND active"
    )
    assert len(store.rows(parts)) == 2
    assert store.command("EXISTS TABLE one_next") == "0"


def test_a_new_store_makes_only_what_stays(store: Store, folder: Path):
    (folder / "0003_one_replace.sql").write_text(MOVE)
    (folder / "0004_two_drop.sql").write_text("DROP TABLE IF EXISTS {database}.two {on_cluster} SYNC;\n")
    (folder / "0005_three_create.sql").write_text(CREATE.format(name="three"))
    made = Recording(store.address)
    with made:
        assert len(migrate.apply(made, folder=folder)) == 5
        assert not any(".two" in text or text.startswith("INSERT") for text in made.seen if "CREATE" in text)
        assert migrate.apply(made, folder=folder) == []
    tables = store.rows("SELECT name FROM system.tables WHERE database = currentDatabase() ORDER BY name")
    assert [row["name"] for row in tables] == ["one", "schema_migrations", "three"]
    assert (
        store.command("SELECT count() FROM system.columns WHERE database = currentDatabase() AND name = 'day'") == "1"
    )


def test_the_statements_for_a_new_store_make_what_migrating_makes(store: Store):
    database = store.address.database
    store.command(f"CREATE DATABASE {database}", use_database=False)
    for statement in migrate.of_new(Layout(database=database)):
        store.command(statement)
    named = "SELECT name FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    made = [row["name"] for row in store.rows(named)]
    assert not [name for name in made if name.endswith("_next")]
    texts = " ".join(migrate.of_new(Layout()))
    assert {"requests", "requests_t", "otel_traces", "land_spans_mv"} <= set(made)
    assert "{replace" not in texts
    pattern = r"CREATE (?:MATERIALIZED VIEW|VIEW|TABLE) IF NOT EXISTS servescope\.(\w+)"
    migrated = set(re.findall(pattern, texts))
    assert {name.removesuffix("_next") for name in migrated} | {"requests", "instance_gpus"} == set(made)


class Recording(Store):
    """Keeps what it was told."""

    def command(self, sql: str, *args: Any, **more: Any) -> str:
        self.seen.append(sql)
        return super().command(sql, *args, **more)

    seen: ClassVar[list[str]] = []


def test_every_target_of_a_view_deduplicates_and_is_day_partitioned():
    texts = [statement for made in migrate.load() for statement in migrate.statements(made.text, Layout())]
    tables = [text for text in texts if text.startswith("CREATE TABLE") and "ENGINE = Null" not in text]
    assert len(tables) > 20
    for text in tables:
        assert "non_replicated_deduplication_window = 10000" in text
        assert "{" not in text
    targets = {text.split(" TO ")[1].split()[0] for text in texts if "MATERIALIZED VIEW" in text}
    for target in targets:
        assert any(f"{target} \n" in text or f"{target} " in text for text in texts if text.startswith("CREATE TABLE"))


DAY_MS = 86_400_000
MERGED = ("requests_t", "request_keys")
KEPT = ("requests_1m", "otel_traces", "otel_traces_trace_id_ts", "otel_logs", "events")
KEPT_METRICS = ("otel_metrics_gauge", "otel_metrics_sum", "engine_samples", "host_samples", "gpu_samples")


@pytest.mark.heavy  # migrated from the first file to the last
def test_a_store_of_the_first_schema_keeps_every_row(store: Store, tmp_path: Path):
    first = tmp_path / "schema"
    shutil.copytree(migrate.SCHEMA, first)
    for path in first.glob("*.sql"):
        if path.name > "0014":
            path.unlink()
    migrate.apply(store, folder=first)
    for days in range(0, 40, 10):
        ms = NOW_MS - days * DAY_MS
        halves = traces([edge_span(ms=ms, bits=days)]), traces([engine_span(ms=ms, bits=days)], "vllm.x")
        store.insert_segment("land_traces", framed(*halves), token())
        store.insert_segment("land_logs", framed(event("deploy", "x", {"a": "b"}, ms)), token())
        for scope in ("servescope.sample", "servescope.host", "servescope.gpu", "theirs"):
            store.insert_segment("land_metrics", framed(metrics(scope, {"up": 1}, {"x_total": 2}, ms=ms)), token())

    def state() -> dict[str, Any]:
        kept = {name: store.rows(f"SELECT count() AS n FROM {name}") for name in (*KEPT_METRICS, *KEPT)}
        columns = "time, key, trace_id, tenant, e2e_seconds, engine_e2e_seconds, has_edge, has_engine"
        kept["keys"] = store.rows("SELECT uniqExact(time, key) AS n FROM request_keys")
        kept["rows"] = store.rows(f"SELECT {columns} FROM requests ORDER BY time")
        kept["spans"] = store.rows(
            "SELECT Timestamp, SpanId, SpanAttributes, inserted_at FROM otel_traces ORDER BY 1, 2"
        )
        return kept

    before = state()
    assert [row["has_engine"] for row in before["rows"]] == [1] * 4
    assert min(rows[0]["n"] for name, rows in before.items() if name in KEPT) >= 4
    migrate.apply(store)
    assert state() == before
    for name in (*KEPT, *KEPT_METRICS, *MERGED):
        parts = (
            "SELECT uniqExact(partition) AS n FROM system.parts"
            " WHERE database = currentDatabase() AND table = {t:String} AND active"
        )
        assert store.rows(parts, {"t": name})[0]["n"] <= 2, name
    ms = int(time.time() * 1000)
    store.insert_segment("land_traces", framed(traces([edge_span(ms=ms, bits=7)])), token())
    assert store.command("SELECT count() FROM requests") == "5"
