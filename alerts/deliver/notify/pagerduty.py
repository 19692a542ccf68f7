"""PagerDuty Events API v2 through PagerDuty's own client.

Limits: https://developer.pagerduty.com/docs/events-api-v2-overview – an event is at most 512 KB, ``summary`` at most
1,024 characters, ``dedup_key`` at most 255, about 120 events a minute and integration key. What is longer is cut
here, never sent to be refused. The client would wait and retry on its own, 429 without end; the outbox owns time and
order, so the client is made to hand every answer back at once.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 pydantic reads it at run time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

import structlog
from pydantic import AfterValidator, Field

from alerts.deliver.notifier import Around, Delivery, NotifierSettings, retry_after
from alerts.text import within
from base.errors import ConfigError
from base.redact import redacted, shown
from base.settings import MustExist
from base.urls import HttpUrl  # noqa: TC001 pydantic reads it at run time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from alerts.deliver.message import Message

log = structlog.get_logger()

MAX_BYTES: Final = 512 * 1024
SUMMARY_LIMIT: Final = 1024
DEDUP_LIMIT: Final = 255
SOURCE_LIMIT: Final = 1024
DETAIL_LIMIT: Final = 1024
LINKS_LIMIT: Final = 20
TIMEOUT_SECONDS: Final = 5
_SECRET_ROOM: Final = 2048
"""Left free for the routing key and the envelope, which the client adds."""

SEVERITIES: Final = {"critical": "critical", "error": "error", "warning": "warning", "info": "info"}
"""Ours to PagerDuty's; the words are the same on purpose, the map is where a difference would live."""
ROUTING_KEY_LENGTH: Final = 32
LOOPBACK_KEY: Final = "servescope0loopback0receiver0000"
"""Routing key of the built-in receiver; no secret, 32 characters as PagerDuty's are."""


def _https_base(value: str) -> str:
    """An address below which PagerDuty's client puts its paths; it takes https alone, in small letters."""
    parts = urlsplit(value)
    if parts.scheme != "https" or parts.query or parts.fragment:
        raise ValueError("must be an https URL without a query, such as https://events.eu.pagerduty.com")
    return parts.geturl()


class Settings(NotifierSettings):
    """Where pages go; without a key to the built-in receiver on loopback, where the dashboard shows them.

    Attributes:
        routing_key_file: File with the integration key of a PagerDuty service (Events API v2).
        routing_key_env: Environment variable that holds it instead.
        base_url: PagerDuty's address, https; the EU region has its own.
        ca_file: A further certificate to trust for this address alone.
    """

    always: ClassVar[bool] = True

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

    def check(self) -> None:
        """See whether the key is one."""
        self.routing_key()

    def notifier(self, around: Around) -> PagerDuty:
        """The notifier; without a key, of the built-in receiver, which then runs beside it."""
        key = self.routing_key()
        if key:
            return PagerDuty(key, base_url=self.base_url, ca_file=self.ca_file, clock=around.clock)
        from alerts.deliver.certificate import ensure_certificate  # noqa: PLC0415 - slow to import, as the client
        from alerts.deliver.receiver import Pages, Receiver  # noqa: PLC0415 - as above

        certificate = ensure_certificate(around.folder / "receiver")
        pages = Pages(around.folder / "pages.json")
        receiver = Receiver(certificate, pages, port=around.receiver_port, clock=around.clock)
        around.servers.append(receiver)
        log.warning("no_pagerduty_key", effect="pages stay on this machine", receiver=receiver.url)
        return PagerDuty(LOOPBACK_KEY, base_url=receiver.url, ca_file=certificate.authority)


class _Answered(Exception):  # noqa: N818 it carries an answer, not a fault
    """An answer that is not 2xx, thrown past the client's own retrying."""

    def __init__(self, status: int, body: str, retry_after: str) -> None:
        super().__init__(status)
        self.status, self.body, self.retry_after = status, body, retry_after


def _client(routing_key: str, base_url: str, context: ssl.SSLContext) -> Any:
    """PagerDuty's client without its patience. It is slow to import, and settings are read without it."""
    import pagerduty  # noqa: PLC0415

    class Client(pagerduty.EventsApiV2Client):  # type: ignore[misc, unused-ignore]
        max_network_attempts = 0
        timeout = TIMEOUT_SECONDS  # type: ignore[assignment]  # a plain number, as the client's own class sets it
        fault = pagerduty.Error

        def postprocess(self, response: Any) -> None:
            """The client's hook for an answer; everything but a 2xx leaves here."""
            if not response.is_success:
                raise _Answered(response.status_code, response.text[:500], response.headers.get("retry-after", ""))

    return Client(routing_key, base_url=base_url, verify=context)


