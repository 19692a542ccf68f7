"""Guests who have the engine recycled are refused for a growing while; nobody else is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from collector.embedded import penalties
from collector.embedded.errors import QueryError
from collector.embedded.penalties import FIRST_SECONDS, FORGOTTEN_SECONDS, LONGEST_SECONDS, Penalties
from collector.embedded.places import Client, Places, client_name, network_name
from collector.embedded.recycle import Past, Recycle
from collector.embedded.stays import watch

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr(penalties.time, "monotonic", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def guest(agent: str = "curl/8", peer: str = "127.0.0.1") -> Client:
    return Client("reader", own=False, name=client_name(peer, agent), network=network_name(peer))


def wait(found: Penalties, client: Client) -> int:
    """Seconds for which a client is refused, 0 where it is not."""
    caught: QueryError | None = None
    try:
        found.check(client)
    except QueryError as error:
        caught = error
    if caught is None:
        return 0
    assert (caught.code, caught.status) == (201, 429)
    assert f"Ask again in {caught.retry_seconds} s" in caught.text
    return caught.retry_seconds


def test_each_time_is_twice_as_long_up_to_an_hour(clock: Callable[[float], None]):
    found = Penalties({})
    waits = []
    for _ in range(9):
        found.blame(guest())
        waits.append(wait(found, guest()))
        clock(waits[-1] - 1)
        assert wait(found, guest()) == 1
        clock(1)
        assert wait(found, guest()) == 0
    assert waits == [min(FIRST_SECONDS * 2**n, LONGEST_SECONDS) for n in range(9)]


def test_another_name_helps_once_and_another_address_four_times(clock: Callable[[float], None]):
    found = Penalties({})
    found.blame(guest("a"))
    assert wait(found, guest("a"))
    assert not wait(found, guest("b"))
    found.blame(guest("b"))
    assert wait(found, guest("c")) == FIRST_SECONDS
    assert wait(found, guest("c", "127.0.0.9")) == FIRST_SECONDS
    assert not wait(found, guest("c", "10.0.0.1"))
    for number in range(1, 3):
        found.blame(guest("c", f"10.0.0.{number}"))
        assert not wait(found, guest("c", "10.0.0.77"))
    found.blame(guest("c", "2001:db8::1"))
    assert wait(found, guest("c", "2001:db8::2")) == FIRST_SECONDS
    assert wait(found, guest("c", "10.0.0.77")) == FIRST_SECONDS
    clock(FIRST_SECONDS)
    assert not wait(found, guest("c", "10.0.0.77"))


def test_owner_and_own_readers_are_neither_blamed_nor_refused(clock: Callable[[float], None]):
    found = Penalties({})
    ours = [
        Client("owner", own=False, name="loopback curl/8", network="loopback"),
        Client("reader", own=True, name="x"),
    ]
    for client in [*ours, *ours]:
        found.blame(client)
    assert found.records() == {}
    for number in range(10):
        found.blame(guest(f"{number}"))
    assert [wait(found, client) for client in ours] == [0, 0]
    assert wait(found, guest("new")) > 0
    assert found.figures() == {"penalties": 12, "penalty_seconds": LONGEST_SECONDS, "refused": 1}
    clock(0)


def test_what_is_long_past_is_forgotten(clock: Callable[[float], None]):
    found = Penalties({})
    for _ in range(3):
        found.blame(guest())
    clock(FORGOTTEN_SECONDS)
    assert found.records() == {}
    found.blame(guest())
    assert wait(found, guest()) == FIRST_SECONDS


def test_the_next_life_knows_it(clock: Callable[[float], None]):
    first = Recycle(Past())
    first.order("why", guest())
    handed_on = json.loads(json.dumps(asdict(Past(1, "why", 1.0, first.penalties.records()))))
    clock(10)
    second = Recycle(Past(**handed_on))
    assert wait(second.penalties, guest()) == FIRST_SECONDS - 10


async def test_the_one_whose_query_would_not_end_is_blamed():
    places = Places(2, 2, (5, 5))
    stuck, good = places.arrive("a"), places.arrive("b")
    stuck.client, good.client = guest("a"), guest("b")
    for stay in (stuck, good):
        await stay.enter()
    stuck.limit, stuck.patience = 0.0, 1.0
    recycle = Recycle(Past())
    await watch({"guest": places}, recycle, places.entered)
    assert wait(recycle.penalties, guest("a"))
    assert not wait(recycle.penalties, guest("b"))
