"""What a probe says once in a process it may say once in each test."""

from __future__ import annotations

import pytest
from servescope_probe import plugin


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests had a probe say."""
    monkeypatch.setattr(plugin, "_told", set())
