"""Streamlit's settings, in one place and independent of the folder it is started in."""

from __future__ import annotations

from typing import Any, Final

from dashboard.theme import DARK, LIGHT, Palette


def _theme(name: str, colours: Palette) -> dict[str, Any]:
    return {
        f"theme.{name}.primaryColor": colours.accent,
        f"theme.{name}.backgroundColor": colours.page,
        f"theme.{name}.secondaryBackgroundColor": colours.panel,
        f"theme.{name}.textColor": colours.text,
        f"theme.{name}.borderColor": colours.grid,
        f"theme.{name}.dataframeHeaderBackgroundColor": colours.panel,
        f"theme.{name}.linkColor": colours.accent,
        f"theme.{name}.grayTextColor": colours.quiet,
        f"theme.{name}.codeTextColor": colours.text,
        f"theme.{name}.dataframeHeaderTextColor": colours.quiet,
    }


OPTIONS: Final[dict[str, Any]] = {
    "runner.magicEnabled": False,
    "server.headless": True,
    "logger.hideWelcomeMessage": True,
    "server.fileWatcherType": "none",
    "server.runOnSave": False,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",
    "global.developmentMode": False,
    "global.disableWidgetStateDuplicationWarning": True,  # dashboard.address gives bound widgets their value again
    "theme.baseFontSize": 14,
    "theme.headingFontSizes": ["1.35rem", "1rem", "0.95rem", "0.95rem", "0.9rem", "0.9rem"],
    "theme.headingFontWeights": [600, 600, 600, 600, 600, 600],
    "theme.metricValueFontSize": "1.5rem",
    "theme.metricValueFontWeight": 600,
    "theme.baseRadius": "6px",
    "theme.showWidgetBorder": True,
    **_theme("light", LIGHT),
    **_theme("dark", DARK),
}
"""Option name → value, as Streamlit's command line takes them."""
