"""Settings of the alerts process: the section ``alerts`` of the configuration file."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 pydantic reads it at run time
from typing import TYPE_CHECKING, Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from alerts.deliver.route import Route  # noqa: TC001 pydantic reads it at run time
from base import yamlfile
from base.durations import PositiveDuration  # noqa: TC001 pydantic reads it at run time
from base.errors import ConfigError
from base.settings import MustExist, Port
from base.urls import Host, HttpUrl  # noqa: TC001 pydantic reads it at run time
from base.yamlfile import FieldError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUTING_KEY_LENGTH = 32


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _https_base(value: str) -> str:
    """An address below which PagerDuty's client puts its paths; it takes https alone, in small letters."""
    parts = urlsplit(value)
    if parts.scheme != "https" or parts.query or parts.fragment:
        raise ValueError("must be an https URL without a query, such as https://events.eu.pagerduty.com")
    return parts.geturl()


class PagerDutyConfig(_Section):
    """Where pages go.

    Attributes:
        routing_key_file: File with the integration key of a PagerDuty service (Events API v2).
        routing_key_env: Environment variable that holds it instead.
        base_url: PagerDuty's address, https; the EU region has its own.
        ca_file: A further certificate to trust for this address alone.
    """

    routing_key_file: Annotated[Path | None, MustExist(home=True)] = None
    routing_key_env: str = "SERVESCOPE_PAGERDUTY_ROUTING_KEY"
    base_url: Annotated[HttpUrl, Field(min_length=1), AfterValidator(_https_base)] = "https://events.pagerduty.com"
    ca_file: Annotated[Path | None, MustExist(home=True)] = None

    def routing_key(self, environment: Mapping[str, str] = os.environ) -> str:
        """The key, empty when there is none.

        Raises:
            ConfigError: The file can't be read, or what it holds is no key.
        """
        key, origin = environment.get(self.routing_key_env, "").strip(), f"the variable {self.routing_key_env}"
        if not key and self.routing_key_file is not None:
            origin = f"alerts.pagerduty.routing_key_file {self.routing_key_file}"
            try:
                key = self.routing_key_file.expanduser().read_text().strip()
            except OSError as error:
                raise ConfigError(
                    f"{origin} can't be read: {error.strerror}", "Name a file that holds the key"
                ) from error
        if key and len(key) != ROUTING_KEY_LENGTH:
            raise ConfigError(
                f"The routing key in {origin} has {len(key)} characters, not {ROUTING_KEY_LENGTH}",
                "Copy the integration key of an Events API v2 integration",
            )
        return key


class WebhookConfig(_Section):
    """A signed webhook beside or instead of PagerDuty."""

    url: Annotated[HttpUrl, Field(min_length=1)]
    secret_file: Annotated[Path | None, MustExist(home=True)] = None

    def secret(self) -> bytes:
        """The shared secret, empty when there is none.

        Raises:
            ConfigError: The file can't be read.
        """
        if self.secret_file is None:
            return b""
        try:
            return self.secret_file.expanduser().read_bytes().strip()
        except OSError as error:
            raise ConfigError(
                f"alerts.webhook.secret_file {self.secret_file} can't be read: {error.strerror}",
                "Name a file that holds it",
            ) from error


class AlertsConfig(_Section):
    """The section ``alerts``.

    Attributes:
        slos: The rules file; without one only the pager's own rules run (a store that is away,
            a tap that loses requests).
        pagerduty: Without a key, pages go to the built-in receiver on loopback, where the dashboard shows them.
        webhook: A further way to be told.
        routes: Who hears of what; without any, everybody of everything.
        evaluate_every_seconds: Pause between rounds.
        ingest_delay_seconds: How late rows may be.
        longest_request_seconds: Requests that run longer may be missed by short windows.
        store_unreachable_after_seconds: A store away for so long pages.
        dashboard_url: For links to an incident's page; by default the dashboard that runs on the same data folder.
        runbook_url: Prefix that makes a runbook's relative path a link.
        health_host, health_port: ``/healthz`` and ``/metrics``; 0 takes a free port.
        receiver_port: Of the built-in receiver; 0 takes a free port.
    """

    slos: Path | None = None
    pagerduty: PagerDutyConfig = PagerDutyConfig()
    webhook: WebhookConfig | None = None
    routes: tuple[Route, ...] = ()
    evaluate_every_seconds: PositiveDuration = 5.0
    ingest_delay_seconds: PositiveDuration = 3.0
    longest_request_seconds: PositiveDuration = 600.0
    store_unreachable_after_seconds: PositiveDuration = 20.0
    dashboard_url: HttpUrl = ""
    runbook_url: HttpUrl = ""
    health_host: Host = "127.0.0.1"
    health_port: Annotated[int, Port("alerts_health"), Field(ge=0, le=65535)] = 9465
    receiver_port: Annotated[int, Port("receiver"), Field(ge=0, le=65535)] = 0

    @model_validator(mode="after")
    def _check_routes(self) -> Self:
        there = ["pagerduty", *(["webhook"] if self.webhook is not None else [])]
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
