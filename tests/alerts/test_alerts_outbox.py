from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.deliver.message import Message
from alerts.deliver.notifier import Delivery
from alerts.deliver.outbox import (
    GIVE_UP_SECONDS,
    PER_MINUTE,
    POISON_TRIES,
    Entry,
    Outbox,
    entry_changes,
    heads,
    settle,
    wait_before,
)
from alerts.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pager:
    """A notifier that answers as a test says and remembers what it was sent."""

    name = "pager"
    destination = "test"

    def __init__(self, answer: Callable[[dict[str, Any]], Delivery] = lambda _: Delivery("sent")) -> None:
        self.answer = answer
        self.got: list[dict[str, Any]] = []

    def render(self, message: Message) -> dict[str, Any]:
        return {"action": message.action, "key": message.dedup_key, "at": message.at}

    def send(self, payload: dict[str, Any]) -> Delivery:
        delivery = self.answer(payload)
        if delivery.verdict == "sent":
            self.got.append(payload)
        return delivery

    def close(self) -> None:
        pass


def put(journal: Journal, outbox: Outbox, incident: str, action: Any, at: float = 1000.0) -> None:
    message = Message(action, incident, f"servescope-{incident}", at, "critical", "waiting 57", "triton-a")
    values, rows = entry_changes(outbox.queue(message, outbox.names))
    journal.write({"outbox": values}, rows)


def drain(outbox: Outbox, clock: Clock, rounds: int = 1000) -> None:
    """Deliver, letting time pass as the outbox asks for."""
    for _ in range(rounds):
        wait = outbox.deliver("pager")
        if wait is None:
            return
        clock.now += wait + 0.001
    pytest.fail("the outbox never came to rest")


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(0, 0.6))
def test_every_message_arrives_in_order_and_once_by_key_whatever_fails(
    tmp_path_factory: pytest.TempPathFactory, seed: int, incidents: int, trouble: float
):
    draw, clock, folder = random.Random(seed), Clock(), tmp_path_factory.mktemp("outbox")
    arrived: list[tuple[str, str]] = []

    def answer(payload: dict[str, Any]) -> Delivery:
        lot = draw.random()
        if lot < trouble / 2:
            return Delivery("retry", "HTTP 429", 5.0)
        if lot < trouble:
            if draw.random() < 0.5:  # it arrived, and the answer was lost
                arrived.append((payload["key"], payload["action"]))
            return Delivery("retry", "connection reset")
        arrived.append((payload["key"], payload["action"]))
        return Delivery("sent")

    journal = Journal(folder)
    outbox = Outbox(journal, [Pager(answer)], clock)
    for action in ("trigger", "acknowledge", "resolve"):
        for number in range(incidents):
            put(journal, outbox, f"i{number}", action, clock.now)
        if draw.random() < 0.5:
            outbox.deliver("pager")
        journal.close()  # a restart in between
        journal = Journal(folder)
        outbox = Outbox(journal, [Pager(answer)], clock)
    drain(outbox, clock)
    for number in range(incidents):
        mine = [action for key, action in arrived if key == f"servescope-i{number}"]
        assert list(dict.fromkeys(mine)) == ["trigger", "acknowledge", "resolve"]
        order = [("trigger", "acknowledge", "resolve").index(action) for action in mine]
        assert order == sorted(order)
    assert outbox.counts() == {"queued": 0, "sent": 3 * incidents, "failed": 0, "dead": 0}
    journal.close()


def test_a_refused_trigger_is_a_dead_letter_and_takes_its_resolve_along(tmp_path: Path):
    clock, journal = Clock(), Journal(tmp_path)
    pager = Pager(lambda p: Delivery("refused", "HTTP 400: invalid") if p["key"].endswith("bad") else Delivery("sent"))
    outbox = Outbox(journal, [pager], clock)
    for incident in ("bad", "good"):
        put(journal, outbox, incident, "trigger")
        put(journal, outbox, incident, "resolve")
    drain(outbox, clock)
    assert outbox.counts() == {"queued": 0, "sent": 2, "failed": 0, "dead": 2}
    dead = [e for e in outbox.entries() if e.status == "dead"]
    assert [e.last_error for e in dead] == ["HTTP 400: invalid", "its trigger was never delivered"]
    kinds = Counter(row["kind"] for _, (table, row) in journal.waiting_rows() if table == "incident_events")
    assert kinds == {"notification_dead": 1, "notification_sent": 2}
    journal.close()


def test_a_broken_incident_holds_up_no_other(tmp_path: Path):
    clock, journal = Clock(), Journal(tmp_path)
    pager = Pager(lambda p: Delivery("retry", "HTTP 500") if p["key"].endswith("stuck") else Delivery("sent"))
    outbox = Outbox(journal, [pager], clock)
    for incident in ("stuck", "free"):
        put(journal, outbox, incident, "trigger")
    put(journal, outbox, "stuck", "resolve")
    assert outbox.deliver("pager") is not None
    assert [p["key"] for p in pager.got] == ["servescope-free"]
    waiting = heads(outbox.entries(), "pager")
    assert [(e.action, e.status, e.attempts) for e in waiting] == [("trigger", "failed", 1)]
    journal.close()


