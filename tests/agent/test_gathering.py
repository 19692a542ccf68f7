"""Records gather for longer while the collector says that nobody reads, and whoever begins to read misses nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from agent.gathering import UNREAD_SECONDS, Gathering
from collector.config import CollectorConfig
from collector.writing import pace
from collector.writing.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Sequence

FLUSH = 0.5
STEP = 0.01
ROWS_SECONDS = 2.6
"""Of the three that are promised inserts take the rest."""


def test_a_collectors_word_holds_for_a_moment():
    now = [100.0]
    given = Gathering(FLUSH, clock=lambda: now[0])
    assert given.seconds == FLUSH
    given.told(unread=True)
    assert given.seconds == UNREAD_SECONDS
    now[0] += 6  # nothing was sent since
    assert given.seconds == FLUSH
    given.told(unread=True)
    given.told(unread=False)
    assert given.seconds == FLUSH


def test_who_gathers_for_longer_anyway_goes_on():
    given = Gathering(10.0, clock=lambda: 0.0)
    given.told(unread=True)
    assert given.seconds == 10.0


class Line:
    """An agent that samples 100 times a second, a collector, and a store whose inserts take no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(pace.time, "monotonic", lambda: self.now)
        nobody: Any = None
        self.pace = Pace(nobody, nobody, CollectorConfig())
        self.pace._unhurried.update(("traces", "metrics", "logs"))
        self.pace.bring_in = self._bring_in  # type: ignore[method-assign]
        self.gathering = Gathering(FLUSH, clock=lambda: self.now)
        self.called_at = float("-inf")
        self.call_seconds = self.pace.call_seconds
        self.sent_until = self.arrived_until = self.stored_until = 0.0
        self.ships_at = 0.0
        self.requests = 0

    async def _bring_in(self, _signal: str) -> None:
        self.stored_until = self.arrived_until

    async def step(self) -> None:
        self.now = round(self.now + STEP, 6)
        if self.now >= self.ships_at:
            self.requests += 1
            self.arrived_until = self.now
            self.gathering.told(unread=self.pace.unread)
            seconds = self.gathering.seconds
            self.ships_at = round(self.now + seconds - self.now % seconds, 6)

    async def read(self) -> float:
        """Age of the newest row that a reader sees."""
        if self.now - self.called_at >= self.call_seconds:
            self.called_at = self.now
            await self.pace.wanted("metrics")
            self.call_seconds = self.pace.call_seconds
        return self.now - self.stored_until


@pytest.mark.parametrize("seed", range(20))
async def test_rows_are_there_in_time_for_whoever_begins_to_read(seed: int, monkeypatch: pytest.MonkeyPatch):
    chance = random.Random(seed)
    line = Line(monkeypatch)
    ages = []
    for _ in range(5):
        for _ in range(int((pace.SILENCE_SECONDS + 5 + chance.random() * 5) / STEP)):
            await line.step()
        for wait in _waits(chance):
            for _ in range(max(1, int(wait / STEP))):
                await line.step()
            ages.append(await line.read())
    assert max(ages) <= ROWS_SECONDS + 2 * STEP


def _waits(chance: random.Random) -> Sequence[float]:
    often = chance.choice((0.1, 0.5, 1.0, 2.0))
    return [often * (0.5 + chance.random()) for _ in range(20)]


async def test_while_nobody_reads_a_third_of_the_requests_will_do(monkeypatch: pytest.MonkeyPatch):
    line = Line(monkeypatch)
    for _ in range(int((pace.SILENCE_SECONDS + 10) / STEP)):
        await line.step()
    before = line.requests
    for _ in range(int(40 / STEP)):
        await line.step()
    assert line.requests - before <= 27
