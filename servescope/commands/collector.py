"""Receives OpenTelemetry and writes into ClickHouse."""

from __future__ import annotations

from servescope.part import part

collector = part("collector", "collector", __doc__)
