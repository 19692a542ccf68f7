"""A cause as people read it: its name, where it is and whose work it was, each with the way to where it shows."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from analytics.causes.advice import NAMES, ONSETS, SHARED
from analytics.causes.chains import PLACES, Step, way_of
from analytics.causes.driving import SAID, shown_id
from analytics.selection import Filter, Selection
from analytics.window import Window
from dashboard import escape, words
from dashboard.links import link

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import tzinfo

    from analytics.questions.causes import Causes

Piece = tuple[str, str]
"""Words and where they lead; "" for nowhere."""

_PAGES: Final = {
    **dict.fromkeys(("kv_cache_full", "preemption", "cold_prefix_cache", "kv_transfer"), "kv-cache"),
    **dict.fromkeys(("spec_acceptance_drop", "lora_slots"), "kv-cache"),
    **dict.fromkeys(
        ("queue_saturated", "retry_storm", "router_imbalance", "prefill_interference", "engine_frozen"), "queue"
    ),
    **dict.fromkeys(("cpu_starved", "frontend_cpu", "gpu_throttled", "gpu_fault"), "hardware"),
    "upstream_error": "requests",
}
"""Page on which a cause shows; of all others that of latencies."""
_CHAINS: Final = 3
"""Chains that a page tells."""
_BEFORE: Final = timedelta(seconds=1)
"""Before its arrival begins a window in which a request is looked for."""
_RUNBOOKS: Final = "docs/runbooks"
"""Folder of the pages that causes name."""


def named(cause: str, who: Mapping[str, str], selection: Selection) -> list[Piece]:
    """A cause in words: ``KV cache full on vllm-2, by tenant a7``, each with the way to where it shows.

    Args:
        cause: Its name (`analytics.causes`).
        who: Whose: ``instance``, ``tenant``, ``version``, ``gpu``.
        selection: What was asked about; links narrow it.
    """
    here = _narrowed(selection, "instance", who)
    said = [(NAMES.get(cause, cause.replace("_", " ")), link(page_of(cause), here))]
    if instance := who.get("instance"):
        said += [(" on ", ""), (instance, link("./", here))]
    if version := who.get("version"):
        said.append((f", version {version}", ""))
    if gpu := who.get("gpu"):
        said.append((f", {gpu}", ""))
    if tenant := who.get("tenant"):
        whose = ", by " if cause in SHARED else ", of "
        said += [(whose, ""), (f"tenant {tenant}", link("requests", _narrowed(here, "tenant", who)))]
    return said


def charged(cause: Mapping[str, Any], selection: Selection, excess: float) -> str:
    """Markdown of a charge: share and seconds, what, where and whose; what shows it; what next.

    Args:
        cause: Its fields, as `analytics.causes.evidence.Cause` has them; what is to be done next is ``advice``.
        selection: What was asked about.
        excess: Seconds above the reference, of which it has a share.
    """
    seconds = words.signed(float(cause["seconds"]))
    share = f" · {words.ratio(min(float(cause['share']), 1.0))}" if excess > 0 else ""
    told = as_markdown(named(str(cause["cause"]), cause["who"], selection))
    shown = " ".join(_shown(str(sentence), cause.get("driving", ()), selection) for sentence in cause["evidence"])
    next_ = escape.markdown(str(cause["advice"]))
    return f"**{seconds}**{share} · {told}  \n:gray[{shown}]  \nNext: {next_} {runbook(str(cause['runbook']))}"


def _shown(sentence: str, driving: Iterable[Mapping[str, Any]], selection: Selection) -> str:
    """Markdown of what shows a cause; the requests that it names are the ways to them."""
    ways = {shown_id(one): _way_to(one, selection) for one in driving if shown_id(one)}
    if not ways or not sentence.startswith(SAID):
        return escape.markdown(sentence)
    ids = "|".join(re.escape(name) for name in sorted(ways, key=len, reverse=True))
    return as_markdown((piece, ways.get(piece, "")) for piece in re.split(f"({ids})", sentence) if piece)


def _way_to(one: Mapping[str, Any], selection: Selection) -> str:
    """Where one request is: it may have come before the window, and is whoever's."""
    at = one["time"] if isinstance(one["time"], datetime) else datetime.fromisoformat(str(one["time"]))
    window = Window(min(at - _BEFORE, selection.window.start), selection.window.end)
    return link("requests", Selection(window, Filter(recording=selection.filter.recording)).found_by(shown_id(one)))


