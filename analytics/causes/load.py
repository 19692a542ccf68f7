"""Reads what an account is made of out of the store: a few statements, each one row of arrays.

Requests of the reference period and the window are read whoever asks about which of them: others' work is what some
waited for. Of very many every k-th is read and stands for k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes.cohorts import cohorts
from analytics.causes.gpus import gpus_of
from analytics.causes.steps import SILENT_SECONDS, steps_of
from analytics.causes.table import Event, Evidence, Host, requests_of, samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analytics.causes.steps import Steps
    from analytics.causes.table import Requests
    from analytics.inquiry import Inquiry

MOST_REQUESTS: Final = 400_000
"""Requests that are read; of more every k-th."""
MOST_BEFORE: Final = 40_000
"""Requests before the window above which a shorter time before it is enough, down to `SHORTEST_SECONDS`."""
SHORTEST_SECONDS: Final = 120.0
LOOK_BACK_SECONDS: Final = (600, 3 * 3600)
"""Seconds before the window that serve as reference: three windows, at least and at most so many."""
LATE_SECONDS: Final = 300.0
"""Seconds after the window in which requests of it are looked for that had not finished, by pages."""
_MOST_SAMPLES: Final = 200_000
MOST_STEPS: Final = 3_000_000
"""Engine steps that are looked at; of more the newest."""
_MOST_GPUS: Final = 2_000
"""GPUs of the account's instances that are looked at."""
_PROCESSES: Final = 8
"""Processes of an engine, and its machine, that most have at most."""
_SERVERS: Final = ("EngineCor", "Worker")
"""Parts of names of processes that compute, of servers that have several."""


