"""Tenants: who asks for how much of it, how it goes for each, and whose work takes whose time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import streamlit as st

from analytics.window import Window
from base.formats import three
from dashboard import harm_in_words, words
from dashboard.causes_in_words import as_html
from dashboard.data import ask, soon
from dashboard.figures import Trace, stack
from dashboard.linked_table import Cell, Head, linked
from dashboard.links import link
from dashboard.panel import empty, foot, guarded, panel, tiles, worked_out
from dashboard.shell import page
from dashboard.tables import milliseconds
from dashboard.tiles import Tile, change_in_words, compared
from dashboard.verdict import asked_about

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamlit.delta_generator import DeltaGenerator

    from analytics.answer import Answer
    from analytics.questions.causes import Causes
    from analytics.questions.tenants import Tenants, TenantShare
    from analytics.selection import Selection
    from dashboard.data import Question
    from dashboard.page_context import PageContext

MISSING: Final = (
    "Tenants come with request rows: send your clients through the tap, which names them by `x-tenant-id`, a key or a "
    "token."
)
LOOKING: Final = "Who harms whom is being looked into."
_SHARES: Final = {
    "Most engine time": "engine_share",
    "Most generated": "completion_share",
    "Most prompt tokens": "prompt_share",
    "Most requests": "request_share",
}
_PATIENCE: Final = {True: 1.5, False: 15.0}
"""Seconds that a page, drawn already, waits for who harms whom: one that is live comes again."""
_KEPT: Final = "harm"
_HEADS: Final = (
    Head("Tenant", "Leads to all pages of this tenant", words=True),
    Head("Requests", "Leads to the requests themselves"),
    Head("Requests %", "Of all requests"),
    Head("Prompt %", "Of all prompt tokens"),
    Head("Generated %", "Of all generated tokens"),
    Head("Engine time %", "Of all seconds of prefill and decode, or of Triton's compute"),
    Head("Engine time s", "Seconds in engines past their queue, summed over requests"),
    Head("Failed %", "Of its own requests, by the service's fault"),
    Head("TTFT p95 ms", "Beside that of all tenants in the first row"),
    Head("E2E p95 ms", "Beside that of all tenants in the first row"),
)

TITLE: Final = "Tenants"
"""In the navigation."""
PLACE: Final = 33
"""Order in the navigation, the front page first."""
QUESTION: Final = "Who uses it, and who harms whom?"
"""Over the page."""
COMPARE: Final = True
"""Whether the page compares with an earlier period or another version."""


def draw() -> None:
    """The page of tenants."""
    page(_body, arriving=True, needs=_needs, compared=_needs)


def _needs() -> list[Question]:
    return [("tenants", {})]


def _body(context: PageContext) -> None:
    everyone = replace(context, selection=_everyone(context.selection))
    place = st.empty()
    tiles(context, "tiles", lambda: _tiles(everyone))
    guarded(context, "answer", lambda: _answer(place, everyone))
    with st.container(horizontal=True, gap="small"):
        with st.container(key="half-engine"):
            panel(
                "engine", "tenants", context,
                lambda result: _over_time(result, context, "engine_seconds", "Engine time by tenant", "s per second"),
                missing=MISSING, title="Engine time by tenant", has_data=lambda result: _any(result, "engine_seconds"),
                about="Seconds of prefill and decode, or of Triton's compute, by the arrival of their requests: how "
                "many requests of each tenant were worked on at once.",
            )  # fmt: skip
        with st.container(key="half-tokens"):
            panel(
                "tokens", "tenants", context,
                lambda result: _over_time(result, context, "tokens", "Tokens by tenant", "tokens_per_second"),
                missing=MISSING, title="Tokens by tenant", has_data=lambda result: _any(result, "tokens"),
                about="Prompt and generated tokens by the arrival of their requests.",
            )  # fmt: skip
    guarded(context, "tenants", lambda: _table(everyone, context.filter.tenant))
    guarded(context, "harm", lambda: _harm(place, everyone, context.filter.tenant))


def _everyone(selection: Selection) -> Selection:
    """Shares are of all tenants, and harm is between them, whichever are chosen."""
    return selection.but(filter=selection.filter.narrowed(tenant=()))


def _tiles(everyone: PageContext) -> list[Tile]:
    result: Tenants = ask("tenants", everyone.selection).result
    if result.fleet is None:
        return []
    before: Tenants | None = ask("tenants", everyone.reference).result if everyone.reference else None
    named, p95 = harm_in_words.named_of(result), result.fleet.e2e_p95_seconds
    there = before if before is not None and before.fleet is not None else None
    tenants = Tile("Tenants", words.count(named), "with requests")
    slowest = Tile("E2E p95 of all", words.seconds(p95))
    return [
        compared(tenants, named, harm_in_words.named_of(there) if there else None, "count", everyone.against),
        *(_most(result, before, name, share, everyone.against) for name, share in _SHARES.items()),
        compared(
            slowest, p95, there.fleet.e2e_p95_seconds if there and there.fleet else None, "seconds", everyone.against
        ),
    ]


def _most(result: Tenants, before: Tenants | None, name: str, share: str, against: str) -> Tile:
    """Who has most of something, and what became of that tenant's share."""
    known = [row for row in result.tenants if getattr(row, share) is not None]
    if not known:
        return Tile(name, words.NOTHING, help="No request of this window tells it")
    first = max(known, key=lambda row: getattr(row, share))
    value, then = getattr(first, share), [row for row in before.tenants if row.tenant == first.tenant] if before else []
    tile = Tile(name, words.ratio(value), harm_in_words.called(first.tenant))
    told = change_in_words(value, getattr(then[0], share) if then else None, "ratio", against)
    return replace(tile, note=f"{tile.note}, {told}") if told else tile


