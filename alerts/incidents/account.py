"""The causes of a place's slow requests, worked out in a process of its own (`alerts.own_process`)."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from alerts.own_process import answer_of
from alerts.text import number, plain
from analytics.causes.advice import NAMES, ONSETS, SHARED
from analytics.selection import Filter, Selection
from analytics.window import Window, iso
from base.errors import ServescopeError
from base.formats import rounded, spell
from collector.store.client import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from analytics.causes.chains import Chain
    from analytics.causes.evidence import Cause, Failure
    from analytics.causes.onset import Onset
    from analytics.inquiry import Reader
    from analytics.questions.causes import Causes
    from collector.store.address import StoreAddress
    from collector.store.asker import Asker

BOUND_SECONDS: Final = 20.0
"""All statements of one account together."""
WHOLE_SECONDS: Final = 40.0
"""A process that has no answer by then is ended: its start and its counting come beside the statements."""
MOST_REQUESTS: Final = 20_000
"""Requests that one account reads."""
_STORE_SECONDS: Final = 10.0
_TOLD: Final = 3
_NOTABLE: Final = 0.25
"""Share of the reference from which on an excess is told though nothing explains it."""
_LEAST_FAILED: Final = 3
_LEAST_FAILED_SHARE: Final = 0.01
"""Requests, and their share of all, from which on failures are told."""

Place = dict[str, tuple[str, ...]]
"""Columns of a filter with their values."""


def apart(address: StoreAddress, place: Place, start: float, end: float) -> dict[str, Any]:
    """What `explain` finds, asked in a process of its own.

    Raises:
        ServescopeError: As `explain` does; the process came to no answer within `WHOLE_SECONDS`, or ended without one.
    """
    told: dict[str, Any] = answer_of(_answer, address, place, start, end, seconds=WHOLE_SECONDS)
    return told


def _answer(address: StoreAddress, place: Place, start: float, end: float) -> dict[str, Any]:
    with Store(address, timeout_seconds=_STORE_SECONDS) as store:
        return explain(store, place, start, end)


def explain(store: Reader, place: Place, start: float, end: float) -> dict[str, Any]:
    """The causes of a place's requests in a span of Unix seconds.

    Returns:
        ``summary`` (a sentence), ``window`` (``start``, ``end``), ``place``, ``requests``, ``excess_seconds``,
        ``unexplained_share`` (None without an excess), ``causes`` (at most three, most seconds first: ``cause``,
        ``name``, ``seconds``, ``share``, ``who``, ``evidence``, ``advice``, ``runbook``, ``driving``: requests whose
        work took the time, as ``time``, ``response_id``, ``request_id``, ``trace_id``; empty where none stands out),
        ``chains`` (at most three, most seconds first: ``told``, ``advice``, ``since``, ``seconds``, ``share``,
        ``instances``, ``began``: None, or the event as ``event``, ``name``, ``what``, ``instance``, ``since``;
        ``steps``: ``cause``, ``name``, ``after``, ``because``, ``seconds``; of which cause brought about which),
        ``failures`` (at most three, most requests first: ``outcome``, ``error_type``, ``who``, ``requests``, ``since``,
        ``onset``: None, or what they began with as ``event``, ``name``, ``what``, ``instance``, ``since``;
        empty where fewer than three requests and one in a hundred failed).

    Raises:
        ServescopeError: The store is away, refuses, or takes longer than `BOUND_SECONDS`.
    """
    from analytics.questions import causes  # noqa: PLC0415 - what pages imports this module, and needs none of that

    window = Window(datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC))
    selection = Selection(window, Filter(**place, recording="exclude"))
    told = causes.ask(_Bounded(store, BOUND_SECONDS), selection, most=MOST_REQUESTS).result
    return {
        "summary": in_words(told, end - start),
        "window": {"start": iso(window.start), "end": iso(window.end)},
        "place": {name: [plain(value) for value in values] for name, values in place.items()},
        "requests": told.requests,
        "excess_seconds": round(told.excess_seconds, 3),
        "unexplained_share": None if told.unexplained_share is None else round(told.unexplained_share, 4),
        "causes": [_cause(one) for one in told.causes[:_TOLD]],
        "chains": [_chain(one, start) for one in told.chains[:_TOLD]],
        "failures": [_failure(one, start) for one in told.failures[:_TOLD]] if _failed(told) else [],
    }


def in_words(told: Causes, seconds: float) -> str:
    """A sentence: the share of the first cause, where, whose, and what next; quiet is told as quiet.

    Args:
        told: The causes.
        seconds: Length of their window.
    """
    when = f"the last {rounded(seconds) if seconds % 60 else spell(seconds)}"
    requests = f"{told.requests} request{'' if told.requests == 1 else 's'}"
    failed = _failed(told)
    also = f"; {failed}" if failed else ""
    if not told.requests:
        return f"of {when} {failed}" if failed else f"no request of {when} can be accounted for yet"
    if not told.causes:
        if told.excess_seconds > _NOTABLE * told.reference_seconds:
            more = rounded(told.excess_seconds)
            return f"{requests} of {when} took {more} more than usual, and no cause stands out{also}"
        return f"nothing stands out from the usual in {requests} of {when}{also}"
    first = told.causes[0]
    held = f"; {_lowered(first.evidence[1])}" if "tenant" in first.who and first.cause in SHARED else ""
    tenant = f" of tenant {plain(first.who['tenant'])}" if "tenant" in first.who and not held else ""
    share = number(min(first.share, 1.0), "ratio") if told.excess_seconds > 0 else rounded(first.seconds)
    of = f"of what requests of {when} took above the usual" if told.excess_seconds > 0 else f"of requests of {when}"
    place = f" on {plain(first.who['instance'])}" if "instance" in first.who else ""
    name = NAMES.get(first.cause, first.cause)
    chain = next((one for one in told.chains if any(step.cause == first.cause for step in one.steps)), None)
    began = f"; it {plain(chain.told, 300)}" if chain else ""
    # what a cause was brought about by comes again whatever is turned at the cause itself
    next_ = chain.advice if chain and chain.advice else first.advice
    return plain(f"{share} {of}: {name}{place}{tenant}{held}{began}{also}; next: {_lowered(next_)}", 1000)


def _failed(told: Causes) -> str:
    """``96 failed: rejected, queue_full, on triton-a, of tenant hooli, since a deploy``; empty where few did."""
    failed = sum(one.requests for one in told.failures)
    if failed < _LEAST_FAILED or failed < _LEAST_FAILED_SHARE * told.requests:
        return ""
    first = told.failures[0]
    most = "" if first.requests == failed else f" (most of them, {first.requests})"
    how = ", ".join(plain(name, 100) for name in (first.outcome, first.error_type) if name)
    where = f", on {plain(first.who['instance'])}" if "instance" in first.who else ""
    whose = f", of tenant {plain(first.who['tenant'])}" if "tenant" in first.who else ""
    with_ = f", since {ONSETS[first.onset.event]}" if first.onset else ""
    return f"{failed} failed: {how}{most}{where}{whose}{with_}"


def _cause(one: Cause) -> dict[str, Any]:
    return {
        "cause": one.cause,
        "name": NAMES.get(one.cause, one.cause),
        "seconds": round(one.seconds, 3),
        "share": round(one.share, 4),
        "who": {name: plain(value) for name, value in one.who.items()},
        "evidence": [plain(sentence, 300) for sentence in one.evidence],
        "advice": one.advice,
        "runbook": one.runbook,
        "driving": [
            {
                "time": iso(each.time),
                "response_id": plain(each.response_id, 100),
                "request_id": plain(each.request_id, 100),
                "trace_id": plain(each.trace_id, 100),
            }
            for each in one.driving
        ],
    }


def _chain(one: Chain, start: float) -> dict[str, Any]:
    return {
        "told": plain(one.told, 500),
        "advice": one.advice,
        "since": iso(datetime.fromtimestamp(start + one.since_seconds, UTC)),
        "seconds": round(one.seconds, 3),
        "share": round(one.share, 4),
        "instances": [plain(name) for name in one.instances],
        "began": _onset(one.began, start) if one.began else None,
        "steps": [
            {
                "cause": step.cause,
                "name": NAMES.get(step.cause, step.cause),
                "after": step.after,
                "because": step.because,
                "seconds": round(step.seconds, 3),
            }
            for step in one.steps
        ],
    }


def _failure(one: Failure, start: float) -> dict[str, Any]:
    return {
        "outcome": one.outcome,
        "error_type": plain(one.error_type, 100),
        "who": {name: plain(value) for name, value in one.who.items()},
        "requests": one.requests,
        "since": iso(datetime.fromtimestamp(start + one.since_seconds, UTC)),
        "onset": _onset(one.onset, start) if one.onset else None,
    }


def _onset(one: Onset, start: float) -> dict[str, str]:
    return {
        "event": one.event,
        "name": ONSETS[one.event],
        "what": plain(one.what, 300),
        "instance": plain(one.instance),
        "since": iso(datetime.fromtimestamp(start + one.seconds, UTC)),
    }


def _lowered(sentence: str) -> str:
    """A sentence as a part of another: its first letter small, without its full stop."""
    return f"{sentence[:1].lower()}{sentence[1:]}".removesuffix(".")


class _Bounded:
    """A reader all of whose statements together take no longer than a bound."""

    def __init__(self, store: Reader, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._until = time.monotonic() + seconds

    @property
    def asker(self) -> Asker:
        return self._store.asker

    def rows(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        return self._store.rows(sql, parameters, self._bounded(settings))

    def arrow(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> pa.Table:
        return self._store.arrow(sql, parameters, self._bounded(settings))

    def _bounded(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        left = self._until - time.monotonic()
        if left <= 0:
            raise ServescopeError(f"it took longer than {spell(self._seconds)}", "`servescope causes` takes its time")
        return {**(settings or {}), "max_execution_time": math.ceil(left)}