def load(inquiry: Inquiry, most: int = MOST_REQUESTS) -> Evidence:
    """The evidence for a window; the inquiry's statements are those of ``questions/causes.sql``.

    Args:
        inquiry: Whose window and filter.
        most: Requests that are read; of more every k-th.
    """
    fragments = _period(inquiry)
    back = float(np.clip(3 * inquiry.window.seconds, *LOOK_BACK_SECONDS))
    first = inquiry.window.from_ms
    counted = inquiry.ask("count", fragments, reference_ms=first - int(back * 1000))[0]
    before, inside = int(counted["before"]), int(counted["inside"])
    enough = min(MOST_BEFORE, most // 2)
    if before > enough:  # what lies nearest says as much; all of a shorter time, so that who waited for whom shows
        back = max(back * enough / before, SHORTEST_SECONDS)
    origin = first - int(back * 1000)
    bounds: dict[str, Any] = {"reference_ms": origin}
    stride = max(1, -(-(inside + min(before, enough)) // most))
    row = inquiry.ask("rows", fragments, stride=stride, **bounds)[0]
    return _beside(inquiry, requests_of(row, origin, first, float(stride)), origin)


def load_pages(inquiry: Inquiry, servers: int, most: int = MOST_REQUESTS) -> Evidence:
    """The evidence for a window of which no request is known one by one, by what servers' metrics pages say.

    Args:
        inquiry: Whose window and filter.
        servers: How many show a page.
        most: Requests that are made of it; of more each stands for several.
    """
    back = float(np.clip(3 * inquiry.window.seconds, *LOOK_BACK_SECONDS))
    first, last = inquiry.window.from_ms, inquiry.window.to_ms
    origin = first - int(back * 1000)
    # those that arrived in the window finish after it, too
    until = last + int(min(inquiry.window.seconds, LATE_SECONDS) * 1000)
    row = inquiry.ask(
        "finishers", _period(inquiry), reference_ms=origin, until_ms=until, sample_ms=_step_ms(until - origin, servers)
    )[0]
    return _beside(inquiry, cohorts(row, origin, first, last, most), origin)


def _period(inquiry: Inquiry) -> dict[str, str]:
    recording = inquiry.filter.recording
    return {"period": "" if recording == "include" else f"AND recording {'=' if recording == 'exclude' else '!='} ''"}


def _beside(inquiry: Inquiry, requests: Requests, origin: int) -> Evidence:
    """Evidence of these requests with what their servers and machines did."""
    fragments = _period(inquiry)
    found = Evidence(requests, origin_ms=origin)
    span_ms = inquiry.window.to_ms - origin
    bounds: dict[str, Any] = {"reference_ms": origin, "limit": _MOST_SAMPLES}
    instances = len(found.requests.instance.names)
    sample_ms = _step_ms(span_ms, instances)
    found.samples = samples_of(inquiry.ask("samples", fragments, sample_ms=sample_ms, **bounds)[0], origin)
    host_ms = _step_ms(span_ms, instances * _PROCESSES)
    found.hosts = _hosts_of(inquiry.ask("hosts", fragments, host_ms=host_ms, **bounds)[0], origin, host_ms)
    found.events = [
        Event(
            (int(one["at_ms"]) - origin) / 1000,
            *(str(one[name]) for name in ("event", "instance", "version", "message", "deployment")),
        )
        for one in inquiry.ask("events", fragments, reference_ms=origin)
    ]
    whose = inquiry.ask(
        "whose", fragments, reference_ms=origin, instances=list(found.requests.instance.names), most=_MOST_GPUS
    )
    if whose:
        gpus = sorted({str(one["gpu"]) for one in whose})
        gpu_ms = _step_ms(span_ms, len(gpus))
        row = inquiry.ask("gpus", fragments, gpu_ms=gpu_ms, gpus=gpus, **bounds)[0]
        told = inquiry.ask("gpu_events", fragments, gpus=gpus, reference_ms=origin)
        found.gpus = gpus_of(row, whose, told, origin, gpu_ms)
    found.steps = _steps(inquiry, fragments, list(found.requests.instance.names), origin)
    return found


def _steps(inquiry: Inquiry, fragments: Mapping[str, str], instances: list[str], origin: int) -> dict[str, Steps]:
    """Steps of instances: each of the last day, by second of what is older."""
    asked: dict[str, Any] = {"instances": instances, "reference_ms": origin}
    many = int(inquiry.ask("step_count", fragments, **asked)[0]["n"])
    if not many:
        return {}
    last = inquiry.window.to_ms
    span_ms = int((last - origin) * min(1.0, MOST_STEPS / many))
    slot_ms = _step_ms(span_ms, len(instances), 100)
    asked |= {"limit": _MOST_SAMPLES, "slot_ms": slot_ms}
    row = inquiry.ask("steps", fragments, steps_ms=last - span_ms, silent=SILENT_SECONDS, **asked)[0]
    if not row["slot"]:
        asked["slot_ms"] = slot_ms = _step_ms(last - origin, len(instances))
        row = inquiry.ask("step_seconds", fragments, **asked)[0]
    return steps_of(row, origin, slot_ms)


def _step_ms(span_ms: int, series: int, least: int = 1000) -> int:
    """Milliseconds of a step by which so many series of a span stay below the limit: a multiple of the least."""
    return max(least, -(-span_ms * max(series, 1) // (_MOST_SAMPLES * least)) * least)


def _hosts_of(row: Mapping[str, Any], origin_ms: int, step_ms: int) -> dict[str, Host]:
    order = np.argsort(np.asarray(row["at_ms"], dtype=np.float64), kind="stable")
    at = (np.asarray(row["at_ms"], dtype=np.float64)[order] - origin_ms) / 1000
    columns = {name: np.asarray(row[name], dtype=np.float64)[order] for name in ("cpu", "delay", "pressure")}
    name = np.asarray(row["name"], dtype=object)[order]
    # several processes may bear one name
    names = np.asarray(row["process"], dtype=object)[order]
    pids = np.asarray(row["pid"], dtype=object)[order]
    process = np.where(names == "host", names, names + " " + pids)
    found: dict[str, Host] = {}
    for instance in dict.fromkeys(str(one) for one in name):
        host = found.setdefault(instance, Host(age=max(60.0, 3 * step_ms / 1000)))
        mine = name == instance
        machine = mine & (process == "host")
        host.time, host.pressure = at[machine], columns["pressure"][machine]
        own = dict.fromkeys(str(one) for one in process[mine & (process != "host")])
        computing = [one for one in own if any(part in one for part in _SERVERS)]
        used = {one: float(np.nansum(columns["cpu"][mine & (process == one)])) for one in own}
        if busiest := max(computing or own, key=lambda one: used[one], default=""):
            rows = mine & (process == busiest)
            # what all its threads waited is no more than the share of the time in which they wanted a CPU
            waited, used_by = columns["delay"][rows], columns["cpu"][rows]
            with np.errstate(invalid="ignore", divide="ignore"):
                host.delay_time, host.delay = at[rows], np.fmin(waited, waited / (waited + used_by))
        taking = [one for one in own if one not in computing] if computing else []
        if front := max(taking, key=lambda one: used[one], default=""):
            rows = mine & (process == front)
            host.front_time, host.front = at[rows], columns["cpu"][rows]
    return found
