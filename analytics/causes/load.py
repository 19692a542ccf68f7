"""Reads what an account is made of out of the store: a few statements, in columns.

Requests of the reference period and the window are read whoever asks about which of them: others' work is what some
waited for. Of very many every k-th is read and stands for k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics import engine_steps
from analytics.causes.blocks import BLOCK_MS, Wanted, fingerprints_of, rows_of
from analytics.causes.cohorts import cohorts
from analytics.causes.columns import Names, floats, taken
from analytics.causes.gpus import gpus_of
from analytics.causes.minutes import rates_of, remembered, slots_of
from analytics.causes.steps import SILENT_SECONDS, steps_of
from analytics.causes.table import Event, Evidence, Host, requests_of, samples_of
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from analytics.causes.arrays import Ints
    from analytics.causes.blocks import Fingerprints
    from analytics.causes.columns import Columns
    from analytics.causes.steps import Steps
    from analytics.causes.table import Requests
    from analytics.inquiry import Inquiry

MOST_REQUESTS: Final = 400_000
"""Requests that are read; of more every k-th."""
MOST_BEFORE: Final = 20_000
"""Requests of a deployment before the window above which a shorter time is enough, down to `SHORTEST_SECONDS`."""
MOST_BEFORE_KEPT: Final = 10_000
"""The same where references were kept, down to half of that: what they do not know is the load of that time."""
SHORTEST_SECONDS: Final = 120.0
LOOK_BACK_SECONDS: Final = (600, 3 * 3600)
"""Seconds before the window that serve as reference: three windows, at least and at most so many."""
SQL: Final = beside(__file__)
_COUNT_SECONDS: Final = 10.0
"""Steps in which requests before the window are counted."""
LATE_SECONDS: Final = 300.0
"""Seconds after the window in which requests of it are looked for that had not finished, by pages."""
_MOST_SAMPLES: Final = 200_000
MOST_STEPS: Final = 3_000_000
"""Engine steps that are looked at; of more the newest."""
_FIRST_STEP: Final = "fromUnixTimestamp64Milli({steps_ms:Int64})"
_LAST_STEP: Final = "fromUnixTimestamp64Milli({to_ms:Int64})"
_OF_THESE: Final = "/*period*/ AND has({instances:Array(String)}, instance)"
_MOST_GPUS: Final = 2_000
"""GPUs of the account's instances that are looked at."""
_MOST_APART: Final = 50
"""Deployments that are read by name of the time before; of more, all."""
_PROCESSES: Final = 8
"""Processes of an engine, and its machine, that most have at most."""
_SERVERS: Final = ("EngineCor", "Worker")
"""Parts of names of processes that compute, of servers that have several."""


