"""What became of every record, received = stored + rejected + dropped by the collectors' books, and who sends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.values import moment, names
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)
_FATES: Final = ("received", "recovered", "stored", "rejected", "dropped", "pending")


@dataclass(frozen=True, slots=True)
class Books:
    """One collector's books of one signal, since it was started, as it last reported within the window.

    Attributes:
        collector: Machine and process.
        signal: ``traces``, ``metrics`` or ``logs``; records are spans, data points, log records.
        since: When the collector was started.
        at: When it reported.
        received: Records accepted from senders.
        recovered: Records read back from its log at its start.
        stored: Records that the store has.
        rejected, dropped: Records refused for good, and records taken and left out.
        pending: Records that are in the log alone.
        reasons: Rejected and dropped records by ``rejected:<reason>`` and ``dropped:<reason>``.
        unaccounted: Records of which the books do not say what became; 0 when nothing was lost or doubled.
    """

    collector: str
    signal: str
    since: datetime
    at: datetime
    received: float = 0.0
    recovered: float = 0.0
    stored: float = 0.0
    rejected: float = 0.0
    dropped: float = 0.0
    pending: float = 0.0
    reasons: dict[str, float] = field(default_factory=dict)
    unaccounted: float = field(init=False)

    def __post_init__(self) -> None:
        came = self.received + self.recovered
        object.__setattr__(self, "unaccounted", came - self.stored - self.rejected - self.dropped - self.pending)


@dataclass(frozen=True, slots=True)
class AgentRow:
    """Who sent servers' samples in the window.

    Attributes:
        node: Where it runs, as it says itself.
        pod: The one pod that all its samples are of; empty where it watches several, or none says.
        sender_key_id: Key that signed, empty for none.
        sender_peer: Address that it came from.
        instances: Servers that it watches.
        samples: Samples of the window.
        last_sample: Time of the newest.
        started: When an agent there last said that it was started; None where no log of that is kept.
    """

    node: str
    pod: str
    sender_key_id: str
    sender_peer: str
    instances: list[str]
    samples: int
    last_sample: datetime
    started: datetime | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """Books and senders.

    Attributes:
        books: Who reported last first, then by collector and signal; empty where no collector reported.
        agents: Who was silent longest first.
    """

    books: list[Books]
    agents: list[AgentRow]


def ask(store: Reader, selection: Selection) -> Answer[Ledger]:
    """What collectors received, stored, rejected and dropped since their start, and which agents send."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    held: dict[tuple[str, str], dict[str, Any]] = {}
    for row in inquiry.ask("books"):
        of = held.setdefault((str(row["collector"]), str(row["signal"])), {"reasons": {}})
        _add(of, row)
    books = [Books(collector, signal, **of) for (collector, signal), of in sorted(held.items())]
    books.sort(key=lambda one: one.at, reverse=True)
    agents = [_agent(row) for row in inquiry.ask("agents")]
    return inquiry.answer(
        Ledger(books, agents), cover, level="metrics", exactness="exact",
        rows=sum(agent.samples for agent in agents), samples_used=True,
        state="value" if books or agents else "no_data", by_arrival=False,
        notes=("The books are a collector's, of all its senders: no filter narrows them.",),
    )  # fmt: skip


def _add(of: dict[str, Any], row: Mapping[str, Any]) -> None:
    fate, value = str(row["fate"]), float(row["value"])
    if fate in _FATES:
        of[fate] = of.get(fate, 0.0) + value
    if row["reason"] and value:
        of["reasons"][f"{fate}:{row['reason']}"] = value
    of["since"], of["at"] = moment(row["since_ms"]), moment(row["at_ms"])


def _agent(row: Mapping[str, Any]) -> AgentRow:
    return AgentRow(
        node=str(row["name"]),
        pod=str(row["of_pod"]),
        sender_key_id=str(row["key_id"]),
        sender_peer=str(row["peer"]),
        instances=list(names(row["instances"])),
        samples=int(row["samples"]),
        last_sample=moment(row["newest_ms"]),
        started=moment(row["started_ms"]) if int(row["started_ms"]) else None,
    )
