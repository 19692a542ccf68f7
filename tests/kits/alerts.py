"""The pager in a process of its own that is forked and not started anew, so that it can be killed often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alerts.config import AlertsConfig
from alerts.process import build
from alerts.stopping import stop_event
from base.logs import log_to_stderr
from collector.store.address import StoreAddress
from collector.store.client import Store


def run_pager(folder: str, url: str, database: str, password: str, settings: dict[str, Any]) -> None:
    """What ``python -m alerts`` does, with the store's address and the settings as arguments."""
    log_to_stderr()
    stop = stop_event()
    store = Store(StoreAddress(url, database, "owner", password), timeout_seconds=10)
    build(AlertsConfig.model_validate(settings), Path(folder), store).run(stop)
