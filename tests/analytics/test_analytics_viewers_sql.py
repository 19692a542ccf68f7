"""What the SQL page lets run, against a real store and an account that may do everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from collector.store.client import Store, StoreError
from dashboard.reading import LIMITS, fenced, read

if TYPE_CHECKING:
    from tests.analytics.lab import Lab


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE requests_t",
        "TRUNCATE TABLE requests_t",
        "INSERT INTO events (event) SELECT 'x'",
        "ALTER TABLE requests_t DELETE WHERE 1",
        "CREATE TABLE x (a Int8) ENGINE = Memory",
        "RENAME TABLE requests_t TO gone",
        "SYSTEM DROP MARK CACHE",
        "DROP TABLE requests_t SETTINGS readonly = 0",
    ],
)
def test_an_owner_may_only_read(lab: Lab, statement: str) -> None:
    before = lab.owner.rows("SELECT count() AS n FROM requests_t")[0]["n"]
    with pytest.raises(StoreError) as caught:
        read(lab.owner, statement)
    assert caught.value.name in {"READONLY", "ACCESS_DENIED", "SYNTAX_ERROR", "QUERY_IS_PROHIBITED"}, caught.value
    assert lab.owner.rows("SELECT count() AS n FROM requests_t")[0]["n"] == before


@pytest.mark.parametrize("role", ["owner", "store"])
def test_readers_and_owners_get_answers(lab: Lab, role: str) -> None:
    account: Store = getattr(lab, role)
    assert list(read(account, "SELECT count() > 0 AS some FROM requests")["some"]) == [1]
    assert len(read(account, "SELECT number FROM numbers(300000)")) <= LIMITS["max_result_rows"]


def test_an_owners_limits_hold_in_the_engine(lab: Lab) -> None:
    assert fenced(lab.owner) == {"readonly": 2, "result_overflow_mode": "break", **LIMITS}
    with pytest.raises(StoreError) as caught:
        read(lab.owner, "SELECT groupArray(repeat('x', 100000)) FROM numbers(100000)")
    assert caught.value.name == "MEMORY_LIMIT_EXCEEDED"
