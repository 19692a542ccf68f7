"""A pager of one's own on loopback: speaks PagerDuty's Events API v2, so that pages can be seen before there is a key.

It checks each event against PagerDuty's documented limits (https://developer.pagerduty.com/docs/events-api-v2-overview)
and answers as PagerDuty does: 202 with the ``dedup_key``, 400 with reasons, 429 above 120 events a minute and key.
The last pages are kept in a bounded file that the dashboard reads. Without a PagerDuty key the alerts process runs it
inside itself; ``python -m alerts.deliver.receiver --data DIR`` runs it alone.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import structlog

from alerts.deliver.certificate import Certificate, ensure_certificate
from alerts.stopping import wait_for_stop
from base.errors import PortInUseError
from base.prompt_server import PromptServer

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

MAX_BYTES: Final = 512 * 1024
PER_MINUTE: Final = 120
KEPT_PAGES: Final = 200
ROUTING_KEY_LENGTH: Final = 32
_LIMITS: Final = {"summary": 1024, "source": 1024, "component": 1024, "group": 1024, "class": 1024}
_ACTIONS: Final = {"trigger", "acknowledge", "resolve"}
_SEVERITIES: Final = {"critical", "error", "warning", "info"}


def faults_of(event: object) -> list[str]:
    """Why PagerDuty would answer 400; empty when it would not."""
    if not isinstance(event, dict):
        return ["Event object is not a JSON object"]
    found = []
    key, action, dedup = event.get("routing_key"), event.get("event_action"), event.get("dedup_key")
    if not isinstance(key, str) or len(key) != ROUTING_KEY_LENGTH:
        found.append("Length of 'routing_key' is incorrect (should be 32 characters)")
    if action not in _ACTIONS:
        found.append("'event_action' is not one of trigger, acknowledge, resolve")
    if dedup is not None and (not isinstance(dedup, str) or len(dedup) > 255):  # noqa: PLR2004 PagerDuty's limit
        found.append("'dedup_key' is not a string of at most 255 characters")
    if action in {"acknowledge", "resolve"} and not dedup:
        found.append("'dedup_key' is missing")
    if action == "trigger":
        found += _payload_faults(event.get("payload"))
    for name in ("links", "images"):
        if not isinstance(event.get(name, []), list):
            found.append(f"'{name}' is not a list")
    return found


def _payload_faults(payload: object) -> list[str]:
    if not isinstance(payload, dict):
        return ["'payload' is missing or not an object"]
    found = [
        f"'payload.{name}' is missing or blank"
        for name in ("summary", "source", "severity")
        if not isinstance(payload.get(name), str) or not payload[name].strip()
    ]
    found += [
        f"'payload.{name}' is longer than {limit} characters"
        for name, limit in _LIMITS.items()
        if len(str(payload.get(name, ""))) > limit
    ]
    if payload.get("severity") not in _SEVERITIES:
        found.append("'payload.severity' is not one of critical, error, warning, info")
    return found


class Pages:
    """The last pages, in memory and in a file that is replaced whole.

    Args:
        path: JSON file ``[{"at", "action", "dedup_key", "event"}]``, newest last, without routing keys; None: memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._pages: deque[dict[str, Any]] = deque(read_pages(path) if path else [], maxlen=KEPT_PAGES)

    def add(self, at: float, event: dict[str, Any]) -> None:
        """Keep an event; its routing key is left out. One that says what the last of its key said is a repeat."""
        kept = {name: value for name, value in event.items() if name != "routing_key"}
        page = {"at": at, "action": event["event_action"], "dedup_key": event["dedup_key"], "event": kept}
        with self._guard:
            last = next((one for one in reversed(self._pages) if one["dedup_key"] == page["dedup_key"]), None)
            if last is not None and last["event"] == kept:
                return
            self._pages.append(page)
            try:
                self._write()
            except OSError as error:
                # taken all the same: the next page writes this one too
                log.error("pages_in_memory", error=str(error))  # noqa: TRY400 the error is said

    def _write(self) -> None:
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(list(self._pages), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def all(self) -> list[dict[str, Any]]:
        """Pages, oldest first."""
        with self._guard:
            return list(self._pages)


def read_pages(path: Path) -> list[dict[str, Any]]:
    """Pages that a receiver kept, oldest first; an empty list where none did."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except ValueError:
        log.warning("pages_file_unreadable", path=str(path))
        return []
    return found if isinstance(found, list) else []


class Receiver:
    """The server. `fail_with`, where set, is asked for a status before each event: the faults of tests.

    Args:
        certificate: Its TLS files.
        pages: Where pages are kept.
        host, port: Where it listens; 0 takes a free port.
        clock: Unix seconds.

    Raises:
        PortInUseError: The port is taken.
    """

    def __init__(
        self,
        certificate: Certificate,
        pages: Pages,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.certificate = certificate
        self.pages = pages
        self.fail_with: Callable[[], tuple[int, dict[str, str]] | None] = lambda: None
        self._clock = clock
        self._recent: dict[str, deque[float]] = {}
        self._guard = threading.Lock()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain)
        try:
            self._server = _Server((host, port), _Handler)
        except OSError as error:
            raise PortInUseError(
                f"The receiver can't listen on {host}:{port}: {error}", "Choose another port"
            ) from error
        self._server.context = context
        self._server.receiver = self
        self.url = f"https://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)

    def start(self) -> Receiver:
        """Serve in a thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and let go of the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(5)
        self._server.server_close()

    def answer(self, event: object) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, body and headers for one event."""
        if (fault := self.fail_with()) is not None:
            return fault[0], {"status": "fault", "message": "a fault was asked for"}, fault[1]
        faults = faults_of(event)
        if faults or not isinstance(event, dict):
            return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": faults}, {}
        now = self._clock()
        with self._guard:
            recent = self._recent.setdefault(event["routing_key"], deque())
            while recent and recent[0] <= now - 60:
                recent.popleft()
            if len(recent) >= PER_MINUTE:
                return 429, {"status": "throttle exceeded", "message": "Too many requests"}, {"Retry-After": "5"}
            recent.append(now)
            if len(self._recent) > 1000:  # noqa: PLR2004 keys are anybody's choice, memory is ours
                self._recent.clear()
        event.setdefault("dedup_key", secrets.token_hex(16))
        self.pages.add(now, event)
        log.info("page_received", action=event["event_action"], dedup_key=event["dedup_key"])
        return 202, {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: _Server

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if self.path != "/v2/enqueue":
            self._send(404, {"status": "not found"}, {})
        elif not length.isdigit():
            self._send(411, {"status": "invalid event", "message": "no content-length"}, {})
        elif int(length) > MAX_BYTES:
            self._send(413, {"status": "invalid event", "message": "larger than 512 KB"}, {})
        else:
            try:
                event = json.loads(self.rfile.read(int(length)))
            except ValueError:
                event = None
            self._send(*self.server.receiver.answer(event))

    def do_GET(self) -> None:
        pages = self.server.receiver.pages.all()
        if self.path == "/healthz":
            self._send(200, {"status": "ok", "pages": len(pages)}, {})
        elif self.path == "/pages":
            self._send(200, {"pages": pages}, {})
        else:
            self._send(404, {"status": "not found"}, {})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        if status >= 400 and status != 429:  # noqa: PLR2004 HTTP
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Requests are logged by what they mean."""


class _Server(PromptServer):
    """TLS is negotiated in the connection's own thread, so that a silent client holds up nobody."""

    context: ssl.SSLContext
    receiver: Receiver

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Wrap, then serve."""
        request.settimeout(10)
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)
        except OSError as error:
            log.debug("receiver_handshake_failed", error=str(error))
            return
        with wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the base class's shape
        """A client that went away is no fault of ours."""
        log.debug("receiver_connection_failed", client=str(client_address), error=str(sys.exception()))


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), required=True, help="Data folder.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=9466, show_default=True, help="0 takes a free port.")
def main(data: Path, host: str, port: int) -> None:
    """Receive pages on loopback until SIGTERM."""
    folder = data / "alerts"
    certificate = ensure_certificate(folder / "receiver")
    receiver = Receiver(certificate, Pages(folder / "pages.json"), host=host, port=port).start()
    log.info("receiver_ready", url=receiver.url, ca_file=str(certificate.authority))
    wait_for_stop()
    receiver.stop()


if __name__ == "__main__":
    main()
