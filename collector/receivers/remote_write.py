"""Prometheus remote write: ``POST /api/v1/write``, versions 1.0 and 2.0.

What Prometheus, its agent mode, vmagent or Grafana Alloy scrape anyway comes in as it is: every series becomes a point
in the tables of OpenTelemetry's metrics, and of engines that we know also samples (`collector.scraped`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import web

from base.signing import HEADER_RECEIVED
from collector import arrival
from collector.arrival import FaultError
from collector.decode import ENCODINGS, MalformedError, TooLargeError
from collector.intake import BusyError
from collector.prometheus import wire
from collector.prometheus.otlp import converted
from collector.receiver import Receiver

if TYPE_CHECKING:
    from collector.auth import Sender
    from collector.intake import Taken
    from collector.receiver import Scene

PATH: Final = "/api/v1/write"
_SIGNAL: Final = "metrics"
_MESSAGES: Final = {"": False, "prometheus.WriteRequest": False, "io.prometheus.write.v2.Request": True}
"""Parameter ``proto`` of the content type → whether it is version 2.0."""
_WRITTEN: Final = "X-Prometheus-Remote-Write-{}-Written"
_OFFLOAD_BYTES: Final = 1 << 18


class RemoteWrite(Receiver):
    """The route of remote write."""

    def __init__(self, scene: Scene) -> None:
        self._config, self._door = scene.config, scene.door
        self._intake, self._ledger = scene.intake, scene.ledger

    def routes(self) -> list[web.RouteDef]:
        """The one route."""
        return [web.post(PATH, self._handle)]

    async def _handle(self, request: web.Request) -> web.Response:
        received_ns = time.time_ns()
        held = 0
        try:
            second, encoding = _form(request)
            limit = self._config.largest_body
            body, held = await arrival.read(request, self._intake, limit)
            sender = arrival.admit(self._door, request, body, received_ns)
            plain = arrival.plain(body, encoding, limit)
            held += arrival.hold(self._intake, len(plain))
            body, written = await self._convert(plain, second=second)
            held += arrival.hold(self._intake, len(body))
            response = await self._take(body, written, sender, received_ns)
        except MalformedError as error:
            response = self._refuse(FaultError(400, error.reason, str(error), records=error.records))
        except BusyError as error:
            response = self._refuse(arrival.busy(error))
        except TooLargeError:
            response = self._refuse(arrival.too_large(self._config.largest_body))
        except FaultError as fault:
            response = self._refuse(fault)
        finally:
            self._intake.hold(-held)
        response.headers[HEADER_RECEIVED] = str(received_ns)
        self._ledger.answered(_SIGNAL, response.status)
        return response

    async def _convert(self, plain: bytes, *, second: bool) -> tuple[bytes, _Asked]:
        limit = self._config.largest_body
        if len(plain) > _OFFLOAD_BYTES:
            return await asyncio.to_thread(_converted, plain, limit, second=second)
        return _converted(plain, limit, second=second)

    async def _take(self, body: bytes, asked: _Asked, sender: Sender, received_ns: int) -> web.Response:
        taken: Taken | None = None
        if body:  # metadata alone, or series that ended
            taken = await self._intake.take(
                _SIGNAL, body, as_json=False, batch="", sender=sender, received_ns=received_ns
            )
        refused, told = asked.refused, asked.told
        if refused:
            self._ledger.rejected(_SIGNAL, "malformed", refused)
        if taken is not None and taken.refusal is not None:
            refused, told = refused + taken.refusal.records, told or taken.refusal.text
        # what can be kept is kept; a 4xx says that the rest is not to come again
        response = web.Response(status=400, text=f"{told}\n") if refused else web.Response(status=204)
        if asked.second:
            written = max(asked.samples - refused, 0)
            for what, count in (("Samples", written), ("Histograms", asked.histograms), ("Exemplars", 0)):
                response.headers[_WRITTEN.format(what)] = str(count)
        return response

    def _refuse(self, fault: FaultError) -> web.Response:
        response = web.Response(status=fault.status, text=f"{fault.text}\n")
        if fault.retry_after:
            self._ledger.refused(_SIGNAL, fault.reason)
            response.headers["Retry-After"] = str(fault.retry_after)
        else:
            self._ledger.rejected(_SIGNAL, fault.reason, fault.records)
        if fault.status == 401:  # noqa: PLR2004
            response.headers["WWW-Authenticate"] = "Bearer"
        return response


def receiver(scene: Scene) -> RemoteWrite:
    """The way in that is always open."""
    return RemoteWrite(scene)


class _Asked(NamedTuple):
    """What a request asked to be written, and how much of that can't be."""

    second: bool
    samples: int
    histograms: int
    refused: int
    told: str


def _converted(plain: bytes, limit: int, *, second: bool) -> tuple[bytes, _Asked]:
    series = wire.read(plain, second=second)
    samples = sum(len(one.samples) for one in series)
    histograms = sum(len(one.histograms) for one in series)
    made = converted(series, limit)
    return made.request.SerializeToString(), _Asked(second, samples, histograms, made.refused, made.told)


def _form(request: web.Request) -> tuple[bool, str]:
    if request.content_type not in {"application/x-protobuf", "application/protobuf"}:
        raise FaultError(415, "content_type", f"Content-Type {request.content_type} is not application/x-protobuf")
    stated = request.headers.get("Content-Type", "")
    proto = next(
        (
            value.strip().strip('"')
            for name, _, value in (part.strip().partition("=") for part in stated.split(";")[1:])
            if name.strip().lower() == "proto"
        ),
        "",
    )
    if proto not in _MESSAGES:
        known = " or ".join(name for name in _MESSAGES if name)
        raise FaultError(415, "content_type", f"the message {proto[:100]} is neither {known}")
    encoding = request.headers.get("Content-Encoding", "").strip().lower() or "snappy"
    if encoding not in ENCODINGS:
        raise FaultError(415, "content_encoding", f"Content-Encoding {encoding[:40]} is none of {', '.join(ENCODINGS)}")
    return _MESSAGES[proto], encoding
