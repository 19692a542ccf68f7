"""What shows a cause at an instance: the figures that it was told by, beside what they are when all is well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes import neighbours
from analytics.causes.contention import COLD_SECONDS
from analytics.causes.table import PHASE, WORK
from analytics.causes.work import FOUND
from base.formats import rounded, three

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.causes.account import Account
    from analytics.causes.arrays import Flags, Floats
    from analytics.causes.place import Place

_WORKS: Final = [PHASE[name] for name in WORK]


def shown(account: Account, place: Place, cause: str, hit: Flags) -> list[str]:
    """Sentences with figures; none where other figures of the instance say it (`evidence`).

    Args:
        account: The account.
        place: The instance.
        cause: The cause's name.
        hit: Of each request there, whether it lost any.
    """
    told = _SHOWN[cause](account, place, hit) if cause in _SHOWN else ""
    return [f"{place.name}: {told}."] if told else []


def _tokens(name: str, what: str) -> Callable[[Account, Place, Flags], str]:
    def told(account: Account, place: Place, hit: Flags) -> str:
        own = place.of(getattr(account.requests, name))[hit].mean()
        usual = account.reference.each(name, place.part)[hit].mean()
        return f"{own:,.0f} {what} a request, {usual:,.0f} by the reference"

    return told


def _found(account: Account, place: Place, hit: Flags) -> str:
    """Of those whose tenant used to find some of its prompts: who computes them keeps others waiting too."""
    inside, usual = account.counted[place.part], np.nan_to_num(place.of(account.reference.hit))
    had = inside & (usual >= FOUND)
    since, until = _during(place, hit)
    had &= (place.span[0] >= since) & (place.span[0] <= until)
    prompt = place.of(account.requests.prompt)
    if not prompt[had].sum() > 0:
        return ""
    found = place.of(account.requests.cached)[had].sum() / prompt[had].sum()
    return f"{found:.0%} of prompt tokens in the cache, {(usual * prompt)[had].sum() / prompt[had].sum():.0%} before"


def _work(account: Account, place: Place, hit: Flags) -> str:
    took = account.requests.phases[place.part][:, _WORKS][hit].sum()
    usual = account.reference.expected[place.part][:, _WORKS][hit].sum()
    return f"work took {three(float(took / usual))} times the reference" if usual > 0 else ""


def _arrivals(account: Account, place: Place, hit: Flags) -> str:
    """While those came that were hit."""
    calm, start = place.calm_bins(account.reference.calm[place.part]), place.span[0][hit]
    edges = place.bins.edges
    during = (edges[1:] > start.min()) & (edges[:-1] <= start.max())
    if not calm.any():
        return ""
    own, usual = (float(place.arrivals[those].mean()) for those in (during, calm))
    return f"{three(own)} requests a second came, {three(usual)} when all is well"


def _cpu(account: Account, place: Place, hit: Flags) -> str:
    host, calm = place.host, account.reference.calm[place.part]
    lost, cpus = neighbours.taken(place, calm), neighbours.cpus_of(place)
    if lost.any() and cpus is not None and (before := neighbours.usual(cpus, place.calm_bins(calm))) is not None:
        own, others = (float(np.mean(values[lost])) for values in (cpus.own, cpus.others))
        return (
            f"other processes used {three(others)} CPUs and its own {three(own)}, {three(before[2])} and "
            f"{three(before[0])} when all is well"
        )
    if np.isfinite(host.delay).any():
        return _share(account, place, hit, "without a CPU that it wanted {} of the time", host.delay_time, host.delay)
    return _share(account, place, hit, "CPU pressure of its machine {}", host.time, host.pressure)


def _front(account: Account, place: Place, hit: Flags) -> str:
    host = place.host
    return _share(account, place, hit, "what takes its requests used {} of a CPU", host.front_time, host.front)


def _share(account: Account, place: Place, hit: Flags, words: str, time: Floats, values: Floats) -> str:
    """A share of the time of requests that were hit, and of calm ones."""
    share = np.nan_to_num(place.bins.held(time, values, place.host.age))
    own = place.bins.mean(share, place.span[0], place.of(account.requests.end))
    calm = account.reference.calm[place.part]
    usual = f", {np.median(own[calm]):.0%} when all is well" if calm.any() else ""
    return words.format(f"{np.median(own[hit]):.0%}") + usual


def _late(account: Account, place: Place, hit: Flags) -> str:
    late = (place.of(account.requests.end) - place.span[3])[hit]
    return f"its clients had it all {rounded(float(np.median(late)))} after the last token, in the median"


def _away(_: Account, place: Place, hit: Flags) -> str:
    since, until = _during(place, hit)
    spans = [span for span in place.restarts if span[0] <= until and since <= span[1]]
    return f"began anew, away for {', '.join(f'{rounded(last - first)}' for first, last in spans)}" if spans else ""


def _cold(_: Account, place: Place, hit: Flags) -> str:
    start = place.span[0][hit]
    begun = [at for at in place.begun if ((start >= at - 1) & (start < at + COLD_SECONDS)).any()]
    return f"these came within {rounded(max(float(start.max()) - begun[0], 0.0))} of its beginning" if begun else ""


def _failed(account: Account, place: Place, hit: Flags) -> str:
    """How most of its requests failed that the time is about."""
    requests = account.requests
    since, until = _during(place, hit)
    failed = requests.failed[place.part] & (place.span[0] >= since) & (place.span[0] <= until)
    if not failed.any():
        return ""
    pairs = np.stack([requests.outcome.codes[place.part][failed], requests.error.codes[place.part][failed]])
    alike, many = np.unique(pairs, axis=1, return_counts=True)
    outcome, error = alike[:, many.argmax()]
    how = " ".join(name for name in (requests.outcome.names[outcome], requests.error.names[error]) if name)
    return f"{failed.sum()} requests failed, {many.max()} of them by {how}"


def _crowd(account: Account, place: Place, hit: Flags) -> str:
    among = place.among(place.span[2], place.span[3])
    calm = account.reference.calm[place.part]
    usual = f", {three(float(among[calm].mean()))} when all is well" if calm.any() else ""
    return f"{three(float(among[hit].mean()))} sequences decoded at once{usual}"


def _prompts(account: Account, place: Place, hit: Flags) -> str:
    share = place.computing(place.span[0], place.span[3])
    calm = account.reference.calm[place.part]
    usual = f", {np.median(share[calm]):.0%} when all is well" if calm.any() else ""
    return f"prompts were computed {np.median(share[hit]):.0%} of the time{usual}"


def _during(place: Place, hit: Flags) -> tuple[float, float]:
    return float(place.span[0][hit].min()), float(place.of(place.requests.end)[hit].max())


_SHOWN: Final[dict[str, Callable[[Account, Place, Flags], str]]] = {
    "longer_prompts": _tokens("uncached", "prompt tokens to compute"),
    "longer_outputs": _tokens("output", "tokens of answer"),
    "cold_prefix_cache": _found,
    **dict.fromkeys(("deploy", "slow_instance", "model_slow"), _work),
    **dict.fromkeys(("router_imbalance", "queue_saturated"), _arrivals),
    **dict.fromkeys(("retry_storm", "upstream_error"), _failed),
    "cpu_starved": _cpu,
    "frontend_cpu": _front,
    "slow_client": _late,
    "restart": _away,
    "cold_start": _cold,
    "batch_interference": _crowd,
    "prefill_interference": _prompts,
}
