"""A page is one file of ``views/``: it stands in the navigation at its place, under its name in the URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from streamlit.testing.v1 import AppTest

from base.found import NotFoundError
from dashboard import views
from dashboard.navigation import found_views

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """
\"\"\"How fast the fans turn.\"\"\"
import streamlit as st
TITLE = "Fans"
PLACE = 15
def draw():
    st.markdown("They turn.")
"""


def _fans() -> None:
    from dashboard.navigation import found_views  # noqa: PLC0415 - the script that is run

    next(view for view in found_views() if view.title == "Fans").draw()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(views, "__path__", [*views.__path__, str(tmp_path)])
    return tmp_path


def test_a_page_is_one_file(folder: Path):
    (folder / "fan_speed.py").write_text(PAGE)
    assert [view.path for view in found_views()] == [
        "", "latency", "fan-speed", "queue", "kv-cache", "tenants", "hardware", "instances", "requests", "slos",
        "incidents", "sql",
    ]  # fmt: skip

    drawn = AppTest.from_function(_fans, default_timeout=60).run()
    assert not drawn.exception
    assert [one.value for one in drawn.markdown] == ["They turn."]


def test_a_page_without_a_title_is_named(folder: Path):
    (folder / "nameless.py").write_text("def draw():\n    pass\n")
    with pytest.raises(NotFoundError, match=r"nameless\.py has no TITLE"):
        found_views()
