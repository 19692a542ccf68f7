"""Spans of the agent's own work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from agent.config import AgentConfig
    from agent.ship import OpenSpan


def start_self_spans(config: AgentConfig) -> tuple[OpenSpan, Callable[[], None]]:
    """Spans of the agent's own work, sent to its own collector by opentelemetry-sdk.

    Returns:
        How to open a span (name, attributes), and what flushes and ends it all.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - paid when wanted
    from opentelemetry.sdk.resources import Resource as SdkResource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from requests import Session  # noqa: PLC0415

    provider = TracerProvider(resource=SdkResource({"service.name": "servescope-agent"}), shutdown_on_exit=False)
    session = Session()
    session.trust_env = False  # as of batches; requests would let REQUESTS_CA_BUNDLE go before the authorities given
    exporter = OTLPSpanExporter(
        endpoint=f"{config.collector.rstrip('/')}/v1/traces",
        certificate_file=_path(config.collector_ca_file),
        client_certificate_file=_path(config.client_certificate_file),
        client_key_file=_path(config.client_key_file),
        session=session,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("servescope.agent")

    def open_span(name: str, attributes: Mapping[str, str | int]) -> AbstractContextManager[object]:
        return tracer.start_as_current_span(name, attributes=attributes)

    return open_span, provider.shutdown


def _path(file: Path | None) -> str | None:
    return None if file is None else str(file)
