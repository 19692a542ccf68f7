"""The dashboard's entry: one page a question, navigation on top."""

from __future__ import annotations

import importlib
from typing import Final

import streamlit as st

from dashboard import shell

PAGES: Final = (
    ("overview", "", "Overview"),
    ("latency", "latency", "Latency"),
    ("waiting", "queue", "Queue"),
    ("caches", "kv-cache", "KV cache & batching"),
    ("requests_list", "requests", "Requests"),
    ("budgets", "slos", "SLOs & budgets"),
    ("incidents", "incidents", "Incidents"),
    ("adhoc", "sql", "SQL"),
)
"""View module, path in the URL, title; the first one is the front page."""


def main() -> None:
    """Build the navigation, draw the bar of the page that was asked for, and run it."""
    shell.begin()
    views = {title: importlib.import_module(f"dashboard.views.{name}") for name, _, title in PAGES}
    shown = st.navigation(
        [st.Page(views[title].draw, title=title, url_path=path, default=not path) for _, path, title in PAGES],
        position="top",
    )
    view = views[shown.title]
    if hasattr(view, "QUESTION") and not (hasattr(view, "alone") and view.alone()):
        shell.bar(view.QUESTION, compare=getattr(view, "COMPARE", False))
    shown.run()


main()
