"""What Servescope understands of a server: ``servescope probe URL|FILE``."""

from __future__ import annotations

import asyncio
import gzip
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from agent.access import Access, KeyWantedError
from agent.engine_table import About, detect, find_table
from agent.pages import exposition, iterations
from agent.pages.beside import Beside
from agent.pages.fetch import about_url, fetch, learn_about, page_urls, reason_of, split_url
from agent.pages.page import Limits, Page, PageReader
from agent.pages.samples import EngineSample, Sampler
from agent.target import Target
from base.errors import PageError, UnknownEngineError
from base.redact import shown
from base.vocabulary import FULLEST, Distribution, Signal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.engine_table import Table

_PROBE_TIMEOUT_SECONDS: Final = 10.0
_MOST: Final = 250
_TELLING: Final = (KeyWantedError, UnknownEngineError)
"""Why no page was understood, where that is more than that a path has none."""


def probe(
    place: str, *, access: Access | None = None, timeout_seconds: float = _PROBE_TIMEOUT_SECONDS
) -> dict[str, Any]:
    """What we understand of a server or of a saved page.

    Args:
        place: URL of a server or of its metrics page, or path of a saved page (``.gz`` is unpacked).
        access: Where the server's key is.
        timeout_seconds: How long to wait for one answer.

    Returns:
        ``{"engine", "role", "version", "models", "signals", "by_model", "batch_sizes", "unmapped", "missing",
        "notes"}``: ``version``
        is None where the server does not say; ``signals`` are summed over models and ranks (KV use: the fullest) and
        ``by_model`` has the same per model, neither with a key for what the page does not show; ``batch_sizes`` are by
        model executions and seconds of compute by their items (``from``, ``to``; None: and more) since the server's
        start, empty where it does not tell; ``unmapped`` are
        families no table names; ``missing`` are signals that this engine's pages have and this one has not.

    Raises:
        PageError: The page cannot be had or read.
        UnknownEngineError: No engine table recognises it; names what was seen.
    """
    path = Path(place)
    if "://" not in place and path.exists():
        body = _saved(path)
        return _iterations(body, place) if iterations.looks_like(body) else describe(_read(body, place), About())
    if "://" not in place and ("/" in place or ":" not in place):
        raise PageError(
            f"no file {shown(place)}", "Give the path of a saved metrics page, or a URL that begins with http://"
        )
    return asyncio.run(_probe_url(place, access or Access(), timeout_seconds))


