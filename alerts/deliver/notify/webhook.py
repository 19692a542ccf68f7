"""A signed JSON webhook: the message as it is, with an HMAC over the body.

The receiver checks ``X-Servescope-Signature: v1=<hex hmac-sha256(secret, "<timestamp>.<body>")>`` with
``X-Servescope-Timestamp`` (Unix seconds) and refuses old ones; ``X-Servescope-Delivery`` is the same for every retry.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import time
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path  # noqa: TC003 pydantic reads it at run time
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import Field

from alerts.deliver.notifier import Around, Delivery, NotifierSettings, retry_after
from alerts.text import within
from base.errors import ConfigError
from base.redact import redacted
from base.settings import MustExist
from base.urls import HttpUrl  # noqa: TC001 pydantic reads it at run time

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from alerts.deliver.message import Message

TIMEOUT_SECONDS: Final = 5.0


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The signature header's value."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Settings(NotifierSettings):
    """A signed webhook beside or instead of PagerDuty.

    Attributes:
        url: Where incidents are posted.
        secret_file: File with the secret shared with the receiver.
        proxy: To send through; what the environment names is not asked.
    """

    url: Annotated[HttpUrl, Field(min_length=1)]
    secret_file: Annotated[Path | None, MustExist(home=True)] = None
    proxy: HttpUrl = ""

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

    def check(self) -> None:
        """See whether the secret is there."""
        self.secret()

    def notifier(self, around: Around) -> Webhook:
        """The notifier."""
        return Webhook(self.url, self.secret(), proxy=self.proxy, clock=around.clock)


class Webhook:
    """Posts messages.

    Args:
        url: http or https.
        secret: Shared with the receiver; empty: unsigned.
        proxy: URL of the proxy to send through, empty for none.
        clock: Unix seconds.
        name: For routes and tables.

    Raises:
        ConfigError: The URL is neither http nor https.
    """

    def __init__(
        self,
        url: str,
        secret: bytes = b"",
        *,
        proxy: str = "",
        clock: Callable[[], float] = time.time,
        name: str = "webhook",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ConfigError(
                "alerts.webhook.url is no http(s) URL", "Give one such as https://hooks.example.com/servescope"
            )
        self.name = name
        self.destination = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
        self._url, self._secret, self._clock = url, secret, clock
        import httpx2  # noqa: PLC0415 - slow to import, and settings are read without it

        # A redirect would carry the message where nobody sent it, and so would a proxy of the environment's.
        self._client = httpx2.Client(
            verify=ssl.create_default_context(),
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            trust_env=False,
            proxy=proxy or None,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )
        self._faults = (OSError, ValueError, httpx2.HTTPError, httpx2.InvalidURL)

    def render(self, message: Message) -> dict[str, Any]:
        """The message's fields."""
        return asdict(message)

    def send(self, payload: dict[str, Any]) -> Delivery:
        """One attempt; see :class:`alerts.deliver.notifier.Notifier`."""
        body = json.dumps(payload, sort_keys=True).encode()
        timestamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "X-Servescope-Timestamp": timestamp,
            "X-Servescope-Delivery": hashlib.sha256(body).hexdigest()[:32],
        }
        if self._secret:
            headers["X-Servescope-Signature"] = sign(self._secret, timestamp, body)
        try:
            # the status says it all; a body could go on for ever
            with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                return self._judged(answer)
        except self._faults as error:
            said = f"{self.destination} can't be reached: {error or type(error).__name__}"
            return Delivery("retry", within(redacted(said), 500))

    def _judged(self, answer: httpx2.Response) -> Delivery:
        if answer.is_success:
            return Delivery("sent")
        text = within(f"HTTP {answer.status_code} from {self.destination}", 500)
        after = retry_after(answer.headers.get("Retry-After", ""), self._clock())
        if answer.status_code in {400, 410} or (
            answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and after is None
        ):
            return Delivery("refused", text)
        return Delivery("retry", text, after)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
