"""Migrations: once each, in order, never changed behind a store's back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from collector import migrate
from collector.migrate import Layout, MigrationError
from collector.store import Store, StoreAddress, StoreError

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
