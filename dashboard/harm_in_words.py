"""Who uses it and who harms whom, in words and as a table of driver against victim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics.causes.advice import NAMES
from base.formats import three
from dashboard import words
from dashboard.causes_in_words import page_of
from dashboard.linked_table import Cell, Head
from dashboard.links import link

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analytics.causes.harm import Harm, Pair
    from analytics.questions.causes import Causes
    from analytics.questions.tenants import Tenants
    from analytics.selection import Selection
    from dashboard.causes_in_words import Piece

ABOUT: Final = (
    "Seconds above the reference that requests of one tenant lost to another's work: charges of a full KV cache, "
    "preemptions, others' prompts, larger batches, a saturated queue and retries of which one tenant has most. What a "
    "tenant lost to its own work stands apart. Of a longer window its newest hour is looked at."
)
DRIVERS: Final = 8
VICTIMS: Final = 6
_LARGE: Final = 1.5
"""Times its share of requests from which a tenant's share of the engine is worth saying."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one tenant's work took.

    Attributes:
        driver: The tenant.
        causes: Names of the causes, most seconds first.
        others: Seconds of other tenants' requests.
        itself: Seconds of its own.
        victims: Seconds of each victim of the matrix, in its order; of its own column 0.
        rest: Seconds of others without a column.
    """

    driver: str
    causes: list[str]
    others: float
    itself: float
    victims: list[float]
    rest: float


@dataclass(frozen=True, slots=True)
class Matrix:
    """Drivers against victims, in seconds; what harms others most comes first.

    Attributes:
        victims: Tenants with a column.
        rows: One per driver.
        left_out: Drivers without a row.
    """

    victims: list[str]
    rows: list[Row]
    left_out: int = 0


def called(tenant: str) -> str:
    """A tenant as people read it."""
    return tenant or "no tenant"


def of_tenant(selection: Selection, tenant: str) -> Selection:
    """What is looked at, of one tenant."""
    return selection.but(filter=selection.filter.narrowed(tenant=(tenant,)))


def named_of(told: Tenants) -> int:
    """How many tenants there are; requests without one are none."""
    return sum(bool(row.tenant) for row in told.tenants) + told.left_out


def who_uses_it(told: Tenants, selection: Selection) -> list[Piece]:
    """``Most by hooli: 61 % of engine time with 12 % of requests``."""
    named = [row for row in told.tenants if row.tenant]
    if not named:
        return [("No request names a tenant", ""), (": all are told as one.", "")]
    first = max(named, key=lambda row: (row.engine_share or 0.0, row.token_share or 0.0, row.requests))
    name = (first.tenant, link("./", of_tenant(selection, first.tenant)))
    number = named_of(told)
    if number == 1:
        return [name, (" alone uses it: ", ""), (f"{words.plural(told.requests, 'request')}.", "")]
    share, of = first.request_share, "requests"
    for one, what in ((first.engine_share, "engine time"), (first.token_share, "tokens")):
        if one is not None:
            share, of = one, what
            break
    beside = "" if of == "requests" else f" with {words.ratio(first.request_share)} of the requests"
    much = "Most by far" if share > _LARGE * first.request_share and share > 0.5 else "Most"  # noqa: PLR2004 - half
    return [
        (f"{much} by ", ""), name, (f": {words.ratio(share)} of {of}{beside}, of ", ""),
        (f"{words.plural(number, 'tenant')}.", ""),
    ]  # fmt: skip


def who_harms_whom(told: Causes, selection: Selection) -> list[Piece]:
    """``hooli's work took 320 s from others, most from acme (120 s)``; quiet is told as quiet."""
    harming = [row for row in matrix(told.harm, ()).rows if row.others > 0]
    span = words.seconds(selection.window.seconds)
    if not harming:
        return [(f"{nobody(told, ())} Looked at: {words.plural(told.requests, 'request')} of {span}.", "")]
    said: list[Piece] = []
    for row in harming[:2]:
        said.append((" " if said else "", ""))
        hurt = [pair for pair in told.harm.pairs if pair.driver == row.driver and pair.victim != row.driver]
        victim, lost = max(_by(hurt).items(), key=lambda item: item[1])
        said += [
            ("The work of ", ""), (row.driver, link("requests", of_tenant(selection, row.driver))),
            (f" took {words.seconds(row.others)} from others' requests of {span}, most from ", ""),
            (called(victim), link("requests", of_tenant(selection, victim)) if victim else ""),
            (f" ({words.seconds(lost)}), by ", ""),
            (NAMES[row.causes[0]], link(page_of(row.causes[0]), selection)), (".", ""),
        ]  # fmt: skip
    return said


