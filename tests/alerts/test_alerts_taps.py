"""What taps say of themselves: what they lost pages without any rule, and what they have open is known."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from alerts.measure import taps
from alerts.rules.own import tap_readings


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_tap_that_loses_requests_pages_without_any_rule(fleet: Any):
    now = float(int(time.time()))

    def said(
        age: float, value: float, *, metric: str = "records_lost", instance: str = "a", began: float = 9000.0
    ) -> None:
        row = {
            "ResourceAttributes": {"service.instance.id": instance, "process.pid": str(began)},
            "ServiceName": "servescope-tap",
            "MetricName": f"servescope.tap.{metric}",
            "Attributes": {"reason": "spool"},
            "StartTimeUnix": at(now - began),
            "TimeUnix": at(now - age),
            "Value": value,
        }
        fleet.store.insert("otel_metrics_sum", [row])

    def lost() -> dict[str, float]:
        return {one.labels["instance"]: one.seen.value for one in tap_readings(taps.losses(fleet.store, now), now)}

    assert lost() == {}
    for age in (400, 100, 10):
        said(age, 7.0)  # lost long ago
        said(age, 3.0, metric="requests", instance="b")
    assert lost() == {"a": 0.0}
    assert not any(one.seen.breached for one in tap_readings(taps.losses(fleet.store, now), now))
    said(5, 9.0)
    said(50, 4.0, instance="c", began=60.0)  # a process that began in the window
    said(40, 100.0, instance="d")  # nothing is known of before: no increase is
    assert lost() == {"a": 2.0, "c": 4.0, "d": 0.0}
    said(4, 1.0, began=20.0)  # restarted
    (first, *_) = tap_readings(taps.losses(fleet.store, now), now)
    assert first.reason == "requests at the tap of a in 5 min: 3 were served and not recorded (spool)"


def test_what_taps_have_open_is_theirs_who_are_there(fleet: Any):
    now = float(int(time.time()))

    def said(age: float, value: float, instance: str, pid: int = 1, what: str = "open") -> None:
        row = {
            "ResourceAttributes": {"service.instance.id": instance, "process.pid": str(pid)},
            "ServiceName": "servescope-tap",
            "MetricName": f"servescope.tap.requests.{what}",
            "TimeUnix": at(now - age),
            "Value": value,
        }
        fleet.store.insert("otel_metrics_gauge", [row])

    assert taps.open_requests(fleet.store, now) == {}
    for age, value in ((80, 9.0), (60, 106.0), (40, 0.0), (10, 0.0)):
        said(age, value, "emptied")
    for age, value in ((60, 0.0), (5, 3.0)):
        said(age, value, "busy")
    said(200, 0.0, "gone")
    for age in (70, 10):
        said(age, 0.0, "two")
        said(age, 0.0, "never")
    said(20, 4.0, "two", pid=2)
    said(20, 12.0, "two", pid=2, what="owed_age")
    said(5, 0.0, "busy", what="owed_age")
    said(40, 9.0, "emptied", what="owed_age")
    said(10, 0.0, "emptied", what="owed_age")
    assert taps.open_requests(fleet.store, now) == {
        "emptied": (0.0, 60.0, 0.0), "busy": (3.0, 0.0, 0.0), "two": (4.0, 0.0, now - 32), "never": (0.0, 70.0, 0.0),
    }  # fmt: skip
