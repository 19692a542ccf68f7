"""A selection as the address of a page, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast
from urllib.parse import urlencode

from analytics.selection import LatencyRange
from analytics.signals import SIGNALS
from analytics.traits import Trait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analytics.selection import Selection
    from analytics.signals import LatencySignal

RECORDINGS: Final[dict[str, Literal["include", "exclude", "only"]]] = {
    "Live and recorded": "include",
    "Live only": "exclude",
    "Recorded only": "only",
}
"""What the URL and the page say → what `Filter.recording` says."""
RECORDING_NAMES: Final = {value: name for name, value in RECORDINGS.items()}


def link(path: str, selection: Selection) -> str:
    """A link to a page that looks at a selection.

    Args:
        path: URL path of the page.
        selection: Its window becomes ``from`` and ``to`` (Unix seconds), its filter ``model``, ``tenant``, ``instance``
            and ``recording``; ``outcome``, ``order_by`` with ``at_least`` and ``below``, ``only`` and ``not``, its
            traits, and ``find`` are what the list of requests goes by besides.
    """
    window, chosen = selection.window, selection.filter
    pairs = [("from", f"{window.start.timestamp():.3f}"), ("to", f"{window.end.timestamp():.3f}")]
    pairs += [(name, value) for name in ("model", "tenant", "instance") for value in getattr(chosen, name)]
    # Always: what a page begins with is the reader's dashboard's own, and a link shows what its sender saw
    pairs.append(("recording", RECORDING_NAMES[chosen.recording]))
    pairs += [("outcome", outcome_in_words(outcome)) for outcome in selection.outcome]
    if among := selection.latency:
        pairs.append(("order_by", SIGNALS[among.signal].title))
        pairs += [(name, repr(bound)) for name in ("at_least", "below") if (bound := getattr(among, name)) is not None]
    pairs += [("not" if trait.lacking else "only", str(trait)) for trait in selection.traits]
    if sought := selection.trace_id or selection.request_id:
        pairs.append(("find", sought))
    return f"{path}?{urlencode(pairs)}"


def narrowed(
    selection: Selection,
    *,
    signal: str,
    outcome: Iterable[str] = (),
    at_least: float | None = None,
    below: float | None = None,
    find: str = "",
    only: Iterable[str] = (),
    lacking: Iterable[str] = (),
) -> Selection:
    """A page's selection, narrowed by what the address of the list of requests says besides.

    Args:
        selection: Of the page.
        signal: Name of the latency that ``order_by`` titles.
        outcome: Accepted outcomes.
        at_least: Lowest seconds of it.
        below: Seconds of it that are too many.
        find: A trace's or a request's id.
        only: Traits that they have.
        lacking: Traits that they lack.

    Raises:
        WindowError: The bounds make no sense.
        QuestionError: A trait does not.
    """
    among = None
    if at_least is not None or below is not None:
        among = LatencyRange(cast("LatencySignal", signal), at_least, below)
    traits = (*map(Trait.of, only), *(Trait.of(text, lacking=True) for text in lacking))
    return selection.but(outcome=tuple(outcome), latency=among, traits=traits).found_by(find)


def outcome_in_words(outcome: str) -> str:
    """As people read it, on the page and in its address."""
    return outcome.replace("_", " ")


def outcome_of(words: str) -> str:
    """The outcome that an address names."""
    return words.replace(" ", "_")