def load(inquiry: Inquiry, most: int = MOST_REQUESTS, *, kept: Collection[str] = ()) -> Evidence:
    """The evidence for a window.

    Args:
        inquiry: Whose window and filter.
        most: Requests that are read; of more every k-th.
        kept: Deployments of which references were kept, so that fewer of their requests before the window are enough.
    """
    fragments = _period(inquiry)
    first = inquiry.window.from_ms
    since, many = _since(inquiry, fragments, most, kept)
    origin = min(since.values(), default=first)
    stride = max(1, -(-many // most))
    fingerprints = fingerprints_of(inquiry, fragments, origin)
    row = rows_of(inquiry, fragments, SQL, _wanted(since, first, inquiry.settled_ms), stride, fingerprints)
    if row:
        row = taken(row, _rows_between(row, since, first, inquiry.settled_ms))
        row |= {name: of.used() for name, of in row.items() if isinstance(of, Names)}
    return _beside(inquiry, requests_of(row, origin, first, float(stride)), origin, fingerprints)


def _since(
    inquiry: Inquiry, fragments: Mapping[str, str], most: int, kept: Collection[str]
) -> tuple[dict[str, int], int]:
    """From when on (Unix ms) requests of each deployment of the window are read, and how many that are.

    What lies nearest says as much; all of a shorter time, so that who waited for whom shows. Each deployment's time is
    its own: however much is asked of another, its reference is the same.
    """
    back = float(np.clip(3 * inquiry.window.seconds, *LOOK_BACK_SECONDS))
    first, step_ms = inquiry.window.from_ms, int(_COUNT_SECONDS * 1000)
    counted: dict[str, dict[int, int]] = {}
    for row in inquiry.ask("count", fragments, SQL, reference_ms=first - int(back * 1000), step_ms=step_ms):
        counted.setdefault(str(row["deployed"]), {})[int(row["back"])] = int(row["n"])
    since, every = {}, 0
    for deployment, steps in counted.items():
        inside, before = steps.pop(0, 0), 0
        if not inside:
            continue
        enough = min(MOST_BEFORE_KEPT if deployment in kept else MOST_BEFORE, most // 2)
        shortest = SHORTEST_SECONDS / 2 if deployment in kept else SHORTEST_SECONDS
        own = back
        for place, many in steps.items():
            if before and before + many > enough and (place - 1) * _COUNT_SECONDS >= shortest:
                own = (place - 1) * _COUNT_SECONDS
                break
            before += many
        since[deployment] = first - int(own * 1000)
        every += inside + before
    return since, every


def _wanted(since: Mapping[str, int], first: int, last: int) -> list[Wanted]:
    """Blocks from the earliest time on: of all from where all are wanted, before that of whom they are."""
    begin = min(since.values(), default=first) // BLOCK_MS * BLOCK_MS
    of_all = max(since.values(), default=first) // BLOCK_MS * BLOCK_MS
    found = []
    for at in range(begin, last, BLOCK_MS):
        only = tuple(sorted(name for name, from_ms in since.items() if from_ms < at + BLOCK_MS))
        found.append(Wanted(at, None if at >= of_all or len(only) > _MOST_APART else only))
    return found


def _rows_between(row: Columns, since: Mapping[str, int], first: int, last: int) -> Ints:
    """Places of the rows that are wanted: of each deployment from its time on."""
    at, deployment = np.asarray(row["at_ms"], dtype=np.int64), row["deployment"]
    own = np.array([*(since.get(name, first) for name in deployment.names), first], dtype=np.int64)
    return np.flatnonzero((at >= own[deployment.codes]) & (at < last))


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
    fragments = _period(inquiry)
    fingerprints = fingerprints_of(inquiry, fragments, origin)
    row = inquiry.ask(
        "finishers",
        fragments,
        SQL,
        reference_ms=origin,
        until_ms=until,
        sample_ms=_step_ms(until - origin, servers),
    )[0]
    return _beside(inquiry, cohorts(row, origin, first, last, most), origin, fingerprints)


def _period(inquiry: Inquiry) -> dict[str, str]:
    recording = inquiry.filter.recording
    return {"period": "" if recording == "include" else f"AND recording {'=' if recording == 'exclude' else '!='} ''"}


def _beside(inquiry: Inquiry, requests: Requests, origin: int, fingerprints: Fingerprints) -> Evidence:
    """Evidence of these requests with what their servers and machines did."""
    fragments = _period(inquiry)
    found = Evidence(requests, origin_ms=origin)
    names = list(requests.instance.names)
    span, span_ms = (origin, inquiry.window.to_ms), inquiry.window.to_ms - origin

    def slots(name: str, slot_ms: int, **more: Any) -> dict[str, Any]:
        return slots_of(inquiry, (name, fragments, SQL), span, slot_ms, fingerprints, limit=_MOST_SAMPLES, **more)

    def rows(name: str, part: str, **asked: Any) -> list[dict[str, Any]]:
        return remembered(inquiry, (name, fragments, SQL), part, fingerprints, reference_ms=origin, **asked)

    found.samples = samples_of(slots("samples", _step_ms(span_ms, len(names))), origin)
    host_ms = _step_ms(span_ms, len(names) * _PROCESSES)
    found.hosts = _hosts_of(rates_of(slots("hosts", host_ms), host_ms), origin, host_ms)
    found.events = [
        Event(
            (int(one["at_ms"]) - origin) / 1000,
            *(str(one[name]) for name in ("event", "instance", "version", "message", "deployment")),
        )
        for one in rows("events", "events")
    ]
    whose = rows("whose", "whose", instances=names, most=_MOST_GPUS)
    if whose:
        gpus = sorted({str(one["gpu"]) for one in whose})
        gpu_ms = _step_ms(span_ms, len(gpus))
        found.gpus = gpus_of(
            slots("gpus", gpu_ms, gpus=gpus), whose, rows("gpu_events", "events", gpus=gpus), origin, gpu_ms
        )
    if fingerprints.n("steps"):
        found.steps = _steps(inquiry, fragments, names, origin)
    return found


def _steps(inquiry: Inquiry, fragments: Mapping[str, str], instances: list[str], origin: int) -> dict[str, Steps]:
    """Steps of instances: each of the last day, by second of what is older."""
    asked: dict[str, Any] = {"instances": instances, "reference_ms": origin}
    many = int(inquiry.ask("step_count", fragments, SQL, **asked)[0]["n"])
    if not many:
        return {}
    last = inquiry.window.to_ms
    span_ms = int((last - origin) * min(1.0, MOST_STEPS / many))
    slot_ms = _step_ms(span_ms, len(instances), 100)
    asked |= {"limit": _MOST_SAMPLES, "slot_ms": slot_ms}
    each = {**fragments, **engine_steps.in_order(_FIRST_STEP, _LAST_STEP, _OF_THESE)}
    row = inquiry.ask("steps", each, SQL, steps_ms=last - span_ms, silent=SILENT_SECONDS, **asked)[0]
    if not row["slot"]:
        asked["slot_ms"] = slot_ms = _step_ms(last - origin, len(instances))
        row = inquiry.ask("step_seconds", fragments, SQL, **asked)[0]
    return steps_of(row, origin, slot_ms)


def _step_ms(span_ms: int, series: int, least: int = 1000) -> int:
    """Milliseconds of a step by which so many series of a span stay below the limit: a multiple of the least."""
    return max(least, -(-span_ms * max(series, 1) // (_MOST_SAMPLES * least)) * least)


def _hosts_of(row: Columns, origin_ms: int, step_ms: int) -> dict[str, Host]:
    order = np.argsort(floats(row["at_ms"]), kind="stable")
    at = (floats(row["at_ms"])[order] - origin_ms) / 1000
    columns = {name: floats(row[name])[order] for name in ("cpu", "delay", "pressure", "busy", "cores")}
    instance, process, pid = (Names.of(row[name]).reordered(order) for name in ("name", "process", "pid"))
    # several processes may bear one name
    each = process.codes * len(pid.names) + pid.codes
    found: dict[str, Host] = {}
    for code, name in enumerate(instance.names):
        host = found.setdefault(name, Host(age=max(60.0, 3 * step_ms / 1000)))
        mine = np.flatnonzero(instance.codes == code)
        parts = {int(one): mine[each[mine] == one] for one in np.unique(each[mine])}  # of equals always the same
        called = {one: process.names[one // len(pid.names)] for one in parts}
        machine = [one for one in parts if called[one] == "host"]
        if machine:
            rows = np.sort(np.concatenate([parts[one] for one in machine]))
            host.time, host.pressure = at[rows], columns["pressure"][rows]
            host.busy, host.cores = columns["busy"][rows], columns["cores"][rows]
        own = [one for one in parts if one not in machine]
        host.processes = [(at[parts[one]], columns["cpu"][parts[one]], columns["delay"][parts[one]]) for one in own]
        computing = [one for one in own if any(part in called[one] for part in _SERVERS)]
        used = {one: float(np.nansum(columns["cpu"][parts[one]])) for one in own}
        if own:
            rows = parts[max(computing or own, key=lambda one: used[one])]
            # what all its threads waited is no more than the share of the time in which they wanted a CPU
            waited, used_by = columns["delay"][rows], columns["cpu"][rows]
            with np.errstate(invalid="ignore", divide="ignore"):
                host.delay_time, host.delay = at[rows], np.fmin(waited, waited / (waited + used_by))
        taking = [one for one in own if one not in computing] if computing else []
        if taking:
            rows = parts[max(taking, key=lambda one: used[one])]
            host.front_time, host.front = at[rows], columns["cpu"][rows]
    return found
