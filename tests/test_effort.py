"""The measure that other tests judge by: it tells the square from the straight, and hears no neighbours."""

from __future__ import annotations

import threading
import time

from tests.kits.effort import effort, in_proportion


def straight(count: int) -> None:
    for number in range(count):
        number * number


def squared(count: int) -> None:
    for _ in range(count):
        straight(count)


def test_what_grows_with_the_square_is_told_from_what_grows_straight():
    assert in_proportion(lambda: straight(40_000), lambda: straight(640_000), 80)
    assert not in_proportion(lambda: squared(250), lambda: squared(4_000), 80)


def test_other_threads_are_not_counted():
    ended = threading.Event()

    def busy() -> None:
        while not ended.is_set():
            straight(1_000)

    other = threading.Thread(target=busy, daemon=True)
    other.start()
    try:
        assert effort(lambda: time.sleep(0.5)) < 100_000_000
    finally:
        ended.set()
        other.join()