class PagerDuty:
    """Sends messages as events.

    Args:
        routing_key: Integration key of the service; secret.
        base_url: ``https://events.pagerduty.com``, the EU region's, or a receiver of one's own.
        ca_file: Extra certificate to trust for this client alone (a receiver of one's own); the system's trust store
            stays in place for everything else.
        clock: Unix seconds.
        name: For routes and tables.

    Raises:
        ConfigError: The certificate can't be read or is none.
    """

    def __init__(
        self,
        routing_key: str,
        *,
        base_url: str = "https://events.pagerduty.com",
        ca_file: Path | None = None,
        clock: Callable[[], float] = time.time,
        name: str = "pagerduty",
    ) -> None:
        self.name, self._clock = name, clock
        self.destination = shown(base_url)
        context = ssl.create_default_context()
        if ca_file is not None:
            try:
                context.load_verify_locations(cafile=ca_file)
            except OSError as error:
                raise ConfigError(
                    f"alerts.pagerduty.ca_file {ca_file} is no certificate that can be read: {error.strerror or error}",
                    "Name a PEM file",
                ) from error
        self._client = _client(routing_key, base_url, context)
        self._key = routing_key

    def render(self, message: Message) -> dict[str, Any]:
        """The event without its routing key."""
        event: dict[str, Any] = {
            "event_action": message.action,
            "dedup_key": message.dedup_key[:DEDUP_LIMIT],
            "client": "Servescope",
        }
        if message.action != "trigger":
            return event
        links = [
            {"href": url, "text": within(text, 255)}
            for text, url in message.links
            if url.startswith(("https://", "http://"))
        ][:LINKS_LIMIT]
        event["payload"] = {
            "summary": within(message.title, SUMMARY_LIMIT),
            "source": within(message.source or "servescope", SOURCE_LIMIT),
            "severity": SEVERITIES[message.severity],
            "timestamp": datetime.fromtimestamp(message.at, UTC).isoformat(timespec="milliseconds"),
            "component": within(message.source, 255),
            "group": within(message.group, 255),
            "class": within(message.kind, 255),
            "custom_details": _cut(message.details, DETAIL_LIMIT),
        }
        if links:
            event["links"] = links
            event["client_url"] = links[0]["href"]
        return _fit(event, MAX_BYTES - _SECRET_ROOM)

    def send(self, payload: dict[str, Any]) -> Delivery:
        """One attempt; see :class:`alerts.deliver.notifier.Notifier`."""
        event = dict(payload)
        action, dedup_key = event.pop("event_action"), event.pop("dedup_key")
        try:
            self._client.send_event(action, dedup_key=dedup_key, **event)
        except _Answered as answer:
            return self._judge(answer)
        except self._client.fault as error:
            cause = error.__cause__ or error
            return Delivery(
                "retry", self._clean(f"{self.destination} can't be reached: {type(cause).__name__}: {cause}")
            )
        except ValueError as error:
            return Delivery("refused", self._clean(f"PagerDuty's client refused the event: {error}"))
        return Delivery("sent")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _judge(self, answer: _Answered) -> Delivery:
        text = self._clean(f"HTTP {answer.status}: {answer.body}")
        if answer.status in {400, 413}:
            return Delivery("refused", text)
        return Delivery("retry", text, retry_after(answer.retry_after, self._clock()))

    def _clean(self, text: str) -> str:
        return within(redacted(text.replace(self._key, "…") if self._key else text), 1000)


def _cut(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        return within(value, limit)
    if isinstance(value, dict):
        return {within(str(key), 255): _cut(item, limit) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(item, limit) for item in value]
    return value


def _fit(event: dict[str, Any], limit: int) -> dict[str, Any]:
    """Leave out the largest details until the event fits; says which."""
    left_out: list[str] = []
    while _size(event) > limit and event["payload"]["custom_details"]:
        details = dict(event["payload"]["custom_details"])
        details.pop("left_out", None)
        if not details:
            event["payload"]["custom_details"] = {}
            break
        biggest = max(details, key=lambda name: _size(details[name]))
        del details[biggest]
        left_out.append(biggest)
        details["left_out"] = within(", ".join(left_out), 1000)
        event["payload"]["custom_details"] = details
    return event


def _size(value: Any) -> int:
    return len(json.dumps(value).encode())