def nobody(told: Causes, chosen: Sequence[str]) -> str:
    """Why there is no pair to tell of."""
    if not told.requests:
        return "Nothing can be said of harm: too few requests to say what is usual."
    if told.harm.nobodys_seconds > 0 and not told.harm.pairs:
        lost = words.seconds(told.harm.nobodys_seconds)
        return f"Requests lost {lost} to others' work, and no tenant's stands out in it."
    if chosen and told.harm.pairs:
        return "None of the chosen tenants harms another, or is harmed."
    if told.harm.pairs:
        return "Tenants lost time to their own work alone."
    return "No tenant's work took time from another's beyond the usual."


def matrix(harm: Harm, chosen: Sequence[str]) -> Matrix:
    """Pairs as drivers against victims.

    Args:
        harm: Of the answer.
        chosen: Only pairs of these tenants, as driver or victim; empty for all.
    """
    pairs = [pair for pair in harm.pairs if not chosen or pair.driver in chosen or pair.victim in chosen]
    sums = _by(pair for pair in pairs if pair.victim != pair.driver)
    victims = sorted(sums, key=lambda name: (-sums[name], name))[:VICTIMS]
    rows = [_row(driver, [pair for pair in pairs if pair.driver == driver], victims) for driver in _drivers(pairs)]
    rows.sort(key=lambda row: (-row.others, -row.itself, row.driver))
    return Matrix(victims, rows[:DRIVERS], max(len(rows) - DRIVERS, 0))


def cells(told: Matrix, selection: Selection) -> tuple[list[Head], list[list[Cell]]]:
    """The matrix as a table: heads and rows."""
    heads = [
        Head("Whose work", "The tenant whose work took the seconds", words=True),
        Head("By", "The cause that took most", words=True),
        Head("From others s", "Seconds that requests of other tenants lost to it"),
        Head("From itself s", "Seconds that its own requests lost to its own work"),
        *(Head(f"{called(name)} s", f"Seconds that requests of {called(name)} lost") for name in told.victims),
    ]
    rest = any(row.rest for row in told.rows)
    if rest:
        heads.append(Head("Other tenants s", "Seconds that requests of all others lost"))
    most = max((row.others for row in told.rows), default=0.0)
    rows = []
    for row in told.rows:
        own = of_tenant(selection, row.driver)
        cause = row.causes[0]
        line = [
            Cell(row.driver, link("requests", own)), Cell(NAMES[cause], link(page_of(cause), selection)),
            Cell(three(row.others), share=row.others / most if most else None), Cell(three(row.itself), quiet=True),
        ]  # fmt: skip
        line += [
            Cell(three(lost) if lost else "" if name == row.driver else words.NOTHING, quiet=not lost)
            for name, lost in zip(told.victims, row.victims, strict=True)
        ]
        rows.append(line + ([Cell(three(row.rest) if row.rest else words.NOTHING)] if rest else []))
    return heads, rows


def _row(driver: str, pairs: Sequence[Pair], victims: Sequence[str]) -> Row:
    lost = _by(pair for pair in pairs if pair.victim != driver)
    causes: dict[str, float] = {}
    for pair in pairs:
        causes[pair.cause] = causes.get(pair.cause, 0.0) + pair.seconds
    return Row(
        driver,
        sorted(causes, key=lambda name: (-causes[name], name)),
        sum(lost.values()),
        sum(pair.seconds for pair in pairs if pair.victim == driver),
        [lost.get(name, 0.0) for name in victims],
        sum(seconds for name, seconds in lost.items() if name not in victims),
    )


def _drivers(pairs: Iterable[Pair]) -> list[str]:
    return list(dict.fromkeys(pair.driver for pair in pairs))


def _by(pairs: Iterable[Pair]) -> dict[str, float]:
    """Seconds by victim."""
    found: dict[str, float] = {}
    for pair in pairs:
        found[pair.victim] = found.get(pair.victim, 0.0) + pair.seconds
    return found
