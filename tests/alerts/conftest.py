"""A store with the product's schema, a database per test, and functions that write rows as the collector would."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from alerts.deliver.certificate import Certificate, ensure_certificate
from alerts.deliver.receiver import Pages, Receiver
from tests.kits.alerts_stage import Stage
from tests.kits.schema_tools import fresh_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from collector.store.client import Store


@dataclass
class Fleet:
    """Writes samples and requests."""

    store: Store
    keys: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def sample(self, at: float, instance: str = "triton-a", **values: object) -> None:
        self.store.insert("engine_samples", [self.sample_row(at, instance, **values)])

    @staticmethod
    def sample_row(at: float, instance: str = "triton-a", **values: object) -> dict[str, object]:
        row: dict[str, object] = {
            "time": datetime.fromtimestamp(at, UTC),
            "instance": instance,
            "deployment": "vision",
            "engine": "triton",
            "model": "m",
            "dp_rank": "0",
            "recording": "",
            "up": 1,
            "interval_seconds": 1.0,
        }
        return row | values

    def requests(self, at: float, count: int, outcome: str = "ok", **values: object) -> None:
        """Requests that arrive at ``at``."""
        self.store.insert("requests_t", [self.request_row(at, outcome, **values) for _ in range(count)])

    def request_row(self, at: float, outcome: str = "ok", **values: object) -> dict[str, object]:
        row: dict[str, object] = {
            "time": datetime.fromtimestamp(at, UTC),
            "key": next(self.keys),
            "tenant": "acme",
            "model": "m",
            "instance": "triton-a",
            "deployment": "vision",
            "engine": "triton",
            "outcome": outcome,
            "e2e_seconds": 0.1,
            "ttft_seconds": 0.05,
            "operation": "inference",
            "stream": 1,
            "has_edge": 1,
            "recording": "",
        }
        return row | values


@pytest.fixture
def fleet(store_server: Any) -> Iterator[Fleet]:
    """A migrated database of its own in the shared store."""
    with fresh_store(store_server) as store:
        yield Fleet(store)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return ensure_certificate(tmp_path_factory.mktemp("receiver"))


@pytest.fixture
def receiver(certificate: Certificate) -> Iterator[Receiver]:
    server = Receiver(certificate, Pages()).start()
    yield server
    server.stop()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.journal.close()
