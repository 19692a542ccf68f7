"""Spans of the agent's own work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from agent.ship import OpenSpan


def start_self_spans(collector: str) -> tuple[OpenSpan, Callable[[], None]]:
    """Spans of the agent's own work, sent to its own collector by opentelemetry-sdk.

    Returns:
        How to open a span (name, attributes), and what flushes and ends it all.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - paid when wanted
    from opentelemetry.sdk.resources import Resource as SdkResource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=SdkResource({"service.name": "servescope-agent"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.rstrip('/')}/v1/traces")))
    tracer = provider.get_tracer("servescope.agent")

    def open_span(name: str, attributes: Mapping[str, str | int]) -> AbstractContextManager[object]:
        return tracer.start_as_current_span(name, attributes=attributes)

    return open_span, provider.shutdown
