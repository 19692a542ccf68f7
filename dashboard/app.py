"""The dashboard's entry: one page a question, navigation on top."""

from __future__ import annotations

import streamlit as st

from dashboard import shell
from dashboard.navigation import found_views


def main() -> None:
    """Build the navigation, draw the bar of the page that was asked for, and run it."""
    shell.begin()
    views = {view.title: view for view in found_views()}
    shown = st.navigation(
        [st.Page(view.draw, title=view.title, url_path=view.path, default=not view.path) for view in views.values()],
        position="top",
    )
    view = views[shown.title]
    if view.question and not view.alone():
        shell.bar(view.question, compare=view.compares)
    shown.run()


main()