def _saved(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise PageError(f"cannot read {path}: {error}", "Give the path of a saved metrics page") from error


def _read(body: bytes, place: str) -> Page:
    page = PageReader().read(body)
    if not page.layout.series:
        raise PageError(f"the metrics page of {place} is empty", "Wait until the server has started, or give its page")
    return page


async def _probe_url(url: str, access: Access, timeout_seconds: float) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    problem: PageError | UnknownEngineError | None = None
    told: dict[str, Any] | None = None
    key = access.headers()
    if any(map(str.isspace, url)):
        raise PageError(f"{shown(url)} is not a URL", "Give a URL such as http://127.0.0.1:8000")
    try:
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            for page_url in page_urls(url):
                try:
                    body = await fetch(session, page_url, Limits().bytes, key)
                    if iterations.looks_like(body):
                        told = told or _iterations(body, shown(page_url))
                        continue  # what came is used, and not asked for again; the engine's page would say more
                    page = _read(body, shown(page_url))
                    table = detect(page)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    problem = problem or PageError(
                        f"cannot get {shown(page_url)}: {reason_of(error)}", "Is the server up, the URL right?"
                    )
                except (PageError, UnknownEngineError) as error:
                    # A page that answers tells more than a port that does not, and one that wants a key most.
                    kept = (KeyWantedError,) if isinstance(error, KeyWantedError | UnknownEngineError) else _TELLING
                    problem = problem if isinstance(problem, kept) else error
                else:
                    base = "" if split_url(url).path.rstrip("/").endswith("metrics") else url
                    about = await learn_about(session, table, about_url(table, base, page_url), key)
                    beside = Beside()
                    await beside.ask(session, table, Target("", "", table.engine, base, access=access), page_url)
                    whole = _read(exposition.after(body, beside.lines), shown(page_url)) if beside.lines else page
                    found = describe(whole, about)
                    found["notes"] += [f"no batch sizes: {beside.problem}"] if beside.problem else []
                    return found
    except ValueError:  # aiohttp's InvalidURL is one, and so is a port that is no number; both quote the URL
        raise PageError(f"{shown(url)} is not a URL", "Give a URL such as http://127.0.0.1:8000") from None
    if told is not None:
        return told
    raise problem or PageError(f"nothing to ask at {shown(url)}", "Give a URL such as http://127.0.0.1:8000")


def _iterations(body: bytes, place: str) -> dict[str, Any]:
    """The answer for TensorRT-LLM's statistics, read once."""
    found = iterations.read(body, place)
    told = describe(found.page, About(), find_table("trtllm"))
    what = (
        f"iteration statistics, not a metrics page: the newest of {found.count} iterations; reading took them away"
        if found.count
        else "an empty list of iteration statistics says nothing: they are off, or nothing ran since the last read"
    )
    return told | {"unmapped": list(found.unmapped), "notes": [what, *told["notes"]]}


def describe(page: Page, about: About, table: Table | None = None) -> dict[str, Any]:
    """The answer of :func:`probe` for one page, of an engine that is known or shows on it."""
    table = table or detect(page)
    scrape = Sampler(table, model=about.model, version=about.version).sample(page)
    samples = scrape.samples
    models = list(dict.fromkeys(sample.key.model for sample in samples))
    signals = _together(samples)
    notes = table.notes(page)
    notes += [breach.message for breach in scrape.breaches if breach.kind in {"unit", "doubled"}]
    if page.faults_total:
        notes.append(f"passed over: {page.told()}")
    return {
        "engine": table.engine,
        "role": table.plays(page.layout),
        "version": about.version or None,
        "models": [model for model in models if model] or _named(table, page),
        "signals": signals,
        "by_model": {
            model: _together(sample for sample in samples if sample.key.model == model) for model in models if model
        },
        "batch_sizes": _batch_sizes(table, page),
        "unmapped": [family for family in page.layout.families() if not table.knows(family)],
        "missing": [str(signal) for signal in table.expected() if signal not in signals],
        "notes": notes,
    }


def _named(table: Table, page: Page) -> list[str]:
    """Models that a page names though it shows no signal of theirs."""
    return list(dict.fromkeys(name for one in page.layout.series if (name := table.model_of(one.labels, ""))))[:_MOST]


def _together(samples: Iterable[EngineSample]) -> dict[str, float]:
    """Signals of several samples as one: sums, but the fullest KV cache."""
    found: dict[str, float] = {}
    for sample in samples:
        for signal, value in sample.signals().items():
            if signal in FULLEST:
                found[signal] = max(found.get(signal, value), value)
            else:
                found[signal] = found.get(signal, 0.0) + value
    return {str(signal): found[signal] for signal in Signal if signal in found}


def _batch_sizes(table: Table, page: Page) -> dict[str, list[dict[str, float | None]]]:
    """Executions and seconds of compute by their items, by model, of those that executed something."""
    executions, spent = (
        _buckets(table, page, distribution)
        for distribution in (Distribution.BATCH_SIZE, Distribution.BATCH_COMPUTE_MICROSECONDS)
    )
    found: dict[str, list[dict[str, float | None]]] = {}
    for model, below in executions.items():
        before = dict.fromkeys((0.0, *below), 0.0) | spent.get(model, {})
        for (low, fewer), (high, count) in pairwise([(0.0, 0.0), *sorted(below.items())]):
            if count > fewer:
                row = {
                    "from": low + 1,
                    "to": high if isfinite(high) else None,
                    "executions": count - fewer,
                    "compute_seconds": (before[high] - before[low]) / 1e6 if model in spent else None,
                }
                found.setdefault(model, []).append(row)
    return found


def _buckets(table: Table, page: Page, distribution: Distribution) -> dict[str, dict[float, float]]:
    """A histogram's counts by upper bound, by model, its versions added up."""
    found: dict[str, dict[float, float]] = {}
    for rule in table.histograms:
        for slot in page.layout.places.get(f"{rule.source}_bucket", ()) if rule.distribution is distribution else ():
            labels = page.layout.series[slot].labels
            counts = found.setdefault(table.model_of(labels, ""), {})
            bound = float(labels.get("le", "nan"))
            counts[bound] = counts.get(bound, 0.0) + page.values[slot]
    return found
