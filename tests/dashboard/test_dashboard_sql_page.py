"""The SQL page: nothing runs before a click, and what runs is read only and limited whoever the store's URL names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.reading import LIMITS, ROWS, fenced
from dashboard.views import sql as page

if TYPE_CHECKING:
    from collections.abc import Mapping


class Account:
    """A store that keeps what was asked of it; ``held`` is what its account is limited to already."""

    def __init__(self, held: Mapping[str, tuple[str, int]] | None = None, rows: int = 1) -> None:
        self.held = held or {}
        self.rows_found = rows
        self.asked: list[tuple[str, Mapping[str, object]]] = []

    def rows(self, sql: str, parameters: Any = None, settings: Any = None) -> list[dict[str, Any]]:
        del sql, settings
        names = parameters["names"]
        return [{"name": name, "value": v, "fixed": f} for name, (v, f) in self.held.items() if name in names]

    def frame(self, sql: str, parameters: Any = None, settings: Any = None) -> pd.DataFrame:
        del parameters
        if "system.columns" in sql:
            return pd.DataFrame({"table": ["requests"], "name": ["time"], "type": ["DateTime"]})
        self.asked.append((sql, dict(settings or {})))
        return pd.DataFrame({"n": range(self.rows_found)})


def _page() -> None:
    from dashboard.views import sql as page  # noqa: PLC0415 - the script that is run

    page.draw()


def opened(monkeypatch: pytest.MonkeyPatch, account: Account, sql: str) -> AppTest:
    monkeypatch.setattr(page, "store", lambda *_: account)
    page._frame.clear()
    page._columns.clear()
    test = AppTest.from_function(_page, default_timeout=60)
    test.query_params["sql"] = sql
    test.run()
    assert not test.exception
    return test


def test_a_link_runs_nothing_before_a_click(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    test = opened(monkeypatch, account, "DROP TABLE requests_t")
    assert test.text_area(key="sql").value == "DROP TABLE requests_t"
    assert any("press Run" in item.value for item in test.caption)
    test.run()
    assert account.asked == []
    test.button(key="run").click().run()
    assert [sql for sql, _ in account.asked] == ["DROP TABLE requests_t"]


def test_what_runs_is_read_only_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    opened(monkeypatch, account, "SELECT 1").button(key="run").click().run()
    settings = account.asked[0][1]
    assert settings["readonly"] == 2
    assert {name: settings[name] for name in LIMITS} == LIMITS


@pytest.mark.parametrize(
    ("held", "sent"),
    [
        ({}, {"readonly": 2, "result_overflow_mode": "break", **LIMITS}),
        ({"readonly": ("0", 0), "max_execution_time": ("0", 0)}, {"readonly": 2, "max_execution_time": 20}),
        ({"readonly": ("1", 1)}, {"readonly": None}),
        ({"readonly": ("2", 1), "max_execution_time": ("5", 0)}, {"readonly": None, "max_execution_time": None}),
        ({"readonly": ("0", 1)}, {"readonly": 2}),
        ({"max_memory_usage": ("400000000", 0)}, {"max_memory_usage": None}),
        ({"max_memory_usage": ("9000000000", 0)}, {"max_memory_usage": LIMITS["max_memory_usage"]}),
        ({"result_overflow_mode": ("throw", 1)}, {"result_overflow_mode": None}),
    ],
)
def test_tighter_limits_of_the_account_stay(held: dict[str, tuple[str, int]], sent: dict[str, object]) -> None:
    made = fenced(Account(held))
    assert {name: made.get(name) for name in sent} == sent


def test_a_cut_answer_says_so() -> None:
    assert page.told(1) == "1 row"
    assert page.told(7000) == "7,000 rows, the first 5,000 shown"
    assert page.told(ROWS) == "The first 100,000 rows, the first 5,000 shown"
