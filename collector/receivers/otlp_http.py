"""OTLP over HTTP: ``POST /v1/traces``, ``/v1/metrics``, ``/v1/logs``, protobuf or JSON."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from google.protobuf import json_format
from google.rpc import status_pb2  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from base.signing import BATCH_ID_LIMIT, HEADER_BATCH, HEADER_RECEIVED, HEADER_REPEAT, HEADER_UNREAD
from collector import arrival
from collector.arrival import FaultError
from collector.decode import ENCODINGS, MalformedError
from collector.intake import BusyError
from collector.receiver import Receiver
from collector.sift import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.auth import Door
    from collector.config import CollectorConfig
    from collector.intake import Intake, Taken
    from collector.ledger import Ledger
    from collector.receiver import Scene

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_RESPONSES: Final[dict[str, tuple[type[Any], str]]] = {
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records"),
}
_RPC_CODES: Final = {400: 3, 401: 16, 413: 3, 415: 3, 429: 8, 503: 14}
"""Codes of ``google.rpc.Status``, OTLP's error body, by HTTP status."""


class OtlpHttp(Receiver):
    """Handlers for an aiohttp application, which must leave bodies compressed (``auto_decompress=False``)."""

    def __init__(
        self, config: CollectorConfig, door: Door, intake: Intake, ledger: Ledger, unread: Callable[[], bool]
    ) -> None:
        self._config = config
        self._door = door
        self._intake = intake
        self._ledger = ledger
        self._unread = unread

    def routes(self) -> list[web.RouteDef]:
        """The three routes."""
        return [web.post(f"/v1/{signal}", self._handle) for signal in KINDS]

    async def _handle(self, request: web.Request) -> web.Response:
        received_ns = time.time_ns()
        signal = request.path.rpartition("/")[2]
        held = 0
        try:
            as_json, encoding = _form(request)
            limit = self._config.largest_body
            body, held = await arrival.read(request, self._intake, limit)
            sender = arrival.admit(self._door, request, body, received_ns)
            plain = arrival.plain(body, encoding, limit)
            held += arrival.hold(self._intake, len(plain) if encoding != "identity" else 0)
            taken = await self._intake.take(
                signal, plain, as_json=as_json, batch=_batch(request), sender=sender, received_ns=received_ns
            )
            response = _answer(request, signal, taken)
            if not taken.new:
                response.headers[HEADER_REPEAT] = "1"
            if self._unread():
                response.headers[HEADER_UNREAD] = "1"
        except MalformedError as error:
            response = self._refuse(request, signal, FaultError(400, error.reason, str(error), records=error.records))
        except BusyError as error:
            response = self._refuse(request, signal, arrival.busy(error))
        except FaultError as fault:
            response = self._refuse(request, signal, fault)
        finally:
            self._intake.hold(-held)
        response.headers[HEADER_RECEIVED] = str(received_ns)
        self._ledger.answered(signal, response.status)
        return response

    def _refuse(self, request: web.Request, signal: str, fault: FaultError) -> web.Response:
        if fault.retry_after:
            self._ledger.refused(signal, fault.reason)
        else:
            self._ledger.rejected(signal, fault.reason, fault.records)
        if request.content_type == _JSON:
            body = json.dumps({"code": _RPC_CODES[fault.status], "message": fault.text}).encode()
        else:
            body = status_pb2.Status(code=_RPC_CODES[fault.status], message=fault.text).SerializeToString()
        response = web.Response(status=fault.status, body=body, content_type=_content_type(request))
        if fault.retry_after:
            response.headers["Retry-After"] = str(fault.retry_after)
        if fault.status == 401:  # noqa: PLR2004
            response.headers["WWW-Authenticate"] = "Servescope-HMAC"
        return response


def receiver(scene: Scene) -> OtlpHttp:
    """The way in that is always open."""
    return OtlpHttp(scene.config, scene.door, scene.intake, scene.ledger, scene.unread)


def _form(request: web.Request) -> tuple[bool, str]:
    if request.content_type not in {_PROTOBUF, _JSON, "application/protobuf"}:
        text = f"Content-Type {request.content_type} is not {_PROTOBUF} or {_JSON}"
        raise FaultError(415, "content_type", text)
    encoding = request.headers.get("Content-Encoding", "").strip().lower() or "identity"
    if encoding not in ENCODINGS:
        raise FaultError(415, "content_encoding", f"Content-Encoding {encoding[:40]} is none of {', '.join(ENCODINGS)}")
    return request.content_type == _JSON, encoding


def _batch(request: web.Request) -> str:
    batch = request.headers.get(HEADER_BATCH, "")
    if len(batch) > BATCH_ID_LIMIT or not (batch.isascii() and batch.isprintable()):
        raise MalformedError(f"{HEADER_BATCH} is longer than {BATCH_ID_LIMIT} characters or not printable ASCII")
    return batch


def _content_type(request: web.Request) -> str:
    return _JSON if request.content_type == _JSON else _PROTOBUF


def _answer(request: web.Request, signal: str, taken: Taken) -> web.Response:
    # Without partial success an export response has no field in protobuf and is an empty object in JSON. A text beside
    # no rejected record is OTLP's warning: https://opentelemetry.io/docs/specs/otlp/#partial-success-1
    kind, counted = _RESPONSES[signal]
    answer = kind()
    if text := taken.text():
        setattr(answer.partial_success, counted, taken.refusal.records if taken.refusal else 0)
        answer.partial_success.error_message = text
    if request.content_type == _JSON:
        body = json_format.MessageToJson(answer, indent=None).encode()
    else:
        body = answer.SerializeToString()
    return web.Response(body=body, content_type=_content_type(request))
