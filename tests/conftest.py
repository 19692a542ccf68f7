"""Fixtures for every package: a running embedded store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.store_process import StoreServer, start_store

if TYPE_CHECKING:
    from collections.abc import Iterator

# A machine that is busy with something else is no fault of an example.
settings.register_profile("servescope", deadline=None)
settings.load_profile("servescope")


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """One store for the whole test run: use your own database or table names."""
    server = start_store(tmp_path_factory.mktemp("store_server"))
    yield server
    server.stop()