def test_a_message_that_a_notifier_trips_over_is_set_aside_and_holds_up_no_other(tmp_path: Path):
    clock, journal = Clock(), Journal(tmp_path)

    def answer(payload: dict[str, Any]) -> Delivery:
        if payload["key"].endswith("bad"):
            raise KeyError("payload")
        return Delivery("sent")

    pager = Pager(answer)
    outbox = Outbox(journal, [pager], clock)
    put(journal, outbox, "bad", "trigger")
    put(journal, outbox, "good", "trigger")
    drain(outbox, clock)
    assert [p["key"] for p in pager.got] == ["servescope-good"]
    assert outbox.counts() == {"queued": 0, "sent": 1, "failed": 0, "dead": 1}
    (dead,) = [e for e in outbox.entries() if e.status == "dead"]
    assert (dead.attempts, dead.last_error) == (POISON_TRIES, f"KeyError on sending it, {POISON_TRIES} times")
    assert outbox.trips == POISON_TRIES
    journal.close()


def test_a_message_that_cannot_be_read_holds_up_no_other(tmp_path: Path):
    clock, journal, pager = Clock(), Journal(tmp_path), Pager()
    outbox = Outbox(journal, [pager], clock)
    put(journal, outbox, "good", "trigger")
    journal.write({"outbox": {"odd": {"id": "odd", "status": "queued", "shape": "of another version"}}})
    drain(outbox, clock)
    assert [p["key"] for p in pager.got] == ["servescope-good"]
    journal.close()


def test_a_notice_whose_details_cannot_be_rendered_is_sent_without_them(tmp_path: Path):
    clock, journal = Clock(), Journal(tmp_path)

    class Picky(Pager):
        def render(self, message: Message) -> dict[str, Any]:
            return super().render(message) | {
                "value": message.details["value"] if "left_out" not in message.details else 0
            }

    pager = Picky()
    outbox = Outbox(journal, [pager], clock)
    put(journal, outbox, "a", "trigger")
    drain(outbox, clock)
    assert [p["value"] for p in pager.got] == [0]
    journal.close()


def test_429_pauses_the_whole_lane_as_long_as_it_asks(tmp_path: Path):
    clock, journal, asked = Clock(), Journal(tmp_path), []
    answers = iter([Delivery("retry", "HTTP 429", 30.0)])

    def answer(payload: dict[str, Any]) -> Delivery:
        asked.append((clock.now, payload["key"]))
        return next(answers, Delivery("sent"))

    outbox = Outbox(journal, [Pager(answer)], clock)
    put(journal, outbox, "a", "trigger")
    put(journal, outbox, "b", "trigger")
    assert outbox.deliver("pager") == pytest.approx(30.0)
    assert len(asked) == 1
    clock.now += 30.001
    assert outbox.deliver("pager") is None
    assert len(asked) == 3
    journal.close()


def test_a_clock_that_moves_between_two_looks_holds_nothing_up(tmp_path: Path):
    looks = itertools.count()
    journal, pager = Journal(tmp_path), Pager()
    outbox = Outbox(journal, [pager], lambda: 1000.0 + next(looks) * 1e-6)
    for number in range(3):
        put(journal, outbox, f"i{number}", "trigger")
    assert outbox.deliver("pager") is None
    assert len(pager.got) == 3
    assert next(looks) < 100
    journal.close()


def test_bursts_stay_under_the_other_sides_limit(tmp_path: Path):
    clock, journal, times = Clock(), Journal(tmp_path), []

    def answer(_: dict[str, Any]) -> Delivery:
        times.append(clock.now)
        return Delivery("sent")

    outbox = Outbox(journal, [Pager(answer)], clock)
    for number in range(250):
        put(journal, outbox, f"i{number}", "trigger")
    drain(outbox, clock)
    assert len(times) == 250
    assert all(sum(1 for t in times if at <= t < at + 60) <= PER_MINUTE for at in times)
    journal.close()


@given(st.integers(1, 100), st.floats(0, 1))
def test_waits_grow_and_stay_bounded(attempts: int, jitter: float):
    assert 0.8 <= wait_before(attempts, jitter) <= 60
    assert wait_before(attempts + 1, 0) >= wait_before(attempts, 0)


def test_what_nobody_takes_for_a_day_is_dead():
    entry = Entry("i-1", 1, "i", "pager", "trigger", "k", "test", {}, 0.0, 0.0)
    assert settle(entry, Delivery("retry", "away"), GIVE_UP_SECONDS - 1, 0).status == "failed"
    assert settle(entry, Delivery("retry", "away"), GIVE_UP_SECONDS + 1, 0).status == "dead"
    assert settle(entry, Delivery("retry", "busy", 300.0), 10.0, 0).next_at == 310.0


def test_the_sender_sends_by_itself_and_stops_cleanly(tmp_path: Path):
    journal, sent = Journal(tmp_path), threading.Event()

    def answer(_: dict[str, Any]) -> Delivery:
        sent.set()
        return Delivery("sent")

    clock = Clock()
    outbox = Outbox(journal, [Pager(answer)], clock)
    outbox.start()
    put(journal, outbox, "a", "trigger")
    outbox.wake()
    assert sent.wait(30)
    outbox.close()
    assert outbox.counts()["sent"] == 1
    journal.close()
