"""One store for the questions, filled once and read as a reader: what a viewer may not run fails here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from collector.store.address import StoreAddress
from collector.store.client import Store
from collector.store.migrate import apply
from tests.analytics.lab import Lab, build, load
from tests.kits.store_process import start_store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = start_store(tmp_path_factory.mktemp("analytics"))
    made = build()
    with Store(StoreAddress(server.url, user="owner", password=server.owner_password)) as owner:
        apply(owner)
        load(made, owner)
        with Store(StoreAddress(server.url)) as reader:
            made.store = reader
            made.owner = owner
            yield made
    server.stop()
