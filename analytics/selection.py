"""What is looked at: the one argument of every question, of links and of what machines ask."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from analytics.question import QuestionError
from analytics.signals import LatencySignal, signal_of
from analytics.values import trace_hex
from analytics.window import EVER, Window, WindowError

if TYPE_CHECKING:
    from analytics.traits import Trait

FILTER_COLUMNS: Final = ("model", "tenant", "instance", "deployment", "engine", "region", "version")


@dataclass(frozen=True, slots=True)
class Filter:
    """What of the window is looked at: every field is a set of accepted values, empty for all.

    Engine samples know no tenant: a question that reads them under a tenant filter says so in its notes.

    Args:
        model: Model names.
        tenant: Tenants, as stored.
        instance: Instances.
        deployment: Deployments.
        engine: Engine ids (``vllm``, ``triton``, …).
        region: Regions.
        version: Versions of model or server.
        recording: ``include`` replayed rows, ``exclude`` them, or look at them ``only``.
    """

    model: tuple[str, ...] = ()
    tenant: tuple[str, ...] = ()
    instance: tuple[str, ...] = ()
    deployment: tuple[str, ...] = ()
    engine: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    recording: Literal["include", "exclude", "only"] = "include"

    def __post_init__(self) -> None:
        for name in FILTER_COLUMNS:
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise WindowError(f"The filter {name} is {value!r}", f"Give a list: {name}=({value!r},)")
            object.__setattr__(self, name, tuple(value))
        if self.recording not in {"include", "exclude", "only"}:
            raise WindowError(f"The filter recording is {self.recording!r}", "Use include, exclude or only")

    def chosen(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The columns that are narrowed, with their accepted values."""
        for name in FILTER_COLUMNS:
            if value := getattr(self, name):
                yield name, value

    def narrowed(self, **columns: tuple[str, ...]) -> Filter:
        """This filter with some columns replaced."""
        return dataclasses.replace(self, **columns)  # type: ignore[arg-type]

    def as_json(self) -> dict[str, object]:
        """All columns as lists, and ``recording``."""
        return {**{name: list(getattr(self, name)) for name in FILTER_COLUMNS}, "recording": self.recording}


@dataclass(frozen=True, slots=True)
class LatencyRange:
    """Requests of which one latency is known and lies in ``[at_least, below)`` seconds.

    Args:
        signal: Which latency.
        at_least: Lowest accepted seconds; None for any.
        below: Seconds that are too many; None for none.

    Raises:
        WindowError: There is no such latency, no bound, a bound is no number, or nothing lies between the two.
    """

    signal: LatencySignal = "e2e_seconds"
    at_least: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        signal_of(self.signal)
        for name in ("at_least", "below"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise WindowError(f"The latency range's {name} is {value}", "Give seconds, or leave it out")
        if self.at_least is None and self.below is None:
            raise WindowError(f"The latency range of {self.signal} has no bound", "Give at_least, below or both")
        if self.at_least is not None and self.below is not None and self.at_least >= self.below:
            raise WindowError(
                f"The latency range's at_least {self.at_least} is not less than its below {self.below}", "Swap the two"
            )


@dataclass(frozen=True, slots=True)
class Selection:
    """What is looked at. Every field narrows; an empty one accepts all.

    A question goes by every field that it can. What request rows alone know (`of_rows`) is unknown to servers'
    metrics: where figures of metrics can't be narrowed they are left out, or the answer's notes say that they are of
    all. A question that makes no sense of a field refuses it by name, or says in its notes that it did not go by it.

    Args:
        window: When requests arrived, samples were taken, things happened.
        filter: Whose.
        outcome: Accepted outcomes of requests (`base.vocabulary.Outcome`).
        latency: How long requests took.
        trace_id: Of a request: 32 hex digits.
        request_id: The client's, the server's or its trace's id of a request; what proxies call a request's id may look
            like a trace's.
        key: `RequestRow.key` of a request.
        traits: What requests have or lack, each of them (`analytics.traits`).

    Raises:
        WindowError: A field makes no sense.
    """

    window: Window
    filter: Filter = Filter()
    outcome: tuple[str, ...] = ()
    latency: LatencyRange | None = None
    trace_id: str = ""
    request_id: str = ""
    key: str = ""
    traits: tuple[Trait, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.outcome, str) or not isinstance(self.outcome, Sequence):
            raise WindowError(f"The outcome is {self.outcome!r}", f"Give a list: outcome=({self.outcome!r},)")
        object.__setattr__(self, "outcome", tuple(self.outcome))
        if self.trace_id:
            object.__setattr__(self, "trace_id", trace_hex(self.trace_id))
        if self.key and not (self.key.isascii() and self.key.isdigit() and int(self.key) < 1 << 64):
            raise WindowError(f"The key {self.key!r} is no request's", "Give it as the list of requests does")

    @classmethod
    def one(cls, *, window: Window = EVER, **ids: str) -> Selection:
        """One request by an id, whenever it was: with the window of its arrival it is found at once."""
        return cls(window, **ids)  # type: ignore[arg-type]

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the ids that are chosen."""
        return tuple(name for name in ("trace_id", "request_id", "key") if getattr(self, name))

    @property
    def of_rows(self) -> tuple[str, ...]:
        """Names of what is chosen and only request rows know: the filter's tenant, outcome, latency, traits and ids."""
        return tuple(name for name in self.chosen() if name not in FILTER_COLUMNS or name == "tenant")

    def chosen(self) -> tuple[str, ...]:
        """Names of all that narrows, but the window and ``recording``."""
        named = ("outcome", "latency", "traits", "trace_id", "request_id", "key")
        return (*(name for name, _ in self.filter.chosen()), *(name for name in named if getattr(self, name)))

    def but(self, **fields: Any) -> Selection:
        """This selection with some fields replaced."""
        return dataclasses.replace(self, **fields)

    def found_by(self, text: str) -> Selection:
        """This selection narrowed by what somebody typed to find a request: any of its ids."""
        text = text.strip()
        return self.but(request_id=text) if text else self

    def as_json(self) -> dict[str, object]:
        """The filter's columns as lists and ``recording``; of outcome, latency, traits and ids what is chosen."""
        found = self.filter.as_json()
        if self.outcome:
            found["outcome"] = list(self.outcome)
        if self.latency:
            found["latency"] = dataclasses.asdict(self.latency)
        for name, lacking in (("only", False), ("not", True)):
            if told := [str(one) for one in self.traits if one.lacking is lacking]:
                found[name] = told
        return found | {name: getattr(self, name) for name in self.ids}


def refuse(question: str, selection: Selection, fields: Collection[str]) -> None:
    """Refuse a selection that narrows by other fields than a question can make sense of.

    Raises:
        QuestionError: Names the others, and those that it goes by.
    """
    if others := [name for name in selection.chosen() if name not in fields]:
        raise QuestionError(
            f"{question} can't be narrowed by {', '.join(others)}",
            f"It goes by {', '.join(fields)}: leave the rest out",
        )
