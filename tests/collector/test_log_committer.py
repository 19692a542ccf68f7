"""The log's thread by itself, with somebody who commits as he is told."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from collector.log import committer
from collector.log.admission import LogFullError
from collector.log.committer import Append, Committer, State, fail, succeed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

SOON = 30


class Disk:
    """Commits when it may, and then as it is told."""

    def __init__(self, thread: Committer) -> None:
        self._thread = thread
        self.may = threading.Event()
        self.may.set()
        self.groups: list[list[bytes]] = []
        self.error: Exception | None = None

    def commit(self, group: Sequence[Append]) -> None:
        self.groups.append([item.frame for item in group])
        assert self.may.wait(SOON)
        if isinstance(self.error, LogFullError):
            self._thread.post(fail, [item.done for item in group], self.error)
        elif self.error is not None:
            raise self.error
        else:
            self._thread.post(succeed, [item.done for item in group])


@pytest.fixture
async def thread() -> AsyncIterator[Committer]:
    made = Committer()
    yield made
    await made.close()


@pytest.fixture
async def disk(thread: Committer) -> AsyncIterator[Disk]:
    made = Disk(thread)
    thread.start(made.commit)
    yield made
    made.may.set()


async def give(thread: Committer, *frames: bytes) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(thread.append("traces", frame, 1, b"")) for frame in frames]
    await asyncio.sleep(0)
    return tasks


async def busy(disk: Disk, groups: int) -> None:
    async with asyncio.timeout(SOON):
        while len(disk.groups) < groups:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_nothing_is_acknowledged_before_its_group_is_committed(thread: Committer, disk: Disk):
    disk.may.clear()
    (one,) = await give(thread, b"1")
    await busy(disk, 1)
    assert not one.done()
    disk.may.set()
    await asyncio.wait_for(one, SOON)


async def test_what_came_during_a_commit_is_the_next_group(thread: Committer, disk: Disk):
    disk.may.clear()
    tasks = await give(thread, b"1")
    await busy(disk, 1)
    tasks += await give(thread, b"2", b"3", b"4")
    disk.may.set()
    await asyncio.wait_for(asyncio.gather(*tasks), SOON)
    assert disk.groups == [[b"1"], [b"2", b"3", b"4"]]


async def test_a_group_is_bounded(thread: Committer, disk: Disk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(committer, "GROUP_LIMIT", 20)
    disk.may.clear()
    tasks = await give(thread, b"first")
    await busy(disk, 1)
    tasks += await give(thread, *(bytes(10) for _ in range(5)))
    disk.may.set()
    await asyncio.wait_for(asyncio.gather(*tasks), SOON)
    assert [len(group) for group in disk.groups] == [1, 2, 2, 1]


async def test_a_task_keeps_its_place_among_appends(thread: Committer, disk: Disk):
    disk.may.clear()
    tasks = await give(thread, b"1")
    await busy(disk, 1)
    tasks += await give(thread, b"2")
    seen = asyncio.create_task(thread.in_order(lambda: list(disk.groups)))
    await asyncio.sleep(0)
    tasks += await give(thread, b"3")
    disk.may.set()
    await asyncio.wait_for(asyncio.gather(*tasks), SOON)
    assert await seen == [[b"1"], [b"2"]]
    assert disk.groups == [[b"1"], [b"2"], [b"3"]]


async def test_a_refused_group_is_nobodys_elses_trouble(thread: Committer, disk: Disk):
    disk.error = LogFullError("disk")
    (one,) = await give(thread, b"1")
    with pytest.raises(LogFullError, match="disk"):
        await asyncio.wait_for(one, SOON)
    disk.error = None
    await asyncio.wait_for(thread.append("traces", b"2", 1, b""), SOON)


async def test_a_fault_of_ours_costs_its_group_and_not_everybody_after_it(thread: Committer, disk: Disk):
    disk.error = ValueError("a fault of ours")
    for _ in range(2):
        with pytest.raises(ValueError, match="a fault of ours"):
            await asyncio.wait_for(thread.append("traces", b"1", 1, b""), SOON)
    disk.error = None
    await asyncio.wait_for(thread.append("traces", b"2", 1, b""), SOON)


async def test_what_a_task_raises_is_its_callers(thread: Committer, disk: Disk):
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await asyncio.wait_for(thread.in_order(refuse), SOON)
    assert await asyncio.wait_for(thread.in_order(lambda: 7), SOON) == 7


async def test_a_sender_that_hangs_up_takes_nothing_back(thread: Committer, disk: Disk):
    disk.may.clear()
    gone, stays = await give(thread, b"1", b"2")
    await busy(disk, 1)
    gone.cancel()
    disk.may.set()
    await asyncio.wait_for(stays, SOON)
    assert [frame for group in disk.groups for frame in group] == [b"1", b"2"]


async def test_a_close_answers_everybody_who_came_before_and_nobody_after(thread: Committer, disk: Disk):
    disk.may.clear()
    tasks = await give(thread, b"1", b"2")
    closing = asyncio.create_task(thread.close())
    await asyncio.sleep(0)
    assert thread.state is State.CLOSED
    with pytest.raises(RuntimeError, match="the log is closed"):
        await thread.append("traces", b"3", 1, b"")
    disk.may.set()
    await asyncio.wait_for(asyncio.gather(closing, *tasks), SOON)
    assert [frame for group in disk.groups for frame in group] == [b"1", b"2"]


@pytest.mark.parametrize(
    "call", [lambda thread: thread.append("traces", b"1", 1, b""), lambda thread: thread.in_order(list)]
)
async def test_one_that_is_not_started_takes_nothing(thread: Committer, call: Callable[..., object]):
    assert thread.state is State.NEW
    with pytest.raises(RuntimeError, match="the log is not started"):
        await call(thread)  # type: ignore[misc]
