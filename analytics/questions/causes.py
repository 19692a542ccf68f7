"""Why requests were slow: their seconds above the reference, charged to causes.

For every request ``actual − reference = work change + rate change + contention + unexplained``; the answer is the sum
over the requests asked about. Others' requests are read too, whoever is asked about: what they held is what some waited
for. The method with its formulas: docs/causes.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analytics.causes.account import account_of
from analytics.causes.advice import BEGAN, NAMES
from analytics.causes.chains import Chain, in_words
from analytics.causes.driving import in_words as driving_in_words
from analytics.causes.driving import named
from analytics.causes.evidence import Cause, Failure, causes_of, failures_of
from analytics.causes.harm import Harm, harm_of
from analytics.causes.kept import Kept, kept_for
from analytics.causes.load import MOST_REQUESTS, load, load_pages
from analytics.causes.story import chains_of
from analytics.causes.summed import summed
from analytics.inquiry import Inquiry
from analytics.question import Command, QuestionError
from base.foreign_text import legible
from base.formats import rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from analytics.answer import Answer, Coverage
    from analytics.causes.account import Account
    from analytics.causes.fit import Fit
    from analytics.causes.summed import Summed
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_KINDS: Final = 20
"""Kinds of requests whose reference is told."""
_LEAST: Final = 100
_BY_PAGES: Final = (
    "By metrics pages alone: those that finished in the same second count with their means, what failed with no "
    "seconds, and who asked is not known."
)
_UNCHAINED: Final = (
    "Which cause brought about which (chains) is told of windows shorter than two hours alone: what is kept of a "
    "period says not when in it a cause was charged."
)


@dataclass(frozen=True, slots=True)
class KindReference:
    """What a kind of request cost when all was well.

    Attributes:
        deployment, model, route: The kind, with `has_engine`.
        has_engine: Whether the engine's own record is there.
        requests: Requests that it rests on.
        e2e_seconds: Their mean.
        uncertainty_seconds: Its standard error.
        prefill_token_seconds, output_token_seconds: What a token took.
        prompt_tokens, uncached_tokens, output_tokens: Their means.
        prefill_token_error_seconds, output_token_error_seconds: Standard errors of what a token took.
        since, until: Period of a reference that was kept before the window; None where it is of the requests that were
            read for this answer.
        versions: Of its requests.
    """

    deployment: str
    model: str
    route: str
    has_engine: bool
    requests: int
    e2e_seconds: float
    uncertainty_seconds: float
    prefill_token_seconds: float
    output_token_seconds: float
    prompt_tokens: float
    uncached_tokens: float
    output_tokens: float
    prefill_token_error_seconds: float = 0.0
    output_token_error_seconds: float = 0.0
    since: datetime | None = None
    until: datetime | None = None
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Causes:
    """Why it was slow.

    Attributes:
        requests: Requests of the account: answered or failed, with a reference.
        excess_seconds: What they took above their reference, in sum, signed.
        causes: Most seconds first; empty where nothing stands out from the reference's own spread.
        unexplained_share: Share of the excess seconds that no cause is charged with, signed; None without an excess.
        unexplained_seconds: The same in seconds.
        failures: Requests that failed, by how.
        reference_seconds: What they cost when all was well, in sum: what they took is that and the excess.
        reference: What the kinds of requests cost when all was well, the most frequent first.
        harm: Whose work took whose seconds (`analytics.causes.harm`).
        chains: Causes of which one brought about the next, and the event that they began with, most seconds first.
            They charge nothing: their seconds are those of `causes`. Empty where the answer is summed of periods.
    """

    requests: int
    excess_seconds: float
    causes: list[Cause]
    unexplained_share: float | None
    unexplained_seconds: float
    failures: list[Failure] = field(default_factory=list)
    reference_seconds: float = 0.0
    reference: list[KindReference] = field(default_factory=list)
    harm: Harm = field(default_factory=lambda: Harm([]))
    chains: list[Chain] = field(default_factory=list)


def ask(store: Reader, selection: Selection, *, most: int = MOST_REQUESTS) -> Answer[Causes]:
    """Seconds that requests took above their reference, by cause.

    Args:
        store: Where to ask.
        selection: What is asked about.
        most: Requests that are read of window and reference; of more every k-th, which stands for k.

    Raises:
        QuestionError: There is no such request in the window, or none may be read.
    """
    if most < _LEAST:
        raise QuestionError(f"causes can't be told of {most} requests", f"Let it read {_LEAST} at least")
    inquiry = Inquiry(store, selection)
    window = selection.window
    cover = inquiry.coverage()
    if cover.rows and (of_periods := summed(inquiry, cover.rows)) is not None:
        return _summed(inquiry, cover, of_periods)
    by_pages = not cover.rows and bool(cover.samples) and inquiry.of_all
    kept = Kept() if by_pages else kept_for(inquiry)
    evidence = (
        load_pages(inquiry, len(cover.sample_instances), most)
        if by_pages
        else load(inquiry, most, kept=kept.deployments)
    )
    made = account_of(evidence, kept)
    asked = made.asked
    if selection.ids and not (made.requests.selected & made.requests.inside).any():
        asked_for = next(getattr(selection, name) for name in selection.ids)
        raise QuestionError(
            f"There is no request {asked_for!r} in the window", "Give its request, response or trace id, and its time"
        )
    excess = float(made.ledger.excess[asked].sum()) * made.requests.scale
    found = _with_ids(inquiry, causes_of(made, asked))
    unexplained = excess - sum(cause.seconds for cause in found)
    from_seconds = (window.from_ms - evidence.origin_ms) / 1000
    result = Causes(
        requests=round(int(asked.sum()) * made.requests.scale),
        excess_seconds=excess,
        causes=found,
        unexplained_share=unexplained / excess if excess > 0 else None,
        unexplained_seconds=unexplained,
        failures=failures_of(made, made.requests.inside & made.requests.selected, from_seconds),
        reference_seconds=float(made.requests.e2e[asked].sum()) * made.requests.scale - excess,
        reference=_kinds(made.reference.fits),
        harm=harm_of(made, found, asked),
        chains=[_told(chain, window.start, found) for chain in chains_of(made, found, asked, from_seconds)],
    )
    return inquiry.answer(
        result,
        cover,
        level="steps" if evidence.steps else "metrics" if by_pages else "rows",
        exactness="derived",
        rows=result.requests,
        samples_used=cover.samples > 0,
        notes=(*((_BY_PAGES,) if by_pages else ()), *_notes(made)),
    )


def _with_ids(inquiry: Inquiry, found: list[Cause]) -> list[Cause]:
    """Causes with the ids of the requests whose work took the time, which are evidence, too."""
    told = named(inquiry, [one.driving for one in found])
    return [
        replace(one, driving=driving, evidence=[*one.evidence, *filter(None, [driving_in_words(driving)])])
        for one, driving in zip(found, told, strict=True)
    ]


def _summed(inquiry: Inquiry, cover: Coverage, found: Summed) -> Answer[Causes]:
    """The answer for a window that is summed of what was kept of its periods."""
    unexplained = found.excess_seconds - sum(cause.seconds for cause in found.causes)
    fits = kept_for(inquiry, int(found.end.timestamp() * 1000)).fits
    result = Causes(
        requests=found.requests,
        excess_seconds=found.excess_seconds,
        causes=found.causes,
        unexplained_share=unexplained / found.excess_seconds if found.excess_seconds > 0 else None,
        unexplained_seconds=unexplained,
        failures=found.failures,
        reference_seconds=found.reference_seconds,
        reference=_kinds(fits.values()),
        harm=found.harm,
    )
    note = (
        f"Summed of {found.periods} periods of five minutes, each with an account of its own, from "
        f"{found.first:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC: {found.requests} of {cover.rows} requests."
    )
    notes = (note, _UNCHAINED) if found.causes else (note,)
    return inquiry.answer(
        result, cover, level="rows", exactness="derived", rows=result.requests, notes=notes, by_arrival=False
    )


def sentence(result: Mapping[str, Any]) -> str:
    """How much was lost, to what, whose it was and what to turn.

    Args:
        result: The answer's result as its envelope has it.
    """
    count, excess = result["requests"], result["excess_seconds"]
    took = (
        f"{count:,} request{'' if count == 1 else 's'} took {rounded(abs(excess))} {'more' if excess >= 0 else 'less'}"
    )
    if not result["causes"]:
        return f"{took} than usual, and no cause stands out."
    first = result["causes"][0]
    who = "".join(f", {name} {legible(str(value), 60)}" for name, value in first["who"].items())
    lost = f"{rounded(first['seconds'])} of {first['requests']:,}"
    return f"{took} than usual. First: {NAMES[first['cause']]}{who}, {lost}. {first['advice']}"


def _told(chain: Chain, start: datetime, causes: Iterable[Cause]) -> Chain:
    first = chain.steps[0].cause
    advice = BEGAN[chain.began.event] if chain.began else next(one.advice for one in causes if one.cause == first)
    told = in_words(chain, f"{start + timedelta(seconds=chain.since_seconds):%H:%M:%S} UTC")
    return replace(chain, told=told, advice=advice)


def _kinds(known: Iterable[Fit]) -> list[KindReference]:
    fits = sorted(known, key=lambda fit: -fit.n)[:_KINDS]
    return [
        KindReference(
            *fit.kind,
            requests=fit.n,
            e2e_seconds=fit.e2e,
            uncertainty_seconds=fit.error,
            prefill_token_seconds=fit.prefill_token,
            output_token_seconds=fit.output_token,
            prompt_tokens=fit.prompt,
            uncached_tokens=fit.uncached,
            output_tokens=fit.output,
            prefill_token_error_seconds=fit.prefill_token_error,
            output_token_error_seconds=fit.output_token_error,
            since=fit.since,
            until=fit.until,
            versions=fit.versions,
        )
        for fit in fits
    ]


def _notes(account: Account) -> tuple[str, ...]:
    """What the account could not see."""
    requests, reference = account.requests, account.reference
    found: list[str] = []
    wanted = requests.inside & requests.selected
    given_up = int((wanted & reference.known & ~requests.whole & ~requests.failed).sum())
    without = int((wanted & ~reference.known & (requests.whole | requests.failed)).sum())
    without, given_up = (round(count * requests.scale) for count in (without, given_up))
    if not reference.fits:
        found.append("There is no reference: too few requests before the window and in it.")
    elif without:
        found.append(f"{without} requests are of a kind that has no reference and are left out.")
    itself = wanted & reference.inside & reference.known
    if itself.any():
        names = requests.deployment.names
        those = [names[code] for code in np.unique(requests.deployment.codes[itself])]
        of_whom = "" if itself.sum() == (wanted & reference.known).sum() else f" of {', '.join(those[:5])}"
        found.append(f"Too little{of_whom} lies before the window: its own calm parts are the reference.")
    kept = [fit for fit in reference.fits if fit.since is not None and fit.until is not None]
    if kept:
        newest = max(fit.until for fit in kept if fit.until is not None)
        found.append(
            f"{len(kept)} of {len(reference.fits)} references were kept before the window, the newest until "
            f"{newest:%Y-%m-%d %H:%M} UTC."
        )
    if given_up:
        found.append(f"{given_up} requests that their clients gave up or asked wrongly have no excess.")
    unseen = [place.name for place in account.places if place.samples is None]
    if unseen:
        found.append(f"No samples of {', '.join(unseen[:5])}: KV cache, preemptions and stand-stills are unseen there.")
    if requests.scale > 1:
        found.append(f"One of {requests.scale:.0f} requests was read and stands for all.")
    stepless = [place.name for place in account.places if place.steps is None]
    if len(stepless) == len(account.places):
        found.append("No engine steps are known here: causes rest on rows and samples of a second.")
    elif stepless:
        found.append(
            f"No engine steps of {', '.join(stepless[:5])}: there causes rest on rows and samples of a second."
        )
    return tuple(found)
