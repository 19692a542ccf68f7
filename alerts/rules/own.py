"""The pager's own rules, which need no file: a store that does not answer, a tap that loses requests."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from alerts.measure.taps import LOSSES, WINDOW_SECONDS
from alerts.rules.reading import Reading
from alerts.rules.rule import About
from alerts.state import Observation, Timing
from alerts.text import number, plain
from base.formats import rounded, spell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alerts.measure.taps import Loss

STORE_RULE: Final = "store_unreachable"
TAP_RULE: Final = "tap_losing"
NAMES: Final = (STORE_RULE, TAP_RULE)
_STORE: Final = {"component": "store"}


def own_rules(store_unreachable_after_seconds: float) -> tuple[About, ...]:
    """What is said of their alerts.

    Args:
        store_unreachable_after_seconds: A store away for so long pages.
    """
    patience = Timing(store_unreachable_after_seconds, 0.0, "keep")
    return (
        About(STORE_RULE, "critical", "docs/runbooks/store-unreachable.md", patience),
        About(TAP_RULE, "error", "docs/runbooks/tap-losing.md", Timing(0.0, 0.0, "ok")),
    )


def store_reading(since: float | None, error: str, now: float, limit: float) -> Reading:
    """What is seen of the store.

    Args:
        since: When it was first found away, Unix seconds; None while it answers.
        error: Why it could not be asked.
        now: Unix seconds.
        limit: Seconds after which that pages.
    """
    away = 0.0 if since is None else now - since
    seen = Observation(since is not None, now, away, since, unbroken=True)
    return Reading(_STORE, seen, f"the store has not answered for {rounded(round(away))}: {error}", limit)


def tap_readings(losses: Iterable[Loss], now: float) -> list[Reading]:
    """What each tap lost in the last minutes."""
    lost: dict[str, float] = defaultdict(float)
    parts: dict[str, list[str]] = defaultdict(list)
    for loss in sorted(losses, key=lambda one: -one.requests):
        lost[loss.instance] += loss.requests
        if loss.requests:
            why = f" ({plain(loss.reason)})" if loss.reason else ""
            parts[loss.instance].append(f"{number(loss.requests)} {LOSSES[loss.metric]}{why}")
    return [
        Reading(
            {"instance": instance},
            Observation(count > 0, now, count),
            f"requests at the tap of {plain(instance)} in {spell(WINDOW_SECONDS)}: {', '.join(parts[instance])}",
            0.0,
            WINDOW_SECONDS,
        )
        for instance, count in sorted(lost.items())
    ]
