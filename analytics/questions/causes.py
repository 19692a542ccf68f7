"""Why requests were slow: their seconds above the reference, charged to causes.

For every request ``actual − reference = work change + rate change + contention + unexplained``; the answer is the sum
over the requests asked about. Others' requests are read too, whoever is asked about: what they held is what some waited
for. The method with its formulas: docs/causes.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from analytics.causes.account import account_of
from analytics.causes.evidence import Cause, Failure, causes_of, failures_of
from analytics.causes.harm import Harm, harm_of
from analytics.causes.load import MOST_REQUESTS, load, load_pages
from analytics.inquiry import Inquiry
from analytics.question import Command, QuestionError
from base.named_sql import beside

if TYPE_CHECKING:
    from analytics.answer import Answer
    from analytics.causes.account import Account
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)
_KINDS: Final = 20
"""Kinds of requests whose reference is told."""
_LEAST: Final = 100
_BY_PAGES: Final = (
    "By metrics pages alone: those that finished in the same second count with their means, what failed with no "
    "seconds, and who asked is not known."
)


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a kind of request cost when all was well.

    Attributes:
        deployment, model, route: The kind, with `has_engine`.
        has_engine: Whether the engine's own record is there.
        requests: Requests that it rests on.
        e2e_seconds: Their mean.
        uncertainty_seconds: Its standard error.
        prefill_token_seconds, output_token_seconds: What a token took.
        prompt_tokens, uncached_tokens, output_tokens: Their means.
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
    """

    requests: int
    excess_seconds: float
    causes: list[Cause]
    unexplained_share: float | None
    unexplained_seconds: float
    failures: list[Failure] = field(default_factory=list)
    reference_seconds: float = 0.0
    reference: list[Grounds] = field(default_factory=list)
    harm: Harm = field(default_factory=lambda: Harm([]))


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
    inquiry = Inquiry(store, selection, sql=_SQL)
    window = selection.window
    cover = inquiry.coverage()
    by_pages = not cover.rows and bool(cover.samples) and inquiry.of_all
    evidence = load_pages(inquiry, len(cover.sample_instances), most) if by_pages else load(inquiry, most)
    made = account_of(evidence)
    asked = made.asked
    if selection.ids and not (made.requests.selected & made.requests.inside).any():
        asked_for = next(getattr(selection, name) for name in selection.ids)
        raise QuestionError(
            f"There is no request {asked_for!r} in the window", "Give its request, response or trace id, and its time"
        )
    excess = float(made.ledger.excess[asked].sum()) * made.requests.scale
    found = causes_of(made, asked)
    unexplained = excess - sum(cause.seconds for cause in found)
    result = Causes(
        requests=round(int(asked.sum()) * made.requests.scale),
        excess_seconds=excess,
        causes=found,
        unexplained_share=unexplained / excess if excess > 0 else None,
        unexplained_seconds=unexplained,
        failures=failures_of(
            made, made.requests.inside & made.requests.selected, (window.from_ms - evidence.origin_ms) / 1000
        ),
        reference_seconds=float(made.requests.e2e[asked].sum()) * made.requests.scale - excess,
        reference=_grounds(made),
        harm=harm_of(made, found, asked),
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


def _grounds(account: Account) -> list[Grounds]:
    fits = sorted(account.reference.fits, key=lambda fit: -fit.n)[:_KINDS]
    return [
        Grounds(
            *fit.kind,
            requests=fit.n,
            e2e_seconds=fit.e2e,
            uncertainty_seconds=fit.spread / fit.n**0.5,
            prefill_token_seconds=fit.prefill_token,
            output_token_seconds=fit.output_token,
            prompt_tokens=fit.prompt,
            uncached_tokens=fit.uncached,
            output_tokens=fit.output,
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
    if reference.inside and reference.fits:
        found.append("Too little lies before the window: its own calm parts are the reference.")
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