def _answer(place: DeltaGenerator, everyone: PageContext, told: Causes | None = None) -> None:
    """The first line: who uses it, and as soon as it is known who harms whom."""
    result: Tenants = ask("tenants", everyone.selection).result
    if result.fleet is None:
        return
    colours = everyone.colours
    lines = [as_html(harm_in_words.who_uses_it(result, everyone.selection))]
    asked = asked_about(everyone)
    lines.append(as_html(harm_in_words.who_harms_whom(told, asked)) if told else f"<i>{LOOKING}</i>")
    style = f"--edge:{colours.grid};--text:{colours.text};--accent:{colours.accent};--quiet:{colours.quiet}"
    body = "".join(f"<div>{line}</div>" for line in lines if line)
    place.html(f'<div class="servescope-answer" style="{style}">{body}</div>')


def _any(result: Tenants, amount: str) -> bool:
    return any(value for line in result.lines for value in getattr(line, amount))


def _over_time(result: Tenants, context: PageContext, amount: str, title: str, unit: str) -> object:
    colours = context.style.colours
    traces = [
        Trace(
            "other tenants" if line.others else words.short(harm_in_words.called(line.tenant), 24),
            getattr(line, amount),
            colours.nobody if line.others else colours.series[place % len(colours.series)],
            compared="no" if line.others else "line",  # others of another period are other tenants
        )
        for place, line in enumerate(result.lines)
    ]
    return stack(result.times, traces, context.arrivals, title=title, unit=unit)


