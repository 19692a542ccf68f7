"""What tells of a loss is brought in at once, though nobody reads; what tells that none is costs no insert."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from agent.tap.report import encode
from base.vocabulary import TAP_LOST, TAP_REFUSED, Resource
from collector import rises
from collector.auth import NOBODY, Sender
from collector.rises import Rises

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

SOON = 30


def told(value: float, name: str = TAP_LOST, *, reason: str = "spool", instance: str = "a", pid: int = 1) -> bytes:
    resource = {Resource.INSTANCE: instance, "process.pid": str(pid)}
    return encode([(name, value, {"reason": reason}, True)], resource, 2, 1)


class Books:
    """Counts how often rows were brought in."""

    def __init__(self) -> None:
        self.brought = 0
        self.rises = Rises(self._bring_in, 0.0)

    async def _bring_in(self) -> None:
        self.brought += 1

    async def after(self, body: bytes, sender: Sender = NOBODY) -> int:
        """How often rows were brought in for a request."""
        before = self.brought
        self.rises.look(body, sender)
        for _ in range(10):
            await asyncio.sleep(0)
        return self.brought - before


@contextlib.asynccontextmanager
async def books() -> AsyncIterator[Books]:
    made = Books()
    work = asyncio.create_task(made.rises.run())
    try:
        yield made
    finally:
        work.cancel()


async def test_a_sum_that_grew_is_told_at_once():
    async with books() as given:
        assert [await given.after(told(value)) for value in (0.0, 0.0, 1.0, 1.0, 1.0, 3.0)] == [0, 0, 1, 0, 0, 1]
        # a process that begins anew counts from 0
        assert [await given.after(told(value, pid=2)) for value in (0.0, 2.0, 2.0)] == [0, 1, 0]
        assert [await given.after(told(value)) for value in (0.0, 1.0)] == [0, 1]


@pytest.mark.parametrize(
    "other",
    [{"name": TAP_REFUSED}, {"reason": "backlog"}, {"instance": "b"}, {"pid": 2}],
    ids=lambda other: next(iter(other)),
)
async def test_each_sum_is_one_of_its_own(other: Mapping[str, str]):
    async with books() as given:
        assert await given.after(told(5.0)) == 1
        assert await given.after(told(0.0, **other)) == 0  # type: ignore[arg-type]
        assert await given.after(told(5.0)) == 0
        assert await given.after(told(1.0, **other)) == 1  # type: ignore[arg-type]


async def test_another_tenants_sum_is_another_one():
    async with books() as given:
        assert await given.after(told(5.0)) == 1
        assert await given.after(told(1.0), Sender("k", "acme")) == 1
        assert await given.after(told(5.0)) == 0


async def test_what_else_taps_tell_is_no_haste():
    async with books() as given:
        assert await given.after(told(7.0, "servescope.tap.requests")) == 0
        assert await given.after(told(7.0, "servescope.tap.records_lost_of_another")) == 0


async def test_what_cannot_be_read_is_taken_for_a_rise():
    async with books() as given:
        assert await given.after(TAP_LOST.encode() + b"\xff") == 1


async def test_rises_during_an_insert_are_not_missed_and_come_together():
    may, inside = asyncio.Event(), asyncio.Event()
    brought = 0

    async def bring_in() -> None:
        nonlocal brought
        brought += 1
        inside.set()
        await may.wait()

    given = Rises(bring_in, 0.0)
    work = asyncio.create_task(given.run())
    try:
        async with asyncio.timeout(SOON):
            given.look(told(1.0), NOBODY)
            await inside.wait()
            inside.clear()
            for value in (2.0, 3.0, 4.0):
                given.look(told(value), NOBODY)
            assert brought == 1
            may.set()
            await inside.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert brought == 2
    finally:
        work.cancel()


async def test_what_was_forgotten_is_told_once_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rises, "_MOST", 2)
    async with books() as given:
        assert [await given.after(told(1.0, instance=name)) for name in "abca"] == [1, 1, 1, 1]
        assert await given.after(told(1.0, instance="a")) == 0
