"""The very requests whose work took others' time: most of it first, and how to find them.

What a request's work weighs is how much of it was there while the seconds of a charge were lost: KV tokens held, prompt
tokens computed, sequences decoded, requests inside or come (`advice.SHARED`), each times the seconds lost meanwhile.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes.advice import SHARED
from analytics.causes.load import SQL
from base.foreign_text import legible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analytics.causes.account import Account
    from analytics.causes.charge import Part
    from analytics.inquiry import Inquiry

MOST: Final = 5
"""Requests of a cause that are told."""
IDS: Final = ("response_id", "request_id", "trace_id")
"""By which people find a request: first the response's, as its client knows that one."""
SAID: Final = "The largest of it: request"
"""What `in_words` begins with."""
_IN_WORDS: Final = 3
_ID_LETTERS: Final = 80


@dataclass(frozen=True, slots=True)
class DrivingRequest:
    """A request whose work took time.

    Attributes:
        key: Its key, with ``time`` the primary key of ``requests``; a decimal string, as it needs 64 bits.
        time: When it arrived.
        tenant, instance: Whose, and where.
        share: Of all that work there while the seconds were lost, the usual included.
        response_id, request_id, trace_id: Its ids, those that somebody said; empty until `named`.
    """

    key: str
    time: datetime
    tenant: str
    instance: str
    share: float
    response_id: str = ""
    request_id: str = ""
    trace_id: str = ""

    @property
    def id(self) -> str:
        """The first of `IDS` that it has."""
        return shown_id(asdict(self))


def driving_of(account: Account, cause: str, part: Part) -> list[DrivingRequest]:
    """Requests whose work took the seconds of a charge, most first; of the tenant that it names alone.

    None where a cause is not of others' work, or where requests are known by their means alone.
    """
    requests = account.requests
    if cause not in SHARED or not part.work or not len(requests.key):
        return []
    weights, total = np.zeros(len(requests)), 0.0
    for place in account.places:
        seconds = place.of(part.seconds)
        if seconds.any():
            lost = place.bins.spread(place.of(requests.start), place.of(requests.end), seconds)
            own = weights[place.part] = place.work_while(part.work, lost)
            total += float(own.sum()) * requests.scale  # by place: whatever else is in the store, the sum is the same
    if not total > 0:
        return []
    if tenant := part.who.get("tenant"):
        weights[~requests.tenant.among([tenant])] = 0.0
    first = np.argsort(-weights, kind="stable")[:MOST]
    origin = datetime.fromtimestamp(account.origin_ms / 1000, UTC)
    return [
        DrivingRequest(
            key=str(requests.key[row]),
            time=origin + timedelta(milliseconds=round(float(requests.start[row]) * 1000)),
            tenant=requests.tenant.names[requests.tenant.codes[row]],
            instance=requests.instance.names[requests.instance.codes[row]],
            share=float(weights[row]) / total,
        )
        for row in first
        if weights[row] > 0
    ]


def named(inquiry: Inquiry, found: Sequence[Sequence[DrivingRequest]]) -> list[list[DrivingRequest]]:
    """The same requests with their ids, which are asked for once for all of them."""
    every = [one for some in found for one in some]
    if not every:
        return [list(some) for some in found]
    times = [round(one.time.timestamp() * 1000) for one in every]
    rows = inquiry.ask(
        "driving",
        sql=SQL,
        since_ms=min(times),
        until_ms=max(times) + 1,
        keys=sorted({int(one.key) for one in every}),
    )
    ids = {str(row["key"]): row for row in rows}
    return [[_with_ids(one, ids[one.key]) if one.key in ids else one for one in some] for some in found]


def _with_ids(one: DrivingRequest, row: Mapping[str, Any]) -> DrivingRequest:
    response, request, trace = (str(row[name]) for name in IDS)
    return replace(one, response_id=response, request_id=request, trace_id=trace)


def shown_id(one: Mapping[str, Any]) -> str:
    """The first of `IDS` that a request has, as it may be shown; "" where it has none."""
    return next((legible(str(one[name]), _ID_LETTERS) for name in IDS if one.get(name)), "")


def in_words(driving: Sequence[DrivingRequest]) -> str:
    """``The largest of it: requests chatcmpl-a (4.1%), chatcmpl-b (3.0%).``; "" where none has an id."""
    told = [f"{one.id} ({one.share:.1%})" for one in driving if one.id][:_IN_WORDS]
    if not told:
        return ""
    return f"{SAID}{'s' if len(told) > 1 else ''} {', '.join(told)}."
