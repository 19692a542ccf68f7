"""Settings of the dashboard."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DashboardConfig(BaseModel):
    """Section ``dashboard`` of ``servescope.yaml``.

    Attributes:
        host: Address to listen on.
        port: Port.
        refresh_seconds: How often a live page asks again.
    """

    model_config = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8501, ge=1, le=65535)
    refresh_seconds: float = Field(default=5.0, ge=2.0, le=300.0)
