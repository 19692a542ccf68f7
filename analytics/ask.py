"""Questions by name, for the command line and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from analytics import batching, budget, events, halves, kvcache, latency, queue, requests, tenants, traffic
from analytics.ground import QuestionError
from analytics.window import Answer, Filter

if TYPE_CHECKING:
    from collections.abc import Callable

    from analytics.ground import Reader
    from analytics.window import Window

QUESTIONS: Final[dict[str, Callable[..., Answer[Any]]]] = {
    "traffic": traffic.overview,
    "instances": traffic.instances,
    "choices": traffic.choices,
    "latency": latency.percentiles,
    "histogram": latency.histogram,
    "heatmap": latency.heatmap,
    "phases": latency.phases,
    "queue": queue.dynamics,
    "kvcache": kvcache.occupancy,
    "batching": batching.dynamics,
    "requests": requests.find,
    "budget": budget.status,
    "events": events.timeline,
    "tenants": tenants.shares,
    "halves": halves.unmatched,
}
"""Every question that is about a window. One request's story is asked by key: `analytics.story.request`."""


def ask(name: str, store: Reader, window: Window, filter: Filter = Filter(), **options: Any) -> dict[str, object]:  # noqa: A002, B008
    """The envelope (`Answer.envelope`) of one question.

    Args:
        name: One of `QUESTIONS`.
        store: Where to ask.
        window: What time.
        filter: What of it.
        options: The question's own, such as ``signal`` and ``by`` of ``latency``; ``budget`` needs ``objectives``.

    Raises:
        QuestionError: There is no such question, or it takes no such option.
    """
    question = QUESTIONS.get(name)
    if question is None:
        raise QuestionError(f"There is no question {name!r}", f"Ask one of {', '.join(QUESTIONS)}")
    known = set(question.__kwdefaults__ or {}) | ({"objectives"} if name == "budget" else set())
    if unknown := sorted(options.keys() - known):
        raise QuestionError(f"{name} takes no {', '.join(unknown)}", f"It takes {', '.join(sorted(known))}")
    if name == "budget" and not options.get("objectives"):
        raise QuestionError("A budget needs objectives", "Name a file of SLOs")
    return question(store, window, filter, **options).envelope(window, filter)
