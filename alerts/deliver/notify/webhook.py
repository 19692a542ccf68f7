"""A signed JSON webhook: the notice as it is, with an HMAC over the body.

The receiver checks ``X-Servescope-Signature: v1=<hex hmac-sha256(secret, "<timestamp>.<body>")>`` with
``X-Servescope-Timestamp`` (Unix seconds) and refuses old ones; ``X-Servescope-Delivery`` is the same for every retry.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from alerts.deliver.notice import COME_AGAIN, Delivery, Notice, retry_after
from alerts.text import within
from base.errors import ConfigError
from base.redact import redacted

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_SECONDS: Final = 5.0


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The signature header's value."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirect would carry the notice somewhere that nobody named."""


class Webhook:
    """Posts notices.

    Args:
        url: http or https.
        secret: Shared with the receiver; empty: unsigned.
        clock: Unix seconds.
        name: For routes and tables.

    Raises:
        ConfigError: The URL is neither http nor https.
    """

    def __init__(
        self, url: str, secret: bytes = b"", *, clock: Callable[[], float] = time.time, name: str = "webhook"
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ConfigError(
                "alerts.webhook.url is no http(s) URL", "Give one such as https://hooks.example.com/servescope"
            )
        self.name = name
        self.destination = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
        # What stands before the @ goes into a field: urllib takes it for a part of the host and says it aloud.
        host = parts.netloc.rpartition("@")[2]
        self._url, self._secret, self._clock = parts._replace(netloc=host).geturl(), secret, clock
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        self._login = base64.b64encode(login.encode()).decode() if "@" in parts.netloc else ""
        self._opener = urllib.request.build_opener(_NoRedirect)

    def render(self, notice: Notice) -> dict[str, Any]:
        """The notice's fields."""
        return asdict(notice)

    def send(self, payload: dict[str, Any]) -> Delivery:
        """One attempt; see :class:`alerts.deliver.notice.Notifier`."""
        body = json.dumps(payload, sort_keys=True).encode()
        timestamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "X-Servescope-Timestamp": timestamp,
            "X-Servescope-Delivery": hashlib.sha256(body).hexdigest()[:32],
        }
        if self._login:
            headers["Authorization"] = f"Basic {self._login}"
        if self._secret:
            headers["X-Servescope-Signature"] = sign(self._secret, timestamp, body)
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 the scheme is checked above
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                answer.read(1)  # the status says it all; a body could go on for ever
        except urllib.error.HTTPError as error:
            with error:
                text = within(f"HTTP {error.code} from {self.destination}", 500)
                if error.code in COME_AGAIN:
                    return Delivery("retry", text, retry_after(error.headers.get("Retry-After", ""), self._clock()))
                return Delivery("refused" if error.code in {400, 410, 413} else "retry", text)
        except (OSError, ValueError, http.client.HTTPException) as error:
            return Delivery("retry", within(redacted(f"{self.destination} can't be reached: {error}"), 500))
        return Delivery("sent")

    def close(self) -> None:
        """Nothing is kept open."""