def led(chain: Mapping[str, Any], since: datetime, selection: Selection, zone: tzinfo) -> list[Piece]:
    """``It began with a deploy at 06:54:10 (v2): cold prefix cache → KV cache full on a (62 % of the excess)``, linked.

    Args:
        chain: Its fields, as `analytics.causes.chains.Chain` has them.
        since: When it began.
        selection: What was asked about; links narrow it.
        zone: The viewer's.
    """
    steps = [Step(str(one["cause"]), one["after"], "", 0.0, float(one["seconds"])) for one in chain["steps"]]
    way, besides = way_of(steps)
    instances = [str(name) for name in chain["instances"]]
    here = _narrowed(selection, "instance", {"instance": instances[0]}) if len(instances) == 1 else selection
    at = f"at {since.astimezone(zone):%H:%M:%S}"
    began = chain.get("began")
    said: list[Piece] = [
        (f"It began with {ONSETS[str(began['event'])]} {at} ({began['what']}): " if began else f"It began {at}: ", "")
    ]
    for number, cause in enumerate(way):
        said += [(" → ", "")] if number else []
        said.append((NAMES.get(cause, cause), link(page_of(cause), here)))
    for number, cause in enumerate(besides):
        said += [(", " if number else ", and ", ""), (NAMES.get(cause, cause), link(page_of(cause), here))]
    for number, name in enumerate(instances[:PLACES]):
        own = _narrowed(selection, "instance", {"instance": name})
        said += [(", " if number else " on ", ""), (name, link("./", own))]
    if len(instances) > PLACES:
        said.append((f" and {len(instances) - PLACES} more", ""))
    share = float(chain["share"])
    said.append((f" ({words.ratio(min(share, 1.0))} of the excess)" if share > 0 else "", ""))
    return [*said, (".", "")]


def chained(told: Causes, selection: Selection, zone: tzinfo) -> str:
    """Markdown of what an answer's causes began with and what to turn there: its first chains; "" where there is none.

    Args:
        told: The answer.
        selection: What was asked about; links narrow it.
        zone: The viewer's.
    """
    start = selection.window.start
    return "  \n".join(
        as_markdown(led(asdict(one), start + timedelta(seconds=one.since_seconds), selection, zone))
        + (f" First: {escape.markdown(one.advice)}" if one.advice else "")
        for one in told.chains[:_CHAINS]
    )


def failed(failure: Mapping[str, Any], selection: Selection, zone: tzinfo) -> str:
    """Markdown of requests that failed alike: how many, how, where, whose, since when, and what it began with.

    Args:
        failure: Its fields, as `alerts.incidents.account.explain` tells them.
        selection: What was asked about; links narrow it.
        zone: The viewer's.
    """
    who, how = failure["who"], str(failure["outcome"])
    here = _narrowed(selection, "instance", who)
    theirs = _narrowed(here, "tenant", who)
    count = int(failure["requests"])
    said: list[Piece] = [
        (f"{count} request{'' if count == 1 else 's'} failed", link("requests", theirs.but(outcome=(how,)))),
        (f": {', '.join(name for name in (how, str(failure['error_type'])) if name)}", ""),
    ]
    if instance := who.get("instance"):
        said += [(" on ", ""), (str(instance), link("./", here))]
    if tenant := who.get("tenant"):
        said += [(", of ", ""), (f"tenant {tenant}", link("requests", theirs))]
    said.append((f", since {_clock(failure['since'], zone)}", ""))
    if onset := failure.get("onset"):
        said.append((f". It began with {onset['name']} at {_clock(onset['since'], zone)}: {onset['what']}", ""))
    return as_markdown([*said, (".", "")])


def _clock(when: object, zone: tzinfo) -> str:
    return f"{datetime.fromisoformat(str(when)).astimezone(zone):%H:%M:%S}"


def as_markdown(pieces: Iterable[Piece]) -> str:
    """Pieces as Markdown."""
    return "".join(f"[{escape.markdown(text)}]({where})" if where else _spaced(text) for text, where in pieces)


def as_html(pieces: Iterable[Piece]) -> str:
    """Pieces as HTML; links stay in the window."""
    return "".join(
        f'<a href="{escape.page(where, len(where))}" target="_self">{escape.page(text)}</a>'
        if where
        else escape.page(text)
        for text, where in pieces
    )


def page_of(cause: str) -> str:
    """The page on which it shows."""
    return _PAGES.get(cause, "latency")


def runbook(name: str) -> str:
    """Markdown of the way to a runbook: a link where somebody said where they are, else its path."""
    where = os.environ.get("SERVESCOPE_RUNBOOKS", "").rstrip("/")
    path = f"{_RUNBOOKS}/{name}"
    return f"[Runbook]({where}/{path})" if where else f"Runbook: `{path}`"


def _spaced(text: str) -> str:
    """Escaped, with the blanks at its ends."""
    left, right = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{left}{escape.markdown(text)}{right}"


def _narrowed(selection: Selection, column: str, who: Mapping[str, str]) -> Selection:
    if not who.get(column):
        return selection
    return selection.but(filter=selection.filter.narrowed(**{column: (who[column],)}))
