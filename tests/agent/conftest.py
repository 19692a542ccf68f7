"""NVIDIA's driver as our stub plays it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kits.gpu import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """Loaded once: a process keeps the first library of that name."""
    return Driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(library: Driver) -> Iterator[Driver]:
    """Without GPUs, for the time of a test; who does not ask for it finds no driver."""
    library.reset(0)
    yield library
    library.answer()
    library.reset(0, loaded=False)
