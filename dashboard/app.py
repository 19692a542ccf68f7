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
    """Build the navigation and run the page that was asked for."""
    shell.begin()
    pages = []
    for index, (name, title) in enumerate(PAGES):
        view = importlib.import_module(f"dashboard.views.{name}")
        pages.append(st.Page(view.draw, title=title, url_path="" if index == 0 else name, default=index == 0))
    st.navigation(pages, position="top").run()


main()