def _table(everyone: PageContext, chosen: Sequence[str]) -> None:
    answer = ask("tenants", everyone.selection)
    result: Tenants = answer.result
    st.markdown("## Tenants")
    if result.fleet is None:
        empty(answer.state, MISSING, answer.coverage)
        return
    listed = [row for row in result.tenants if not chosen or row.tenant in chosen]
    listed.sort(key=lambda row: (-(row.engine_share or 0.0), -row.requests, row.tenant))
    counted = _counted(answer, everyone.selection)
    rows = [_row(result.fleet, "All tenants", "", _listed(counted), None)]
    for row in listed:
        own, listing = (harm_in_words.of_tenant(of, row.tenant) for of in (everyone.selection, counted))
        there = (link("./", own), _listed(listing)) if row.tenant else ("", "")
        rows.append(_row(row, harm_in_words.called(row.tenant), *there, result.fleet))
    st.html(linked(_HEADS, rows, everyone.colours, called="Tenants with their shares"))
    more = 0 if chosen else result.left_out
    if more:
        st.caption(f"The {len(listed)} with most requests; {words.plural(more, 'tenant')} more.")
    foot("tenants", answer, "Shares are of all tenants, whichever are chosen.", rows=listed)


def _listed(selection: Selection) -> str:
    """The list of all of them: the slowest alone are those that have a latency."""
    return f"{link('requests', selection)}&{urlencode({'order': 'Newest first'})}"


def _counted(answer: Answer[Tenants], selection: Selection) -> Selection:
    """The requests that an answer counted: those before its settled edge, so that their list has just these."""
    edge, window = answer.coverage.settled, selection.window
    if edge is None or not window.start < edge < window.end:
        return selection
    return selection.but(window=Window(window.start, edge))


def _row(row: TenantShare, name: str, where: str, requests: str, fleet: TenantShare | None) -> list[Cell]:
    shares = (row.request_share, row.prompt_share, row.completion_share, row.engine_share)
    return [
        Cell(name, where),
        Cell(f"{row.requests:,.0f}", requests),
        *(_share(share if fleet else None) for share in shares),
        Cell(three(row.engine_seconds) if row.engine_share is not None else words.NOTHING),
        Cell(three(row.error_share * 100)),
        _beside(row.ttft_p95_seconds, fleet.ttft_p95_seconds if fleet else None),
        _beside(row.e2e_p95_seconds, fleet.e2e_p95_seconds if fleet else None),
    ]


def _share(share: float | None) -> Cell:
    return Cell(words.NOTHING, quiet=True) if share is None else Cell(three(share * 100), share=share)


def _beside(seconds: float | None, of_all: float | None) -> Cell:
    value = milliseconds(seconds)
    if value is None:
        return Cell(words.NOTHING, quiet=True)
    times = f" ({seconds / of_all:.2g} ×)" if seconds and of_all else ""
    return Cell(f"{three(value)}{times}")


def _harm(place: DeltaGenerator, everyone: PageContext, chosen: Sequence[str]) -> None:
    if ask("tenants", everyone.selection).result.fleet is None:
        return
    selection = asked_about(everyone)
    answer = _causes(everyone, selection)
    st.markdown("## Who harms whom")
    if answer is None:
        st.markdown(f":gray[{LOOKING}]")
        return
    told: Causes = answer.result
    guarded(everyone, "answer", lambda: _answer(place, everyone, told))
    matrix = harm_in_words.matrix(told.harm, chosen)
    if not matrix.rows:
        st.markdown(f":gray[{harm_in_words.nobody(told, chosen)}]")
    else:
        table = harm_in_words.cells(matrix, selection)
        st.html(linked(*table, everyone.colours, called="Seconds that one tenant's work took from another's requests"))
    foot("harm", answer, harm_in_words.ABOUT, worked_out(answer))


def _causes(everyone: PageContext, selection: Selection) -> Answer[Causes] | None:
    """The account if it is there in time, else what was told a moment ago of the same."""
    found: Answer[Causes] | None = soon("causes", selection, seconds=_PATIENCE[everyone.live])
    moving: Any = everyone.asked.seconds if everyone.live and everyone.asked else selection.window
    about = (everyone.live, moving, everyone.filter)
    if found is not None:
        st.session_state[_KEPT] = (about, found)
        return found
    before, kept = st.session_state.get(_KEPT, (None, None))
    return kept if before == about else None
