"""Fixtures for every package: a running embedded store, and logging that no test leaves configured."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings

from tests.kits.store_process import StoreServer, start_store

if TYPE_CHECKING:
    from collections.abc import Iterator

# A machine that is busy with something else is no fault of an example.
settings.register_profile("servescope", deadline=None)
settings.load_profile("servescope")


_SHORT = {"agent", "benchmarks", "dashboard", "docs", "probe"}
"""Folders whose files take seconds at most."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, in the random order that they have: processes that share them by files end together."""
    items.sort(key=lambda item: item.path.parent.name in _SHORT)


@pytest.fixture(scope="session", autouse=True)
def _probes_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Agents of tests leave the socket alone on which one of this machine may listen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVESCOPE_PROBE_SOCKET", str(tmp_path_factory.mktemp("probe") / "probe.sock"))
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """What a command of a test configured for its process (the log, last words) is gone after it."""
    hooks = sys.excepthook, threading.excepthook
    formatter = logging.lastResort.formatter if logging.lastResort is not None else None
    yield
    sys.excepthook, threading.excepthook = hooks
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(formatter)
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _main_as_it_was() -> Iterator[None]:
    """Streamlit puts a page in the place of ``__main__``, and processes that are spawned would run it."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """One store for the whole test run: use your own database or table names."""
    server = start_store(tmp_path_factory.mktemp("store_server"))
    yield server
    server.stop()
