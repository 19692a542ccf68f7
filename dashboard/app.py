"""The dashboard's entry: one page a question, navigation on top."""

from __future__ import annotations

import importlib
from typing import Final

import streamlit as st

from dashboard import shell

PAGES: Final = (
    ("overview", "Overview"),
    ("latency", "Latency"),
    ("waiting", "Queue"),
    ("caches", "KV cache & batching"),
    ("requests_list", "Requests"),
    ("budgets", "SLOs & budgets"),
    ("incidents", "Incidents"),
    ("adhoc", "SQL"),
)
"""View module → title; the first one is the front page."""


def main() -> None:
    """Build the navigation, draw the bar of the page that was asked for, and run it."""
    shell.begin()
    views = {title: importlib.import_module(f"dashboard.views.{name}") for name, title in PAGES}
    front = PAGES[0][0]
    shown = st.navigation(
        [
            st.Page(views[title].draw, title=title, url_path="" if name == front else name, default=name == front)
            for name, title in PAGES
        ],
        position="top",
    )
    view = views[shown.title]
    if hasattr(view, "QUESTION") and not (hasattr(view, "alone") and view.alone()):
        shell.bar(view.QUESTION, compare=getattr(view, "COMPARE", False))
    shown.run()


main()
