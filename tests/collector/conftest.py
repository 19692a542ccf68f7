"""What several of the collector's tests start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from base import signing
from collector.auth import Door
from tests.kits.collector_way import KEY, Way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    made: list[Way] = []

    async def build(door: Door | None = None, **settings: Any) -> Way:
        way = Way(tmp_path / f"log{len(made)}", door or Door({signing.key_id(KEY): KEY}), **settings)
        made.append(await way.start())
        return way

    yield build
    for way in made:
        await way.client.close()
        await way.log.close()
        way.journal.close()
