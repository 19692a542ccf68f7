"""How long a request may keep its place, and what becomes of one that does not leave."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from base.formats import spell
from collector.embedded.statement import tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.embedded.places import Group, Places
    from collector.embedded.recycle import Recycle

_TICK_SECONDS = 0.25
_CUT_SECONDS = 2.0
_SETTING = "max_execution_time"


def time_limit(sql: str, settings: Mapping[str, str]) -> float:
    """Seconds that a request gives itself by ``max_execution_time``; infinite where it says nothing.

    Reads the whole statement: call it off the event loop.
    """
    asked = [settings.get(_SETTING, "")]
    if _SETTING in sql:
        found = [token for token in tokens(sql) if token.depth == 0]
        asked += [
            value.text.strip("'")
            for name, sign, value in zip(found, found[1:], found[2:], strict=False)
            if name.text == _SETTING and sign.text == "="
        ]
    return min((seconds for text in asked if (seconds := _seconds(text)) > 0), default=float("inf"))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


async def watch(places: Mapping[Group, Places], recycle: Recycle, entered: asyncio.Event) -> None:
    """Count each stay past its time; cancel it, free whoever waits for it, and at last have the process replaced.

    Args:
        places: Whose stays.
        recycle: Takes the order to replace the process; once it has one, nothing is watched.
        entered: Set by these places whenever somebody enters: while nobody is there, nobody is looked for.
    """
    before = time.monotonic()
    while not recycle.why:
        if not any(each.stays for each in places.values()):
            entered.clear()
            await entered.wait()
            before = time.monotonic()
        await asyncio.sleep(_TICK_SECONDS)
        now = time.monotonic()
        # A machine that slept, or a loop that was held up, must not be taken for a query that would not end.
        passed, before = min(now - before, 2 * _TICK_SECONDS), now
        for group, each in places.items():
            for stay in list(each.stays):
                over = stay.spend(now, passed)
                if over >= _CUT_SECONDS:
                    stay.cut()
                if over >= stay.patience - 2 * _TICK_SECONDS:
                    kind = "a reader's" if group != "owner" else "an owner's"
                    recycle.order(
                        f"{kind} query did not end within {spell(stay.patience)} of {stay.cause}", stay.client
                    )
