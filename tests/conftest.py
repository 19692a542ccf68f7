"""Fixtures for every package: a running embedded store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.store_process import StoreServer, start_store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """One store for the whole test run: use your own database or table names."""
    server = start_store(tmp_path_factory.mktemp("store_server"))
    yield server
    server.stop()
