"""Places at the engine: so many at a time, shared fairly between clients, and each one's time kept."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from collector.embedded.errors import (
    SERVER_OVERLOADED,
    TIMEOUT_EXCEEDED,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    QueryError,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.embedded.engine import Role

Group = Literal["owner", "own", "guest"]
_NAME_LETTERS = 80
_PATIENCE_SECONDS = 5.0
_HERE = "loopback"
T = TypeVar("T")


@dataclass(frozen=True)
class Client:
    """Who asks, as far as places are concerned.

    Attributes:
        role: What it may do.
        own: A reader that knows the folder's key: dashboard and commands of this installation.
        name: Tells clients apart that share places.
        network: Where it comes from, whatever it calls itself.
    """

    role: Role
    own: bool
    name: str
    network: str = ""

    @property
    def group(self) -> Group:
        """The group whose places it uses."""
        if self.role == "owner":
            return "owner"
        return "own" if self.own else "guest"


def client_name(peer: str, agent: str) -> str:
    """Name a client by its network; on this machine, where all have the same one, by its ``User-Agent`` as well."""
    network = network_name(peer)
    return f"{network} {agent[:_NAME_LETTERS]}" if network == _HERE else network


def network_name(peer: str) -> str:
    """Where a client comes from: its address, for IPv6 its network of 64 bits, of which it has all; or this machine."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:_NAME_LETTERS]
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return _HERE
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Stay:
    """One request's presence in a group, from its arrival to its end; lives on the event loop.

    Attributes:
        busy: The engine works for it, and whoever waits for the engine will end it.
        limit: Seconds it may keep its place; infinite for none.
        patience: Seconds past its limit, or its client's leaving, after which it has overstayed.
        left: Its client has gone.
        over: Seconds past either, counted while somebody watched.
        cause: Which of them came first, in words.
        client: Whose it is.
    """

    def __init__(self, group: Places, name: str) -> None:
        self._group = group
        self._name = name
        self._entered = 0.0
        self._ended = False
        self._cut = asyncio.Event()
        self._when_cut: list[Callable[[], None]] = []
        self._when_late: Callable[[], object] | None = None
        self.busy = False
        self.limit = float("inf")
        self.patience = _PATIENCE_SECONDS
        self.left = False
        self.over = 0.0
        self.cause = ""
        self.client: Client | None = None

    async def enter(self) -> None:
        """Wait for a place.

        Raises:
            QueryError: The store stops (745).
        """
        await self._group.take(self._name)
        self._entered = time.monotonic()
        self._group.stays.add(self)
        self._group.entered.set()

    def end(self) -> None:
        """Give the place back; a second time is nothing."""
        if self._ended:
            return
        self._ended = True
        self._group.stays.discard(self)
        self._group.forget(self._name, inside=self._entered > 0)

    def spend(self, now: float, passed: float) -> float:
        """Count the seconds that have ``passed`` by ``now`` (monotonic); the seconds past its time in all."""
        if self.left or now - self._entered > self.limit:
            if not self.over:
                self.cause = "its client's leaving" if self.left else "its time limit"
                if self._when_late is not None:
                    self._when_late()
            self.over += passed
        return self.over

    def when_late(self, work: Callable[[], object]) -> None:
        """Have ``work`` called once the stay is past its time."""
        self._when_late = work

    def when_cut(self, work: Callable[[], None]) -> None:
        """Have ``work`` called when the stay is cut."""
        self._when_cut.append(work)

    def cut(self) -> None:
        """Free whoever waits for the engine: it won't be done in time."""
        if not self._cut.is_set():
            self._cut.set()
            for work in self._when_cut:
                work()

    @property
    def was_cut(self) -> bool:
        """Whether it was cut."""
        return self._cut.is_set()

    async def unless_cut(self, work: asyncio.Future[T]) -> T:
        """Wait for ``work``, which goes on whatever becomes of us.

        Raises:
            QueryError: The stay was cut (159).
        """
        cut = asyncio.get_running_loop().create_task(self._cut.wait())
        try:
            both: set[asyncio.Future[Any]] = {work, cut}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cut.cancel()
        if work.done():
            return work.result()
        raise overdue()


def overdue() -> QueryError:
    """The error of a query whose time is over."""
    return refused(
        TIMEOUT_EXCEEDED, "TIMEOUT_EXCEEDED", "The query has had its time and does not end", "Ask for less at a time"
    )


class Places:
    """The places of one group; lives on the event loop.

    Args:
        size: Requests that run at once.
        share: Of these, how many one client may have.
        waiting: Requests that may be present without a place, in all and of one client.
        entered: Set whenever one takes its place; several groups may share it.
    """

    def __init__(self, size: int, share: int, waiting: tuple[int, int], entered: asyncio.Event | None = None) -> None:
        self._size = size
        self._share = share
        self._limits = waiting
        self._running: Counter[str] = Counter()
        self._present: Counter[str] = Counter()
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        self._closed = ""
        self.entered = entered or asyncio.Event()
        self.stays: set[Stay] = set()

    def figures(self) -> dict[str, int]:
        """Counts for the health page."""
        running = self._running.total()
        return {"places": self._size, "running": running, "waiting": self._present.total() - running}

    def arrive(self, name: str) -> Stay:
        """Come in without a place yet; end the stay whatever happens.

        Raises:
            QueryError: Too many are waiting (202), or the store stops (745).
        """
        self._check_open()
        waits, waits_mine = self._present.total() - self._running.total(), self._present[name] - self._running[name]
        if waits >= self._limits[0] or waits_mine >= self._limits[1]:
            raise refused(
                TOO_MANY_SIMULTANEOUS_QUERIES,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"{waits} queries wait for one of {self._size} places, {waits_mine} of them yours",
                "Try again in a second",
            )
        self._present[name] += 1
        return Stay(self, name)

    async def take(self, name: str) -> None:
        """Wait for a place; among those who wait, the client with the fewest places is next.

        Raises:
            QueryError: The store stops (745).
        """
        self._check_open()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(name, deque()).append(place)
        self._hand_out()
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._give_back(name)
            elif (queue := self._queues.get(name)) and place in queue:
                queue.remove(place)
            raise

    def forget(self, name: str, *, inside: bool) -> None:
        """A stay has ended."""
        if inside:
            self._give_back(name)
        self._present -= Counter([name])

    def close(self, why: str) -> None:
        """Let nobody else in, and send those away who wait."""
        self._closed = why
        for queue in self._queues.values():
            for place in queue:
                if not place.done():
                    place.set_exception(_stopping(why))
        self._queues.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise _stopping(self._closed)

    def _give_back(self, name: str) -> None:
        self._running -= Counter([name])
        self._hand_out()

    def _hand_out(self) -> None:
        while self._running.total() < self._size:
            ready = [name for name, queue in self._queues.items() if queue and self._running[name] < self._share]
            if not ready:
                return
            # The first of those with the fewest: whoever was served goes to the end of the line.
            name = min(ready, key=lambda one: self._running[one])
            queue = self._queues.pop(name)
            place = queue.popleft()
            if queue:
                self._queues[name] = queue
            if not place.done():
                self._running[name] += 1
                place.set_result(None)


def _stopping(why: str) -> QueryError:
    return refused(SERVER_OVERLOADED, "SERVER_OVERLOADED", f"The store {why}", "Try again in a second")
