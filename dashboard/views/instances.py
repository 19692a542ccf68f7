"""Instances: what serves, how it is configured, whether it tells what it must, and what became of every record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import streamlit as st

from base.vocabulary import NO_LOSS, Breach
from dashboard import escape, words
from dashboard.data import ask, now
from dashboard.operations import operations
from dashboard.panel import empty, foot, guarded, tiles
from dashboard.routers import routers
from dashboard.shell import page
from dashboard.tables import percent, table
from dashboard.tiles import Tile
from dashboard.viewer import zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.contract import Standing
    from analytics.questions.configuration import Configuration, Configured, Setting
    from analytics.questions.contract import Contracts
    from analytics.questions.instances import InstanceRow, Instances
    from analytics.questions.ledger import Books, Ledger
    from dashboard.page_context import PageContext

TITLE: Final = "Instances"
"""In the navigation."""
PLACE: Final = 37
"""Order in the navigation, the front page first."""
QUESTION: Final = "What serves here, and does it tell what it must?"
"""Over the page."""

MISSING: Final = "An agent reads servers' pages once a second: `servescope up --target http://host:8000`."
MISSING_CONFIG: Final = "vLLM, SGLang and others show settings on their pages; Triton shows none."
MISSING_BOOKS: Final = "A collector tells its books every 15 s; none did in this window."
_SILENT_SECONDS: Final = 60.0
_LEFT: Final = "left"
_ASLEEP: Final = "asleep"
_UNSCRAPED: Final = "not scraped"
_WELL: Final = frozenset({"up", _ASLEEP, _UNSCRAPED, _LEFT})
_ROWS: Final = 10
_HIGH: Final = 340
"""Rows of a table that is as high as it is long, and pixels of a longer one, which scrolls."""
_COLUMNS: Final = 12
"""Servers side by side in the table of settings."""
_COUNTS: Final = ("Received", "Read back", "Stored", "Rejected", "Dropped", "In the log", "Unaccounted")
_BROKEN: Final = {
    Breach.ABSENT: ("absent", "Every page of this version has it. Metrics may be switched off, or it has a new name."),
    Breach.GONE: ("gone", "It was on this page. After an update look for its new name among the unknown families."),
    Breach.UNKNOWN: (
        "unknown family",
        "Nothing is wrong with other figures. A newer version of Servescope may read it.",
    ),
    Breach.DOUBLED: ("under two names", "One of the two counts; no figure is doubled."),
    Breach.UNIT: ("another unit", "Do not trust this figure until the page is read by its new unit."),
    Breach.FROZEN: ("frozen", "It stands still while requests finish. Keep the log, then restart the server."),
    Breach.SILENT: ("configured but silent", "It is set up to send here and nothing comes. Look at the server's log."),
}
"""Kind of breach → in words, and what to do."""


def draw() -> None:
    """The page of instances."""
    page(
        _body,
        needs=lambda: [("instances", {}), ("routers", {}), ("contract", {}), ("configuration", {}), ("ledger", {})],
    )


def _body(context: PageContext) -> None:
    guarded(context, "answer", lambda: _answer(context))
    tiles(context, "tiles", lambda: _tiles(context))
    guarded(context, "instances", lambda: _instances(context))
    guarded(context, "routers", lambda: routers(context))
    guarded(context, "contract", lambda: _contract(context))
    guarded(context, "configuration", lambda: _configuration(context))
    guarded(context, "changes", lambda: _changes(context))
    guarded(context, "operations", lambda: operations(context))
    guarded(context, "ledger", lambda: _ledger(context))


def _state(row: InstanceRow, end: datetime) -> str:
    if row.left is not None:
        return _LEFT
    if row.last_sample is None:
        return _UNSCRAPED
    if (end - row.last_sample).total_seconds() > _SILENT_SECONDS:
        return "silent"
    if not row.up:
        return "down"
    return _ASLEEP if row.asleep else "up"


def _height(rows: int) -> int | str:
    return "content" if rows <= _ROWS else _HIGH


def _end(context: PageContext) -> datetime:
    """The moment by which silence is told: a window of the past ends in the past."""
    return min(context.window.end, now())


def _tiles(context: PageContext) -> list[Tile]:
    rows: list[InstanceRow] = ask("instances", context.selection).result.instances
    broken: list[Standing] = ask("contract", context.selection).result.broken
    found: Configuration = ask("configuration", context.selection).result
    ledger: Ledger = ask("ledger", context.selection).result
    states = [_state(row, _end(context)) for row in rows]
    faults = [one for one in broken if one.known and one.kind not in NO_LOSS]
    lost = sum(one.rejected + one.dropped for one in ledger.books)
    open_ = sum(one.unaccounted for one in ledger.books)
    return [
        Tile("Instances", words.count(len(rows)) if rows else words.NOTHING, context.lately),
        Tile("Up", words.count(states.count("up")) if rows else words.NOTHING, _of_how_many(states)),
        Tile("Broken contracts", words.count(len({one.instance for one in faults})) if rows else words.NOTHING,
             "instances, named below",
             judged="risk" if faults else ""),
        Tile("Settings that differ", words.count(sum(one.differs for one in found.settings))
             if found.settings else words.NOTHING, "within a deployment"),
        Tile("Rejected or dropped", words.count(lost) if ledger.books else words.NOTHING, "records, since the start"),
        Tile("Unaccounted", words.count(open_) if ledger.books else words.NOTHING, "records; 0 is right",
             judged="broken" if open_ else ""),
    ]  # fmt: skip


def _of_how_many(states: Sequence[str]) -> str:
    """What stands below the number of those that are up: those that left are none of them, those asleep are named."""
    left = states.count(_LEFT)
    told = [f"{count} {state}" for state in (_ASLEEP, _LEFT) if (count := states.count(state))]
    return ", ".join([f"of {len(states) - left}", *told]) if states else ""


def _answer(context: PageContext) -> None:
    """The question, answered in words."""
    rows: list[InstanceRow] = ask("instances", context.selection).result.instances
    broken: list[Standing] = ask("contract", context.selection).result.broken
    end, told = _end(context), []
    ailing = [(row, state) for row in rows if (state := _state(row, end)) not in _WELL]
    told += [f"**{escape.markdown(row.instance)}** is {state}" for row, state in ailing[:3]]
    by_instance: dict[str, list[Standing]] = {}
    for one in broken:
        if one.known and one.kind not in NO_LOSS:
            by_instance.setdefault(one.instance, []).append(one)
    for instance, faults in list(by_instance.items())[:3]:
        named = ", ".join(f"{one.what} ({_in_words(one.kind)})" for one in faults[:3])
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""  # noqa: PLR2004 three are named
        told.append(f"**{escape.markdown(instance)}** does not tell what it must: {escape.markdown(named)}{more}")
    for text in told:
        st.markdown(text)
    _serving(rows, end, ails=bool(told))


def _serving(rows: Sequence[InstanceRow], end: datetime, *, ails: bool) -> None:
    """That all is well, or why nobody knows; and who is asleep."""
    here = [row for row in rows if row.left is None]
    asked = [state for row in here if (state := _state(row, end)) != _UNSCRAPED]
    if rows and not here:
        st.markdown(f"**Nothing** serves: all {len(rows)} left on purpose." if len(rows) > 1
                    else "**Nothing** serves: it left on purpose.")  # fmt: skip
    elif rows and not ails and not asked:
        st.markdown("**Not known**: requests name these servers, and no agent reads their pages.")
    elif rows and not ails:
        which = f"all {len(here)}" if len(asked) == len(here) else f"those {len(asked)} whose pages are read"
        st.markdown(f"**Yes**: {which} answer, and nothing stands broken." if len(here) > 1
                    else "**Yes**: it answers, and nothing stands broken.")  # fmt: skip
    if asleep := [row.instance for row in here if _state(row, end) == _ASLEEP]:
        named = ", ".join(escape.markdown(name) for name in asleep[:3])
        more = f" and {len(asleep) - 3} more" if len(asleep) > 3 else ""  # noqa: PLR2004 three are named
        st.markdown(f"**Asleep**, with weights off the GPU by an operator's order: {named}{more}")


def _in_words(kind: str) -> str:
    return _BROKEN[Breach(kind)][0] if kind in set(Breach) else kind


def _rank(state: str) -> int:
    """Place of a state in the table: what ails, what serves, what left."""
    return 2 if state == _LEFT else int(state in {"up", _ASLEEP})


def _farewell(row: InstanceRow) -> str:
    by = f", by {row.left_by}" if row.left_by else ""
    return f"{words.local_clock(row.left, zone())}{by}" if row.left else words.NOTHING


def _instances(context: PageContext) -> None:
    answer: Answer[Instances] = ask("instances", context.selection)
    st.markdown("## Instances, what ails first")
    if not answer.result.instances:
        empty(answer.state, MISSING, answer.coverage)
        return
    end = _end(context)
    rows = sorted(answer.result.instances, key=lambda row: (_rank(_state(row, end)), row.deployment, row.instance))
    frame = pd.DataFrame([
        {
            "Instance": row.instance,
            "State": _state(row, end),
            "Engine": row.engine,
            "Version": row.version or words.NOTHING,
            "Models": ", ".join(row.models),
            "Deployment": row.deployment,
            "Role": row.role or words.NOTHING,
            "Ranks": len(row.ranks) or None,
            "Agent on": row.node or words.NOTHING,
            "Last sample": words.ago(row.last_sample),
            **({"Left": _farewell(row)} if any(one.left for one in rows) else {}),
            "Answered %": percent(row.up_ratio),
            "Requests": row.requests,
            "Source": f"recording {row.recording}" if row.recording else "live",
        }
        for row in rows
    ])  # fmt: skip
    table(frame, "instances", helps={
        "Answered %": "Share of the window's scrapes that got its metrics page",
        "Requests": "Rows of the window: from a tap, a probe or spans",
    })  # fmt: skip
    foot("instances", answer)


def _contract(context: PageContext) -> None:
    answer: Answer[Contracts] = ask("contract", context.selection)
    broken = answer.result.broken
    st.markdown("## Contract guard: what pages must tell and do not")
    if not broken:
        if answer.state == "value":
            st.markdown(
                "**Nothing stands broken.** :gray[What a version's page must have is there, in its unit, and moves.]"
            )
        else:
            empty(answer.state, MISSING, answer.coverage)
        return
    frame = pd.DataFrame([
        {
            "Instance": one.instance,
            "What": one.what,
            "How": _in_words(one.kind),
            "Since": words.local_clock(one.since, zone()),
            "Stands": "yes" if one.known else "not known",
            "What to do": _BROKEN[Breach(one.kind)][1] if one.kind in set(Breach) else "",
            "Told": one.message,
        }
        for one in sorted(broken, key=lambda one: (not one.known, one.kind in NO_LOSS, one.since))
    ])  # fmt: skip
    table(frame, "contract", height=_height(len(broken)), helps={
        "Stands": "What an agent told before it was started again, and not since, may be over",
    })  # fmt: skip
    foot("contract", answer, "As told last by the agents, since whenever in the thirty days before the window's end.")


def _configuration(context: PageContext) -> None:
    answer: Answer[Configuration] = ask("configuration", context.selection)
    found = answer.result
    st.markdown("## Configuration, what differs within a deployment first")
    if not found.settings:
        empty("value" if answer.coverage.samples else "no_data", MISSING_CONFIG)
        return
    for deployment, recording in dict.fromkeys((one.deployment, one.recording) for one in found.settings):
        settings = [one for one in found.settings if (one.deployment, one.recording) == (deployment, recording)]
        servers = [one for one in found.servers if (one.deployment, one.recording) == (deployment, recording)]
        whose = f"{deployment or 'no deployment'}{f' (recording {recording})' if recording else ''}"
        shown = [one.instance for one in servers[:_COLUMNS]]
        more = f", {len(servers) - len(shown)} more in the CSV" if len(servers) > len(shown) else ""
        since = max(one.since for one in servers)
        told = f"told {words.local_clock(since, zone())}{more}"
        st.markdown(f"**{escape.markdown(whose)}** :gray[{escape.markdown(told)}]")
        table(
            configuration_rows(settings, servers, shown), f"configuration-{deployment}-{recording}",
            height=_height(len(settings)),
        )  # fmt: skip
    foot("configuration", answer, "What engines show of their settings, as agents last read it.")


def configuration_rows(
    settings: Sequence[Setting], servers: Sequence[Configured], shown: Sequence[str]
) -> pd.DataFrame:
    """A row a setting, with a column for each server that is shown; where they run stands first."""
    places = {
        "Namespace": {one.instance: one.namespace for one in servers if one.namespace},
        "Pod": {one.instance: one.pod for one in servers if one.pod},
        "Node": {one.instance: one.node for one in servers if one.node},
    }
    rows = [(name, False, told) for name, told in places.items() if told]
    rows += [(one.name, one.differs, one.values) for one in settings]
    return pd.DataFrame([
        {
            "Setting": name,
            "Differs": "differs" if differs else "",
            **{instance: told.get(instance, words.NOTHING) for instance in shown},
        }
        for name, differs, told in rows
    ])  # fmt: skip


def _changes(context: PageContext) -> None:
    answer: Answer[Configuration] = ask("configuration", context.selection)
    changes = answer.result.changes
    st.markdown("## What changed when")
    if not changes:
        if answer.coverage.samples:
            st.markdown("**Nothing changed** in this window. :gray[No restart, version or setting.]")
        else:
            empty("no_data", MISSING)
        return
    frame = pd.DataFrame([
        {
            "Time": words.local_clock(one.time, zone()),
            "Instance": one.instance,
            "What": one.event.replace("_", " "),
            "Told": one.message,
            "From → to": "; ".join(f"{name}: {value}" for name, value in one.what.items()
                                   if one.event == "config_changed"),
            "Source": f"recording {one.recording}" if one.recording else "live",
        }
        for one in changes
    ])  # fmt: skip
    table(frame, "changes", height=_height(len(changes)))


def _ledger(context: PageContext) -> None:
    answer: Answer[Ledger] = ask("ledger", context.selection)
    ledger = answer.result
    st.markdown("## Ledger: received = stored + rejected + dropped")
    if ledger.books:
        table(_books(ledger.books), "books", whole=_COUNTS, helps={
            "Read back": "Records that its log still had at its start",
            "In the log": "Accepted, durable, and not in the store yet",
            "Unaccounted": "Received and read back, less all others: 0 when nothing was lost or doubled",
        })  # fmt: skip
    else:
        empty("no_data", MISSING_BOOKS)
    st.markdown("## Agents, silent longest first")
    if ledger.agents:
        frame = pd.DataFrame([
            {
                "Agent on": one.node or words.NOTHING,
                "Pod": one.pod or words.NOTHING,
                "Key": one.sender_key_id or "unsigned",
                "Address": one.sender_peer or words.NOTHING,
                "Watches": ", ".join(one.instances),
                "Samples": one.samples,
                "Last sample": words.ago(one.last_sample),
                "Started": words.local_clock(one.started, zone()) if one.started else words.NOTHING,
            }
            for one in ledger.agents
        ])  # fmt: skip
        table(frame, "agents")
    else:
        empty("no_data", MISSING)
    st.caption(
        "What an agent could not send, its version and its problems are not in the store: its own `/healthz` and "
        "`/metrics` (port 9464) tell them."
    )
    foot("ledger", answer)


def _books(books: Sequence[Books]) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "Signal": one.signal,
            "Received": one.received,
            "Read back": one.recovered,
            "Stored": one.stored,
            "Rejected": one.rejected,
            "Dropped": one.dropped,
            "In the log": one.pending,
            "Unaccounted": one.unaccounted,
            "Why": "; ".join(f"{reason.replace(':', ', ')}: {words.count(count)}"
                             for reason, count in one.reasons.items()),
            "Since": words.local_clock(one.since, zone()),
            "As of": words.local_clock(one.at, zone()),
            "Collector": one.collector,
        }
        for one in books
    ])  # fmt: skip
