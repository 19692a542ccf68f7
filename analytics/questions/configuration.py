"""How servers are configured, what differs among the replicas of a deployment, and when it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics.inquiry import Inquiry
from analytics.question import Command
from analytics.values import moment
from base.named_sql import beside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from analytics.answer import Answer
    from analytics.inquiry import Reader
    from analytics.selection import Selection

COMMAND: Final = Command()
_SQL: Final = beside(__file__)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of one deployment's servers.

    Attributes:
        deployment: Whose.
        recording: Recording that they come from, empty when live.
        name: As the engine calls it.
        values: By instance; a server that does not tell it is not there.
        differs: Whether servers of one engine differ in it.
    """

    deployment: str
    recording: str
    name: str
    values: dict[str, str]
    differs: bool


@dataclass(frozen=True, slots=True)
class Configured:
    """One server's configuration as it was last told.

    Attributes:
        instance, deployment, engine, version: Whose.
        recording: Recording that it comes from, empty when live.
        pod, namespace, node: Where it runs, as its agent said within the thirty days before the window's end: its pod,
            and that pod's node, else the machine of the agent; empty where unknown.
        since: When it was told: at a change, or when its agent first saw the server.
    """

    instance: str
    deployment: str
    engine: str
    version: str
    recording: str
    pod: str
    namespace: str
    node: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """Something that changed at a server within the window.

    Attributes:
        time: When.
        instance: Whose.
        event: ``config_changed``, ``version_changed``, ``instance_restarted``, ``deploy`` ….
        message: One sentence.
        what: Old and new by name, as far as the event has them.
        recording: Recording that it comes from, empty when live.
    """

    time: datetime
    instance: str
    event: str
    message: str
    what: dict[str, str]
    recording: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings of servers that sent samples in the window, as they stood at its end.

    Attributes:
        servers: By deployment and name.
        settings: What differs first, then by name.
        changes: The newest first, at most two hundred.
    """

    servers: list[Configured]
    settings: list[Setting]
    changes: list[Change]


def ask(store: Reader, selection: Selection) -> Answer[Configuration]:
    """The newest configuration of every server of the window, what differs within a deployment, what changed."""
    inquiry = Inquiry(store, selection, sql=_SQL)
    cover = inquiry.coverage()
    rows = inquiry.ask("configured") if cover.samples else []
    changes = [_change(row) for row in inquiry.ask("changes")]
    servers = [
        Configured(
            instance=str(row["name"]),
            deployment=str(row["of_deployment"]),
            engine=str(row["of_engine"]),
            version=str(row["of_version"]),
            recording=str(row["recorded"]),
            pod=str(row["pod"]),
            namespace=str(row["namespace"]),
            node=str(row["node"]),
            since=moment(row["since_ms"]),
        )
        for row in rows
    ]
    return inquiry.answer(
        Configuration(servers, _settings(rows), changes), cover, level="metrics", exactness="exact",
        rows=len(rows), samples_used=True, state="value" if rows or changes else "no_data", by_arrival=False,
    )  # fmt: skip


def _settings(rows: Sequence[Mapping[str, Any]]) -> list[Setting]:
    held: dict[tuple[str, str, str], dict[str, str]] = {}
    engines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        whose = str(row["of_deployment"]), str(row["recorded"])
        engines.setdefault(whose, {})[str(row["name"])] = str(row["of_engine"])
        for name, value in dict(row["settings"]).items():
            held.setdefault((*whose, str(name)), {})[str(row["name"])] = str(value)
    found = [
        Setting(deployment, recording, name, values, _differs(values, engines[deployment, recording]))
        for (deployment, recording, name), values in held.items()
    ]
    return sorted(found, key=lambda one: (not one.differs, one.deployment, one.recording, one.name))


def _differs(values: Mapping[str, str], engines: Mapping[str, str]) -> bool:
    """Whether servers of the same engine tell it differently, or one of them not at all."""
    told: dict[str, set[str | None]] = {}
    tellers = {engines[instance] for instance in values}
    for instance, engine in engines.items():
        if engine in tellers:
            told.setdefault(engine, set()).add(values.get(instance))
    return any(len(different) > 1 for different in told.values())


def _change(row: Mapping[str, Any]) -> Change:
    return Change(
        time=moment(row["time_ms"]),
        instance=str(row["instance"]),
        event=str(row["event"]),
        message=str(row["message"]),
        what={str(name): str(value) for name, value in dict(row["attributes"]).items()},
        recording=str(row["recording"]),
    )
