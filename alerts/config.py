"""Settings of the alerts process: the section ``alerts`` of the configuration file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 pydantic reads it at run time
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

from alerts.deliver import notify
from alerts.deliver.notifier import NotifierSettings  # noqa: TC001 pydantic reads it at run time
from alerts.deliver.route import Route  # noqa: TC001 pydantic reads it at run time
from analytics.slo import LONGEST_SECONDS
from base import found, yamlfile
from base.durations import PositiveDuration  # noqa: TC001 pydantic reads it at run time
from base.settings import Port
from base.urls import Host, HttpUrl  # noqa: TC001 pydantic reads it at run time
from base.yamlfile import FieldError


@dataclass(frozen=True, slots=True)
class _Section:
    """A section of the configuration that bears the name of a notifier."""

    name: str
    value: Any


def _settings(section: object) -> object:
    """A section as the settings of its notifier; of anything else there is no such field."""
    if not isinstance(section, _Section):
        raise PydanticKnownError("extra_forbidden")
    model = settings_of(section.name)
    return None if section.value is None and not model.always else model.model_validate(section.value)


def settings_of(notifier: str) -> type[NotifierSettings]:
    """The settings that a notifier has.

    Args:
        notifier: Its name, which is its file's.
    """
    model: type[NotifierSettings] = found.module(notify, notifier).Settings
    return model


class AlertsConfig(BaseModel):
    """The section ``alerts``.

    Beside its own fields it has a section for each notifier that is found (see `notifiers`).

    Attributes:
        slos: The rules file; without one only the pager's own rules run (a store that is away,
            a tap that loses requests).
        routes: Who hears of what; without any, everybody of everything.
        evaluate_every_seconds: Pause between rounds.
        ingest_delay_seconds: How late rows may be.
        longest_request_seconds: Requests that run longer may be missed by short windows.
        store_unreachable_after_seconds: A store away for so long pages.
        dashboard_url: For links to an incident's page; by default the dashboard that runs on the same data folder.
        runbook_url: Prefix that makes a runbook's relative path a link, also in the dashboard.
        health_host, health_port: ``/healthz`` and ``/metrics``; 0 takes a free port.
        receiver_port: Of the built-in receiver; 0 takes a free port.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[NotifierSettings | None, BeforeValidator(_settings)]] = Field(init=False)

    slos: Path | None = None
    routes: tuple[Route, ...] = ()
    evaluate_every_seconds: PositiveDuration = 5.0
    ingest_delay_seconds: PositiveDuration = 3.0
    longest_request_seconds: PositiveDuration = LONGEST_SECONDS
    store_unreachable_after_seconds: PositiveDuration = 20.0
    dashboard_url: HttpUrl = ""
    runbook_url: HttpUrl = ""
    health_host: Host = "127.0.0.1"
    health_port: Annotated[int, Port("alerts_health"), Field(ge=0, le=65535)] = 9465
    receiver_port: Annotated[int, Port("receiver"), Field(ge=0, le=65535)] = 0

    @model_validator(mode="before")
    @classmethod
    def _sections(cls, data: object) -> object:
        """Notifiers' sections bear their names; what is neither one of these nor a field is refused."""
        if not isinstance(data, dict):
            return data
        there = set(found.names(notify)) - cls.model_fields.keys()
        return {name: _Section(name, value) if name in there else value for name, value in data.items()}

    @property
    def notifiers(self) -> dict[str, NotifierSettings]:
        """Settings of every notifier that there is, by its name: those with a section, and those that always are."""
        there: dict[str, NotifierSettings] = {}
        for name in found.names(notify):
            settings = (self.__pydantic_extra__ or {}).get(name)
            if settings is None and settings_of(name).always:
                settings = settings_of(name)()
            if settings is not None:
                there[name] = settings
        return there

    def check(self) -> None:
        """See whether the keys and secrets that notifiers' sections name are there.

        Raises:
            ConfigError: One can't be read, or is none.
        """
        for settings in self.notifiers.values():
            settings.check()

    @classmethod
    def sections(cls) -> dict[str, type[NotifierSettings]]:
        """The settings that each notifier's section has, by its name."""
        return {name: settings_of(name) for name in found.names(notify)}

    @model_validator(mode="after")
    def _check_routes(self) -> Self:
        there = list(self.notifiers) if self.routes else []
        for number, route in enumerate(self.routes):
            if unknown := [name for name in route.notify if name not in there]:
                raise FieldError(
                    ("routes", number, "notify"), f"{unknown[0]} is no notifier: there is {' and '.join(there)}"
                )
        return self


def read_config(path: Path | None) -> AlertsConfig:
    """The section ``alerts`` of a configuration file; defaults without one.

    A relative path of the rules file is looked for beside the configuration first.

    Raises:
        ConfigError: The file can't be read or a field is wrong; names both.
    """
    if path is None:
        return AlertsConfig()
    config = yamlfile.settings(path, "alerts", AlertsConfig)
    if config.slos is not None and (path.parent / config.slos).exists():
        config = config.model_copy(update={"slos": path.parent / config.slos})
    return config
